"""The article's table of qualities, row by row, with the number measured for each cell."""

from typing import Any

import pandas as pd
import streamlit as st

from lab.analysis.recommend import model_count
from lab.analysis.recorded_results import Comparison, recorded_result
from lab.analysis.statistics import Interval
from lab.config.methods import make_config
from lab.dashboard.pages.choose.reward_model_experiments import most_telling
from lab.figures.overoptimisation import knob_word

ARMS = {"RLHF": "ppo", "DPO": "dpo", "GRPO": "grpo"}
ARTICLE = {
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
"""The article's words, for RLHF, DPO and GRPO."""


def qualities(measured: Comparison) -> None:
    """The table, and under it in a sentence a row where the two agree and where they do not."""
    st.subheader("The article's table, measured", anchor=False)
    found = cells(measured, recorded_result("sensitivity"))
    rows = [
        {
            "": quality if name == "RLHF" else "",
            "method": name,
            "the article": said,
            "measured": found[quality][name],
        }
        for quality, words in ARTICLE.items()
        for name, said in zip(ARMS, words)
    ]
    st.table(pd.DataFrame(rows).set_index(["", "method"]))
    st.markdown(
        "  \n".join(f"**{quality}.** {text}" for quality, text in verdicts(measured).items())
    )


def cells(measured: Comparison, knobs: dict[str, Any] | None) -> dict[str, dict[str, str]]:
    """Quality → method → what was measured, in words."""
    pairs = {"RLHF": make_config("reward_model").pairs, "DPO": make_config("dpo").pairs, "GRPO": 0}
    sampled = {
        "RLHF": measured.mean("ppo", "tokens"),
        "DPO": 0,
        "GRPO": measured.mean("grpo", "tokens"),
    }
    out: dict[str, dict[str, str]] = {quality: {} for quality in ARTICLE}
    for name, arm in ARMS.items():
        out["Training complexity"][name] = (
            f"{model_count(arm)} models, {measured.mean(arm, 'seconds'):.0f} s at equal tokens"
        )
        out["Data requirements"][name] = (
            f"{pairs[name]:,} pairs, {sampled[name]:,.0f} tokens sampled and judged"
        )
        out["Training stability"][name] = (
            f"{measured.spread(arm):.2f} between {measured.seeds} seeds" + _knobs(knobs, arm)
        )
        out["Performance ceiling"][name] = f"gold accuracy {measured.text(arm)}" + (
            f"; {measured.text('ppo@gold')} with the rule as judge" if arm == "ppo" else ""
        )
        out["Use cases"][name] = f"KL {measured.text(arm, 'kl')} nats for that accuracy"
    return out


def _knobs(table: dict[str, Any] | None, method: str) -> str:
    """How far gold accuracy moves when the most telling knob does, where that has been recorded."""
    row = most_telling(table, method)
    return (
        f"; {row['spread']:.2f} when {knob_word(row)} is divided or multiplied by"
        f" {table['factor']:g}"
        if row
        else ""
    )


def verdicts(measured: Comparison) -> dict[str, str]:
    """Where the article and the measurement agree, row by row, worked out from the numbers."""
    spread = {name: measured.spread(arm) for name, arm in ARMS.items()}
    least, most = min(spread, key=spread.get), max(spread, key=spread.get)
    ceiling = measured.difference("grpo", "dpo")
    between = measured.difference("grpo", "ppo@gold")
    return {
        "Training complexity": f"Models agree with the article. {quickest(measured)}",
        "Data requirements": (
            "As the article says; what it leaves out is how much is sampled and judged on the way."
        ),
        "Training stability": (
            f"{most} differs most between seeds ({spread[most]:.2f}), {least} least"
            f" ({spread[least]:.2f})" + ("." if most == "RLHF" else ": not the article's order.")
        ),
        "Performance ceiling": (
            (
                f"GRPO is above DPO by {ceiling.signed()}"
                if ceiling.sure()
                else f"GRPO and DPO are not told apart ({ceiling.signed()})"
            )
            + (
                "; between GRPO and RLHF with the same rule there is no sure difference"
                f" ({between.signed()})."
                if between.sure() is None
                else f"; GRPO minus RLHF with the same rule is {between.signed()}."
            )
        ),
        "Use cases": (
            "Not a thing to measure once for all: the questions above take the answers from these"
            " numbers."
        ),
    }


def quickest(measured: Comparison) -> str:
    """Who is the quickest, as far as the intervals of the seconds tell the methods apart, and how
    much longer RLHF takes than it.
    """
    seconds = {
        name: Interval(measured.mean(arm, "seconds"), measured.half(arm, "seconds"))
        for name, arm in ARMS.items()
    }
    first = min(seconds, key=lambda name: seconds[name].mean)
    level = [
        name
        for name, found in seconds.items()
        if found.mean - found.half <= seconds[first].mean + seconds[first].half
    ]
    said = (
        f"{first} is the quickest here"
        if len(level) == 1
        else "no difference between "
        + " and ".join(f"{name} ({seconds[name].text(1)} s)" for name in level)
        + " is sure"
    )
    return f"In time {said}" + (
        "."
        if "RLHF" in level
        else f"; RLHF takes {seconds['RLHF'].mean / seconds[first].mean:.1f} times as long."
    )
