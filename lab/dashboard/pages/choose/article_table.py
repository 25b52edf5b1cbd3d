"""Section of page Choose: the article's table of qualities, with a measurement for each cell."""

from typing import Any

import streamlit as st

from lab.analysis.recommend import model_count
from lab.analysis.recorded_results import Comparison, recorded_result
from lab.config.json_format import to_dict
from lab.config.methods import make_config
from lab.dashboard.components.layout import url_choice
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


def qualities_table(measured: Comparison, defaults: Comparison, source: str) -> None:
    """Show one quality of the table, and whether article and measurement agree; folded, the whole table
    and the source of its numbers.
    `measured` has tuned settings at equal tokens, `defaults` the default settings.
    """
    import pandas as pd

    knobs = recorded_result("sensitivity")
    cells = measured_cells(measured, knobs)
    quality = url_choice("quality", ARTICLE_QUALITIES, next(iter(ARTICLE_QUALITIES)))
    st.pills(
        "Quality",
        list(ARTICLE_QUALITIES),
        key="quality",
        required=True,
        label_visibility="collapsed",
    )
    one = zip(ARM_OF_METHOD, ARTICLE_QUALITIES[quality])
    st.table(
        pd.DataFrame(
            [
                {"method": name, "the article": claim, "measured": cells[quality][name]}
                for name, claim in one
            ]
        ).set_index("method")
    )
    st.markdown(quality_verdicts(measured, defaults, knobs)[quality])
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
    with st.expander("The whole table, and where the numbers come from"):
        st.table(pd.DataFrame(rows).set_index(["", "method"]))
        st.caption(source)


def measured_cells(measured: Comparison, knobs: dict[str, Any] | None) -> dict[str, dict[str, str]]:
    """By quality and method, the measurement in words. `knobs`: the experiment "sensitivity"; None if it
    is not recorded.
    """
    pairs = {"RLHF": _default_pairs("reward_model"), "DPO": _default_pairs("dpo"), "GRPO": 0}
    sampled = {
        "RLHF": measured.mean("ppo", "sampled"),
        "DPO": 0,
        "GRPO": measured.mean("grpo", "sampled"),
    }
    cells: dict[str, dict[str, str]] = {quality: {} for quality in ARTICLE_QUALITIES}
    for name, arm in ARM_OF_METHOD.items():
        cells["Training complexity"][name] = (
            f"{model_count(arm)} models, {measured.mean(arm, 'seconds'):.0f} s of training"
        )
        cells["Data requirements"][name] = (
            f"{pairs[name]:,} pairs, {sampled[name]:,.0f} tokens sampled and scored"
        )
        cells["Training stability"][name] = (
            f"{measured.seeds_of()} seeds differ by {measured.spread(arm):.2f}"
            + _knob_text(knobs, arm)
        )
        cells["Performance ceiling"][name] = f"gold accuracy {measured.text(arm)}" + (
            f"; {measured.text('ppo@gold')} with the rule as reward" if arm == "ppo" else ""
        )
        cells["Use cases"][name] = f"KL of {measured.text(arm, 'kl')} nats at the end of training"
    return cells


def _default_pairs(method: str) -> int:
    return to_dict(make_config(method))["pairs"]


def _knob_text(table: dict[str, Any] | None, method: str) -> str:
    """How far gold accuracy moves with the method's most sensitive knob; empty if not recorded."""
    row = most_sensitive_knob(table, method)
    if table is None or row is None:
        return ""
    return (
        f"; {row['spread']:.2f} with its {knob_word(row)} ÷ {table['factor']:g} or ×"
        f" {table['factor']:g}"
    )


def quality_verdicts(
    measured: Comparison, defaults: Comparison, knobs: dict[str, Any] | None = None
) -> dict[str, str]:
    """By quality, a sentence on whether article and measurement agree, derived from the numbers.
    `measured` and `defaults` are described in `qualities_table`. `knobs`: the experiment "sensitivity";
    None if it is not recorded.
    """
    return {
        "Training complexity": (
            f"The numbers of models agree with the article. {time_sentence(measured)}"
            " These times come from another record than the accuracies, with default settings."
        ),
        "Data requirements": (
            "The measurement agrees with the article. The article does not say how many tokens a"
            " method samples and scores during training."
        ),
        "Training stability": stability_sentence(measured, knobs),
        "Performance ceiling": ceiling_sentence(measured, defaults),
        "Use cases": (
            "No single measurement decides this. The questions above use these numbers for your"
            " situation."
        ),
    }


def stability_sentence(measured: Comparison, knobs: dict[str, Any] | None) -> str:
    """The methods that differ most and least between seeds, and the one that reacts most to a change of
    one setting.
    """
    spread = {name: measured.spread(arm) for name, arm in ARM_OF_METHOD.items()}
    least, most = min(spread, key=spread.__getitem__), max(spread, key=spread.__getitem__)
    text = (
        f"{most} differs most between seeds ({spread[most]:.2f}) and {least} least"
        f" ({spread[least]:.2f}); {measured.seeds_of()} seeds measure this only roughly."
    )
    rows = {name: most_sensitive_knob(knobs, arm) for name, arm in ARM_OF_METHOD.items()}
    changes = {name: row["spread"] for name, row in rows.items() if row is not None}
    if not changes:
        return text
    top = max(changes, key=changes.__getitem__)
    others = " and ".join(f"{name} {changes[name]:.2f}" for name in changes if name != top)
    return (
        f"{text} The mean of {top} changes most when one setting is divided or multiplied"
        f" ({changes[top]:.2f}; {others})."
        + ("" if top == "RLHF" else " The article names PPO as the unstable method.")
    )


def ceiling_sentence(measured: Comparison, defaults: Comparison) -> str:
    """GRPO beside DPO and beside RLHF with the same rule, tuned and at the default settings."""
    views = (("with tuned settings at equal tokens", measured), ("at default settings", defaults))
    return " ".join(
        f"Gold accuracy {words}: GRPO minus DPO is {view.judge_article('grpo', 'dpo').text()}; GRPO minus"
        f" RLHF with the same rule is {view.judge_article('grpo', 'ppo@gold').text()}."
        for words, view in views
    )


def time_sentence(measured: Comparison) -> str:
    """The method with the shortest mean training time, which others are not told apart from it, and how
    much longer RLHF takes.
    """
    arms = sorted(ARM_OF_METHOD.values(), key=lambda arm: measured.mean(arm, "seconds"))
    names = {arm: name for name, arm in ARM_OF_METHOD.items()}
    fastest, *others = arms
    judged = measured.judge(
        [(arm, fastest) for arm in others], "seconds", words=("slower", "faster")
    )
    compared = "; ".join(
        f"{names[arm]} ({measured.text(arm, 'seconds')} s) is"
        f" {judgement.word + ' than ' if judgement.is_sure else judgement.word + ' from '}"
        f"{names[fastest]}"
        for arm, judgement in zip(others, judged)
    )
    ratio = measured.mean("ppo", "seconds") / measured.mean(fastest, "seconds")
    return (
        f"{names[fastest]} has the shortest mean time ({measured.text(fastest, 'seconds')} s);"
        f" {compared}."
        + (
            ""
            if fastest == "ppo"
            else f" RLHF takes {ratio:.1f} times as long as {names[fastest]}."
        )
    )
