"""What a figure of training curves needs of each run, and which panels show it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.analysis.diagnose import MetricColumn
from lab.figures.labels import short_number
from lab.figures.palette import DASHES, METHOD_COLOURS, SYMBOLS

METRIC_PANELS: tuple[str, ...] = (
    "gold/accuracy",
    "gold/reward",
    "gold/reward_accuracy",
    "gold/reward_margin",
    "eval/rewards/accuracies",
    "eval/rewards/margins",
    "eval/loss",
    "eval/perplexity",
    "reward",
    "rewards/margins",
    "gold/scratchpad_share",
    "gold/kl",
    "gold/repetition",
    "gold/mean_length",
    "grad_norm",
    "value/explained_variance",
    "loss",
    "rewards/accuracies",
    "frac_reward_zero_std",
    "logps/chosen",
    "logps/rejected",
    "rewards/chosen",
    "rewards/rejected",
    "kto/z",
    "entropy",
    "reward_std",
    "completions/clipped_ratio",
    "clip_ratio/region_mean",
    "ratio",
    "gold/format",
    "gold/distinct_2",
    "gold/empty",
    "reward/missing",
    "kl_coefficient",
    "eval/logps/chosen",
    "eval/logps/rejected",
    "eval/rewards/chosen",
    "eval/rewards/rejected",
    "loss/policy",
    "loss/value",
    "grad_norm/critic",
    "learning_rate",
)
"""Every panel there is, the most telling first."""


TRAINING_METRIC: dict[str, str] = {
    "gold/accuracy": "gold/rollout_accuracy",
    "gold/kl": "kl",
    "gold/mean_length": "completions/mean_length",
    "eval/loss": "loss",
    "eval/rewards/accuracies": "rewards/accuracies",
    "eval/rewards/margins": "rewards/margins",
}
"""The same quantity on the training batch of every step, drawn as a thin line under the held-out
points.
"""


@dataclass(frozen=True)
class RunCurves:
    """What the figure needs of one run.

    `columns` maps a metric's name to its steps and values, both in order; `events` are rows of
    metrics.jsonl with type "event"; `order` is the run's place among the shown runs of its method
    and picks dash and symbol. `clock` maps a step to where it stands on the x axis when that is not
    the step itself.
    """

    name: str
    method: str
    label: str
    columns: Mapping[str, MetricColumn]
    events: Sequence[Mapping[str, Any]] = ()
    order: int = 0
    steps: int = 0
    clock: Mapping[int, float] | None = None
    style: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        at = self.order % len(DASHES)
        object.__setattr__(
            self,
            "style",
            {"colour": METHOD_COLOURS[self.method], "dash": DASHES[at], "symbol": SYMBOLS[at]},
        )

    def x(self, step: int) -> float:
        """Where a step stands on the x axis."""
        return step if self.clock is None else self.clock.get(step, 0)


def panels_with_data(runs: Iterable[RunCurves]) -> list[str]:
    """The panels for which at least one run has a number, the most telling first."""
    there = set().union(*(run.columns for run in runs), set())
    return [name for name in METRIC_PANELS if name in there]


def default_panels(runs: Iterable[RunCurves]) -> list[str]:
    """The nine panels to show first: what the task says, what the method raises, how far the policy
    moved, gradient, loss.
    """
    return panels_with_data(runs)[:9]


def run_labels(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """A short label for each run: its name, and the knobs in which the runs of its method differ.

    `configs` maps run names to `lab.config.methods.to_dict` dicts. With two GRPO runs that differ
    in β: "grpo-1, β 0", "grpo-2, β 0.1".
    """
    words = {"beta": "β", "group_size": "G", "learning_rate": "lr", "seed": "seed"}
    labels = {}
    for name, config in configs.items():
        same_method = [c for c in configs.values() if c["method"] == config["method"]]
        differ = [
            k
            for k in config
            if k not in ("method", "device") and any(c.get(k) != config[k] for c in same_method)
        ]
        parts = [
            f"{words.get(k, k.replace('_', ' '))} {short_number(config[k])}"
            for k in sorted(differ, key=lambda k: k not in words)[:3]
        ]
        labels[name] = ", ".join([name, *parts])
    return labels


def x_axis_end(runs: Sequence[RunCurves]) -> int:
    """Where the x axis ends: the smallest 1-2-5 number that holds every run so far, and never
    beyond the steps that are planned.
    """
    reached = max(
        (run.x(steps[-1]) for run in runs for steps, _ in run.columns.values() if len(steps)),
        default=0,
    )
    planned = max((run.steps for run in runs if run.clock is None), default=0)
    end = next(m * 10**e for e in range(1, 12) for m in (1, 2, 5) if m * 10**e >= reached)
    return max(reached, min(end, planned or end))
