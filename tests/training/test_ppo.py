"""PPO: training with a critic in both layouts."""

import io
import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lab.config.json_format import to_dict
from lab.config.methods import METHODS, make_config
from lab.data.batching import TokenBatch
from lab.errors import LabError
from lab.models.adapters import active_adapter, adapter_disabled, adapter_merged
from lab.models.loading import load_policy
from lab.models.sources import EMBEDDED
from lab.models.tokenizer import load_tokenizer
from lab.runs.control import Control
from lab.runs.records import StepRecord
from lab.training.checkpoints import make_checkpoint
from lab.training.heads import load_trained_reward_model
from lab.training.loop import prepare, train
from lab.training.methods.ppo import minibatch
from lab.training.trained_model import save_adapter

CPU = torch.device("cpu")
QUICK = {
    "eval_every": 0,
    "eval_prompts": 8,
    "max_completion_tokens": 48,
    "batch_size": 16,
    "steps": 3,
}


def noise(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def whole(ids):
    """A batch in which all but the first token are completion."""
    return TokenBatch(ids, torch.arange(ids.shape[1]).expand_as(ids) > 0)


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
        for _, weight in run.method_state.critic.named_parameters():
            weight.add_(0.05)
        assert torch.equal(run.model(input_ids=ids).logits, before)
        assert run.method_state.critic.values(whole(ids)).abs().sum() > 0


def test_a_fresh_critic_expects_nothing_and_a_value_does_not_know_its_token():
    run = prepare(make_config("ppo", QUICK))
    ids = torch.randint(3, 20, (1, 9), generator=torch.Generator().manual_seed(0))
    assert (run.method_state.critic.values(whole(ids)) == 0).all()
    with torch.no_grad():
        run.method_state.critic.head.copy_(noise(*run.method_state.critic.head.shape, seed=0))
        other = ids.clone()
        other[0, 5] = 3 + (ids[0, 5] - 2) % 17
        one, two = (
            run.method_state.critic.values(whole(ids))[0],
            run.method_state.critic.values(whole(other))[0],
        )
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
        for seed, (_, weight) in enumerate(run.method_state.critic.named_parameters()):
            weight.copy_(0.3 * noise(*weight.shape, seed=seed))
        found = run.method_state.critic.values(TokenBatch(ids, mask))
        with active_adapter(run.model, "critic"):
            states = run.model.get_base_model().model(input_ids=ids).last_hidden_state
    expected = (
        torch.cat([torch.zeros(3, 1), states[:, :-1] @ run.method_state.critic.head[0]], 1) * mask
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
    assert expected.abs().max() > 0.1


@pytest.mark.parametrize("shared", [False, True])
def test_a_trained_reward_model_scores_as_it_did_in_its_own_run(judge, shared):
    folder, trained = judge
    config, tokenizer = make_config("ppo"), load_tokenizer("embedded")
    policy = load_policy(config, CPU)
    model = load_trained_reward_model(
        str(folder), config, tokenizer, CPU, policy if shared else None
    )
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
            model.scores(TokenBatch(ids, mask)),
            scorer.score(hidden).squeeze(1),
            rtol=1e-5,
            atol=1e-6,
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
            run.method_state.critic.model,
            run.method_state.reward_model.model,
            run.method_state.frozen_reference or run.model,
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
    torch.save(make_checkpoint(run), file)
    file.seek(0)
    again = prepare(config, torch.load(file, weights_only=True))
    assert again.method_state.kl_factor == run.method_state.kl_factor != 1.0
    for rate, group in run.trainable_parameters().items():
        assert all(
            torch.equal(weight, again.trainable_parameters()[rate][name])
            for name, weight in group.items()
        )
    assert run.method_state.critic.head.abs().sum() > 0 and set(run.trainable_parameters()) == {
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
    ).method_state.reward_model


def test_more_minibatches_than_completions_are_refused():
    with pytest.raises(LabError, match="minibatches is 5"):
        make_config("ppo", {"batch_size": 4, "minibatches": 5})


def test_ppo_is_one_of_the_methods():
    assert {"ppo", "online_dpo"} <= set(METHODS)
