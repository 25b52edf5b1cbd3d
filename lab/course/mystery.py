"""Find the fault in a run: a fault drawn by a seed trains a model, and the learner names it from the
curves and the samples alone.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.nn.functional import logsigmoid

from lab.algorithms.advantages import group_advantages
from lab.algorithms.losses import dpo_loss, kto_loss
from lab.course.predictions import Prediction, outcome
from lab.course.run_from_notebook import train
from lab.errors import LabError
from lab.runs.folder import RunFolder
from lab.runs.records import columns_of
from lab.training.own_functions import function_name

HEALTHY = "nothing is wrong"
SAME = 1e-4
"""Losses this close come from the same formula, written in another order."""


@dataclass(frozen=True)
class Fault:
    """A fault of a run: the function that has it, and the curve that shows it."""

    function: Callable[..., Any]
    shown_by: str


@dataclass(frozen=True)
class Mystery:
    """A task: a method, the place of the function that may be faulty, settings, and its faults by the
    words with which the learner names them.
    """

    method: str
    place: str
    settings: dict[str, Any]
    faults: dict[str, Fault]


def _dpo(pw: Any, pl: Any, qw: Any, ql: Any, beta: float) -> Any:
    return dpo_loss(pw, pl, qw, ql, beta=beta)[0]


def _advantages(rewards: Any, group_size: int) -> Any:
    return group_advantages(rewards, group_size, scale="group")


def _kto(p: Any, q: Any, desirable: Any, z: Any, beta: float, good: float, bad: float) -> Any:
    weights = {"desirable_weight": good, "undesirable_weight": bad}
    return kto_loss(p, q, desirable, z, beta=beta, **weights)[0]


MYSTERIES = (
    Mystery(
        "dpo",
        "loss",
        {"steps": 40, "eval_every": 10, "eval_prompts": 64},
        {
            HEALTHY: Fault(_dpo, "The loss starts at log 2 and the margin grows."),
            "the sign of the margin": Fault(
                lambda pw, pl, qw, ql, beta: _dpo(pl, pw, ql, qw, beta),
                "The margin falls below 0 while the loss falls too.",
            ),
            "the reference is missing": Fault(
                lambda pw, pl, qw, ql, beta: -logsigmoid(beta * (pw - pl)),
                "The first loss is not log 2 = 0.693, though policy and reference are equal there.",
            ),
        },
    ),
    Mystery(
        "grpo",
        "advantages",
        {"steps": 20, "eval_every": 10, "eval_prompts": 64},
        {
            HEALTHY: Fault(_advantages, "The reward and the gold accuracy rise."),
            "the sign of the advantages": Fault(
                lambda rewards, size: -_advantages(rewards, size),
                "The reward falls, since right answers become less likely.",
            ),
            "the advantages are zero": Fault(
                lambda rewards, size: 0 * rewards,
                "The gradient norm is 0 at every update, and the KL stays 0.",
            ),
        },
    ),
    Mystery(
        "kto",
        "loss",
        {"steps": 40, "eval_every": 10, "eval_prompts": 64},
        {
            HEALTHY: Fault(_kto, "The reward of good completions ends above that of bad ones."),
            "the labels are swapped": Fault(
                lambda p, q, d, z, *rest: _kto(p, q, ~d, z, *rest),
                "The reward of bad completions ends above that of good ones.",
            ),
            "bad completions are pulled up like good ones": Fault(
                lambda p, q, d, z, *rest: _kto(p, q, d | True, z, *rest),
                "No reward falls clearly, since nothing is pushed down.",
            ),
        },
    ),
)


def drawn_fault(task: int, seed: int) -> str:
    """Return the words for the fault of a task that a seed draws."""
    return random.Random(f"mystery/{task}/{seed}").choice(list(_mystery(task).faults))


def mystery_run(task: int, seed: int) -> RunFolder:
    """Train task 1, 2 or 3 with the fault that `seed` draws. The run does not say which it has: look at
    `curves([run])` and `samples_of(run)`, and answer with one of `faults_of(task)`.
    """
    mystery = _mystery(task)
    function = mystery.faults[drawn_fault(task, seed)].function

    def hidden(*inputs: Any) -> Any:
        return function(*inputs)

    name = f"course-mystery-{task}-{seed}"
    return train(mystery.method, name=name, **{mystery.place: hidden}, **mystery.settings)


def faults_of(task: int) -> tuple[str, ...]:
    """Return the words for what may be true of a run of a task."""
    return tuple(sorted(_mystery(task).faults))


def samples_of(run: RunFolder, count: int = 4) -> None:
    """Print completions of held-out prompts before training and at its end."""
    rows = [row for row in run.samples() if row.get("held_out")]
    for step in sorted({rows[0]["step"], rows[-1]["step"]}):
        print(f"after {step} updates:")
        for row in [row for row in rows if row["step"] == step][:count]:
            print(
                f"  {row['prompt']:14} {'right' if row['gold'] else 'wrong'}  {row['completion'][:80]}"
            )


def reveal(run: RunFolder, prediction: Prediction) -> None:
    """Set the learner's answer beside the fault of a run of `mystery_run`, and say which curve shows it.

    Raises `LabError` for another run, and `PredictFirst` before there is an answer.
    """
    task, seed = _task_and_seed(run)
    fault = drawn_fault(task, seed)
    outcome(prediction, fault, _mystery(task).faults[fault].shown_by)


def repeat_run(run: RunFolder, function: Callable[..., Any]) -> RunFolder:
    """Train with the learner's function in place of the hidden one, print how far the two runs differ,
    and return the new run. With the same fault they are equal to the last digit.
    """
    task, seed = _task_and_seed(run)
    mystery = _mystery(task)
    name = f"course-mystery-{task}-{seed}-{function_name(function)}"
    mine = train(mystery.method, name=name, **{mystery.place: function}, **mystery.settings)
    gap = largest_gap(run, mine)
    print(
        f"The losses of the two runs differ by {gap:.3g} at most."
        + (" Your function repeats the run." if gap < SAME else " It is another function.")
    )
    return mine


def largest_gap(run: RunFolder, other: RunFolder) -> float:
    """Return the largest difference between the losses of two runs at the same update."""
    losses = (columns_of(one.history())["loss"][1] for one in (run, other))
    return max(abs(a - b) for a, b in zip(*losses, strict=True))


def _task_and_seed(run: RunFolder) -> tuple[int, int]:
    parts = run.name.split("-")
    if parts[:2] != ["course", "mystery"] or len(parts) != 4:
        raise LabError(f"{run.name} is no run of mystery_run. Pass the run that it returned.")
    return int(parts[2]), int(parts[3])


def _mystery(task: int) -> Mystery:
    if task not in range(1, len(MYSTERIES) + 1):
        raise LabError(f"task is {task}, but takes a number from 1 to {len(MYSTERIES)}.")
    return MYSTERIES[task - 1]
