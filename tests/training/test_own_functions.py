"""Functions of the learner in the training loop: each hook is exact, really used, and its mistakes
end the run with words.
"""

import json

import numpy as np
import pytest
import torch

from lab.algorithms.advantages import gae, group_advantages, kl_shaped_rewards, whiten
from lab.algorithms.kl import kl_estimate
from lab.algorithms.logprobs import sequence_logps
from lab.algorithms.losses import (
    dpo_loss,
    ipo_loss,
    ipo_token_mean_loss,
    kto_loss,
    kto_reference_point,
    reward_model_loss,
)
from lab.algorithms.policy_losses import ppo_loss
from lab.algorithms.reductions import fixed_length, sequence_mean, token_mean
from lab.config.methods import METHODS, make_config
from lab.errors import LabError
from lab.runs.folder import create
from lab.runs.records import StepRecord
from lab.runs.states import RunState
from lab.training.driver import drive
from lab.training.loop import prepare, train
from lab.training.own_functions import OWN_FUNCTIONS_FILE

SMALL = {"steps": 3, "batch_size": 8, "eval_prompts": 2, "seed": 3}


def records(method, own, **settings):
    """The metrics of every update."""
    few = {"pairs": 32} if METHODS[method].offline else {}
    run = prepare(make_config(method, SMALL | few | settings))
    run.own = own
    return [record.metrics for record in train(run) if isinstance(record, StepRecord)]


def no_timing(rows):
    return json.dumps(rows, sort_keys=True)  # NaN is written alike, so that it equals NaN.


def lab_dpo(pw, pl, qw, ql, beta):
    return dpo_loss(pw, pl, qw, ql, beta=beta)[0]


def lab_ipo(pw, pl, qw, ql, beta):
    return ipo_loss(pw, pl, qw, ql, beta=beta)[0]


def lab_ipo_token_mean(*inputs):
    return ipo_token_mean_loss(*inputs[:6], beta=inputs[6])[0]


def lab_kto(p, q, desirable, z, beta, good, bad):
    weights = {"desirable_weight": good, "undesirable_weight": bad}
    return kto_loss(p, q, desirable, z, beta=beta, **weights)[0]


def neighbours(x):
    """Completion i + 1 after prompt i, in the order of the batch, which the matrix has reversed."""
    return x.roll(-1, 1).diagonal()[[-i % len(x) for i in range(len(x))]]


def lab_z(p, q):
    return kto_reference_point(neighbours(p), neighbours(q))


def lab_advantages(rewards, group_size):
    return group_advantages(rewards, group_size, scale="group")


def lab_reduction(losses, mask, kind, max_length):
    if kind == "fixed_length":
        return fixed_length(losses, mask, max_length)
    return {"sequence_mean": sequence_mean, "token_mean": token_mean}[kind](losses, mask)


def lab_gae(rewards, values, gamma, lam):
    ones = torch.ones(1, len(rewards))
    return gae(rewards[None], values[None], ones, gamma=gamma, lam=lam)[0][0]


def lab_token_rewards(scores, logps, reference, mask, beta):
    return kl_shaped_rewards(scores, logps, reference, mask, beta=beta)


def lab_surrogate(logps, old, advantages, epsilon):
    return ppo_loss(logps, old, advantages, torch.ones_like(logps), epsilon=epsilon)[0]


def lab_sft(logps, mask):
    return -(logps * mask).sum() / mask.sum()


def lab_mask(ids, prompt_lengths, end_id):
    after = torch.arange(ids.shape[1]) >= prompt_lengths[:, None]
    ends = after & (ids == end_id)
    return after & (ends.cumsum(1) - ends.long() == 0)


def right_answer(completion, answer):
    return float(completion.split("</think>")[-1] == answer)


def lab_reward_model(chosen, rejected):
    return reward_model_loss(chosen, rejected)[0]


def after(function, change):
    return lambda *inputs: change(function(*inputs))


def minus(value):
    return -value


GROUPS = {"group_size": 4, "batch_size": 16}
FEW, FAR = {"batch_size": 16}, {"beta": 0.5, "learning_rate": 0.01}
FROM_ALL_TOKENS = {  # These pass prompt and padding too, so the last bits differ from the lab's.
    "dpo, sum": ("dpo", "sequence_logps", sequence_logps, lambda x, mask: x.sum(1)),
    "dpo, mask": ("dpo", "completion_mask", lab_mask, after(lab_mask, lambda mask: ~mask)),
    "sft": ("sft", "loss", lab_sft, after(lab_sft, minus)),
}
CASES = {  # what is replaced: method, place, the lab's formula, a slip, settings
    "dpo": ("dpo", "loss", lab_dpo, after(lab_dpo, minus), {}),
    "ipo": ("ipo", "loss", lab_ipo, after(lab_ipo, minus), {}),
    "ipo, token mean": (
        "ipo",
        "loss",
        lab_ipo_token_mean,
        after(lab_ipo_token_mean, minus),
        {"ipo_variant": "token_mean"},
    ),
    "kto": ("kto", "loss", lab_kto, after(lab_kto, minus), {}),
    "kto, z": ("kto", "reference_point", lab_z, lambda p, q: (p - q).diagonal().mean() + 1, {}),
    "reward model": ("reward_model", "loss", lab_reward_model, after(lab_reward_model, minus), {}),
    "online dpo": ("online_dpo", "loss", lab_dpo, after(lab_dpo, minus), GROUPS),
    "grpo, advantages": (
        "grpo",
        "advantages",
        lab_advantages,
        after(lab_advantages, minus),
        GROUPS,
    ),
    "grpo, fixed length": (
        "grpo",
        "reduction",
        lab_reduction,
        after(lab_reduction, minus),
        GROUPS | {"loss_aggregation": "fixed_length"},
    ),
    "grpo, sequence mean": (
        "grpo",
        "reduction",
        lab_reduction,
        after(lab_reduction, minus),
        GROUPS | {"loss_aggregation": "sequence_mean"},
    ),
    "grpo, reward": ("grpo", "reward", right_answer, after(right_answer, minus), GROUPS),
    "ppo": ("ppo", "gae", lab_gae, after(lab_gae, minus), {"batch_size": 16}),
    "grpo, surrogate": ("grpo", "surrogate", lab_surrogate, after(lab_surrogate, minus), GROUPS),
    "grpo, KL": ("grpo", "kl_estimate", kl_estimate, after(kl_estimate, minus), GROUPS | FAR),
    "ppo, surrogate": ("ppo", "surrogate", lab_surrogate, after(lab_surrogate, minus), FEW),
    "ppo, whitening": ("ppo", "whiten", whiten, after(whiten, minus), FEW),
    "ppo, token rewards": (
        "ppo",
        "token_rewards",
        lab_token_rewards,
        after(lab_token_rewards, minus),
        FEW,
    ),
    "ppo, reward": ("ppo", "reward", right_answer, after(right_answer, minus), {"batch_size": 16}),
}


def test_every_hook_of_every_method_has_a_case():
    cases = [*CASES.values(), *FROM_ALL_TOKENS.values()]
    assert {(method, place) for method, place, *_ in cases} >= {
        (name, hook.name)
        for name, method in METHODS.items()
        for hook in method.hooks
        if (name, hook.name) != ("online_dpo", "reward")
    }


@pytest.mark.parametrize("case", CASES)
def test_the_labs_formula_gives_the_labs_records_and_a_slip_gives_others(case):
    method, place, formula, slip, settings = CASES[case]
    expected = no_timing(records(method, {}, **settings))
    assert no_timing(records(method, {place: formula}, **settings)) == expected
    assert no_timing(records(method, {place: slip}, **settings)) != expected


@pytest.mark.parametrize("case", FROM_ALL_TOKENS)
def test_the_labs_formula_on_all_tokens_gives_the_labs_numbers_and_a_slip_gives_others(case):
    method, place, formula, slip = FROM_ALL_TOKENS[case]
    expected, own, wrong = (records(method, o) for o in ({}, {place: formula}, {place: slip}))
    for name in expected[-1]:
        if name in own[-1] and not name.startswith(("time/", "gold/", "rewards/acc")):
            a, b = ([row[name] for row in rows[1:]] for rows in (expected, own))
            assert a == pytest.approx(b, rel=1e-4, abs=1e-5, nan_ok=True), name
    assert wrong[-1]["loss"] != pytest.approx(expected[-1]["loss"], rel=1e-3)


def test_a_kl_estimate_that_nothing_would_call_is_refused(tmp_path):
    folder = folder_of(tmp_path, "grpo", **GROUPS)
    message, _ = failed_with(folder, {"kl_estimate": kl_estimate})
    assert "beta is 0, so nothing calls it. Give a beta above 0." in message


@pytest.mark.parametrize(("method", "place"), [("sft", "loss"), ("grpo", "reduction")])
def test_a_function_of_the_whole_batch_refuses_pieces_of_it(tmp_path, method, place):
    own = {"loss": lab_sft, "reduction": lab_reduction}[place]
    groups = GROUPS if method == "grpo" else {}
    message, _ = failed_with(folder_of(tmp_path, method, micro_batches=2, **groups), {place: own})
    assert "takes the whole batch at once" in message and "micro_batches 1" in message


def test_a_sign_slip_teaches_the_rejected_completions():
    def gap(own):
        last = records("dpo", own, steps=12, batch_size=16, pairs=16)[-1]
        return last["rewards/chosen"] - last["rewards/rejected"]

    def slip(pw, pl, qw, ql, beta):
        return -torch.nn.functional.logsigmoid(-beta * ((pw - qw) - (pl - ql)))

    assert gap({}) > 0 > gap({"loss": slip})


def folder_of(tmp_path, method="dpo", **settings):
    few = {"pairs": 32} if METHODS[method].offline else {}
    return create(tmp_path / "run", make_config(method, SMALL | few | settings))


def failed_with(folder, own):
    """The message of a run that ends by an error, which status.json has too."""
    with pytest.raises(LabError) as caught:
        drive(folder, own=own)
    assert folder.state == RunState.FAILED and folder.status()["message"] == str(caught.value)
    return str(caught.value), caught.value.__cause__


def test_an_exception_is_shown_with_the_learners_line_and_the_records_before_it_stay(tmp_path):
    calls = []

    def my_loss(pw, pl, qw, ql, beta):
        calls.append(beta)
        if len(calls) == 3:
            return pw * no_such_name  # noqa: F821
        return lab_dpo(pw, pl, qw, ql, beta)

    folder = folder_of(tmp_path)
    message, cause = failed_with(folder, {"loss": my_loss})
    assert message.startswith("my_loss, your loss, stopped at update 3 with NameError: name")
    assert "`return pw * no_such_name  # noqa: F821`" in message and "chosen_logps (8,)" in message
    assert isinstance(cause, NameError)
    assert [row["step"] for row in folder.history() if row["type"] == "step"] == [0, 1, 2]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda *a: lab_dpo(*a).mean(), "the shape a single number. It should give (B,) losses"),
        (lambda *a: lab_dpo(*a)[:-1], "the shape (7,). It should give (B,) losses"),
        (lambda *a: lab_dpo(*a).detach(), "numbers without a gradient"),
        (lambda *a: lab_dpo(*a).tolist(), "numbers without a gradient"),
        (lambda *a: lab_dpo(*a) / 0 * 0, "8 of 8 numbers that are NaN or infinite"),
        (lambda *a: "0.5", "a str. It should give"),
        (lambda *a: None, "nothing. It should give"),
        (lambda logps, beta: logps, "takes (logps, beta), but is called with 5 values"),
    ],
)
def test_what_is_returned_is_checked_in_words(tmp_path, function, words):
    assert words in failed_with(folder_of(tmp_path), {"loss": function})[0]


@pytest.mark.parametrize("value", [None, "much", float("nan"), float("inf")])
def test_a_reward_that_is_no_number_ends_the_run(tmp_path, value):
    folder = folder_of(tmp_path, "grpo", **GROUPS)
    message, _ = failed_with(folder, {"reward": lambda completion, answer: value})
    assert f"gives {value!r} at update 1 for the completion" in message


def test_numpy_lists_and_columns_are_taken_where_no_gradient_is_needed():
    expected = no_timing(records("grpo", {"advantages": lab_advantages}, **GROUPS))
    for change in (
        lambda x: x.numpy().astype(np.float32),
        lambda x: x.tolist(),
        lambda x: x[:, None],
    ):
        own = {"advantages": after(lab_advantages, change)}
        assert no_timing(records("grpo", own, **GROUPS)) == expected
    column = {"loss": after(lab_dpo, lambda x: x[:, None])}
    assert no_timing(records("dpo", column)) == no_timing(records("dpo", {}))


def test_such_a_run_notes_its_function_and_is_not_resumed(tmp_path):
    folder = folder_of(tmp_path)
    drive(folder, until=lambda run: run.step == 1, own={"loss": lab_dpo})
    noted = json.loads((folder.path / OWN_FUNCTIONS_FILE).read_text("utf-8"))
    assert noted["loss"]["name"] == "lab_dpo" and "dpo_loss(pw" in noted["loss"]["source"]
    notes = [row["detail"]["message"] for row in folder.history() if row.get("kind") == "noted"]
    assert any(note.startswith("loss is lab_dpo, a function of the notebook") for note in notes)
    for own in ({}, {"loss": lab_dpo}):
        with pytest.raises(LabError, match=r"lab_dpo\), which are not stored .* cannot be resumed"):
            drive(folder, own=own)
    (folder.path / OWN_FUNCTIONS_FILE).write_text("{", "utf-8")
    with pytest.raises(LabError, match="cannot be resumed"):
        drive(folder)


def test_a_run_of_the_lab_does_not_go_on_with_a_function_of_the_learner(tmp_path):
    folder = folder_of(tmp_path)
    drive(folder, until=lambda run: run.step == 1)
    with pytest.raises(LabError, match="cannot be resumed"):
        drive(folder, own={"loss": lab_dpo})
    assert drive(folder).step == SMALL["steps"]


def test_a_place_that_the_method_does_not_have_is_refused_with_those_it_has(tmp_path):
    with pytest.raises(LabError, match="advantages"):
        drive(folder_of(tmp_path, "grpo", **GROUPS), own={"gae": lab_gae})


def test_a_reduction_refuses_a_batch_in_pieces(tmp_path):
    folder = folder_of(tmp_path, "grpo", **GROUPS, micro_batches=2)
    message, _ = failed_with(folder, {"reduction": lab_reduction})
    assert "8 of 16 completions. Use micro_batches 1" in message


def test_label_smoothing_beside_a_loss_of_ones_own_is_refused():
    with pytest.raises(LabError, match="label_smoothing is 0.1, but a loss of your own"):
        records("dpo", {"loss": lab_dpo}, label_smoothing=0.1)
