"""The claims of the article on page Map, each with the function that measures it in recorded
results.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lab.analysis.comparison_words import Judgement, judge, recorded_difference
from lab.analysis.recorded_results import Comparison
from lab.analysis.statistics import SHARE
from lab.dashboard.pages.choose.reward_model_experiments import (
    best_setting,
    most_sensitive_knob,
    reward_models_sentence,
)
from lab.figures.palette import METHOD_NAMES
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


CLAIM_VERDICTS = {True: "holds here", False: "does not hold here", None: "not decided here"}


def reward_model_is_exploited(tables: RecordedTables) -> Measurement:
    """PPO against a reward model and against the rule: gold accuracy of both."""
    judgement = tables.tokens.judge_article("ppo@gold", "ppo")
    experiment = (
        f" {reward_models_sentence(tables.reward_models['rows'])}" if tables.reward_models else ""
    )
    return (
        (
            f"PPO reaches a gold accuracy of {tables.tokens.text('ppo')} when a reward model scores"
            f" it, and {tables.tokens.text('ppo@gold')} when the rule scores it. The rule minus the"
            f" reward model is {judgement.text()}. GRPO without a KL term exploits"
            " the same reward models: the score of the reward model ends at"
            f" {tables.tokens.text('grpo@model', 'proxy')}, but gold accuracy ends at"
            f" {tables.tokens.text('grpo@model')}.{experiment}"
        ),
        _is_above(judgement),
    )


def four_models_take_part(tables: RecordedTables) -> Measurement:
    """The training time of PPO relative to DPO at equal tokens."""
    ratio = tables.tokens.mean("ppo", "seconds") / tables.tokens.mean("dpo", "seconds")
    return (
        (
            "Four models take part: policy, reference, reward model and critic. PPO takes"
            f" {ratio:.1f} times the training time of DPO for equally many tokens."
        ),
        True,
    )


def ppo_is_unstable(tables: RecordedTables) -> Measurement:
    """The spread over seeds and the most sensitive knob, of PPO and of DPO."""
    ppo, dpo = (tables.tokens.spread(name) for name in ("ppo", "dpo"))
    text = (
        f"Over {tables.tokens.seeds} seeds, the highest minus the lowest gold accuracy is"
        f" {ppo:.2f} for PPO and {dpo:.2f} for DPO; so few seeds do not decide which spread is larger."
    )
    ppo_knob, dpo_knob = (most_sensitive_knob(tables.knobs, name) for name in ("ppo", "dpo"))
    if tables.knobs is None or ppo_knob is None or dpo_knob is None:
        return text, None
    top = max(tables.knobs["rows"], key=lambda row: row["spread"])
    text = (
        f"{text} One setting at a time was divided and multiplied by {tables.knobs['factor']:g}."
        f" PPO reacts most to its {knob_word(ppo_knob)}: gold accuracy changes by"
        f" {ppo_knob['spread']:.2f}. DPO reacts most to its {knob_word(dpo_knob)}:"
        f" {dpo_knob['spread']:.2f}."
    )
    if top["method"] not in ("ppo", "dpo"):
        text += (
            f" Of all recorded methods, {METHOD_NAMES[top['method']]} reacts most:"
            f" {top['spread']:.2f} for its {knob_word(top)}."
        )
    return text, None


def dpo_is_as_simple_as_sft(tables: RecordedTables) -> Measurement:
    """The time of a DPO update relative to an SFT update."""
    dpo, sft = (
        tables.tokens.mean(name, "seconds") / tables.tokens.mean(name, "updates")
        for name in ("dpo", "sft")
    )
    return (
        (
            f"An update of DPO takes {dpo / sft:.1f} times as long as an update of SFT. DPO also"
            " reads the rejected completion. Neither method samples or trains a second model."
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
            f"The training data contains {percent_text(covered[0])} of the wrong completions that"
            f" the policy writes at the start, and {percent_text(covered[-1])} after {steps[-1]}"
            " updates. The mean log-probability of the chosen completions goes from"
            f" {nats_text(chosen[0])} to {nats_text(chosen[-1])} nats."
        ),
        covered[-1] < covered[0],
    )


def dpo_overfits(tables: RecordedTables) -> Measurement:
    """DPO's gold accuracy with its defaults and after more updates."""
    change = recorded_difference(
        tables.tokens.interval("dpo"), tables.defaults.interval("dpo"), tables.tokens.seeds
    )
    (judgement,) = judge([change], words=("higher", "lower"))
    return (
        (
            f"Gold accuracy is {tables.defaults.text('dpo')} after"
            f" {tables.defaults.mean('dpo', 'updates'):.0f} updates and {tables.tokens.text('dpo')}"
            f" after {tables.tokens.mean('dpo', 'updates'):.0f} updates. The difference, longer minus"
            f" shorter training, is {judgement.text()}."
        ),
        True if judgement.word == "lower" else None,
    )


def ipo_margin_is_bounded(tables: RecordedTables) -> Measurement:
    """KL and gold accuracy of IPO and of DPO."""
    gain = tables.tokens.judge_article("ipo", "dpo")
    text = (
        f"On the same pairs IPO ends at a KL of {tables.tokens.text('ipo', 'kl')} nats and DPO at"
        f" {tables.tokens.text('dpo', 'kl')} nats. Gold accuracy is {tables.tokens.text('ipo')} for"
        f" IPO and {tables.tokens.text('dpo')} for DPO, a difference of {gain.text()}."
    )
    return _with_tuned_dpo(tables, "ipo", text, _is_above(gain))


def kto_needs_no_pairs(tables: RecordedTables) -> Measurement:
    """Gold accuracy of KTO and of DPO on the same completions."""
    gain = tables.tokens.judge_article("kto", "dpo")
    return (
        (
            f"KTO reaches {tables.tokens.text('kto')} on single completions. DPO reaches"
            f" {tables.tokens.text('dpo')} on the same completions as pairs. The difference is"
            f" {gain.text()}."
        ),
        None if gain.word == "worse" else True,
    )


def online_dpo_avoids_shift(tables: RecordedTables) -> Measurement:
    """Gold accuracy of online DPO with the rule as judge, and of DPO."""
    gain = tables.tokens.judge_article("online_dpo@gold", "dpo")
    text = (
        "The same loss reaches a gold accuracy of"
        f" {tables.tokens.text('online_dpo@gold')} on fresh pairs that the rule scores, and"
        f" {tables.tokens.text('dpo')} on fixed pairs. The difference is {gain.text()}."
    )
    return _with_tuned_dpo(tables, "online_dpo@gold", text, _is_above(gain))


def judge_is_a_bottleneck(tables: RecordedTables) -> Measurement:
    """Gold accuracy of online DPO with the rule and with a reward model as judge."""
    gain = tables.tokens.judge_article("online_dpo@gold", "online_dpo")
    return (
        (
            "Online DPO reaches a gold accuracy of"
            f" {tables.tokens.text('online_dpo@gold')} when the rule scores the pairs, and"
            f" {tables.tokens.text('online_dpo')} when a reward model does. The difference is"
            f" {gain.text()}."
        ),
        _is_above(gain),
    )


def grpo_avoids_shift(tables: RecordedTables) -> Measurement:
    """Gold accuracy of GRPO and of DPO at equal tokens."""
    gain = tables.tokens.judge_article("grpo", "dpo")
    text = (
        f"GRPO reaches a gold accuracy of {tables.tokens.text('grpo')} and DPO"
        f" {tables.tokens.text('dpo')} with equally many tokens. The difference is {gain.text()}."
    )
    return _with_tuned_dpo(tables, "grpo", text, _is_above(gain))


def _is_above(judgement: Judgement) -> bool | None:
    """Whether the first arm is better than the second; None where they are not told apart."""
    return {"better": True, "worse": False}.get(judgement.word)


def _with_tuned_dpo(
    tables: RecordedTables, arm: str, text: str, is_above: bool | None
) -> Measurement:
    """The measurement of an arm above DPO, with DPO's best recorded setting. The claim is not
    decided if the arm is not better than DPO with that setting.
    """
    best = best_setting(tables.knobs, "dpo")
    if tables.knobs is None or best is None or best.accuracy.mean <= tables.tokens.mean("dpo"):
        return text, is_above
    (tuned,) = judge(
        [recorded_difference(tables.tokens.interval(arm), best.accuracy, tables.tokens.seeds)]
    )
    text = (
        f"{text} DPO ran with its default settings here. With {best.text} it reaches"
        f" {best.accuracy.text(2, SHARE)} in another experiment, after the default number of"
        f" updates. {tables.tokens.title(arm)} minus this is {tuned.text()}"
    )
    if _is_above(tuned):
        return f"{text}.", is_above
    return (
        f"{text}, so the settings explain the difference as well as the method does.",
        None if is_above else is_above,
    )


def grpo_saves_the_critic(tables: RecordedTables) -> Measurement:
    """Gold accuracy, time and peak memory of GRPO relative to PPO with the same rule."""
    gain, ratio = (
        tables.tokens.judge_article("grpo", "ppo@gold"),
        tables.tokens.mean("grpo", "seconds") / tables.tokens.mean("ppo@gold", "seconds"),
    )
    text = (
        f"With the same rule, GRPO without a critic reaches {tables.tokens.text('grpo')} and PPO"
        f" with a critic reaches {tables.tokens.text('ppo@gold')} (difference {gain.text(3)})."
        f" GRPO takes {percent_text(ratio)} of PPO's time."
    )
    if not tables.memory:
        return f"{text} The bytes are not recorded yet.", None
    shared, separate = (
        tables.memory["grpo"] / tables.memory[arm] for arm in ("ppo.shared", "ppo.separate")
    )
    return (
        (
            "For the same number of completions, the peak memory of a GRPO update is"
            f" {percent_text(separate)} of that of RLHF with four sets of weights, and"
            f" {percent_text(shared)} of that of RLHF with one shared base. {text}"
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
            f"The share of completions with a scratchpad (written working before the answer) goes"
            f" from {percent_text(first)} to {percent_text(last)}. No reward asks for it. But the"
            " base model already writes some scratchpads, so GRPO strengthens a habit; it does not"
            " invent it."
        ),
        None,
    )


def percent_text(share: float | None) -> str:
    """A share in percent; a dash for None, where nothing could be counted."""
    return "–" if share is None else f"{share:.0%}".replace("%", " %")


def nats_text(value: float) -> str:
    """A number with one decimal and a typographic minus."""
    return f"{value:.1f}".replace("-", "−")
