import io
import json
import math
from dataclasses import replace

import pytest
import torch

import lab.training.loop
import lab.training.method
import lab.training.methods.dpo
import lab.training.reference_logps
from lab.algorithms.policy_losses import grpo_loss
from lab.algorithms.reductions import sequence_mean, token_mean
from lab.config.methods import METHODS, make_config
from lab.engine.llama import decoder_of
from lab.engine.token_logprobs import reference_implementation
from lab.errors import LabError
from lab.runs.control import Command, Control
from lab.runs.metrics import METRICS
from lab.runs.records import Event, StepRecord
from lab.training.checkpoints import make_checkpoint
from lab.training.loop import prepare, train
from lab.training.methods.offline import load_preferences
from lab.training.methods.online import micro_batches, pieces_within

QUICK = {"eval_every": 0, "eval_prompts": 8, "max_completion_tokens": 48}
ONLINE = QUICK | {"batch_size": 16, "group_size": 4}
OFFLINE = QUICK | {"batch_size": 8, "pairs": 64}
OF = {"grpo": ONLINE, "online_dpo": ONLINE, "ppo": QUICK | {"batch_size": 16}}


def knobs(method, **more):
    return OF.get(method, OFFLINE) | more


def records(method, **more):
    return [
        r
        for r in train(prepare(make_config(method, knobs(method, **more))))
        if isinstance(r, StepRecord)
    ]


def trained_weights(run):
    return torch.cat(
        [
            w.detach().flatten()
            for group in run.trainable_parameters().values()
            for w in group.values()
        ]
    )


def finish(run, control=None):
    return list(train(run, control))


@pytest.mark.parametrize(
    "method, knob, expected",
    [
        ("dpo", {"beta": 0.1}, math.log(2)),
        ("dpo", {"beta": 0.5}, math.log(2)),
        ("ipo", {"beta": 0.1}, 25.0),
        ("ipo", {"beta": 0.5, "ipo_variant": "token_mean"}, 1.0),
        ("kto", {"beta": 0.1}, 0.5),
        ("online_dpo", {"beta": 0.3}, math.log(2)),
        ("grpo", {"loss_aggregation": "sequence_mean"}, 0.0),
    ],
)
def test_the_first_loss_is_the_anchor_value_because_policy_and_reference_are_equal(
    method, knob, expected
):
    first = records(method, steps=1, **knob)[1]
    assert first.metrics["loss"] == pytest.approx(
        expected, rel=1e-5, abs=1e-6
    )  # The two are computed in batches of their own.
    assert first.metrics["grad_norm"] > 0


def test_the_first_grpo_loss_is_not_zero_when_long_completions_weigh_more():
    run = prepare(make_config("grpo", knobs("grpo", steps=1)))
    first = finish(run)[2].metrics
    advantages, lengths = run.rollout.advantages, run.rollout.completion_mask.sum(1)
    assert first["loss"] == pytest.approx(
        -(advantages * lengths).sum().item() / lengths.sum().item(), rel=1e-5
    )


def test_grpo_starts_on_policy_with_ratio_one_and_no_clipping():
    first = records("grpo", steps=1)[1].metrics
    assert (
        first["ratio"] == 1.0
        and first["clip_ratio/region_mean"] == 0.0
        and first["kl"] == pytest.approx(0.0, abs=1e-5)
    )


def test_a_second_update_on_the_same_rollout_leaves_ratio_one():
    second = records("grpo", steps=2, updates_per_rollout=2, learning_rate=0.01)[2].metrics
    assert second["ratio"] != 1.0 and second["loss"] != 0.0


@pytest.mark.parametrize("method", METHODS)
def test_every_metric_of_a_record_is_described(method):
    for record in records(method, steps=1):
        assert set(record.metrics) <= set(METRICS)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_records_and_another_seed_does_not(method):
    first, again, other = (records(method, steps=3, seed=s) for s in (5, 5, 6))
    assert [r.metrics for r in first] == [r.metrics for r in again]
    assert [r.metrics for r in first] != [r.metrics for r in other]


@pytest.mark.parametrize(
    "method, more",
    [(m, {}) for m in METHODS]
    + [
        ("grpo", {"loss_aggregation": "sequence_mean"}),
        ("grpo", {"loss_aggregation": "fixed_length", "beta": 0.1}),
        ("ppo", {"loss_aggregation": "sequence_mean"}),
        ("ppo", {"model_layout": "separate", "minibatches": 1}),
    ],
)
def test_a_batch_cut_into_pieces_gives_the_same_update(method, more):
    whole, cut = (
        prepare(make_config(method, knobs(method, steps=1, micro_batches=n, **more)))
        for n in (1, 8)
    )
    start = trained_weights(whole)
    gradients = []
    for run in (whole, cut):
        method_ = METHODS[method]
        run.optimizer.zero_grad()
        for piece in next(method_.batches(run)):
            loss, _ = method_.loss(run, piece)
            if loss.requires_grad:  # Not that of a piece whose groups are all dead.
                loss.backward()
        gradients.append(
            [
                torch.cat([w.grad.flatten() for w in group.values()])
                for group in run.trainable_parameters().values()
            ]
        )
    assert torch.equal(start, trained_weights(cut))
    for one, other in zip(*gradients):
        assert one.norm() > 0 and (one - other).norm() <= 1e-4 * one.norm()


@pytest.mark.parametrize(
    "method, more",
    [(m, {}) for m in METHODS]
    + [
        ("grpo", {"updates_per_rollout": 2}),
        ("ppo", {"epochs": 2, "kl_target": 1.0}),
        ("ppo", {"model_layout": "separate"}),
    ],
)
def test_a_run_resumed_from_its_checkpoint_follows_the_uninterrupted_one(method, more):
    config = make_config(method, knobs(method, steps=5, **more))
    straight = prepare(config)
    rows = [r.metrics for r in finish(straight) if isinstance(r, StepRecord)]
    broken = prepare(config)
    for record in train(broken):
        if isinstance(record, StepRecord) and record.step == 3:
            break
    file = io.BytesIO()
    torch.save(make_checkpoint(broken), file)
    file.seek(0)
    resumed = prepare(config, torch.load(file, weights_only=True))
    rest = [r.metrics for r in finish(resumed) if isinstance(r, StepRecord)]
    assert rest == rows[4:]
    assert torch.equal(trained_weights(straight), trained_weights(resumed))


@pytest.mark.parametrize("method", ["dpo", "ipo", "kto"])
def test_the_reference_reads_each_offline_example_once(method, monkeypatch):
    seen = []
    original = lab.training.reference_logps.reference_logps
    monkeypatch.setattr(
        lab.training.reference_logps,
        "reference_logps",
        lambda run, examples: seen.append(len(examples)) or original(run, examples),
    )
    entered = []
    run = prepare(make_config(method, knobs(method, pairs=16, steps=6)))
    disable = run.model.disable_adapter
    monkeypatch.setattr(run.model, "disable_adapter", lambda: entered.append(run.step) or disable())
    for record in train(run):
        if isinstance(record, StepRecord) and record.step == 5:
            break
    assert seen == (
        [32] if method == "kto" else [16, 16]
    )  # KTO: its completions; else chosen and rejected.
    updates = [
        step for step in entered if step > 0
    ]  # After the first pull a pass without the adapter is KTO's alone: a batch's mismatched pairs.
    assert updates == ([1, 2, 3, 4] if method == "kto" else [])


def test_the_update_happens_when_the_batch_is_pulled_and_a_new_group_size_counts_from_the_next_rollout():
    control = Control()
    run = prepare(make_config("grpo", knobs("grpo", steps=2)))
    loop = train(run, control)
    sizes = []
    for record in loop:
        if isinstance(record, StepRecord) and record.step:
            sizes.append(run.rollout.group_size)
            control.set("group_size", 8)
    assert sizes == [4, 8]


def test_each_command_is_echoed_and_a_bad_one_is_rejected_without_harm():
    control = Control()
    run = prepare(make_config("dpo", knobs("dpo", steps=1)))
    commands = [
        control.set("beta", 0.2),
        control.set("batch_size", 4),
        control.set("bta", 1.0),
        control.set("beta", -1.0),
    ]
    events = [r for r in finish(run, control) if isinstance(r, Event)]
    assert [e.kind for e in events] == [
        "started",
        "changed",
        "rejected",
        "rejected",
        "rejected",
        "finished",
    ]
    assert [e.id for e in events[1:5]] == commands
    assert events[1].detail == {"knob": "beta", "from": 0.1, "to": 0.2} and run.config.beta == 0.2
    assert "fixed" in events[2].detail["message"] and "beta" in events[3].detail["message"]


def test_pause_holds_the_run_and_stop_ends_it():
    class Script:
        queue = [["pause"], [], ["continue"], ["stop"]]

        def poll(self):
            return [
                Command(str(len(self.queue)), action)
                for action in (self.queue.pop(0) if self.queue else [])
            ]

    run = prepare(make_config("dpo", knobs("dpo", steps=3)))
    kinds = [r.kind if isinstance(r, Event) else r.step for r in train(run, Script())]
    assert kinds == ["started", 0, "paused", "continued", 1, "stopped"]


def test_a_loss_that_is_not_finite_stops_the_run_before_it_touches_the_weights(monkeypatch):
    run = prepare(make_config("dpo", knobs("dpo", steps=3)))
    good = METHODS["dpo"].loss

    def bad(run, piece):
        loss, metrics = good(run, piece)
        return (loss * float("nan") if run.step == 1 else loss), metrics

    monkeypatch.setattr(lab.training.methods.dpo, "SPEC", replace(METHODS["dpo"], loss=bad))
    with pytest.raises(LabError, match=r"dpo stopped at step 2.*step 1.*rewards/margins"):
        finish(run)
    assert run.step == 1 and trained_weights(run).isfinite().all()


def test_the_learning_rate_warms_up_and_follows_live_changes():
    control = Control()
    rates = []
    for record in train(
        prepare(make_config("dpo", knobs("dpo", steps=5, warmup_steps=4, learning_rate=0.004))),
        control,
    ):
        if isinstance(record, StepRecord) and record.step:
            rates.append(record.metrics["learning_rate"])
            if record.step == 4:
                control.set("learning_rate", 0.001)
    assert rates == pytest.approx([0.001, 0.002, 0.003, 0.004, 0.001])


@pytest.mark.parametrize(
    "method, target, rises",
    [
        ("sft", "loss", False),
        ("reward_model", "rewards/accuracies", True),
        ("dpo", "rewards/margins", True),
        ("ipo", "loss", False),
        ("kto", "loss", False),
        ("grpo", "reward", True),
        ("ppo", "reward", True),
        ("online_dpo", "reward", True),
    ],
)
def test_each_method_improves_its_own_target_in_a_few_updates(method, target, rises):
    more = {
        "grpo": {"batch_size": 64, "group_size": 8, "steps": 12},
        "ppo": {"batch_size": 64, "steps": 30},
        "online_dpo": {"batch_size": 64, "steps": 16},
    }
    more = more.get(method) or {"batch_size": 16, "pairs": 0, "steps": 16, "learning_rate": 2e-3}
    rows = [r.metrics[target] for r in records(method, **more)[1:]]
    early, late = sum(rows[:4]) / 4, sum(rows[-4:]) / 4
    assert late > early if rises else late < early


def test_with_a_task_a_file_is_used_whole(tmp_path):
    rows = [{"prompt": f"{i}+1=", "chosen": str(i + 1), "rejected": "9"} for i in range(3)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = prepare(make_config("dpo", {"data": str(tmp_path / "own.jsonl"), "task": "chain"}))
    assert [pair.chosen for pair in load_preferences(run)] == ["1", "2", "3"]


@pytest.mark.parametrize("reduction", ["token_mean", "sequence_mean"])
def test_rows_that_cannot_learn_are_left_out_of_the_way_back_and_change_neither_gradient_nor_metrics(
    reduction,
):
    run = prepare(make_config("grpo", knobs("grpo", batch_size=32, loss_aggregation=reduction)))
    with torch.no_grad():
        for name, weight in run.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.02)
    (part,) = next(METHODS["grpo"].batches(run))
    weights = list(run.flat_params["learning_rate"][0].views)
    advantages = run.rollout.advantages
    advantages[:8] = 0.0
    advantages[8:] = torch.linspace(-1, 1, 24)
    mask = part.tokens.completion_mask
    for uses in (1, 2):  # The second update on the rollout has other weights than the first.
        run.rollout.num_updates = uses
        found, metrics = METHODS["grpo"].loss(run, part)
        ours = torch.autograd.grad(found, weights)
        whole = reference_implementation(run.model, part.tokens, entropy=True)
        losses, expected = grpo_loss(
            whole.logps,
            run.rollout.old_logps,
            None,
            advantages,
            mask,
            beta=0.0,
            epsilon=0.2,
            epsilon_high=0.2,
            kl_estimator="k3",
        )
        loss = (
            token_mean(losses, mask, int(mask.sum()))
            if reduction == "token_mean"
            else sequence_mean(losses, mask, len(mask))
        )
        theirs = torch.autograd.grad(loss, weights)
        torch.testing.assert_close(found, loss, rtol=1e-4, atol=1e-6)
        for a, b in zip(ours, theirs):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * b.abs().max().item())
        expected["entropy"] = whole.entropy.masked_fill(~mask, float("nan"))
        for name, value in expected.items():
            torch.testing.assert_close(
                metrics[name], value, rtol=1e-4, atol=1e-5, equal_nan=True, msg=name
            )
        with torch.no_grad():
            for w in weights:
                w.add_(1e-3 * torch.randn(w.shape, generator=torch.Generator().manual_seed(0)))


def test_where_all_rewards_are_equal_nothing_moves_and_the_metrics_are_there():
    run = prepare(make_config("grpo", knobs("grpo", reward="constant", steps=1)))
    before = trained_weights(run).clone()
    (record,) = [r for r in finish(run) if isinstance(r, StepRecord) and r.step == 1]
    assert (
        record.metrics["grad_norm"] == 0
        and record.metrics["loss"] == 0
        and record.metrics["entropy"] > 0
        and record.metrics["ratio"] == 1
    )
    assert torch.equal(trained_weights(run), before)


def test_a_rollout_is_cut_into_as_many_pieces_as_fit_the_budget(monkeypatch):
    assert [pieces_within(10, size) for size in (0, 1, 10, 11, 21)] == [1, 1, 1, 2, 3]
    run = prepare(make_config("grpo", knobs("grpo")))
    (whole,) = next(METHODS["grpo"].batches(run))
    run.device = torch.device("cuda")  # As far as the cutting goes; the tensors stay here.
    monkeypatch.setattr(
        "lab.training.methods.online.MAX_ACTIVATION_BYTES",
        -(
            -len(whole.tokens.packed.ids)
            * decoder_of(run.model).saved_activation_bytes_per_token()
            // 4
        ),
    )
    monkeypatch.setattr(
        "lab.training.methods.online.torch.tensor", lambda rows, device: torch.as_tensor(rows)
    )
    pieces = micro_batches(run, list(range(16)))
    assert len(pieces) == 4 and torch.cat([piece.rows for piece in pieces]).tolist() == list(
        range(16)
    )
    assert {(piece.total_sequences, piece.total_tokens) for piece in pieces} == {
        (whole.total_sequences, whole.total_tokens)
    }
