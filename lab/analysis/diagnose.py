"""Diagnosis of a run from its metrics: the patterns that the article and its papers warn of."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lab.config.methods import METHODS
from lab.runs.records import is_change

MetricColumn = tuple[Sequence[int], Sequence[float]]

_ACCURACY_DROP = 0.05
"""A change of the gold accuracy by less than this is not mentioned."""
_ERROR_RATE = 0.05
"""A fall from the best of several evaluations is mentioned if chance alone shows one as large less
often than this.
"""
_REWARD_RISE = 0.1
_ROOM_FOR_ACCURACY = 0.9
"""Below this gold accuracy, a reward that pays for right answers and rises must raise it."""
_ENTROPY_LEFT, _VALUES_OF_ENTROPY = 0.1, 5
"""Entropy has collapsed if its last values are all below this share of the highest of the first."""
_WINDOW_UPDATES = 10
"""Updates over which a noisy metric is averaged."""
_FALL_NATS = 2.0
"""A fall of the chosen log-probability by more than this is mentioned."""
_SPIKE_NATS, _VALUES_BEFORE_SPIKE = 2.0, 5
"""A KL has jumped if it exceeds the highest of the values before it by so much, and is twice as
high.
"""
_LENGTH_FACTOR = 2.0
"""Completions this many times as long as at first, without a higher accuracy, have blown up."""
_TRUNCATED_SHARE = 0.2
"""Share of completions that reach the token limit."""


def diagnose(
    config: Mapping[str, Any],
    columns: Mapping[str, MetricColumn],
    events: Sequence[Mapping[str, Any]] = (),
) -> list[str]:
    """Return sentences about a run, the most important first; none if no pattern matches.

    `config` is a `lab.config.methods.to_dict` dict with the live changes, `columns` maps a metric
    to its steps and values, `events` are the run's event rows. Every sentence quotes the numbers
    behind it.
    """
    changed = max(
        (row["step"] for row in events if is_change(row) and row["detail"]["knob"] == "beta"),
        default=-1,
    )
    if (
        changed >= 0
    ):  # Implicit rewards are in units of β: those before its last change are dropped.
        columns = {
            name: _after(changed, column) if name.startswith("rewards/") else column
            for name, column in columns.items()
        }
    patterns = (
        _dead,
        _turned_down,
        _hacked,
        _kl_spike,
        _entropy_collapsed,
        _blown_up,
        _out_of_reach,
        _displaced,
        _learned_to_think,
        _loss_by_construction,
    )
    return [text for text in (pattern(config, columns) for pattern in patterns) if text]


def _after(step: int, column: MetricColumn) -> MetricColumn:
    rows = [(s, v) for s, v in zip(*column) if s > step]
    return [s for s, _ in rows], [v for _, v in rows]


def _values(columns: Mapping[str, MetricColumn], name: str) -> list[float]:
    return [v for v in columns.get(name, ((), ()))[1] if math.isfinite(v)]


def _last_step(columns: Mapping[str, MetricColumn], name: str) -> int:
    steps = columns.get(name, ((), ()))[0]
    return steps[-1] if len(steps) else 0


def _dead(config: Mapping[str, Any], columns: Mapping[str, MetricColumn]) -> str:
    dead = _values(columns, "frac_reward_zero_std")
    step = _last_step(columns, "frac_reward_zero_std")
    if dead and min(dead) == 1:
        return (
            f"Every group of all {len(dead)} rollouts up to step {step} is dead: its"
            f" {config['group_size']} rewards are equal. So the gradient is 0, and the policy learns"
            " nothing."
        )
    recent = dead[-5:]
    if recent and sum(recent) / len(recent) > 0.75:
        return (
            f"{sum(recent) / len(recent):.0%} of the groups in the {len(recent)} rollouts up to"
            f" step {step} are dead: all {config['group_size']} rewards of a group are equal."
            f" {_reason_of_death(config, columns)}"
        ).replace("%", " %", 1)
    return ""


def _reason_of_death(config: Mapping[str, Any], columns: Mapping[str, MetricColumn]) -> str:
    rewards = _values(columns, "reward")[-5:]
    mean = sum(rewards) / len(rewards) if rewards else 0.5
    if not _pays_right_answers(config) or 0.1 < mean < 0.9:
        return "A dead group teaches nothing."
    why = "their prompts are solved" if mean >= 0.9 else "their prompts are too hard"
    return f"The mean reward is {mean:.2f}, so most of these groups teach nothing because {why}."


def _pays_right_answers(config: Mapping[str, Any]) -> bool:
    return config.get("reward") == "answer" and config.get("reward_from", "gold") in ("gold", "")


def _turned_down(config: Mapping[str, Any], columns: Mapping[str, MetricColumn]) -> str:
    steps, gold = columns.get("gold/accuracy", ((), ()))
    if len(gold) < 3 or max(gold) - gold[-1] <= _ACCURACY_DROP:
        return ""
    best = max(range(len(gold)), key=lambda i: gold[i])
    p_value = fall_p_value(gold[best], gold[-1], config["eval_prompts"])
    if p_value * (len(gold) - 1) > _ERROR_RATE:  # The best is picked among all before the last.
        return ""
    text = (
        f"Gold accuracy has fallen from {gold[best]:.2f} at step {steps[best]} to {gold[-1]:.2f} at"
        f" step {steps[-1]}."
    )
    if METHODS[config["method"]].offline:
        loss_steps, losses = columns["loss"]
        then = [
            v
            for step, v in zip(loss_steps, losses)
            if steps[best] - _WINDOW_UPDATES < step <= steps[best]
        ]
        now = losses[-_WINDOW_UPDATES:]
        if then and sum(now) / len(now) < 1.05 * sum(then) / len(then):
            text += (
                f" The loss on the fixed data went from {sum(then) / len(then):.3g} to"
                f" {sum(now) / len(now):.3g}. This loss does not see the completions that the"
                " policy writes now."
            )
    return text


def fall_p_value(before: float, after: float, prompts: int) -> float:
    """Return the probability that two shares, each of `prompts` completions with one true share, differ
    by at least as much: the two-sided test of two proportions, with the pooled standard error.

    Anchor: 0.6 and 0.4 of 100 have the standard error √(2·0.25/100), so z = 2.828 and p = 0.00468.
    """
    pooled = (before + after) / 2
    error = math.sqrt(2 * pooled * (1 - pooled) / prompts)
    return math.erfc(abs(before - after) / error / math.sqrt(2)) if error else 1.0


def _hacked(config: Mapping[str, Any], columns: Mapping[str, MetricColumn]) -> str:
    reward, gold = _values(columns, "reward"), _values(columns, "gold/accuracy")
    if _pays_right_answers(config) or len(reward) < 2 or len(gold) < 2:
        return ""
    size = min(_WINDOW_UPDATES, len(reward) // 2)
    first, last = (sum(part) / size for part in (reward[:size], reward[-size:]))
    change = gold[-1] - gold[0]
    fell = change <= -_ACCURACY_DROP
    stayed = change < _ACCURACY_DROP and gold[-1] < _ROOM_FOR_ACCURACY
    if last - first < _REWARD_RISE or not (fell or stayed):
        return ""
    return (
        f"The reward has risen from {first:.2f} to {last:.2f} by step"
        f" {_last_step(columns, 'reward')}, but gold accuracy has"
        f" {'fallen' if fell else 'not risen'}: {gold[0]:.2f} → {gold[-1]:.2f}. This is the pattern of"
        " reward hacking: the policy gets paid for something else. Read its completions."
    )


def _entropy_collapsed(config: Mapping[str, Any], columns: Mapping[str, MetricColumn]) -> str:
    steps, entropy = columns.get("entropy", ((), ()))
    if len(entropy) < 2 * _VALUES_OF_ENTROPY:
        return ""
    first, last = (
        max(values) for values in (entropy[:_VALUES_OF_ENTROPY], entropy[-_VALUES_OF_ENTROPY:])
    )
    if last > _ENTROPY_LEFT * first:
        return ""
    return (
        f"Entropy has fallen from {first:.2f} to {entropy[-1]:.2g} nats per token by step"
        f" {steps[-1]}. The completions of one prompt are now much more alike, so sampling finds"
        " little that is new."
    )


def _kl_spike(config: Mapping[str, Any], columns: Mapping[str, MetricColumn]) -> str:
    steps, values = columns.get("kl") or columns.get("gold/kl", ((), ()))
    jumps = []
    for at in range(_VALUES_BEFORE_SPIKE, len(values)):
        highest = max(values[at - _VALUES_BEFORE_SPIKE : at])
        if values[at] > max(2 * highest, highest + _SPIKE_NATS):
            jumps.append((values[at] - highest, steps[at], highest, values[at]))
    if not jumps:
        return ""
    _, step, highest, value = max(jumps)
    return (
        f"The KL to the reference jumped to {value:.1f} nats at step {step}. The"
        f" {_VALUES_BEFORE_SPIKE} values before were at most {highest:.1f} nats. If the updates are too"
        " large, a smaller learning rate or a larger β helps."
    )


def _blown_up(config: Mapping[str, Any], columns: Mapping[str, MetricColumn]) -> str:
    steps, lengths = columns.get("gold/mean_length", ((), ()))
    gold, cut = (
        _values(columns, "gold/accuracy"),
        columns.get("completions/clipped_ratio", ((), ())),
    )
    if cut[1] and cut[1][-1] > _TRUNCATED_SHARE >= cut[1][0]:
        return (
            f"{cut[1][-1]:.0%} of the completions of step {cut[0][-1]} reached the limit of"
            f" {config['max_completion_tokens']} tokens and were cut. The policy no longer ends"
            " them."
        ).replace("%", " %", 1)
    if (
        len(lengths) < 2
        or len(gold) < 2
        or lengths[-1] < _LENGTH_FACTOR * lengths[0]
        or gold[-1] > gold[0] + _ACCURACY_DROP
    ):
        return ""
    return (
        f"Completions have grown from {lengths[0]:.0f} to {lengths[-1]:.0f} tokens by step"
        f" {steps[-1]}, but gold accuracy went from {gold[0]:.2f} to {gold[-1]:.2f}. The length"
        " brings no accuracy."
    )


def _loss_by_construction(config: Mapping[str, Any], columns: Mapping[str, MetricColumn]) -> str:
    steps, losses = columns.get("loss", ((), ()))
    gradients = _values(columns, "grad_norm")
    if config.get("updates_per_rollout") != 1 or not losses or not gradients or gradients[-1] == 0:
        return ""
    value = f"{losses[-1] + 0.0:.3f}".replace("-0.000", "0.000").replace("-", "−")
    return (
        f"The loss at step {steps[-1]} is {value}. It measures no progress: with one update per"
        " rollout, the ratio ρ is 1, so only rewards, lengths and the KL term decide the value. The"
        f" gradient is not 0 (its norm is {gradients[-1]:.2g}), so the policy still learns. Look at"
        " reward, gradient norm and KL instead."
    )


def _out_of_reach(config: Mapping[str, Any], columns: Mapping[str, MetricColumn]) -> str:
    margins = _values(columns, "rewards/margins")
    if "ipo_variant" not in config or len(margins) < 20:
        return ""
    target, reached = (
        1 / (2 * config["beta"]),
        sum(margins[-_WINDOW_UPDATES:]) / _WINDOW_UPDATES / config["beta"],
    )
    if reached > 0.6 * target:
        return ""
    step = _last_step(columns, "rewards/margins")
    unit = "nats per token" if config["ipo_variant"] == "token_mean" else "nats"
    return (
        f"At step {step} the margin is {reached:.2f} {unit}; its target 1/(2β) is {target:g}. IPO"
        " keeps pulling until the margin reaches the target."
    )


def _displaced(config: Mapping[str, Any], columns: Mapping[str, MetricColumn]) -> str:
    rewards, rejected = (_values(columns, f"rewards/{side}") for side in ("chosen", "rejected"))
    if "beta" not in config or not rewards or not rejected:
        return ""
    fell = -sum(rewards[-_WINDOW_UPDATES:]) / len(rewards[-_WINDOW_UPDATES:]) / config["beta"]
    other = -sum(rejected[-_WINDOW_UPDATES:]) / len(rejected[-_WINDOW_UPDATES:]) / config["beta"]
    if config.get("ipo_variant") == "token_mean" or fell < _FALL_NATS:
        return ""
    step = _last_step(columns, "rewards/chosen")
    return (
        f"At step {step} even the chosen completions are {fell:.1f} nats less likely than under the"
        f" reference; the rejected ones are {other:.1f} nats less likely. A preference loss only"
        " rewards the difference."
    )


def _learned_to_think(config: Mapping[str, Any], columns: Mapping[str, MetricColumn]) -> str:
    pads, gold = _values(columns, "gold/scratchpad_share"), _values(columns, "gold/accuracy")
    if len(pads) < 2 or pads[-1] - pads[0] < 0.3 or gold[-1] - gold[0] < _REWARD_RISE:
        return ""
    step = _last_step(columns, "gold/accuracy")
    return (
        f"By step {step}, the share of completions with a scratchpad went from {pads[0]:.0%} to"
        f" {pads[-1]:.0%}, and gold accuracy from {gold[0]:.2f} to {gold[-1]:.2f}. The base model"
        " already wrote some scratchpads; training made this habit more frequent."
    ).replace("%", " %", 2)
