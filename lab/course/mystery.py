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
from lab.course.run_from_notebook import train
from lab.errors import LabError, unknown
from lab.runs.folder import RunFolder

HEALTHY = "nothing is wrong"


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
    """Train task 1, 2 or 3 with the fault that `seed` draws, and print what may be wrong. The run
    does not say which fault it has: look at `curves([run])` and `run.samples()`.
    """
    mystery = _mystery(task)
    function = mystery.faults[drawn_fault(task, seed)].function

    def hidden(*inputs: Any) -> Any:
        return function(*inputs)

    name = f"course-mystery-{task}-{seed}"
    run = train(mystery.method, name=name, **{mystery.place: hidden}, **mystery.settings)
    print(f"One of these is true: {'; '.join(sorted(mystery.faults))}.")
    return run


def name_fault(run: RunFolder, fault: str) -> bool:
    """Print whether a run of `mystery_run` has a fault, and which curve shows it; return it too.

    Raises `LabError` for another run and for words that are no fault of the task.
    """
    parts = run.name.split("-")
    if parts[:2] != ["course", "mystery"] or len(parts) != 4:
        raise LabError(f"{run.name} is no run of mystery_run. Pass the run that it returned.")
    task, seed = int(parts[2]), int(parts[3])
    faults = _mystery(task).faults
    if fault not in faults:
        raise unknown("fault", fault, list(faults))
    right = fault == drawn_fault(task, seed)
    print(
        f"Right. {faults[fault].shown_by}" if right else f"No. With that: {faults[fault].shown_by}"
    )
    return right


def _mystery(task: int) -> Mystery:
    if task not in range(1, len(MYSTERIES) + 1):
        raise LabError(f"task is {task}, but takes a number from 1 to {len(MYSTERIES)}.")
    return MYSTERIES[task - 1]
