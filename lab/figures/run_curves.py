"""What a figure of training curves needs of each run, and which panels show it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.analysis.diagnose import MetricColumn
from lab.config.number_text import number_text
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
    "agreement/own",
    "agreement/rule",
    "agreement/pairs",
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
    "sampling/sampling_logp_difference/mean",
    "sampling/importance_sampling_ratio/mean",
    "gold/format",
    "gold/distinct_2",
    "gold/empty",
    "reward/missing",
    "kl_coefficient",
    "eval/kl",
    "eval/logps/chosen",
    "eval/logps/rejected",
    "eval/rewards/chosen",
    "eval/rewards/rejected",
    "loss/policy",
    "loss/value",
    "grad_norm/critic",
    "learning_rate",
)
"""All panels, the most informative first."""


TRAINING_METRIC: dict[str, str] = {
    "gold/accuracy": "gold/rollout_accuracy",
    "gold/kl": "kl",
    "gold/mean_length": "completions/mean_length",
    "eval/loss": "loss",
    "eval/rewards/accuracies": "rewards/accuracies",
    "eval/rewards/margins": "rewards/margins",
}
"""For a held-out metric the metric of the training batch of every step, a thin line below its points."""


SETTING_SYMBOLS = {"beta": "β", "group_size": "G", "learning_rate": "lr", "seed": "seed"}
"""Short names of settings in the labels of lines."""


@dataclass(frozen=True)
class RunCurves:
    """The data of one run that its curves need.

    `columns` maps a metric's name to its steps and values, both in order; `events` are rows of
    metrics.jsonl with type "event"; `order` is the index of the run among the shown runs of its method
    and selects dash and symbol. `clock` maps a step to its x value, if that is not the step itself.
    `colour` takes the place of the method's, and `end_label` stands at the end of the line; both are
    for the runs of a sweep.
    """

    name: str
    method: str
    label: str
    columns: Mapping[str, MetricColumn]
    events: Sequence[Mapping[str, Any]] = ()
    order: int = 0
    steps: int = 0
    clock: Mapping[int, float] | None = None
    colour: str = ""
    end_label: str = ""
    style: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        index = self.order % len(DASHES)
        object.__setattr__(
            self,
            "style",
            {
                "colour": self.colour or METHOD_COLOURS[self.method],
                "dash": DASHES[index],
                "symbol": SYMBOLS[index],
            },
        )

    def x(self, step: int) -> float:
        """Return the x value of a step."""
        return step if self.clock is None else self.clock.get(step, 0)


def panels_with_data(runs: Iterable[RunCurves]) -> list[str]:
    """Return the panels for which at least one run has values, the most informative first."""
    metrics: set[str] = set().union(*(run.columns for run in runs))
    return [name for name in METRIC_PANELS if name in metrics]


def default_panels(runs: Iterable[RunCurves]) -> list[str]:
    """Return the first nine panels with data: the gold measures, the reward, the distance from the
    reference, the gradient and the loss.
    """
    return panels_with_data(runs)[:9]


def run_labels(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return a short label for each run: its name, and the knobs in which the runs of its method differ.

    `configs` maps run names to `lab.config.methods.to_dict` dicts. With two GRPO runs that differ
    in β: "grpo-1, β 0", "grpo-2, β 0.1".
    """
    labels = {}
    for name, config in configs.items():
        same_method = [c for c in configs.values() if c["method"] == config["method"]]
        differ = [
            k
            for k in config
            if k not in ("method", "device") and any(c.get(k) != config[k] for c in same_method)
        ]
        parts = [
            f"{SETTING_SYMBOLS.get(k, k.replace('_', ' '))} {number_text(config[k])}"
            for k in sorted(differ, key=lambda k: k not in SETTING_SYMBOLS)[:3]
        ]
        labels[name] = ", ".join([name, *parts])
    return labels


def x_axis_end(runs: Sequence[RunCurves]) -> int:
    """Return the end of the x axis: the smallest number of the form 1, 2 or 5 times a power of ten
    that is not below any run so far, but at most the planned steps.
    """
    reached = max(
        (run.x(steps[-1]) for run in runs for steps, _ in run.columns.values() if len(steps)),
        default=0,
    )
    planned = max((run.steps for run in runs if run.clock is None), default=0)
    end = next(m * 10**e for e in range(1, 12) for m in (1, 2, 5) if m * 10**e >= reached)
    return max(reached, min(end, planned or end))
