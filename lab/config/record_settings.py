"""The settings that say where a run's metrics go and which of its adapters stay."""

from dataclasses import dataclass

from lab.config.schema import setting

TRACKER_NAMES = ("tensorboard", "wandb", "trackio")
_TRACKER = "|".join(TRACKER_NAMES)


@dataclass(frozen=True)
class RecordSettings:
    """Trackers, the best adapter and early stopping."""

    report_to: str = setting(
        "",
        "Trackers that also get the metrics, under TRL's names: tensorboard, wandb, trackio, or"
        " several with commas. Install them with pip; empty sends nothing.",
        choices=("", *TRACKER_NAMES),
        extra_patterns={"NAME,NAME": rf"none|({_TRACKER})(,({_TRACKER}))*"},
    )
    keep: str = setting(
        "last",
        "Adapters that the run keeps. last: adapter/ is that of the last update. best: adapter/ is that"
        " of the best evaluation. all: adapters/step-N also holds that of every evaluation.",
        choices=("last", "best", "all"),
    )
    best_metric: str = setting(
        "",
        "Metric of an evaluation that says which is best, such as eval/rewards/accuracies. Empty takes"
        " gold/accuracy, or eval/loss on your own data. Losses, perplexity and KL are best when low.",
        choices=("",),
        extra_patterns={"gold/… or eval/…": r"(gold|eval|agreement)/[\w/]+"},
    )
    patience: int = setting(
        0,
        "Number of evaluations in a row without an improvement of best_metric after which the run"
        " stops. 0 never stops it.",
        low=0,
        high=1_000_000,
    )
