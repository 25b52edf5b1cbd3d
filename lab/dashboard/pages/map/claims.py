"""The claims of the article on page Map, each with the function that measures it in recorded
results.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lab.analysis.recorded_results import Comparison
from lab.dashboard.pages.choose.reward_model_experiments import (
    most_sensitive_knob,
    reward_models_sentence,
)
from lab.figures.sensitivity import knob_word

Measurement = tuple[str, bool | None]
"""A measurement in words, and whether the claim holds (None: not decided)."""


@dataclass(frozen=True)
class Claim:
    """A claim of the article. `measure` returns the measurement in words, and whether the claim
    holds (None: not decided).
    """

    article: str
    measure: Callable[["RecordedTables"], Measurement]


@dataclass(frozen=True)
class RecordedTables:
    """The recorded results that measure the claims.

    tokens: the comparison at equal tokens
    defaults: the comparison at each method's defaults
    drift: by method, its row of the drift experiment
    memory: by arm, the peak bytes of an update; empty if not recorded
    knobs: the experiment "sensitivity"; None if not recorded
    reward_models: the experiment "overoptimisation"; None if not recorded
    """

    tokens: Comparison
    defaults: Comparison
    drift: Mapping[str, Mapping[str, Any]]
    memory: Mapping[str, int]
    knobs: Mapping[str, Any] | None = None
    reward_models: Mapping[str, Any] | None = None


CLAIM_VERDICTS = {True: "holds here", False: "not so here", None: "not decided here"}


def reward_model_is_exploited(tables: RecordedTables) -> Measurement:
    """PPO against a reward model and against the rule: gold accuracy of both."""
    loss = tables.tokens.difference("ppo@gold", "ppo")
    experiment = (
        f" {reward_models_sentence(tables.reward_models['rows'])}" if tables.reward_models else ""
    )
    return (
        (
            f"PPO reaches a gold accuracy of {tables.tokens.text('ppo')} against a reward model and"
            f" {tables.tokens.text('ppo@gold')} against the rule itself. GRPO without a KL term"
            " exploits the same reward models: their score rises to"
            f" {tables.tokens.text('grpo@model', 'proxy')} while gold accuracy ends at"
            f" {tables.tokens.text('grpo@model')}.{experiment}"
        ),
        loss.is_positive(),
    )


def four_models_take_part(tables: RecordedTables) -> Measurement:
    """The training time of PPO relative to DPO at equal tokens."""
    ratio = tables.tokens.mean("ppo", "seconds") / tables.tokens.mean("dpo", "seconds")
    return (
        (
            f"Four models take part. At equal tokens PPO takes {ratio:.1f} times the training time"
            " of DPO."
        ),
        True,
    )


def ppo_is_unstable(tables: RecordedTables) -> Measurement:
    """The spread over seeds and the most sensitive knob, of PPO and of DPO."""
    ppo, dpo = (tables.tokens.spread(name) for name in ("ppo", "dpo"))
    text = (
        f"Over {tables.tokens.seeds} seeds PPO's gold accuracy lies within {ppo:.2f} (highest minus"
        f" lowest), DPO's within {dpo:.2f}."
    )
    ppo_knob, dpo_knob = (most_sensitive_knob(tables.knobs, name) for name in ("ppo", "dpo"))
    if tables.knobs is None or ppo_knob is None or dpo_knob is None:
        return f"{text} Three seeds are few.", ppo > dpo
    text = (
        f"{text} Divided or multiplied by {tables.knobs['factor']:g}, its most telling knob"
        f" ({knob_word(ppo_knob)}) moves gold accuracy by {ppo_knob['spread']:.2f}, DPO's"
        f" ({knob_word(dpo_knob)}) by {dpo_knob['spread']:.2f}."
    )
    verdicts = {ppo > dpo, ppo_knob["spread"] > dpo_knob["spread"]}
    return text, verdicts.pop() if len(verdicts) == 1 else None


def dpo_is_as_simple_as_sft(tables: RecordedTables) -> Measurement:
    """The time of a DPO update relative to an SFT update."""
    dpo, sft = (
        tables.tokens.mean(name, "seconds") / tables.tokens.mean(name, "updates")
        for name in ("dpo", "sft")
    )
    return (
        (
            f"An update of DPO takes {dpo / sft:.1f} times as long as one of SFT, since it also"
            " reads the rejected completion; nothing is sampled and nothing else is trained."
        ),
        True,
    )


def dpo_data_shifts(tables: RecordedTables) -> Measurement:
    """The share of DPO's wrong completions that its data contains, at the start and at the end."""
    covered, chosen, steps = (
        tables.drift["dpo"][name] for name in ("wrong_covered", "logps/chosen", "step")
    )
    return (
        (
            f"Of the wrong completions that the policy writes, {percent_text(covered[0])} stand in"
            f" its data at the start and {percent_text(covered[-1])} after {steps[-1]} updates;"
            f" even the chosen ones fall from {nats_text(chosen[0])} to {nats_text(chosen[-1])}"
            " nats."
        ),
        covered[-1] < covered[0],
    )


def dpo_overfits(tables: RecordedTables) -> Measurement:
    """DPO's gold accuracy with its defaults and after more updates."""
    fell = tables.defaults.mean("dpo") - tables.tokens.mean("dpo")
    half = max(tables.defaults.half("dpo"), tables.tokens.half("dpo"))
    return (
        (
            f"Gold accuracy is {tables.defaults.text('dpo')} after"
            f" {tables.defaults.mean('dpo', 'updates'):.0f} updates and {tables.tokens.text('dpo')}"
            f" after {tables.tokens.mean('dpo', 'updates'):.0f}: training on mends nothing, and the"
            " seeds part."
        ),
        True if fell > half else None,
    )


def ipo_margin_is_bounded(tables: RecordedTables) -> Measurement:
    """KL and gold accuracy of IPO and of DPO."""
    gain = tables.tokens.difference("ipo", "dpo")
    return (
        (
            f"On the same pairs IPO moves {tables.tokens.text('ipo', 'kl')} nats from the"
            f" reference, DPO {tables.tokens.text('dpo', 'kl')}. Its gold accuracy is"
            f" {tables.tokens.text('ipo')} to {tables.tokens.text('dpo')}, a difference of"
            f" {gain.signed()}."
        ),
        gain.is_positive(),
    )


def kto_needs_no_pairs(tables: RecordedTables) -> Measurement:
    """Gold accuracy of KTO and of DPO on the same completions."""
    gain = tables.tokens.difference("kto", "dpo")
    return (
        (
            "On the same completions without their pairing KTO reaches"
            f" {tables.tokens.text('kto')}, DPO with it {tables.tokens.text('dpo')}: a difference"
            f" of {gain.signed()}."
        ),
        None if gain.mean + gain.half < 0 else True,
    )


def online_dpo_avoids_shift(tables: RecordedTables) -> Measurement:
    """Gold accuracy of online DPO with the rule as judge, and of DPO."""
    gain = tables.tokens.difference("online_dpo@gold", "dpo")
    return (
        (
            "The same loss on pairs that the policy has just written, judged by the rule, reaches"
            f" {tables.tokens.text('online_dpo@gold')} instead of {tables.tokens.text('dpo')}: a"
            f" difference of {gain.signed()}."
        ),
        gain.is_positive(),
    )


def judge_is_a_bottleneck(tables: RecordedTables) -> Measurement:
    """Gold accuracy of online DPO with the rule and with a reward model as judge."""
    gain = tables.tokens.difference("online_dpo@gold", "online_dpo")
    return (
        (
            "Judged by a reward model instead of the rule, online DPO reaches"
            f" {tables.tokens.text('online_dpo')}: {gain.signed()} less."
        ),
        gain.is_positive(),
    )


def grpo_avoids_shift(tables: RecordedTables) -> Measurement:
    """Gold accuracy of GRPO and of DPO at equal tokens."""
    gain = tables.tokens.difference("grpo", "dpo")
    return (
        (
            f"At equal tokens GRPO reaches {tables.tokens.text('grpo')}, DPO"
            f" {tables.tokens.text('dpo')}: a difference of {gain.signed()}."
        ),
        gain.is_positive(),
    )


def grpo_saves_the_critic(tables: RecordedTables) -> Measurement:
    """Gold accuracy, time and peak memory of GRPO relative to PPO with the same rule."""
    gain, ratio = (
        tables.tokens.difference("grpo", "ppo@gold"),
        tables.tokens.mean("grpo", "seconds") / tables.tokens.mean("ppo@gold", "seconds"),
    )
    text = (
        f"With the same rule as judge GRPO without a critic reaches {tables.tokens.text('grpo')}"
        f" and PPO with one {tables.tokens.text('ppo@gold')} (difference {gain.signed()}), in"
        f" {percent_text(ratio)} of its time."
    )
    if not tables.memory:
        return f"{text} Bytes have not been recorded yet.", None
    shared, separate = (
        tables.memory["grpo"] / tables.memory[arm] for arm in ("ppo.shared", "ppo.separate")
    )
    return (
        (
            f"At the same number of completions an update of GRPO peaks at {percent_text(separate)}"
            f" of the bytes of RLHF with four sets of weights, and at {percent_text(shared)} with a"
            f" shared base. {text}"
        ),
        shared < 1 and separate < 1,
    )


def thinking_emerges(tables: RecordedTables) -> Measurement:
    """The share of completions with a scratchpad before and after GRPO."""
    first, last = (
        tables.tokens.base["scratchpad_share"],
        tables.tokens.mean("grpo", "scratchpad_share"),
    )
    return (
        (
            f"Completions that think before they answer go from {percent_text(first)} to"
            f" {percent_text(last)}, though nothing rewards thinking. The base model already thinks"
            " now and then: GRPO amplifies the habit, it does not invent it."
        ),
        None,
    )


def percent_text(share: float | None) -> str:
    """A share in percent; a dash for None, where nothing could be counted."""
    return "–" if share is None else f"{share:.0%}".replace("%", " %")


def nats_text(value: float) -> str:
    """A number with one decimal and a typographic minus."""
    return f"{value:.1f}".replace("-", "−")
