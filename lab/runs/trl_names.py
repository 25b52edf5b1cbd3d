"""The names and units in which TRL 1.16 logs what the lab measures, as its trackers show them: train/…
for a batch, eval/… for an evaluation.
"""

from collections.abc import Mapping

RENAMED: Mapping[str, Mapping[str, str]] = {
    "kto": {"kto/z": "kl"},
    "online_dpo": {"kl": "objective/kl", "reward": "objective/scores"},
    "reward_model": {"rewards/accuracies": "accuracy", "rewards/margins": "margin"},
}
"""For each method, the metrics that its trainer in TRL calls otherwise than the lab."""
HELD_OUT = ("gold/", "agreement/")
"""The beginnings of the lab's own names for metrics of an evaluation; TRL has none like them."""
TRAINING_GOLD = "gold/rollout_accuracy"  # Measured on the training batch.
HELD_OUT_KL, KL_PER_COMPLETION = "eval/kl", "kl_per_completion"
LENGTH = "completions/mean_length"


def trl_name(method: str, metric: str) -> str:
    """Return the name of a metric in a tracker.

    Anchors: loss is train/loss; KTO's eval/kto/z is eval/kl; gold/accuracy is eval/gold/accuracy.
    """
    if metric == HELD_OUT_KL:
        return f"eval/{KL_PER_COMPLETION}"
    is_held_out = metric.startswith(("eval/", *HELD_OUT)) and metric != TRAINING_GOLD
    name = metric.removeprefix("eval/")
    name = RENAMED.get(method, {}).get(name, name)
    return f"{'eval' if is_held_out else 'train'}/{name}"


def trl_metrics(method: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Return metrics of a record under TRL's names.

    TRL's kl of GRPO is nats per token, the lab's nats per completion: kl is divided by the mean
    length, and the lab's value is added as kl_per_completion.
    """
    named = {trl_name(method, name): value for name, value in metrics.items()}
    if method == "grpo" and "kl" in metrics:
        named[f"train/{KL_PER_COMPLETION}"] = named.pop("train/kl")
        if metrics.get(LENGTH):
            named["train/kl"] = metrics["kl"] / metrics[LENGTH]
    return named


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
    if prefix + name == f"eval/{KL_PER_COMPLETION}":
        return HELD_OUT_KL
    names = {theirs: own for own, theirs in RENAMED.get(method, {}).items()}
    return prefix + names.get(name, name)


def lab_metrics(method: str, logged: Mapping[str, float]) -> dict[str, float]:
    """Return metrics that TRL logged at one step under the lab's names and in its units.

    GRPO's kl without a mean length in the same row stays nats per token, as kl_per_token.
    """
    named = {lab_name(method, name): value for name, value in logged.items()}
    if method == "grpo" and "kl" in named:
        per_token = named.pop("kl")
        if KL_PER_COMPLETION in named:
            named["kl"] = named.pop(KL_PER_COMPLETION)
        elif named.get(LENGTH):
            named["kl"] = per_token * named[LENGTH]
        else:
            named["kl_per_token"] = per_token
    return named
