"""PPO: what a token was worth by hand, the clipped losses by hand, and training with a critic in
both layouts.
"""

import io
import json
import math
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lab.algorithms.advantages import (
    adapted_kl_factor,
    explained_variance,
    gae,
    kl_shaped_rewards,
    whiten,
)
from lab.algorithms.losses import grpo, ppo, value_loss
from lab.config.json_format import to_dict
from lab.config.methods import METHODS, make_config
from lab.data.batching import Tokens
from lab.errors import LabError
from lab.models.loading import active_adapter, adapter_disabled, adapter_merged, load_policy
from lab.models.sources import EMBEDDED
from lab.models.tokenizer import load_tokenizer
from lab.runs.control import Control
from lab.runs.metrics import StepRecord
from lab.training.heads import load_trained
from lab.training.loop import checkpoint, prepare, save_adapter, train
from lab.training.methods.ppo import minibatch

CPU = torch.device("cpu")
QUICK = {
    "eval_every": 0,
    "eval_prompts": 8,
    "max_completion_tokens": 48,
    "batch_size": 16,
    "steps": 3,
}
WHOLE = torch.ones(1, 2, dtype=torch.bool)
EXACT = {"rtol": 0, "atol": 1e-6}


def row(*values):
    return torch.tensor([values], dtype=torch.float64)


def noise(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def whole(ids):
    """A batch in which all but the first token are completion."""
    return Tokens(ids, torch.arange(ids.shape[1]).expand_as(ids) > 0)


def records(**more):
    return [
        r for r in train(prepare(make_config("ppo", QUICK | more))) if isinstance(r, StepRecord)
    ]


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """A folder of a reward_model run, trained for a few updates."""
    folder = tmp_path_factory.mktemp("runs") / "judge"
    run = prepare(
        make_config(
            "reward_model",
            {"steps": 8, "eval_every": 0, "eval_prompts": 8, "pairs": 64, "learning_rate": 2e-3},
        )
    )
    list(train(run))
    save_adapter(run, folder / "adapter")
    (folder / "config.json").write_text(json.dumps(to_dict(run.config)))
    return folder, run


# What a token was worth


def test_the_penalty_lies_on_every_token_and_the_score_on_the_last():
    shaped = kl_shaped_rewards(
        torch.tensor([5.0], dtype=torch.float64), row(-1, -1), row(-2, -3), WHOLE, beta=0.1
    )
    torch.testing.assert_close(shaped, row(-0.1, 4.8), **EXACT)


def test_prompt_and_padding_get_no_reward_whatever_stands_there():
    mask = torch.tensor([[False, True, True, False], [False, True, False, False]])
    logps = torch.full((2, 4), float("nan"), dtype=torch.float64).masked_fill(mask, -1.0)
    frozen = torch.full((2, 4), float("inf"), dtype=torch.float64).masked_fill(mask, -1.5)
    shaped = kl_shaped_rewards(
        torch.tensor([1.0, -2.0], dtype=torch.float64), logps, frozen, mask, beta=0.2
    )
    torch.testing.assert_close(
        shaped, torch.tensor([[0, -0.1, 0.9, 0], [0, -2.1, 0, 0]], dtype=torch.float64), **EXACT
    )


def test_the_shaped_rewards_of_a_completion_sum_to_the_score_less_beta_times_the_log_ratio():
    mask = torch.tensor([[False, True, True, True], [True, True, False, False]])
    logps, frozen, scores = noise(2, 4, seed=0), noise(2, 4, seed=1), noise(2, seed=2)
    shaped = kl_shaped_rewards(scores, logps, frozen, mask, beta=0.3)
    torch.testing.assert_close(shaped.sum(1), scores - 0.3 * ((logps - frozen) * mask).sum(1))


def test_gae_by_hand():
    advantages, returns = gae(row(0, 1), row(0.5, 0.8), WHOLE, gamma=1.0, lam=0.5)
    torch.testing.assert_close(advantages, row(0.4, 0.2), **EXACT)
    torch.testing.assert_close(returns, row(0.9, 1.0), **EXACT)


@pytest.mark.parametrize("gamma", [1.0, 0.9, 0.0])
@pytest.mark.parametrize("lam", [0.95, 1.0, 0.0])
def test_gae_is_the_double_sum_written_out(gamma, lam):
    spans = [(1, 6), (0, 3), (2, 3)]  # first token and the one after the last, for each completion
    rewards, values = noise(3, 6, seed=0), noise(3, 6, seed=1)
    mask = torch.zeros(3, 6, dtype=torch.bool)
    for i, (start, end) in enumerate(spans):
        mask[i, start:end] = True
    advantages, returns = gae(rewards, values, mask, gamma=gamma, lam=lam)
    for i, (start, end) in enumerate(spans):
        for t in range(start, end):
            deltas = [
                rewards[i, s] + (gamma * values[i, s + 1] if s + 1 < end else 0) - values[i, s]
                for s in range(t, end)
            ]
            assert advantages[i, t].item() == pytest.approx(
                sum((gamma * lam) ** k * d.item() for k, d in enumerate(deltas)), abs=1e-12
            )
    assert (advantages[~mask] == 0).all() and (returns[~mask] == 0).all()
    torch.testing.assert_close(returns[mask], (advantages + values)[mask])


def test_with_lambda_1_and_gamma_1_the_return_is_the_sum_of_the_rewards_to_come_whatever_the_critic_says():
    rewards = row(1, 2, 4)
    for seed in range(3):
        _, returns = gae(
            rewards, noise(1, 3, seed=seed), torch.ones(1, 3).bool(), gamma=1.0, lam=1.0
        )
        torch.testing.assert_close(returns, row(7, 6, 4))


def test_whitened_advantages_have_mean_0_and_std_1_on_the_mask_and_the_mean_is_not_added_back():
    mask = torch.rand(5, 7, generator=torch.Generator().manual_seed(0)) > 0.3
    white = whiten(noise(5, 7, seed=0) * 3 + 10, mask, epsilon_std=0.0)
    assert white[mask].mean().item() == pytest.approx(0, abs=1e-12) and white[
        mask
    ].std().item() == pytest.approx(1, abs=1e-12)
    assert (white[~mask] == 0).all()
    torch.testing.assert_close(
        whiten(row(1, 2, 3), torch.ones(1, 3).bool(), epsilon_std=0.0), row(-1, 0, 1)
    )
    assert whiten(row(2, 2, 2), torch.ones(1, 3).bool()).tolist() == [[0, 0, 0]]


def test_explained_variance_by_hand():
    assert explained_variance(row(0, 1), row(0, 2), WHOLE).item() == pytest.approx(0.75)
    assert explained_variance(row(0, 2), row(0, 2), WHOLE).item() == 1
    assert explained_variance(row(7, 7), row(0, 2), WHOLE).item() == 0
    assert explained_variance(row(2, 0), row(0, 2), WHOLE).item() == pytest.approx(-3)
    assert math.isnan(explained_variance(row(0, 1), row(2, 2), WHOLE).item())


@pytest.mark.parametrize(
    ("kl", "factor"), [(9.0, 1.02), (5.4, 0.99), (6.0, 1.0), (0.0, 0.98), (1e9, 1.02)]
)
def test_the_adapted_factor_by_hand(kl, factor):
    assert adapted_kl_factor(1.0, kl, 6.0) == pytest.approx(factor)
    assert adapted_kl_factor(3.0, kl, 6.0) == pytest.approx(3 * factor)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: kl_shaped_rewards(torch.zeros(2), x, x, WHOLE, beta=0.1),
        lambda x: kl_shaped_rewards(torch.zeros(1), x, x[:, :1], WHOLE, beta=0.1),
        lambda x: gae(x, x[:, :1], WHOLE, gamma=1.0, lam=1.0),
        lambda x: gae(x[0], x[0], WHOLE[0], gamma=1.0, lam=1.0),
        lambda x: whiten(x, WHOLE[:, :1]),
        lambda x: whiten(x, ~WHOLE),
        lambda x: explained_variance(x, x[0], WHOLE),
        lambda x: adapted_kl_factor(1.0, 1.0, 0.0),
    ],
)
def test_bad_arguments_raise_a_lab_error_that_says_what_is_taken(call):
    with pytest.raises(LabError, match="take"):
        call(row(1, 2))


# The losses


@pytest.mark.parametrize(
    ("ratio", "advantage", "cost", "clipped"),
    [
        (1.5, 1, -1.2, 1),
        (0.5, -1, 0.8, 1),
        (1.5, -1, 1.5, 0),
        (0.5, 1, -0.5, 0),
        (1.1, 2, -2.2, 0),
        (1.0, 3, -3, 0),
    ],
)
def test_ppo_by_hand(ratio, advantage, cost, clipped):
    mask = torch.ones(1, 1).bool()
    losses, metrics = ppo(row(math.log(ratio)), row(0), row(advantage), mask, epsilon=0.2)
    assert losses.item() == metrics["loss/policy"].item() == pytest.approx(cost)
    assert metrics["clip_ratio/region_mean"].item() == clipped and metrics[
        "ratio"
    ].item() == pytest.approx(ratio)


def test_ppo_with_one_advantage_for_all_tokens_of_a_completion_is_grpo_without_its_kl_term():
    mask = torch.tensor([[False, True, True, True], [True, True, False, False]])
    logps, old, advantage = noise(2, 4, seed=0), noise(2, 4, seed=1), noise(2, seed=2)
    one, _ = ppo(logps, old, advantage[:, None].expand(2, 4), mask, epsilon=0.2)
    other, _ = grpo(
        logps,
        old,
        None,
        advantage,
        mask,
        beta=0.0,
        epsilon=0.2,
        epsilon_high=0.2,
        kl_estimator="k3",
    )
    torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize(
    ("value", "cost", "slope"),
    [
        (0.1, 0.405, -0.9),
        (0.5, 0.32, 0.0),
        (-0.5, 1.125, -1.5),
        (0.2, 0.32, None),
        (0.0, 0.5, -1.0),
        (3.0, 2.0, 2.0),
    ],
)
def test_the_value_clip_by_hand(value, cost, slope):
    values = row(value).requires_grad_()
    losses, metrics = value_loss(values, row(0), row(1), torch.ones(1, 1).bool(), epsilon_value=0.2)
    assert losses.item() == metrics["loss/value"].item() == pytest.approx(cost)
    losses.sum().backward()
    if slope is not None:  # at the edge of the clip the slope jumps
        assert values.grad.item() == pytest.approx(slope)


def test_prompt_and_padding_cost_nothing_and_have_no_gradient_whatever_stands_there():
    mask, bad = (
        torch.tensor([[False, True, False]]),
        torch.tensor([[float("nan"), -1.0, float("inf")]], dtype=torch.float64),
    )
    for call in (
        lambda x: ppo(x, bad, bad, mask, epsilon=0.2),
        lambda x: value_loss(x, bad, bad, mask, epsilon_value=0.2),
    ):
        x = row(-3, -1.1, -2).requires_grad_()
        losses, metrics = call(x)
        assert losses[~mask].tolist() == [0, 0] and losses.isfinite().all()
        assert all(m[~mask].isnan().all() and m[mask].isfinite().all() for m in metrics.values())
        losses.sum().backward()
        assert x.grad[~mask].tolist() == [0, 0]


# Adapters on one base


def test_switching_adapters_leaves_trainable_what_was_and_reads_each_adapter():
    run = prepare(make_config("ppo", QUICK))
    ids = torch.randint(3, 20, (2, 9), generator=torch.Generator().manual_seed(0))
    names = {n for n, p in run.model.named_parameters() if p.requires_grad}
    assert any(".critic." in n for n in names) and any(".default." in n for n in names)
    for switch in (
        adapter_disabled(run.model),
        active_adapter(run.model, "critic"),
        active_adapter(run.model, "default"),
        adapter_merged(run.model),
    ):
        with switch:
            pass
        assert {
            n for n, p in run.model.named_parameters() if p.requires_grad
        } == names and run.model.active_adapter == "default"
    with torch.no_grad():
        before = run.model(input_ids=ids).logits
        for _, weight in run.critic.named_parameters():
            weight.add_(0.05)
        assert torch.equal(run.model(input_ids=ids).logits, before)
        assert run.critic.values(whole(ids)).abs().sum() > 0


def test_a_fresh_critic_expects_nothing_and_a_value_does_not_know_its_token():
    run = prepare(make_config("ppo", QUICK))
    ids = torch.randint(3, 20, (1, 9), generator=torch.Generator().manual_seed(0))
    assert (run.critic.values(whole(ids)) == 0).all()
    with torch.no_grad():
        run.critic.head.copy_(noise(*run.critic.head.shape, seed=0))
        other = ids.clone()
        other[0, 5] = 3 + (ids[0, 5] - 2) % 17
        one, two = run.critic.values(whole(ids))[0], run.critic.values(whole(other))[0]
    assert one[0] == 0 and torch.equal(one[:6], two[:6]) and one[6] != two[6]


def test_a_value_is_the_heads_product_with_the_state_before_its_token_and_beside_completions_there_is_none():
    run = prepare(make_config("ppo", QUICK))
    ids = torch.randint(3, 20, (3, 9), generator=torch.Generator().manual_seed(0))
    ids[1, :6], ids[2] = (
        ids[0, :6],
        ids[0],
    )  # Two rows part after six tokens, and one is there twice.
    mask = (torch.arange(9) >= 4) & (torch.arange(9) < torch.tensor([9, 8, 9])[:, None])
    with torch.no_grad():
        for seed, (_, weight) in enumerate(run.critic.named_parameters()):
            weight.copy_(0.3 * noise(*weight.shape, seed=seed))
        found = run.critic.values(Tokens(ids, mask))
        with active_adapter(run.model, "critic"):
            states = run.model.get_base_model().model(input_ids=ids).last_hidden_state
    expected = torch.cat([torch.zeros(3, 1), states[:, :-1] @ run.critic.head[0]], 1) * mask
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
    assert expected.abs().max() > 0.1


@pytest.mark.parametrize("shared", [False, True])
def test_a_trained_reward_model_scores_as_it_did_in_its_own_run(judge, shared):
    folder, trained = judge
    config, tokenizer = make_config("ppo"), load_tokenizer("embedded")
    policy = load_policy(config, CPU)
    model = load_trained(str(folder), config, tokenizer, CPU, policy if shared else None)
    ids = torch.randint(3, 20, (4, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(4, 12, dtype=torch.bool)
    for i, end in enumerate((12, 9, 7, 10)):
        mask[i, 5:end] = True
    with torch.no_grad():
        scorer = trained.model.get_base_model()
        hidden = scorer.model(input_ids=ids).last_hidden_state[
            torch.arange(4), torch.tensor([11, 8, 6, 9])
        ]
        torch.testing.assert_close(
            model.scores(Tokens(ids, mask)), scorer.score(hidden).squeeze(1), rtol=1e-5, atol=1e-6
        )
    assert not any(w.requires_grad for _, w in model.named_parameters())


def test_the_saved_adapter_is_the_policys_alone_and_plain_peft_loads_it(tmp_path, judge):
    run = prepare(make_config("ppo", QUICK | {"reward_from": str(judge[0])}))
    list(train(run))
    save_adapter(run, tmp_path)
    assert not [
        name
        for name in load_file(tmp_path / "adapter_model.safetensors")
        if "critic" in name or "reward" in name or "head" in name
    ]
    ids = torch.randint(3, 20, (2, 9), generator=torch.Generator().manual_seed(0))
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(EMBEDDED), tmp_path)
    assert torch.equal(loaded(input_ids=ids).logits, run.model(input_ids=ids).logits)


# Training


def test_the_ratio_is_exactly_1_at_the_first_update_on_each_rollout_and_not_after():
    rows = [r.metrics for r in records(steps=6, minibatches=2, epochs=1, learning_rate=0.01)[1:]]
    assert [m["ratio"] == 1.0 for m in rows] == [True, False] * 3
    assert [m["clip_ratio/region_mean"] for m in rows][::2] == [0.0] * 3


def test_with_whitened_advantages_the_first_policy_loss_is_zero_and_the_value_loss_half_the_mean_squared_return():
    run = prepare(make_config("ppo", QUICK | {"steps": 1, "minibatches": 1}))
    first = list(train(run))[2].metrics
    mask = run.rollout.completion_mask
    assert (
        first["loss/policy"] == pytest.approx(0, abs=1e-5)
        and first["grad_norm"] > 0
        and first["kl"] == pytest.approx(0, abs=1e-6)
    )
    assert first["loss/value"] == pytest.approx(
        0.5 * (run.rollout.returns[mask] ** 2).mean().item(), rel=1e-5
    )
    assert first["loss"] == pytest.approx(first["loss/policy"] + first["loss/value"], abs=1e-5)
    assert (first["grad_norm/critic"] > 0) and first["value/explained_variance"] == 0


def test_every_row_of_a_rollout_is_used_once_a_pass_in_an_order_of_its_own():
    rollout = type("R", (), {"rewards": torch.zeros(10)})()
    passes = [[minibatch(rollout, 0, 7, epoch, k, 3) for k in range(3)] for epoch in range(2)]
    assert all(sorted(sum(p, [])) == list(range(10)) for p in passes) and passes[0] != passes[1]
    assert passes[0] != [minibatch(rollout, 0, 8, 0, k, 3) for k in range(3)] and passes[0] == [
        minibatch(rollout, 0, 7, 0, k, 3) for k in range(3)
    ]


@pytest.mark.parametrize("scored_by", ["gold", "run"])
def test_both_layouts_give_the_same_records(judge, scored_by):
    more = {
        "reward_from": "gold" if scored_by == "gold" else str(judge[0]),
        "steps": 5,
        "epochs": 2,
        "minibatches": 1,
    }
    shared, separate = (records(model_layout=layout, **more) for layout in ("shared", "separate"))
    for one, other in zip(shared, separate):
        assert one.metrics == pytest.approx(other.metrics, rel=1e-4, abs=1e-4)
    assert len(shared) == 6


def test_the_layouts_hold_one_or_four_sets_of_weights(judge):
    def bases(run):
        models = [
            run.model,
            run.critic.model,
            run.reward_model.model,
            run.frozen_reference or run.model,
        ]
        return {id(next(p for n, p in m.named_parameters() if "embed_tokens" in n)) for m in models}

    shared, separate = (
        prepare(make_config("ppo", QUICK | {"model_layout": layout, "reward_from": str(judge[0])}))
        for layout in ("shared", "separate")
    )
    assert len(bases(shared)) == 1 and len(bases(separate)) == 4


def test_a_reward_model_is_the_reward_and_gold_is_reported_beside_it(judge):
    run = prepare(make_config("ppo", QUICK | {"reward_from": str(judge[0]), "steps": 1}))
    first = list(train(run))[2].metrics
    assert first["reward"] == pytest.approx(
        run.rollout.rewards.mean().item(), rel=1e-5
    ) and not set(run.rollout.rewards.tolist()) <= {0.0, 1.0}
    owners = run.task.train_problems(16, run.config.seed, 1)
    assert first["gold/rollout_accuracy"] == pytest.approx(
        sum(run.task.score(p, t).answer for p, t in zip(owners, run.rollout.texts)) / 16
    )
    grpo_run = prepare(
        make_config("grpo", QUICK | {"reward_from": str(judge[0]), "steps": 1, "group_size": 4})
    )
    assert "gold/rollout_accuracy" in list(train(grpo_run))[2].metrics
    assert "gold/rollout_accuracy" not in records(steps=1)[1].metrics


def test_the_kl_coefficient_is_adapted_after_every_rollout_and_follows_live_changes():
    control, seen = Control(), []
    run = prepare(
        make_config("ppo", QUICK | {"kl_target": 1e4, "beta": 0.1, "minibatches": 1, "steps": 3})
    )
    for record in train(run, control):
        if isinstance(record, StepRecord) and record.step:
            seen.append(record.metrics["kl_coefficient"])
            if record.step == 2:
                control.set("beta", 0.2)
    assert seen == pytest.approx(
        [0.1, 0.098, 0.2 * 0.98**2]
    )  # far below the target: 2 % lower each time


def test_policy_and_critic_have_learning_rates_of_their_own_that_change_live():
    control, rates = Control(), []
    run = prepare(
        make_config(
            "ppo", QUICK | {"learning_rate": 1e-3, "critic_learning_rate": 4e-3, "warmup_steps": 2}
        )
    )
    for record in train(run, control):
        if isinstance(record, StepRecord) and record.step:
            rates.append([g["lr"] for g in run.optimizer.param_groups])
            if record.step == 2:
                control.set("critic_learning_rate", 1e-2)
                control.set("learning_rate", 1e-4)
    assert rates == [
        pytest.approx([5e-4, 2e-3]),
        pytest.approx([1e-3, 4e-3]),
        pytest.approx([1e-4, 1e-2]),
    ]


def test_a_checkpoint_holds_critic_optimizer_and_adapted_coefficient(judge):
    config = make_config(
        "ppo", QUICK | {"kl_target": 1.0, "reward_from": str(judge[0]), "steps": 3}
    )
    run = prepare(config)
    list(train(run))
    file = io.BytesIO()
    torch.save(checkpoint(run), file)
    file.seek(0)
    again = prepare(config, torch.load(file, weights_only=True))
    assert again.kl_factor == run.kl_factor != 1.0
    for rate, group in run.trained().items():
        assert all(
            torch.equal(weight, again.trained()[rate][name]) for name, weight in group.items()
        )
    assert run.critic.head.abs().sum() > 0 and set(run.trained()) == {
        "learning_rate",
        "critic_learning_rate",
    }
    one, two = run.optimizer.state_dict()["state"], again.optimizer.state_dict()["state"]
    assert len(one) == len(two) and all(
        torch.equal(one[k]["exp_avg"], two[k]["exp_avg"]) for k in one
    )


def test_the_critic_comes_to_foresee_the_reward():
    rows = records(steps=40, batch_size=64, learning_rate=1e-5)
    late = [r.metrics["value/explained_variance"] for r in rows[-6:]]
    assert sum(late) / 6 > 0.1


# Bad input


@pytest.mark.parametrize("method", ["ppo", "grpo", "online_dpo"])
def test_a_run_that_does_not_exist_is_named(method, tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path))
    with pytest.raises(LabError, match="no run 'nobody'"):
        prepare(make_config(method, {"reward_from": "nobody"}))
    (tmp_path / "somebody").mkdir()
    (tmp_path / "somebody" / "config.json").write_text(
        json.dumps(to_dict(make_config("reward_model")))
    )
    with pytest.raises(LabError, match="'nobody'.*Did you mean 'somebody'"):
        prepare(make_config(method, {"reward_from": "nobody"}))
    with pytest.raises(LabError, match="has no adapter yet"):
        prepare(make_config(method, {"reward_from": "somebody"}))


def test_a_run_that_is_no_reward_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(to_dict(make_config("dpo"))))
    with pytest.raises(LabError, match="is a run of dpo, not of reward_model"):
        prepare(make_config("ppo", {"reward_from": str(tmp_path)}))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(LabError, match="cannot be read"):
        prepare(make_config("ppo", {"reward_from": str(tmp_path)}))


def other_base(folder, vocabulary):
    """A copy of the embedded base in another folder, with other letters in its vocabulary if asked."""
    shutil.copytree(EMBEDDED, folder)
    if vocabulary:
        data = json.loads((folder / "tokenizer.json").read_text())
        vocab = data["model"]["vocab"]
        first, second = [token for token in vocab if token.isdigit()][:2]
        vocab[first], vocab[second] = vocab[second], vocab[first]
        (folder / "tokenizer.json").write_text(json.dumps(data))
    return str(folder)


@pytest.mark.parametrize("method", ["ppo", "grpo", "online_dpo"])
def test_a_reward_model_of_another_tokenizer_is_refused(method, judge, tmp_path):
    with pytest.raises(LabError, match="writes others"):
        prepare(
            make_config(
                method, {"reward_from": str(judge[0]), "model": other_base(tmp_path / "base", True)}
            )
        )


def test_a_reward_model_on_another_base_with_the_same_tokenizer_needs_weights_of_its_own(
    judge, tmp_path
):
    base = other_base(tmp_path / "base", False)
    with pytest.raises(LabError, match="--layout separate"):
        prepare(make_config("ppo", {"reward_from": str(judge[0]), "model": base}))
    assert prepare(
        make_config(
            "ppo", {"reward_from": str(judge[0]), "model": base, "model_layout": "separate"}
        )
    ).reward_model


def test_more_minibatches_than_completions_are_refused():
    with pytest.raises(LabError, match="minibatches is 5"):
        make_config("ppo", {"batch_size": 4, "minibatches": 5})


def test_ppo_is_one_of_the_methods():
    assert {"ppo", "online_dpo"} <= set(METHODS)
