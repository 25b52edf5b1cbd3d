"""What the page Map says of each method: what it solved and introduced, and each claim of the
article with the number measured here.
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


@dataclass(frozen=True)
class Claim:
    """A sentence of the article and what was measured: `measure` returns the words and whether the
    claim holds (None: undecided).
    """

    article: str
    measure: Callable[["RecordedTables"], tuple[str, bool | None]]


@dataclass(frozen=True)
class RecordedTables:
    """The recorded results that the claims are held against: equal tokens, each method's defaults,
    the drift experiment by method, the peak of an update in bytes by arm (empty until it is
    recorded), and the experiments sensitivity and overoptimisation (None until then).
    """

    tokens: Comparison
    defaults: Comparison
    drift: Mapping[str, Mapping[str, Any]]
    memory: Mapping[str, int]
    knobs: Mapping[str, Any] | None = None
    reward_models: Mapping[str, Any] | None = None


CLAIM_VERDICTS = {True: "holds here", False: "not so here", None: "not decided here"}


def reward_model_is_exploited(t: RecordedTables) -> tuple[str, bool | None]:
    loss = t.tokens.difference("ppo@gold", "ppo")
    more = f" {reward_models_sentence(t.reward_models['rows'])}" if t.reward_models else ""
    return (
        (
            f"PPO reaches a gold accuracy of {t.tokens.text('ppo')} against a reward model and"
            f" {t.tokens.text('ppo@gold')} against the rule itself. GRPO without a KL term exploits"
            f" the same reward models: their score rises to {t.tokens.text('grpo@model', 'proxy')}"
            f" while gold accuracy ends at {t.tokens.text('grpo@model')}.{more}"
        ),
        loss.is_positive(),
    )


def four_models_take_part(t: RecordedTables) -> tuple[str, bool | None]:
    ratio = t.tokens.mean("ppo", "seconds") / t.tokens.mean("dpo", "seconds")
    return (
        (
            f"Four models take part. At equal tokens PPO takes {ratio:.1f} times the training time of DPO."
        ),
        True,
    )


def ppo_is_unstable(t: RecordedTables) -> tuple[str, bool | None]:
    ppo, dpo = (t.tokens.spread(name) for name in ("ppo", "dpo"))
    text = f"Over {t.tokens.seeds} seeds PPO's gold accuracy lies within {ppo:.2f} (highest minus lowest), DPO's within {dpo:.2f}."
    ours, theirs = (most_sensitive_knob(t.knobs, name) for name in ("ppo", "dpo"))
    if ours is None or theirs is None:
        return f"{text} Three seeds are few.", ppo > dpo
    moved = f"{text} Divided or multiplied by {t.knobs['factor']:g}, its most telling knob ({knob_word(ours)}) moves gold accuracy by {ours['spread']:.2f}, DPO's ({knob_word(theirs)}) by {theirs['spread']:.2f}."
    verdicts = {ppo > dpo, ours["spread"] > theirs["spread"]}
    return moved, verdicts.pop() if len(verdicts) == 1 else None


def dpo_is_as_simple_as_sft(t: RecordedTables) -> tuple[str, bool | None]:
    dpo, sft = (
        t.tokens.mean(name, "seconds") / t.tokens.mean(name, "updates") for name in ("dpo", "sft")
    )
    return (
        (
            f"An update of DPO takes {dpo / sft:.1f} times as long as one of SFT, since it also reads the rejected completion; nothing is sampled and nothing else is trained."
        ),
        True,
    )


def dpo_data_shifts(t: RecordedTables) -> tuple[str, bool | None]:
    known, chosen, steps = (
        t.drift["dpo"][name] for name in ("wrong_covered", "logps/chosen", "step")
    )
    return (
        (
            f"Of the wrong completions that the policy writes, {percent_text(known[0])} stand in its data at the start and {percent_text(known[-1])} after {steps[-1]} updates; even the chosen ones fall from {nats_text(chosen[0])} to {nats_text(chosen[-1])} nats."
        ),
        known[-1] < known[0],
    )


def dpo_overfits(t: RecordedTables) -> tuple[str, bool | None]:
    fell = t.defaults.mean("dpo") - t.tokens.mean("dpo")
    half = max(t.defaults.half("dpo"), t.tokens.half("dpo"))
    return (
        (
            f"Gold accuracy is {t.defaults.text('dpo')} after {t.defaults.mean('dpo', 'updates'):.0f} updates and {t.tokens.text('dpo')} after {t.tokens.mean('dpo', 'updates'):.0f}: training on mends nothing, and the seeds part."
        ),
        True if fell > half else None,
    )


def ipo_margin_is_bounded(t: RecordedTables) -> tuple[str, bool | None]:
    gain = t.tokens.difference("ipo", "dpo")
    return (
        (
            f"On the same pairs IPO moves {t.tokens.text('ipo', 'kl')} nats from the reference, DPO {t.tokens.text('dpo', 'kl')}. Its gold accuracy is {t.tokens.text('ipo')} to {t.tokens.text('dpo')}, a difference of {gain.signed()}."
        ),
        gain.is_positive(),
    )


def kto_needs_no_pairs(t: RecordedTables) -> tuple[str, bool | None]:
    gain = t.tokens.difference("kto", "dpo")
    return (
        (
            f"On the same completions without their pairing KTO reaches {t.tokens.text('kto')}, DPO with it {t.tokens.text('dpo')}: a difference of {gain.signed()}."
        ),
        None if gain.mean + gain.half < 0 else True,
    )


def online_dpo_avoids_shift(t: RecordedTables) -> tuple[str, bool | None]:
    gain = t.tokens.difference("online_dpo@gold", "dpo")
    return (
        (
            f"The same loss on pairs that the policy has just written, judged by the rule, reaches {t.tokens.text('online_dpo@gold')} instead of {t.tokens.text('dpo')}: a difference of {gain.signed()}."
        ),
        gain.is_positive(),
    )


def judge_is_a_bottleneck(t: RecordedTables) -> tuple[str, bool | None]:
    gain = t.tokens.difference("online_dpo@gold", "online_dpo")
    return (
        (
            f"Judged by a reward model instead of the rule, online DPO reaches {t.tokens.text('online_dpo')}: {gain.signed()} less."
        ),
        gain.is_positive(),
    )


def grpo_avoids_shift(t: RecordedTables) -> tuple[str, bool | None]:
    gain = t.tokens.difference("grpo", "dpo")
    return (
        (
            f"At equal tokens GRPO reaches {t.tokens.text('grpo')}, DPO {t.tokens.text('dpo')}: a difference of {gain.signed()}."
        ),
        gain.is_positive(),
    )


def grpo_saves_the_critic(t: RecordedTables) -> tuple[str, bool | None]:
    gain, ratio = (
        t.tokens.difference("grpo", "ppo@gold"),
        t.tokens.mean("grpo", "seconds") / t.tokens.mean("ppo@gold", "seconds"),
    )
    text = f"With the same rule as judge GRPO without a critic reaches {t.tokens.text('grpo')} and PPO with one {t.tokens.text('ppo@gold')} (difference {gain.signed()}), in {percent_text(ratio)} of its time."
    if not t.memory:
        return f"{text} Bytes have not been recorded yet.", None
    shared, separate = (t.memory["grpo"] / t.memory[arm] for arm in ("ppo.shared", "ppo.separate"))
    return (
        (
            f"At the same number of completions an update of GRPO peaks at {percent_text(separate)} of the bytes of RLHF with four sets of weights, and at {percent_text(shared)} with a shared base. {text}"
        ),
        shared < 1 and separate < 1,
    )


def thinking_emerges(t: RecordedTables) -> tuple[str, bool | None]:
    first, last = t.tokens.base["scratchpad_share"], t.tokens.mean("grpo", "scratchpad_share")
    return (
        (
            f"Completions that think before they answer go from {percent_text(first)} to {percent_text(last)}, though nothing rewards thinking. The base model already thinks now and then: GRPO amplifies the habit, it does not invent it."
        ),
        None,
    )


def percent_text(share: float | None) -> str:
    """A share in percent, or a dash where nothing was there to count."""
    return "–" if share is None else f"{share:.0%}".replace("%", " %")


def nats_text(value: float) -> str:
    """One digit, with a minus sign that is one."""
    return f"{value:.1f}".replace("-", "−")
