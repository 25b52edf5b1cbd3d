"""The names under which TRL 1.16 logs what the lab measures, as its trackers show them: train/… for a
batch, eval/… for an evaluation.
"""

from collections.abc import Mapping

RENAMED: Mapping[str, Mapping[str, str]] = {
    "kto": {"kto/z": "kl"},
    "online_dpo": {
        "kl": "objective/kl",
        "entropy": "objective/entropy",
        "reward": "objective/scores",
    },
    "reward_model": {"rewards/accuracies": "accuracy", "rewards/margins": "margin"},
}
"""For each method, the metrics that its trainer in TRL calls otherwise than the lab."""
HELD_OUT = ("gold/", "agreement/")
"""The beginnings of the lab's own names for metrics of an evaluation; TRL has none like them."""
TRAINING_GOLD = "gold/rollout_accuracy"  # Measured on the training batch.


def trl_name(method: str, metric: str) -> str:
    """Return the name of a metric in a tracker.

    Anchors: loss is train/loss; KTO's eval/kto/z is eval/kl; gold/accuracy is eval/gold/accuracy.
    """
    is_held_out = metric.startswith(("eval/", *HELD_OUT)) and metric != TRAINING_GOLD
    name = metric.removeprefix("eval/")
    name = RENAMED.get(method, {}).get(name, name)
    return f"{'eval' if is_held_out else 'train'}/{name}"


def lab_name(method: str, logged: str) -> str:
    """Return the lab's name of a metric that a tracker or a trainer state of TRL holds.

    Anchors: train/loss and loss are loss; eval_loss and eval/loss are eval/loss.
    """
    prefix, name = "", logged
    for beginning in ("eval/", "eval_"):
        if logged.startswith(beginning):
            prefix, name = "eval/", logged.removeprefix(beginning)
    name = name.removeprefix("train/")
    if name.startswith(HELD_OUT):
        return name
    names = {theirs: own for own, theirs in RENAMED.get(method, {}).items()}
    return prefix + names.get(name, name)
