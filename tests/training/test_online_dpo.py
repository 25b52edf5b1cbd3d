"""Online DPO: which pairs it makes of its own completions, and what happens to ties."""

import pytest
import torch

from lab.algorithms.losses import dpo_loss
from lab.config.methods import METHODS, make_config
from lab.errors import LabError
from lab.runs.records import StepRecord
from lab.training.loop import prepare, train
from lab.training.methods.online_dpo import choose
from lab.training.rollout import Rollout

QUICK = {
    "eval_every": 0,
    "eval_prompts": 8,
    "max_completion_tokens": 48,
    "batch_size": 16,
    "steps": 1,
}


def rollout(rewards, group_size):
    n = len(rewards)
    mask = torch.ones(n, 3, dtype=torch.bool)
    return Rollout(
        ids=torch.zeros(n, 3).long(),
        completion_mask=mask,
        truncated=torch.zeros(n).bool(),
        rewards=torch.tensor(rewards),
        gold=None,
        group_size=group_size,
        prompts=["p"] * (n // group_size),
        texts=["c"] * n,
    )


def pull(run):
    return next(METHODS["online_dpo"].batches(run))


def test_the_best_and_the_worst_of_a_group_make_the_pair_and_ties_are_dropped():
    chosen, rejected = choose(rollout([0.0, 1.0, 1.0, 1.0, 2.0, -1.0], 2))
    assert (chosen.tolist(), rejected.tolist()) == ([1, 4], [0, 5])
    chosen, rejected = choose(rollout([0.3, 0.1, 0.9, 0.2, 0.9, 0.1, 5.0, 5.0, 5.0], 3))
    assert (chosen.tolist(), rejected.tolist()) == ([2, 4], [1, 5])


def test_ties_are_counted_and_the_loss_is_dpo_on_the_other_pairs():
    run = prepare(make_config("online_dpo", QUICK))
    record = [r for r in train(run) if isinstance(r, StepRecord)][1]
    groups = run.rollout.rewards.view(-1, 2)
    ties = (groups[:, 0] == groups[:, 1]).float().mean().item()
    assert 0 < ties < 1 and record.metrics["frac_reward_zero_std"] == pytest.approx(ties)
    assert record.metrics["rewards/margins"] == 0 and record.metrics["loss"] == pytest.approx(
        0.693147, abs=1e-6
    )


def test_each_update_has_a_rollout_of_its_own_from_the_current_policy():
    run = prepare(make_config("online_dpo", QUICK | {"steps": 2, "learning_rate": 0.05}))
    texts = []
    for record in train(run):
        if isinstance(record, StepRecord) and record.step:
            texts.append(run.rollout.texts)
    assert texts[0] != texts[1] and run.rollout.prompts == [
        p.prompt for p in run.task.train_problems(8, 0, 2)
    ]


def test_the_pairs_carry_the_chosen_rows_first_and_the_reference_is_the_untrained_policy():
    run = prepare(make_config("online_dpo", QUICK | {"steps": 3, "learning_rate": 0.01}))
    list(train(run))
    pieces = pull(run)
    chosen, rejected = choose(run.rollout)
    assert torch.equal(pieces[0].tokens.ids, run.rollout.ids[torch.cat([chosen, rejected])])
    _, metrics = METHODS["online_dpo"].loss(run, pieces[0])
    assert (metrics["rewards/margins"] != 0).any()
    chosen_logps, rejected_logps = metrics["logps/chosen"], metrics["logps/rejected"]
    losses, _ = dpo_loss(
        chosen_logps,
        rejected_logps,
        chosen_logps - metrics["rewards/chosen"] / 0.1,
        rejected_logps - metrics["rewards/rejected"] / 0.1,
        beta=0.1,
    )
    assert METHODS["online_dpo"].loss(run, pieces[0])[0].item() == pytest.approx(
        losses.mean().item(), rel=1e-5
    )


def test_a_rollout_of_ties_alone_trains_on_nothing(monkeypatch):
    run = prepare(make_config("online_dpo", QUICK | {"micro_batches": 4}))
    monkeypatch.setitem(
        run.task.rewards, "answer", lambda problems, texts, seed: [1.0] * len(texts)
    )
    before = {
        name: w.detach().clone() for name, w in run.trainable_parameters()["learning_rate"].items()
    }
    record = [r for r in train(run) if isinstance(r, StepRecord)][1]
    assert (
        record.metrics["loss"] == 0
        and record.metrics["grad_norm"] == 0
        and record.metrics["frac_reward_zero_std"] == 1
    )
    assert "rewards/margins" not in record.metrics
    assert all(
        torch.equal(w, before[name])
        for name, w in run.trainable_parameters()["learning_rate"].items()
    )


def test_a_rollout_holds_whole_groups():
    with pytest.raises(LabError, match="not divisible by group_size 3"):
        make_config("online_dpo", {"batch_size": 16, "group_size": 3})
