"""The map of the methods as a clickable graph."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from lab.dashboard.components.layout import theme
from lab.dashboard.pages.map.methods import EDGE_LABELS, METHOD_NODES
from lab.figures.palette import METHOD_COLOURS, METHOD_NAMES, THEMES, theme_colour

NODE_TITLES = {**METHOD_NAMES} | {"ppo": "RLHF (PPO)"}

NODE_POSITIONS = {
    "ppo": (0, 0),
    "dpo": (1, 1),
    "ipo": (2, 2),
    "kto": (3, 2),
    "online_dpo": (2, 1),
    "grpo": (3, 0),
}
"""Column and row of every method's node."""


def method_graph(method: str) -> None:
    """Show the map; a click on a node selects its method."""
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
    """Callback: select the method of the clicked node. A second click on a node deselects it in the chart
    but not on the page.
    """
    method = clicked_method(st.session_state["graph"], st.session_state.get("clicked"))
    if method:
        st.session_state["clicked"] = st.session_state["method"] = method


def clicked_method(state: Any, previous: str | None) -> str | None:
    """The method of the node that was clicked last: the selected node, or `previous` if the click has
    deselected it. `state`: the chart's state in the session.
    """
    nodes = [
        index
        for group in state["selection"]["selected"]
        if group.get("data_type") != "edge"
        for index in group["data_indices"]
    ]
    names = list(METHOD_NODES)
    return names[nodes[-1]] if nodes and 0 <= nodes[-1] < len(names) else previous


def graph_spec(selected: str, theme_name: str) -> dict[str, Any]:
    """The map as an ECharts option: nodes in the methods' colours, the `selected` one filled, and on
    every arrow what the step between two methods changed.
    """
    colours = THEMES[theme_name]
    edges: list[dict[str, Any]] = [
        {
            "source": method,
            "target": next_method,
            "value": text,
            "label": {"show": True, "formatter": text},
        }
        for (method, next_method), text in EDGE_LABELS.items()
    ]
    series = {
        "type": "graph",
        "coordinateSystem": "cartesian2d",
        "selectedMode": "single",
        "data": [_graph_node(name, name == selected, theme_name) for name in METHOD_NODES],
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
    narrow_series = {
        "symbolSize": 52,
        "label": {"fontSize": 12, "lineHeight": 13},
        "edgeLabel": {"fontSize": 12},
        "links": [edge | {"label": edge["label"] | _narrow_label(edge)} for edge in edges],
    }
    narrow = {"series": [narrow_series], "grid": {"left": 32, "right": 32}}
    hidden = {"type": "value", "show": False}
    return {
        "animation": False,
        "tooltip": {"show": False},
        "series": [series],
        "grid": {"left": 60, "right": 60, "top": 46, "bottom": 46},
        "xAxis": hidden | {"min": 0, "max": 3},
        "yAxis": hidden | {"min": 0, "max": 2, "inverse": True},
        "media": [{"query": {"maxWidth": 640}, "option": narrow}],
    }


def _narrow_label(edge: Mapping[str, Any]) -> dict[str, Any]:
    """How the label of an arrow is placed on a telephone: above the arrow where the arrow between the
    nodes' circles is shorter than the label.
    """
    (x, y), (next_x, next_y) = (NODE_POSITIONS[edge[end]] for end in ("source", "target"))
    is_short = y == next_y and next_x - x == 1
    return {"offset": [0, -34]} if is_short else {}


def _graph_node(method: str, is_selected: bool, theme_name: str) -> dict[str, Any]:
    colours = THEMES[theme_name]
    colour, (x, y) = theme_colour(METHOD_COLOURS[method], theme_name), NODE_POSITIONS[method]
    style = {
        "itemStyle": {
            "color": colour if is_selected else colours["surface"],
            "borderColor": colour,
            "borderWidth": 3,
        },
        "label": {
            "color": _readable_text_colour(colour) if is_selected else colours["text"],
            "fontWeight": "bold" if is_selected else "normal",
        },
    }
    node = {
        "id": method,
        "name": NODE_TITLES[method].replace(" ", "\n"),
        "value": [x, y],
        "select": style,
    }
    return node | style


def _readable_text_colour(colour: str) -> str:
    """Black or white, whichever is easier to read on `colour`."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "#FFFFFF"
