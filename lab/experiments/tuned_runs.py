"""One run of the comparison of tuned methods: training within a budget, and measurements on parts of
the held-out prompts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from lab.config.methods import METHODS, make_config
from lab.config.run_config import RunConfig
from lab.errors import LabError
from lab.experiments.arms import cached_json, reward_model_run
from lab.experiments.tuned_plan import NO_LIMIT, TunedArm, TunedPlan
from lab.models.loading import fitting_threads
from lab.recipes.generate_pairs import build_pairs
from lab.runs.folder import RunFolder
from lab.runs.records import StepRecord
from lab.tasks.base import Problem
from lab.training.evaluation import evaluate
from lab.training.loop import prepare, train
from lab.training.state import TrainState


@dataclass(frozen=True)
class PlannedRun:
    """A run that the plan asks for; `settings` differ from the method's defaults.

    `view` is "tuning" (a trial), "tokens" (tuned, at equal tokens), "kl" (tuned, at equal KL) or
    "defaults".
    """

    view: str
    arm: str
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)
    trial: int = 0

    @property
    def key(self) -> str:
        """The name of the run in the log."""
        trial = f"-{self.trial}" if self.view == "tuning" else ""
        return f"{self.view}-{self.arm}{trial}-{self.seed}"


class PromptRange:
    """A task whose held-out prompts are a part of the held-out list of another."""

    def __init__(self, task: Any, first: int, end: int) -> None:
        self._task, self._problems = task, _held_out(task, end)[first:]

    def held_out(self, n: int) -> list[Problem]:
        """Return the first `n` prompts of the part."""
        return self._problems[:n]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)


@cache
def _held_out(task: Any, end: int) -> list[Problem]:
    return list(task.held_out(end))


def measure(
    run: TrainState, prompts: tuple[int, int], seed: int, samples: int = 1
) -> dict[str, Any]:
    """Sample `samples` completions, at most 9, of each prompt in the range, and return accuracy, KL,
    length, the task's own measures, and "right": for every prompt a digit, how many are right.
    """
    with fitting_threads(run.model):
        result = evaluate(
            run.model,
            run.tokenizer,
            PromptRange(run.task, *prompts),  # type: ignore[arg-type]
            prompts=prompts[1] - prompts[0],
            max_tokens=run.config.max_completion_tokens,
            seed=seed,
            device=run.device,
            samples=samples,
        )
    right = [int(row["gold"]) for row in result.completions]
    return {
        "gold/accuracy": result.accuracy,
        "kl": result.kl,
        "completions/mean_length": result.mean_length,
        **result.facts,
        "right": "".join(str(sum(right[i : i + samples])) for i in range(0, len(right), samples)),
    }


def tokens_used(run: TrainState) -> int:
    """Return the completion tokens sampled plus those trained on."""
    return run.tokens + run.generated


def train_until(run: TrainState, stop: Callable[[TrainState], bool]) -> None:
    """Train until `stop` is true after an update, or the last update of the config is made."""
    with fitting_threads(run.model):
        for record in train(run):
            if isinstance(record, StepRecord) and run.step and stop(run):
                return


def run_config(
    plan: TunedPlan, out: Path, planned: PlannedRun, device: str
) -> tuple[RunConfig, int]:
    """Return the config of a run, and the tokens that its reward model was trained on."""
    arm = plan.arm(planned.arm)
    settings = {"seed": planned.seed, "eval_every": 0, "eval_prompts": 2, "device": device}
    settings |= plan.common
    if planned.view != "defaults":
        settings |= plan.batch(arm.method) | {"steps": NO_LIMIT}
    if METHODS[arm.method].offline:
        settings |= pairs_settings(plan, out)
    settings |= planned.settings
    reward_tokens = 0
    if arm.scored_by_model:
        folder = reward_model_run(out, reward_settings(plan, out), planned.seed, device)
        settings["reward_from"] = str(folder)
        reward_tokens = max(r["tokens"] for r in RunFolder(folder).history() if "tokens" in r)
    return make_config(arm.method, settings), reward_tokens


def pairs_settings(plan: TunedPlan, out: Path) -> dict[str, Any]:
    """Return the settings that name the pairs sampled from the base; empty for a task with its own."""
    if not plan.pairs:
        return {}
    return {"data": str((out / "pairs.jsonl").absolute()), "pairs": plan.pairs}


def reward_settings(plan: TunedPlan, out: Path) -> dict[str, Any]:
    """Return the settings of the plan's reward models."""
    return plan.reward_model | pairs_settings(plan, out)


def build_plan_pairs(plan: TunedPlan, out: Path, device: str) -> None:
    """Sample the pairs of a plan into `out`, unless they are there or the task has its own."""
    if plan.pairs:
        settings = make_config("grpo", plan.common)
        cached_json(
            out / "pairs-built.json",
            lambda: build_pairs(
                Path(pairs_settings(plan, out)["data"]),
                settings.model,
                plan.pairs,
                0,
                device,
                settings.task,
                "answer",
                settings.max_completion_tokens,
            ),
        )


def run_planned(plan: TunedPlan, out: Path, planned: PlannedRun, device: str) -> dict[str, Any]:
    """Train and measure one run; return its row for the log.

    A trial whose training fails, because its learning rate is too high, has the row "failed".
    """
    config, reward_tokens = run_config(plan, out, planned, device)
    run = prepare(config)
    looks: list[dict[str, Any]] = []
    result: dict[str, Any] = {
        "view": planned.view,
        "arm": planned.arm,
        "seed": planned.seed,
        "trial": planned.trial,
        "settings": planned.settings,
    }
    try:
        train_until(run, _stop_rule(plan, planned, looks))
    except LabError as error:
        if planned.view != "tuning":
            raise
        return result | {"failed": str(error), "looks": looks}
    final = (
        {"looks": looks}
        if planned.view == "tuning"
        else measure(run, plan.test_prompts, planned.seed, plan.samples)
    )
    return result | {
        **final,
        "updates": run.step,
        "trained": run.tokens,
        "sampled": run.generated,
        "reward_model_tokens": reward_tokens,
        "seconds": run.timer.training_seconds,
    }


def _stop_rule(
    plan: TunedPlan, planned: PlannedRun, looks: list[dict[str, Any]]
) -> Callable[[TrainState], bool]:
    """When a run of a view stops; a tuning run also appends its measurements to `looks`."""
    checks = 0

    def at_tokens(run: TrainState) -> bool:
        return tokens_used(run) >= plan.tokens

    def after_looks(run: TrainState) -> bool:
        if tokens_used(run) >= plan.tokens * (len(looks) + 1) / plan.looks:
            found = measure(run, plan.tuning_prompts, planned.seed)
            looks.append({name: found[name] for name in ("gold/accuracy", "kl")})
        return at_tokens(run)

    def at_kl(run: TrainState) -> bool:
        nonlocal checks
        if tokens_used(run) < plan.tokens * (checks + 1) / plan.kl_checks:
            return False
        checks = int(tokens_used(run) * plan.kl_checks / plan.tokens)
        return at_tokens(run) or measure(run, plan.monitor_prompts, planned.seed)["kl"] >= plan.kl

    rules = {"tuning": after_looks, "tokens": at_tokens, "kl": at_kl, "defaults": lambda run: False}
    return rules[planned.view]


def measure_untrained(
    plan: TunedPlan, seed: int, device: str, prompts: tuple[int, int], samples: int
) -> dict[str, Any]:
    """Measure the base with the noise of a seed."""
    settings = {"seed": seed, "device": device, "eval_every": 0, "eval_prompts": 2}
    config = make_config("grpo", plan.common | settings)
    return measure(prepare(config), prompts, seed, samples)


def accuracy_at_kl(looks: Sequence[dict[str, Any]], base: float, kl: float) -> float:
    """Return the accuracy where the line through the base and the looks first reaches `kl`; the last
    accuracy if it never does.

    Anchor: base 0.4 at KL 0 and a look of accuracy 0.8 at KL 2 give 0.6 at KL 1.
    """
    before, accuracy = 0.0, base
    for look in looks:
        if look["kl"] >= kl:
            share = (kl - before) / (look["kl"] - before)
            return accuracy + share * (look["gold/accuracy"] - accuracy)
        before, accuracy = look["kl"], look["gold/accuracy"]
    return accuracy


def require_valid_trials(plan: TunedPlan, arm: TunedArm) -> None:
    """Raise `LabError` for a trial that the method does not accept, before anything is trained."""
    for trial in range(plan.trials):
        settings = plan.common | plan.batch(arm.method) | plan.trial_settings(arm, trial)
        make_config(arm.method, settings)
