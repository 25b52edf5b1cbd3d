"""Page Online and offline: how much of the policy's present completions its training data contains."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import streamlit as st

from lab.analysis.recorded_results import load_result
from lab.dashboard.components.layout import (
    cannot_show,
    figure,
    page_heading,
    source_caption,
    theme,
    url_choice,
    what_to_look_at,
)
from lab.dashboard.components.quiz import quiz
from lab.dashboard.pages.data_flow import ALT_TEXTS, FEATURES, flow_picture
from lab.figures.drift import DRIFT_AXIS_TITLES, DRIFT_PANELS, drift_figure, drift_narrow_layout
from lab.figures.palette import METHOD_NAMES

if TYPE_CHECKING:
    import pandas as pd

QUESTION = "Does the training data still contain what the policy writes?"
SENTENCE = (
    "DPO learns from pairs that were sampled once, before training (offline). GRPO and online DPO"
    " sample from the present policy in every update (online). The policy changes during training."
    " The figures show which share of its new completions the fixed data contains."
)
WORDS = (
    "policy",
    "completion",
    "chosen and rejected",
    "online and offline",
    "rule",
    "reward model",
    "nat",
    "update",
    "interval",
)
DATA_MODES = {
    "both": "Both",
    "offline": "Offline: a fixed data set",
    "online": "Online: samples from the present policy",
}
DIAGRAM_WIDTH = 440  # pixels
METHODS_OF_MODE = {
    "both": ("dpo", "online_dpo", "grpo"),
    "offline": ("dpo",),
    "online": ("online_dpo", "grpo"),
}


def page() -> None:
    """Show the page."""
    page_heading(QUESTION, SENTENCE, WORDS)
    table = load_result("drift")
    rows = {row["method"]: row for row in table["rows"]}
    quiz(
        "Before you look: a policy has been trained with DPO and writes some wrong completions. How"
        " many of them does its data contain as rejected?",
        ("most", "some", "hardly any"),
        lambda guess: prediction_answer(guess, rows["dpo"]),
        covers=(*DRIFT_PANELS, "drift-sentence"),
    )
    mode = url_choice("mode", DATA_MODES, "both")
    st.segmented_control(
        "Shown",
        list(DATA_MODES),
        format_func=DATA_MODES.__getitem__,
        key="mode",
        required=True,
        label_visibility="collapsed",
    )
    data_flow_diagrams(mode)
    text = drift_sentence(rows)
    for panel in DRIFT_PANELS:
        figure(
            drift_figure(table["rows"], METHODS_OF_MODE[mode], panel, theme()),
            panel,
            f"{DRIFT_AXIS_TITLES[panel]}, over updates. {text}",
            partial(drift_table, table["rows"], METHODS_OF_MODE[mode], panel),
            drift_narrow_layout(len(METHODS_OF_MODE[mode])),
        )
    with st.container(key="drift-sentence"):
        st.markdown(text)
    source_caption(
        table,
        f"Bars are 95 % intervals. The policy wrote one completion for each of {table['prompts']}"
        " prompts of the pairs.",
    )
    st.markdown(
        "**The article says** that offline data comes from an old policy and no longer matches the"
        f" present one, and that online sampling avoids this. {article_verdict(rows)}"
    )
    what_to_look_at(
        "Look at the dashed lines of the second figure. They show which share of the policy's mistakes the"
        " fixed data contains as rejected completions. Where a line is low, an offline method gets"
        " no sign that these mistakes are wrong. An online method scores them in the next update."
        " The solid lines change little: a prompt has few right completions, so the data still"
        " contains many of them."
    )
    cannot_show(
        "The lab compares completions letter by letter. This works only for a task with short exact"
        " answers. On open text, a data set contains almost none of the texts that a policy writes,"
        " neither before nor after training."
    )


def prediction_answer(guess: str, row: Mapping[str, Any]) -> None:
    """Show, after a guess, the measured share of the wrong completions that the data contains."""
    covered = row["wrong_covered"]
    st.markdown(
        f"You said {guess}. The data contains {percent_or_dash(covered[0])} of them before training"
        f" and {percent_or_dash(covered[-1])} after {row['step'][-1]} updates."
    )


def data_flow_diagrams(mode: str) -> None:
    """Show how data reaches the policy: offline, online, or both side by side, each with its
    advantages and issues.
    """
    for shown, column in zip(FEATURES if mode == "both" else (mode,), st.columns(2, gap="large")):
        with column:
            st.image(flow_picture(shown, theme()), alt=ALT_TEXTS[shown], width=DIAGRAM_WIDTH)
            advantages, issues = FEATURES[shown]
            st.markdown("  \n".join([f"✓ {text}" for text in advantages]))
            st.markdown("  \n".join([f"✗ {text}" for text in issues]))


def percent_or_dash(value: float | None) -> str:
    """A share in percent; a dash for None, where nothing could be counted."""
    return "–" if value is None else f"{value:.0%}".replace("%", " %")


def drift_sentence(rows: dict[str, Any]) -> str:
    """What both figures show, in numbers. `rows`: by method, its row of the drift experiment."""
    dpo = rows["dpo"]
    others = " and ".join(
        f"{rows[m]['gold/accuracy'][-1]:.2f} for {METHOD_NAMES[m]}" for m in ("online_dpo", "grpo")
    )
    chosen, rejected = (
        " to ".join(f"{dpo[name][at]:.1f}".replace("-", "−") for at in (0, -1))
        for name in ("logps/chosen", "logps/rejected")
    )
    return (
        "With DPO, the mean log-probability of the chosen completions in the training pairs goes"
        f" from {chosen} nats. For the rejected ones it goes from {rejected} nats."
        f" The data contains {percent_or_dash(dpo['wrong_covered'][0])} of the policy's wrong"
        f" completions at the start and {percent_or_dash(dpo['wrong_covered'][-1])} at the end."
        f" After {dpo['step'][-1]} updates, the share of right answers to these prompts is"
        f" {dpo['gold/accuracy'][-1]:.2f} for DPO, {others}."
    )


def article_verdict(rows: dict[str, Any]) -> str:
    """The article's claim against the last evaluation: its first half against the wrong completions
    that DPO's data contains, its second half against the accuracy of the online methods.
    """
    covered = rows["dpo"]["wrong_covered"]
    accuracy = {method: row["gold/accuracy"][-1] for method, row in rows.items()}
    shifted = (
        "The measurement agrees with the first part"
        if covered[-1] < covered[0]
        else "The measurement does not agree with the first part"
    )
    online_diagram = [
        METHOD_NAMES[m]
        for m in ("online_dpo", "grpo")
        if percent_or_dash(rows[m]["wrong_covered"][-1]) == percent_or_dash(covered[-1])
    ]
    online_note = (
        f" The policies of {' and '.join(online_diagram)} move just as far away from this data, but"
        " they do not learn from it. Their share of right answers is"
        f" {min(accuracy['online_dpo'], accuracy['grpo']):.2f} or more, and that of DPO is"
        f" {accuracy['dpo']:.2f}."
        if online_diagram
        else ""
    )
    return shifted + "." + online_note


def drift_table(rows: list[dict[str, Any]], methods: tuple[str, ...], panel: str) -> "pd.DataFrame":
    """The numbers of a panel as a table, one row per evaluation."""
    import pandas as pd

    return pd.concat(
        [
            pd.DataFrame(
                {"method": METHOD_NAMES[row["method"]], "step": row["step"]}
                | {word: row[name] for name, word, *_ in DRIFT_PANELS[panel]}
            )
            for row in rows
            if row["method"] in methods
        ]
    ).round(3)
