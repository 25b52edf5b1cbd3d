"""Several rewards with weights, and truncated completions that do not count in the loss."""

import json
from types import SimpleNamespace

import pytest
import torch

from lab.algorithms.policy_losses import grpo_loss
from lab.algorithms.reductions import fixed_length, sequence_mean, token_mean
from lab.cli.main import main
from lab.config.json_format import from_dict, to_dict
from lab.config.methods import METHODS, make_config
from lab.config.reward_rules import reward_weights
from lab.config.user_code import names_code, require_offered
from lab.engine.token_logprobs import token_statistics
from lab.errors import LabError
from lab.runs.folder import RunFolder, create
from lab.runs.records import StepRecord
from lab.tasks.registry import check_task, task_of
from lab.training.driver import drive
from lab.training.loop import prepare, train

QUICK = {
    "steps": 2,
    "batch_size": 8,
    "eval_every": 0,
    "eval_prompts": 2,
    "checkpoint_every": 1,
    "max_completion_tokens": 8,
    "device": "cpu",
}
MODULE = """
def vowels(completions, **columns):
    return [float(sum(letter in "aeiou" for letter in text)) for text in completions]

def sometimes(completions, **columns):
    return [None if len(text) % 2 else 2.0 for text in completions]

def margins(completions, **columns):
    return [1.0] * len(completions)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "own_terms.py").write_text(MODULE, "utf-8")
    monkeypatch.chdir(tmp_path)


def first_rollout(method, **knobs):
    run = prepare(make_config(method, QUICK | knobs))
    record = next(r for r in train(run) if isinstance(r, StepRecord) and r.step == 1)
    return run.rollout, record.metrics


def test_the_reward_is_the_weighted_sum_and_every_term_is_logged(module):
    knobs = {"reward": "length,own_terms:vowels,answer", "reward_weights": "1, 0.5,-2"}
    rollout, metrics = first_rollout("grpo", group_size=4, **knobs)
    task = task_of(make_config("grpo", QUICK))
    lengths = task.rewards["length"](
        [SimpleNamespace(prompt="", answer="")] * 8, rollout.texts, seed=0
    )
    vowels = [float(sum(letter in "aeiou" for letter in text)) for text in rollout.texts]
    terms = rollout.extra_metrics
    assert terms["rewards/length"].tolist() == pytest.approx(lengths, rel=1e-6)
    assert terms["rewards/vowels"].tolist() == vowels
    expected = [
        a + 0.5 * b - 2 * c for a, b, c in zip(lengths, vowels, terms["rewards/answer"].tolist())
    ]
    assert rollout.rewards.tolist() == pytest.approx(expected, rel=1e-6)
    for name in ("length", "vowels", "answer"):
        mean = terms[f"rewards/{name}"].mean().item()
        assert metrics[f"rewards/{name}"] == pytest.approx(mean, rel=1e-6)


def test_a_missing_term_does_not_count_and_without_any_there_is_no_reward(module):
    rollout, _ = first_rollout("grpo", group_size=4, reward="own_terms:sometimes,length")
    odd = torch.tensor([len(text) % 2 == 1 for text in rollout.texts])
    length = rollout.extra_metrics["rewards/length"]
    assert torch.equal(rollout.rewards, length + torch.where(odd, 0.0, 2.0))
    alone, metrics = first_rollout(
        "grpo", group_size=4, reward="own_terms:sometimes", reward_weights="0.5"
    )
    odd = torch.tensor([len(text) % 2 == 1 for text in alone.texts])
    assert torch.equal(alone.rewards.isnan(), odd)
    assert (alone.rewards[~odd] == 1.0).all()


def test_one_reward_without_weights_is_as_before():
    rollout, metrics = first_rollout("grpo", group_size=4, reward="length")
    same, _ = first_rollout("grpo", group_size=4, reward="length", reward_weights="1")
    assert rollout.extra_metrics is None and "rewards/length" not in metrics
    assert torch.equal(rollout.rewards, same.rewards)


@pytest.mark.parametrize("method", ["ppo", "online_dpo"])
def test_the_other_methods_that_sample_take_several_too(method):
    rollout, metrics = first_rollout(method, reward="format,length", reward_weights="1,0.1")
    assert {"rewards/format", "rewards/length"} <= set(metrics)
    terms = rollout.extra_metrics
    total = terms["rewards/format"] + 0.1 * terms["rewards/length"]
    torch.testing.assert_close(rollout.rewards, total, rtol=1e-6, atol=0)


def test_a_run_with_several_rewards_resumes_and_names_its_code_again(module, tmp_path):
    knobs = QUICK | {"steps": 4, "group_size": 4, "updates_per_rollout": 2}
    knobs |= {"reward": "own_terms:vowels,length", "reward_weights": "1,0.2"}
    whole, halved = (
        create(tmp_path / name, make_config("grpo", knobs)) for name in ("whole", "halved")
    )
    drive(whole)
    drive(halved, until=lambda run: run.step >= 1)
    drive(RunFolder(halved.path))
    rows = [
        [row["metrics"] for row in folder.history() if row["type"] == "step"]
        for folder in (whole, halved)
    ]
    assert rows[0] == rows[1] and "rewards/vowels" in rows[0][1]
    assert names_code(whole.config)
    with pytest.raises(LabError, match="only the command line takes"):
        require_offered(whole.config)


@pytest.mark.parametrize(
    "knobs, words",
    [
        ({"reward_weights": "1,2"}, "2 weights .* 1 rules"),
        ({"reward": "answer,length", "reward_weights": "1"}, "1 weights .* 2 rules"),
        ({"reward": "answer,length", "reward_weights": "1,x"}, "numbers between commas"),
        ({"reward": "answer,length", "reward_weights": "1,nan"}, "numbers between commas"),
        ({"reward": "answer,answer"}, "two meanings"),
        ({"reward": "answer,a:margins"}, "two meanings"),
        ({"reward": "answer,,length"}, "reward"),
        ({"reward": "answer,length", "reward_from": "judge"}, "Leave out --reward"),
    ],
)
def test_rewards_and_weights_that_do_not_fit_are_refused(knobs, words):
    with pytest.raises(LabError, match=words):
        make_config("grpo", knobs)


def test_an_unknown_rule_among_several_is_named(module):
    with pytest.raises(LabError, match="lenght"):
        check_task(make_config("grpo", {"reward": "answer,lenght"}))
    with pytest.raises(LabError, match="no module 'missing'"):
        check_task(make_config("grpo", {"reward": "answer,missing:f"}))


def test_weights_that_do_not_match_are_one_line_on_the_command_line(capsys, tmp_path):
    out = ["--out", str(tmp_path / "r")]
    with pytest.raises(SystemExit):
        main(["train", "grpo", *out, "--reward", "answer,length", "--reward-weights", "1,2,3"])
    assert "3 weights (1,2,3), but reward has 2 rules" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_several_rewards_beside_one_of_the_notebook_are_refused():
    run = prepare(make_config("grpo", QUICK | {"reward": "answer,length"}))
    run.own = {"reward": lambda completion, answer: 1.0}
    with pytest.raises(LabError, match="Leave one of them out"):
        list(train(run))


def test_weights_are_one_by_default():
    assert reward_weights("answer,length", "") == [1.0, 1.0]


def test_a_config_from_before_these_settings_loads():
    old = to_dict(make_config("grpo", {"reward": "graded"}))
    for name in ("reward_weights", "mask_truncated_completions"):
        del old[name]
    config = from_dict(json.loads(json.dumps(old | {"format": 3})))
    assert config.reward == "graded" and not config.mask_truncated_completions


REDUCTIONS = {
    "token_mean": lambda losses, mask, n: token_mean(losses, mask),
    "sequence_mean": lambda losses, mask, n: sequence_mean(losses, mask, n),
    "fixed_length": lambda losses, mask, n: fixed_length(losses, mask, 8, n),
}


@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.parametrize("kind", REDUCTIONS)
def test_a_truncated_completion_is_left_out_of_the_loss_as_in_trl(kind, micro_batches):
    """TRL sets the completion mask of truncated completions to 0 before the loss; the number of
    completions stays.
    """
    knobs = {"group_size": 4, "beta": 0.2, "loss_aggregation": kind, "reward": "length"}
    knobs |= {"max_completion_tokens": 8, "micro_batches": micro_batches}
    run = prepare(make_config("grpo", QUICK | knobs | {"mask_truncated_completions": True}))
    spec = METHODS["grpo"]
    pieces = next(spec.batches(run))
    rollout = run.rollout
    rollout.truncated = torch.tensor([True, False, False, True, False, False, True, False])
    for piece in pieces:
        piece.total_tokens = int(rollout.completion_mask[~rollout.truncated].sum())
    ours = sum(spec.loss(run, piece)[0] for piece in pieces)
    mask = rollout.completion_mask & ~rollout.truncated[:, None]
    found = token_statistics(
        run.model, type(pieces[0].tokens)(rollout.ids, rollout.completion_mask), reference=run.model
    )
    losses, _ = grpo_loss(
        found.logps,
        found.logps.detach(),
        found.reference_logps,
        rollout.advantages,
        mask,
        beta=0.2,
        epsilon=0.2,
        epsilon_high=0.2,
        kl_estimator="k3",
    )
    theirs = REDUCTIONS[kind](losses, mask, 8)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-4, abs=1e-7)
    weights = [w for w in run.model.parameters() if w.requires_grad]
    mine, other = (
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights, allow_unused=True)])
        for loss in (ours, theirs)
    )
    assert other.norm() > 0
    torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-6)


def test_an_update_whose_completions_are_all_truncated_changes_nothing():
    knobs = {"group_size": 4, "max_completion_tokens": 1, "reward": "random", "steps": 1}
    weights = {}
    for masked in (True, False):
        run = prepare(make_config("grpo", QUICK | knobs | {"mask_truncated_completions": masked}))
        start = [w.detach().clone() for w in run.model.parameters() if w.requires_grad]
        record = [r for r in train(run) if isinstance(r, StepRecord)][-1]
        assert record.metrics["completions/clipped_ratio"] == 1.0
        now = [w for w in run.model.parameters() if w.requires_grad]
        weights[masked] = all(map(torch.equal, start, now))
    assert weights == {True: True, False: False}
