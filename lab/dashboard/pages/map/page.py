"""Page Map: how the methods follow from each other, and what each was measured to do."""

from typing import Any

import pandas as pd
import streamlit as st

from lab.analysis.recorded_results import Comparison, load_result, peaks, recorded_result
from lab.config.json_format import to_dict
from lab.config.methods import make_config
from lab.dashboard.components import text as words
from lab.dashboard.components.layout import (
    cannot_show,
    figure,
    in_url,
    link,
    look_at,
    opening,
    predict,
    source,
    theme,
)
from lab.dashboard.pages.map.claims import EDGES, NODES, VERDICTS, Tables
from lab.dashboard.state.run_cache import record
from lab.dashboard.state.shipped_runs import recorded_run
from lab.figures.palette import METHOD_COLOURS, METHOD_NAMES, THEMES
from lab.figures.training_curves import RunCurves, training_curves
from lab.runs.metrics import METRICS

QUESTION = "What did each method solve, and what did it introduce?"
SENTENCE = (
    "RLHF came first; each later method took something away from it and paid for that with"
    " something else. Pick a method on the map: every claim of the article stands beside what this"
    " lab measured for it."
)
TITLES = {**METHOD_NAMES, "ppo": "RLHF (PPO)"}
PLACES = {
    "ppo": (0, 0),
    "dpo": (1, 1),
    "ipo": (2, 2),
    "kto": (3, 2),
    "online_dpo": (2, 1),
    "grpo": (3, 0),
}
"""Column and row of every node."""
PANELS = ("gold/accuracy", "gold/kl")


def page() -> None:
    """The page from top to bottom."""
    opening(QUESTION, SENTENCE)
    guess = predict(
        "Before you look: at equal tokens, with the rule as judge, which ends highest?",
        ("RLHF (PPO)", "DPO", "GRPO", "no sure difference"),
    )
    graph(in_url("method", NODES, "dpo"))
    method = st.segmented_control(
        "Method",
        list(NODES),
        format_func=lambda name: TITLES[name],
        key="method",
        required=True,
        label_visibility="collapsed",
    )
    told = tables()
    if guess:
        st.markdown(answer(guess, told.tokens))
    explain(method, told)
    look_at(
        "The claims with their verdict, not the names: where an interval holds zero, the lab says"
        " so and decides nothing. And the price in the column “introduced”: none of the methods is"
        " free."
    )
    cannot_show(
        "One small model, one task with a checkable answer, three seeds. The order of the methods"
        " may differ on a large model, on open text, or with human preferences. The map shows"
        " ideas, not dates: GRPO and online DPO appeared in the same month, February 2024."
    )


@st.cache_data
def tables() -> Tables:
    """The recorded results that the claims are held against."""
    return Tables(
        Comparison(load_result("chain-tokens")),
        Comparison(load_result("chain-cpu")),
        {row["method"]: row for row in load_result("drift")["rows"]},
        peaks(),
        recorded_result("sensitivity"),
        recorded_result("overoptimisation"),
    )


def graph(method: str) -> None:
    """The map itself; a click on a node picks its method."""
    st.echarts_chart(
        spec(method, theme()),
        height=360,
        key="graph",
        renderer="svg",
        on_select=take_click,
        alt="Map of the methods. "
        + " ".join(f"{TITLES[a]} to {TITLES[b]}: {text}." for (a, b), text in EDGES.items()),
    )


def take_click() -> None:
    """Callback: the clicked node becomes the picked method. A second click on a node deselects it
    in the chart but not on the page.
    """
    picked = clicked(st.session_state["graph"], st.session_state.get("clicked"))
    if picked:
        st.session_state["clicked"] = st.session_state["method"] = picked


def clicked(state: Any, before: str | None) -> str | None:
    """The method of the node that was clicked last: the selected one, or the one selected `before`
    if the click has deselected it.
    """
    nodes = [
        index
        for group in state["selection"]["selected"]
        if group.get("data_type") != "edge"
        for index in group["data_indices"]
    ]
    names = list(NODES)
    return names[nodes[-1]] if nodes and 0 <= nodes[-1] < len(names) else before


def spec(picked: str, theme_name: str) -> dict[str, Any]:
    """The map for ECharts: nodes in the methods' colours, the picked one filled, on every arrow
    what the step changed.
    """
    colours = THEMES[theme_name]

    def node(name: str) -> dict[str, Any]:
        colour, (x, y) = METHOD_COLOURS[name], PLACES[name]
        style = {
            "color": colour if name == picked else colours["surface"],
            "borderColor": colour,
            "borderWidth": 3,
        }
        label = {
            "color": _ink(colour) if name == picked else colours["text"],
            "fontWeight": "bold" if name == picked else "normal",
        }
        look = {"itemStyle": style, "label": label}
        return {
            "id": name,
            "name": TITLES[name].replace(" ", "\n"),
            "value": [x, y],
            "select": look,
        } | look

    edges = [
        {"source": a, "target": b, "value": text, "label": {"show": True, "formatter": text}}
        for (a, b), text in EDGES.items()
    ]
    series = {
        "type": "graph",
        "coordinateSystem": "cartesian2d",
        "selectedMode": "single",
        "data": [node(name) for name in NODES],
        "links": edges,
        "symbol": "circle",
        "symbolSize": 84,
        "edgeSymbol": ["none", "arrow"],
        "edgeSymbolSize": 9,
        "label": {"show": True, "fontSize": 14, "lineHeight": 16},
        "edgeLabel": {"color": colours["muted"], "fontSize": 13},
        "cursor": "pointer",
        "lineStyle": {"color": colours["muted"], "width": 1.5, "opacity": 1},
        "emphasis": {"disabled": True},
    }
    small = {
        "symbolSize": 58,
        "label": {"fontSize": 12, "lineHeight": 13},
        "edgeLabel": {"fontSize": 10},
    }
    hidden = {"type": "value", "show": False}
    return {
        "animation": False,
        "tooltip": {"show": False},
        "series": [series],
        "grid": {"left": 60, "right": 60, "top": 46, "bottom": 46},
        "xAxis": hidden | {"min": 0, "max": 3},
        "yAxis": hidden | {"min": 0, "max": 2, "inverse": True},
        "media": [
            {
                "query": {"maxWidth": 640},
                "option": {"series": [small], "grid": {"left": 32, "right": 32}},
            }
        ],
    }


def _ink(colour: str) -> str:
    """Black or white, whichever is easier to read on `colour`."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "#FFFFFF"


def explain(method: str, told: Tables) -> None:
    """The picked method: solved, introduced, its formula, a recorded run, its claims, where to go
    on.
    """
    node = NODES[method]
    left, right = st.columns([1, 1], gap="large")
    with left:
        st.subheader(TITLES[method], anchor=False)
        st.markdown(f"**Solved.** {node.solved}")
        st.markdown(f"**Introduced.** {node.introduced}")
        with st.container(
            key="formula", horizontal=True, vertical_alignment="center", gap="medium"
        ):
            for part in words.formula(method, to_dict(make_config(method))):
                st.latex(part, width="content")
        with st.container(horizontal=True, gap="medium"):
            link("train", "Train", f"Try it: train {METHOD_NAMES[method]}", method=method)
            link(*node.page, f"Look inside: {node.page[1]}")
    with right:
        recorded_curve(method, node.arm, told.tokens)
    for claim in node.claims:
        said, holds = claim.measure(told)
        a, b = st.columns([2, 5], gap="medium")
        a.markdown(f"“{claim.article}”")
        b.markdown(f"**{VERDICTS[holds].capitalize()}.** {said}")
    source(
        told.tokens.table,
        f"{told.tokens.seeds} seeds, ± is half the 95 % interval; equal tokens unless the text says"
        " otherwise.",
    )


def recorded_curve(method: str, arm: str, measured: Comparison) -> None:
    """What the comparison measured, and a recorded run of the method if the lab ships one."""
    st.markdown(
        f"Gold accuracy {measured.base['gold/accuracy']:.2f} → **{measured.text(arm)}** at a KL of"
        f" {measured.text(arm, 'kl')} nats, after {measured.mean(arm, 'tokens'):,.0f} completion"
        f" tokens and {measured.mean(arm, 'seconds'):.0f} s of training"
        f" ({next(row['title'] for row in measured.table['methods'] if row['method'] == arm)})."
    )
    run = recorded_run(method)
    if run is None:
        return
    now = record(str(run.path)).snapshot()
    panels = [name for name in PANELS if name in now.columns]
    curves = RunCurves(run.name, method, run.name, now.columns, now.events, 0, now.config["steps"])
    frame = pd.DataFrame(
        {"step": now.columns[panels[0]][0]}
        | {METRICS[name].label: now.columns[name][1] for name in panels}
    )
    text = words.caption(now)
    figure(
        training_curves([curves], panels, columns=2, theme=theme()),
        "recorded",
        f"Recorded run {run.name}. {text}",
        frame,
    )
    st.caption(f"Recorded run `{run.name}`. {text}")


def answer(guess: str, measured: Comparison) -> str:
    """The prediction beside the measurement."""
    gap = measured.difference("grpo", "ppo@gold")
    best = {None: "no sure difference", True: "GRPO", False: "RLHF (PPO)"}[gap.sure()]
    return (
        f"{'Right' if guess == best else f'You said {guess}'}: PPO reaches"
        f" {measured.text('ppo@gold')}, GRPO {measured.text('grpo')} (GRPO minus PPO"
        f" {gap.signed()}: {best}), DPO {measured.text('dpo')}."
    )
