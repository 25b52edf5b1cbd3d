"""Figure of the memory of one update by kind, beside the sizes of graphics cards."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from lab.figures.base import empty_figure
from lab.figures.palette import METHOD_COLOURS, REFERENCE_COLOUR

GIB = 2**30
BAR_STYLES = {
    "weights": ("", 1.0),
    "gradients": ("/", 0.7),
    "optimizer": ("x", 0.7),
    "cache": (".", 0.5),
    "activations": ("-", 0.35),
}
"""Pattern and opacity of the bar of each kind of memory; the colour shows the method."""
KIND_TITLES = {"cache": "key-value cache"}


def memory_figure(
    memory: Mapping[str, Mapping[str, int]],
    method: str,
    cards: Sequence[int] = (),
    theme: str = "light",
) -> go.Figure:
    """Return one bar per phase of the update, stacked by kind of memory, in GiB, and a dashed line for
    each card size in `cards` (GiB).

    `memory` comes from a profile or an estimate: phase → kind → bytes. A card more than twice as
    large as the largest bar is omitted.
    """
    colour = METHOD_COLOURS[method]
    figure = empty_figure(
        theme,
        barmode="stack",
        height=130 + 55 * len(memory),
        margin={"l": 10, "r": 20, "t": 60, "b": 50},
        legend={"orientation": "h", "x": 0, "y": 1.18, "yanchor": "bottom"},
        xaxis={"title": {"text": "memory, GiB"}, "rangemode": "tozero"},
        yaxis={"automargin": True, "autorange": "reversed"},
    )
    highest = max(sum(kinds.values()) for kinds in memory.values()) / GIB
    for kind, (pattern, strength) in BAR_STYLES.items():
        sizes = [kinds.get(kind, 0) / GIB for kinds in memory.values()]
        figure.add_bar(
            y=list(memory),
            x=sizes,
            orientation="h",
            name=KIND_TITLES.get(kind, kind),
            opacity=strength,
            marker={
                "color": colour,
                "pattern": {"shape": pattern, "solidity": 0.4},
                "line": {"color": colour, "width": 1},
            },
            hovertemplate=f"{KIND_TITLES.get(kind, kind)} %{{x:.2f}} GiB<extra></extra>",
        )
    card_sizes = [size for size in cards if size <= 2 * highest] or list(cards[:1])
    for size in card_sizes:
        figure.add_vline(
            x=size,
            line={"color": REFERENCE_COLOUR, "dash": "dash", "width": 1.5},
            annotation={"text": f"{size} GB card"},
            annotation_position="top",
        )
    return figure
