"""The map of the methods as a clickable graph."""

from typing import Any

import streamlit as st

from lab.dashboard.components.layout import theme
from lab.dashboard.pages.map.methods import EDGE_LABELS, METHOD_NODES
from lab.figures.palette import METHOD_COLOURS, METHOD_NAMES, THEMES

NODE_TITLES = METHOD_NAMES | {"ppo": "RLHF (PPO)"}

NODE_POSITIONS = {
    "ppo": (0, 0),
    "dpo": (1, 1),
    "ipo": (2, 2),
    "kto": (3, 2),
    "online_dpo": (2, 1),
    "grpo": (3, 0),
}
"""Column and row of every node."""


def method_graph(method: str) -> None:
    """The map itself; a click on a node picks its method."""
    st.echarts_chart(
        graph_spec(method, theme()),
        height=360,
        key="graph",
        renderer="svg",
        on_select=pick_clicked_method,
        alt="Map of the methods. "
        + " ".join(
            f"{NODE_TITLES[a]} to {NODE_TITLES[b]}: {text}." for (a, b), text in EDGE_LABELS.items()
        ),
    )


def pick_clicked_method() -> None:
    """Callback: the clicked node becomes the picked method. A second click on a node deselects it
    in the chart but not on the page.
    """
    picked = clicked_method(st.session_state["graph"], st.session_state.get("clicked"))
    if picked:
        st.session_state["clicked"] = st.session_state["method"] = picked


def clicked_method(state: Any, before: str | None) -> str | None:
    """The method of the node that was clicked last: the selected one, or the one selected `before`
    if the click has deselected it.
    """
    nodes = [
        index
        for group in state["selection"]["selected"]
        if group.get("data_type") != "edge"
        for index in group["data_indices"]
    ]
    names = list(METHOD_NODES)
    return names[nodes[-1]] if nodes and 0 <= nodes[-1] < len(names) else before


def graph_spec(picked: str, theme_name: str) -> dict[str, Any]:
    """The map for ECharts: nodes in the methods' colours, the picked one filled, on every arrow
    what the step changed.
    """
    colours = THEMES[theme_name]

    def node(name: str) -> dict[str, Any]:
        colour, (x, y) = METHOD_COLOURS[name], NODE_POSITIONS[name]
        style = {
            "color": colour if name == picked else colours["surface"],
            "borderColor": colour,
            "borderWidth": 3,
        }
        label = {
            "color": _readable_text_colour(colour) if name == picked else colours["text"],
            "fontWeight": "bold" if name == picked else "normal",
        }
        look = {"itemStyle": style, "label": label}
        return {
            "id": name,
            "name": NODE_TITLES[name].replace(" ", "\n"),
            "value": [x, y],
            "select": look,
        } | look

    edges = [
        {"source": a, "target": b, "value": text, "label": {"show": True, "formatter": text}}
        for (a, b), text in EDGE_LABELS.items()
    ]
    series = {
        "type": "graph",
        "coordinateSystem": "cartesian2d",
        "selectedMode": "single",
        "data": [node(name) for name in METHOD_NODES],
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


def _readable_text_colour(colour: str) -> str:
    """Black or white, whichever is easier to read on `colour`."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "#FFFFFF"
