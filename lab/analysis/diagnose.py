"""Diagnosis of a run from its metrics: the patterns that the article and its papers warn of."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lab.config.methods import METHODS
from lab.runs.records import is_change

MetricColumn = tuple[Sequence[int], Sequence[float]]

_ACCURACY_DROP = 0.05
"""A gold accuracy further than this below its best has turned down. An evaluation on 256 prompts
has a standard error of 0.03.
"""
_REWARD_RISE = 0.1
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
            f" {config['group_size']} rewards are equal, so the gradient is zero and nothing is"
            " learnt."
        )
    recent = dead[-5:]
    if recent and sum(recent) / len(recent) > 0.75:
        return (
            f"{sum(recent) / len(recent):.0%} of the groups in the {len(recent)} rollouts up to"
            f" step {step} are dead, so most completions teach nothing; with G ="
            f" {config['group_size']} that is p^G + (1 − p)^G when nearly all or nearly no"
            " completions are right."
        ).replace("%", " %", 1)
    return ""


def _turned_down(config: Mapping[str, Any], columns: Mapping[str, MetricColumn]) -> str:
    steps, gold = columns.get("gold/accuracy", ((), ()))
    if len(gold) < 3 or max(gold) - gold[-1] <= _ACCURACY_DROP:
        return ""
    best = max(range(len(gold)), key=lambda i: gold[i])
    text = f"Gold accuracy was {gold[best]:.2f} at step {steps[best]} and is {gold[-1]:.2f} now"
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
                f", while the loss on the fixed data went from {sum(then) / len(then):.3g} to"
                f" {sum(now) / len(now):.3g}: it cannot see what the policy itself writes by now"
            )
    return text + "."


def _hacked(config: Mapping[str, Any], columns: Mapping[str, MetricColumn]) -> str:
    reward, gold = _values(columns, "reward"), _values(columns, "gold/accuracy")
    by_gold = config.get("reward") == "answer" and config.get("reward_from", "gold") in ("gold", "")
    if (
        by_gold
        or len(reward) < 2
        or len(gold) < 2
        or reward[-1] - reward[0] < _REWARD_RISE
        or gold[0] - gold[-1] < _ACCURACY_DROP
    ):
        return ""
    return (
        f"The reward rose from {reward[0]:.2f} to {reward[-1]:.2f} by step"
        f" {_last_step(columns, 'reward')} and gold accuracy fell from {gold[0]:.2f} to"
        f" {gold[-1]:.2f}: the reward is hacked."
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
        f"The KL to the reference jumped to {value:.1f} nats at step {step}, from at most"
        f" {highest:.1f} in the {_VALUES_BEFORE_SPIKE} values before: a step too large. A smaller"
        " learning rate or a larger β holds it."
    )


def _blown_up(config: Mapping[str, Any], columns: Mapping[str, MetricColumn]) -> str:
    steps, lengths = columns.get("gold/mean_length", ((), ()))
    gold, cut = (
        _values(columns, "gold/accuracy"),
        columns.get("completions/clipped_ratio", ((), ())),
    )
    if cut[1] and cut[1][-1] > _TRUNCATED_SHARE >= cut[1][0]:
        return (
            f"{cut[1][-1]:.0%} of the completions of step {cut[0][-1]} were cut at the limit of"
            f" {config['max_completion_tokens']} tokens: the policy no longer ends them itself."
        ).replace("%", " %", 1)
    if (
        len(lengths) < 2
        or len(gold) < 2
        or lengths[-1] < _LENGTH_FACTOR * lengths[0]
        or gold[-1] > gold[0] + _ACCURACY_DROP
    ):
        return ""
    return (
        f"Completions grew from {lengths[0]:.0f} to {lengths[-1]:.0f} tokens by step {steps[-1]}"
        f" while gold accuracy went from {gold[0]:.2f} to {gold[-1]:.2f}: length without accuracy."
    )


def _loss_by_construction(config: Mapping[str, Any], columns: Mapping[str, MetricColumn]) -> str:
    steps, losses = columns.get("loss", ((), ()))
    gradients = _values(columns, "grad_norm")
    if (
        config["method"] != "grpo"
        or config["updates_per_rollout"] > 1
        or not losses
        or not gradients
        or gradients[-1] == 0
    ):
        return ""
    fixed = (
        "is 0 by construction: the ratio ρ is 1 and the advantages of a group sum to zero"
        if abs(losses[-1]) < 1e-6
        else (
            "is fixed by construction: the ratio ρ is 1, so only rewards, lengths and the KL term"
            " decide it"
        )
    )
    return (
        f"The loss at step {steps[-1]}, {losses[-1]:.2g}, {fixed}. It measures no progress, while"
        f" its gradient, of norm {gradients[-1]:.2g}, does the learning. Look at reward, gradient"
        " norm and KL instead."
    )


def _out_of_reach(config: Mapping[str, Any], columns: Mapping[str, MetricColumn]) -> str:
    margins = _values(columns, "rewards/margins")
    if config["method"] != "ipo" or len(margins) < 20:
        return ""
    target, reached = (
        1 / (2 * config["beta"]),
        sum(margins[-_WINDOW_UPDATES:]) / _WINDOW_UPDATES / config["beta"],
    )
    if reached > 0.6 * target:
        return ""
    step = _last_step(columns, "rewards/margins")
    unit = "nats a token" if config["ipo_variant"] == "token_mean" else "nats"
    return (
        f"The margin is {reached:.2f} {unit} and its target 1/(2β) is {target:g} at step {step}:"
        " while it is that far away the pull does not end."
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
        f"Even the chosen completions are {fell:.1f} nats less likely at step {step} than under the"
        f" reference (the rejected ones {other:.1f}): a preference loss rewards the difference, not"
        " the level."
    )


def _learned_to_think(config: Mapping[str, Any], columns: Mapping[str, MetricColumn]) -> str:
    pads, gold = _values(columns, "gold/scratchpad_share"), _values(columns, "gold/accuracy")
    if len(pads) < 2 or pads[-1] - pads[0] < 0.3 or gold[-1] - gold[0] < _REWARD_RISE:
        return ""
    step = _last_step(columns, "gold/accuracy")
    return (
        f"Scratchpads went from {pads[0]:.0%} to {pads[-1]:.0%} and gold accuracy from"
        f" {gold[0]:.2f} to {gold[-1]:.2f} by step {step}. Nothing asked for thinking: the base"
        " wrote some scratchpads already, they are right more often, and that is what was learnt."
    ).replace("%", " %", 2)
