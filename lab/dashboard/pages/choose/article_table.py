"""Section of page Choose: the article's table of qualities, with a measurement for each cell."""

from typing import Any

import pandas as pd
import streamlit as st

from lab.analysis.recommend import model_count
from lab.analysis.recorded_results import Comparison, recorded_result
from lab.analysis.statistics import Interval
from lab.config.json_format import to_dict
from lab.config.methods import make_config
from lab.dashboard.pages.choose.reward_model_experiments import most_sensitive_knob
from lab.figures.sensitivity import knob_word

ARM_OF_METHOD = {"RLHF": "ppo", "DPO": "dpo", "GRPO": "grpo"}
ARTICLE_QUALITIES = {
    "Training complexity": (
        "High (4 models)",
        "Low (2 models)",
        "Medium (2 models + online generation)",
    ),
    "Data requirements": (
        "Preference pairs + prompts",
        "Preference pairs",
        "Prompts + reward rules",
    ),
    "Training stability": ("PPO is unstable", "Stable like SFT", "Fairly stable"),
    "Performance ceiling": (
        "High (online optimization)",
        "Medium (offline limitations)",
        "High (online + emergence)",
    ),
    "Use cases": (
        "Best alignment quality",
        "Fast iteration, limited resources",
        "Math/reasoning tasks",
    ),
}
"""By quality, the article's claims about RLHF, DPO and GRPO."""


def qualities_table(measured: Comparison) -> None:
    """Show the table and, under it, one sentence per quality: whether article and measurement agree."""
    st.subheader("The article's table, measured", anchor=False)
    cells = measured_cells(measured, recorded_result("sensitivity"))
    rows = [
        {
            "": quality if name == "RLHF" else "",
            "method": name,
            "the article": claim,
            "measured": cells[quality][name],
        }
        for quality, claims in ARTICLE_QUALITIES.items()
        for name, claim in zip(ARM_OF_METHOD, claims)
    ]
    st.table(pd.DataFrame(rows).set_index(["", "method"]))
    st.markdown(
        "  \n".join(
            f"**{quality}.** {text}" for quality, text in quality_verdicts(measured).items()
        )
    )


def measured_cells(measured: Comparison, knobs: dict[str, Any] | None) -> dict[str, dict[str, str]]:
    """By quality and method, the measurement in words. `knobs`: the experiment "sensitivity"; None if it
    is not recorded.
    """
    pairs = {"RLHF": _default_pairs("reward_model"), "DPO": _default_pairs("dpo"), "GRPO": 0}
    sampled = {
        "RLHF": measured.mean("ppo", "tokens"),
        "DPO": 0,
        "GRPO": measured.mean("grpo", "tokens"),
    }
    cells: dict[str, dict[str, str]] = {quality: {} for quality in ARTICLE_QUALITIES}
    for name, arm in ARM_OF_METHOD.items():
        cells["Training complexity"][name] = (
            f"{model_count(arm)} models, {measured.mean(arm, 'seconds'):.0f} s at equal tokens"
        )
        cells["Data requirements"][name] = (
            f"{pairs[name]:,} pairs, {sampled[name]:,.0f} tokens sampled and judged"
        )
        cells["Training stability"][name] = (
            f"{measured.spread(arm):.2f} between {measured.seeds} seeds" + _knob_text(knobs, arm)
        )
        cells["Performance ceiling"][name] = f"gold accuracy {measured.text(arm)}" + (
            f"; {measured.text('ppo@gold')} with the rule as judge" if arm == "ppo" else ""
        )
        cells["Use cases"][name] = f"KL {measured.text(arm, 'kl')} nats for that accuracy"
    return cells


def _default_pairs(method: str) -> int:
    return to_dict(make_config(method))["pairs"]


def _knob_text(table: dict[str, Any] | None, method: str) -> str:
    """How far gold accuracy moves with the method's most sensitive knob; empty if not recorded."""
    row = most_sensitive_knob(table, method)
    if table is None or row is None:
        return ""
    return f"; {row['spread']:.2f} when {knob_word(row)} is divided or multiplied by {table['factor']:g}"


def quality_verdicts(measured: Comparison) -> dict[str, str]:
    """By quality, a sentence on whether article and measurement agree, derived from the numbers."""
    spread = {name: measured.spread(arm) for name, arm in ARM_OF_METHOD.items()}
    least, most = min(spread, key=spread.__getitem__), max(spread, key=spread.__getitem__)
    ceiling = measured.difference("grpo", "dpo")
    between = measured.difference("grpo", "ppo@gold")
    return {
        "Training complexity": f"Models agree with the article. {time_sentence(measured)}",
        "Data requirements": (
            "As the article says; what it leaves out is how much is sampled and judged on the way."
        ),
        "Training stability": (
            f"{most} differs most between seeds ({spread[most]:.2f}), {least} least ({spread[least]:.2f})"
            + ("." if most == "RLHF" else ": not the article's order.")
        ),
        "Performance ceiling": (
            (
                f"GRPO is above DPO by {ceiling.signed()}"
                if ceiling.is_positive()
                else f"GRPO and DPO are not told apart ({ceiling.signed()})"
            )
            + (
                f"; between GRPO and RLHF with the same rule there is no sure difference ({between.signed()})."
                if between.is_positive() is None
                else f"; GRPO minus RLHF with the same rule is {between.signed()}."
            )
        ),
        "Use cases": (
            "Not a thing to measure once for all: the questions above take the answers from these numbers."
        ),
    }


def time_sentence(measured: Comparison) -> str:
    """The fastest method, if the intervals of the training time tell the methods apart, and how much
    longer RLHF takes.
    """
    seconds = {
        name: Interval(measured.mean(arm, "seconds"), measured.half(arm, "seconds"))
        for name, arm in ARM_OF_METHOD.items()
    }
    fastest = min(seconds, key=lambda name: seconds[name].mean)
    as_fast = [
        name
        for name, interval in seconds.items()
        if interval.mean - interval.half <= seconds[fastest].mean + seconds[fastest].half
    ]
    comparison = (
        f"{fastest} is the quickest here"
        if len(as_fast) == 1
        else "no difference between "
        + " and ".join(f"{name} ({seconds[name].text(1)} s)" for name in as_fast)
        + " is sure"
    )
    return f"In time {comparison}" + (
        "."
        if "RLHF" in as_fast
        else f"; RLHF takes {seconds['RLHF'].mean / seconds[fastest].mean:.1f} times as long."
    )
