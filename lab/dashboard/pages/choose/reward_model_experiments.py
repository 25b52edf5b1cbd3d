"""Sections of page Choose with two experiments on RLHF: the effect of each knob, and the
optimisation of a reward model.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import streamlit as st

from lab.analysis.comparison_words import NOT_TOLD_APART
from lab.analysis.recorded_results import recorded_result
from lab.analysis.reward_ensembles import ensembles_sentence, is_ensemble, single_reward_model
from lab.analysis.setting_changes import compare_falls, falls
from lab.analysis.statistics import SHARE, Interval
from lab.dashboard.components.layout import figure, source_caption, theme
from lab.figures.overoptimisation import overoptimisation_figure, overoptimisation_narrow_layout
from lab.figures.palette import METHOD_NAMES
from lab.figures.sensitivity import knob_name, sensitivity_figure

if TYPE_CHECKING:
    import pandas as pd

# A reward model is exploited if gold accuracy ends this far below its best.
EXPLOITATION_DROP = 0.05
KNOB_SETTINGS = {"low": "÷ {:g}", "centre": "default", "high": "× {:g}"}

Table = Mapping[str, Any]


def knobs_section() -> None:
    """Show how far gold accuracy moves with each knob; nothing if the experiment is not recorded."""
    table = recorded_result("sensitivity")
    if table is None:
        return
    st.subheader("How much each setting matters", anchor=False)
    text = knobs_sentence(table)
    figure(
        sensitivity_figure(table, theme()),
        "sensitivity",
        f"One row for each setting: gold accuracy with the setting divided by {table['factor']:g},"
        f" at its default, and multiplied by {table['factor']:g}, with intervals. {text}",
        lambda: knobs_table(table),
    )
    st.markdown(text)
    source_caption(
        table,
        f"One setting is changed at a time. Bars are 95 % intervals; {table['evaluation']}. The rule"
        " scores the completions of online methods.",
    )


def knobs_table(table: Table) -> "pd.DataFrame":
    """The gold accuracy at each value of each knob as a table."""
    import pandas as pd

    heads = {name: text.format(table["factor"]) for name, text in KNOB_SETTINGS.items()}
    return pd.DataFrame(
        [
            {"setting": knob_name(row)}
            | {head: Interval(**row[name]).text(2, SHARE) for name, head in heads.items()}
            | {"spread": round(row["spread"], 2)}
            for row in table["rows"]
        ]
    )


def reward_models_section() -> None:
    """Show gold accuracy while reward models are optimised, then against ensembles of them; nothing if
    it is not recorded.
    """
    table = recorded_result("overoptimisation")
    if table is None:
        return
    st.subheader("Training against a reward model for too long", anchor=False)
    single = [row for row in table["rows"] if not is_ensemble(row["reward_model"])]
    text = reward_models_sentence(single)
    _optimisation_figure(
        table | {"rows": single}, "overoptimisation", f"One column for each reward model. {text}"
    )
    st.markdown(text)
    source_caption(
        table,
        f"{table['steps']} updates. The curves are means over seeds and come from the training"
        " batches. An open symbol marks the best gold accuracy. The axis is √KL as in arXiv"
        " 2210.10760, here on a logarithmic scale.",
    )
    ensembles = [row for row in table["rows"] if is_ensemble(row["reward_model"])]
    if ensembles:
        ensembles_section(table, ensembles)


def ensembles_section(table: dict[str, Any], ensembles: Sequence[Mapping[str, Any]]) -> None:
    """Show one reward model beside ensembles of four with the same data."""
    st.subheader("Against several reward models at once", anchor=False)
    st.markdown(
        "A remedy that people propose (arXiv 2310.02743): score each completion with several reward"
        " models, trained with other seeds. The reward is the mean of their scores, or the mean minus"
        " their standard deviation, which pays less where they disagree."
    )
    member = single_reward_model(ensembles[0]["reward_model"])
    shown = [row for row in table["rows"] if row["reward_model"] == member]
    still = sum(accuracy_drop(row) >= EXPLOITATION_DROP for row in ensembles)
    text = (
        f"{ensembles_sentence(table)} Gold accuracy still ends {EXPLOITATION_DROP:g} or more below its"
        f" best in {still} of {len(ensembles)} cases with an ensemble."
    )
    _optimisation_figure(
        table | {"rows": [*shown, *ensembles]},
        "ensembles",
        f"Left column: one reward model. Other columns: ensembles. {text}",
    )
    st.markdown(text)
    source_caption(
        table,
        "Each member has the pairs of the left column and a seed of its own. The first member is the"
        " reward model of the left column. Each score is centred on the pairs first.",
    )


def _optimisation_figure(table: dict[str, Any], key: str, text: str) -> None:
    """Show gold accuracy above and the reward model's score below, over √KL; `text` is for screen
    readers.
    """
    import pandas as pd

    numbers = pd.DataFrame(
        [
            {
                "reward model trained on": row["reward_model"],
                "method": METHOD_NAMES[row["method"]],
                "proxy, first → last": f"{row['proxy_first']:.1f} → {row['proxy_last']:.1f}",
                "best gold accuracy": round(row["best_gold"], 2),
                "at update": row["best_step"],
                "gold accuracy at the end": Interval(row["gold"], row["gold_half"]).text(2, SHARE),
                "KL, nats": round(row["kl"], 1),
            }
            for row in table["rows"]
        ]
    )
    figure(
        overoptimisation_figure(table, theme()),
        key,
        "Over √KL. Above: the gold accuracy of the rollouts. Below: the score of the reward model."
        f" {text}",
        numbers,
        overoptimisation_narrow_layout(table),
    )


def most_sensitive_knob(table: Table | None, method: str) -> Mapping[str, Any] | None:
    """The row of the method's knob that moves gold accuracy most; None if no knob of the method is
    recorded.
    """
    return max(
        (row for row in (table or {"rows": []})["rows"] if row["method"] == method),
        key=lambda row: row["spread"],
        default=None,
    )


def knobs_sentence(table: Table) -> str:
    """Each method's most sensitive knob, in numbers."""
    methods = dict.fromkeys(row["method"] for row in table["rows"])
    knobs = (most_sensitive_knob(table, method) for method in methods)
    rows = sorted((row for row in knobs if row is not None), key=lambda row: -row["spread"])
    most = [
        f"{knob_name(row)}: from {min(_mean_accuracies(row)):.2f} to"
        f" {max(_mean_accuracies(row)):.2f}"
        for row in rows
    ]
    return (
        f"Each setting was divided and multiplied by {table['factor']:g}. This is the most sensitive"
        f" setting of each method, with its range of gold accuracy: {'; '.join(most)}."
        f" The mean of {METHOD_NAMES[rows[0]['method']]} changes most ({rows[0]['spread']:.2f}) and"
        f" that of {METHOD_NAMES[rows[-1]['method']]} least ({rows[-1]['spread']:.2f}); over"
        f" {table['seeds']} seeds some of these means are uncertain, as the bars show.{_ppo_words(table)}"
    )


def _ppo_words(table: Table) -> str:
    """Whether PPO loses more than the other methods with its worst setting; empty without PPO."""
    others = [method for method in falls(table) if method != "ppo"]
    if not others or "ppo-centre" not in table["runs"]:
        return ""
    words = {method: judged.word for method, judged in compare_falls(table, "ppo", others).items()}
    said = [
        f"{text} {' and '.join(METHOD_NAMES[method] for method in others if words[method] == word)}"
        for word, text in (
            ("larger", "larger than that of"),
            ("smaller", "smaller than that of"),
            (NOT_TOLD_APART, "not told apart from that of"),
        )
        if word in words.values()
    ]
    return (
        " The article calls PPO unstable. PPO's fall from the central setting to its worst one is"
        f" {', '.join(said)} (Holm's correction)."
    )


def reward_models_sentence(rows: Sequence[Mapping[str, Any]]) -> str:
    """The number of runs whose gold accuracy ends below its best although the reward model's score
    has risen, and the run that falls deepest.
    """
    exploited = [
        row
        for row in rows
        if accuracy_drop(row) >= EXPLOITATION_DROP and row["proxy_last"] > row["proxy_first"]
    ]
    deepest = max(rows, key=accuracy_drop)
    summary = (
        f"In {len(exploited)} of {len(rows)} combinations of method and reward model, the score of"
        " the reward model (the proxy reward) rises, but gold accuracy ends"
        f" {EXPLOITATION_DROP:g} or more below its best value."
    )
    if accuracy_drop(deepest) < EXPLOITATION_DROP:
        return summary
    return (
        f"{summary} The largest fall is that of {METHOD_NAMES[deepest['method']]} with the reward"
        f" model trained on {deepest['reward_model']}: gold accuracy goes from"
        f" {deepest['best_gold']:.2f} near update {deepest['best_step']:.0f} to"
        f" {deepest['curve']['gold'][-1]:.2f}, and the score goes from"
        f" {_signed(deepest['proxy_first'])} to {_signed(deepest['proxy_last'])}."
    )


def accuracy_drop(row: Mapping[str, Any]) -> float:
    """How far the gold accuracy of the rollouts ends below its best."""
    return row["best_gold"] - row["curve"]["gold"][-1]


def _mean_accuracies(row: Mapping[str, Any]) -> list[float]:
    return [row[name]["mean"] for name in KNOB_SETTINGS]


def _signed(score: float) -> str:
    return f"{score:.1f}".replace("-", "−")
