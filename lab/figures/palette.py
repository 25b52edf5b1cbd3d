"""One palette for the whole lab. Colour says which method; dash and symbol say which run of it.

The colours are Okabe and Ito's, which stay apart for readers who do not tell red from green.
"""

from typing import Any

from lab.config.methods import MethodTexts

REFERENCE = "#808080"  # the reference policy: grey, and always dashed

# A reward model is the first half of RLHF and PPO the second, so they share a colour; no figure
# compares the two.
METHOD_COLOURS = MethodTexts("colour")
METHOD_NAMES = MethodTexts("title")

ABOVE, BELOW = "#009E73", "#D55E00"
"""What is better or worse than expected. No method has these colours where they are used, and a
hatching or a symbol says the same.
"""

DASHES = (
    "solid",
    "dash",
    "dot",
    "dashdot",
    "longdash",
    "longdashdot",
    "2px 5px 8px 5px",
    "8px 3px",
)
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "triangle-down", "cross", "star")

_FONT = (
    '"Source Sans", "Source Sans 3", "Source Sans Pro", "Segoe UI", Helvetica, Arial, sans-serif'
)


def _theme(text: str, muted: str, grid: str, axis: str, surface: str, veil: str) -> dict[str, Any]:
    ticks = {
        "gridcolor": grid,
        "linecolor": axis,
        "zerolinecolor": axis,
        "zerolinewidth": 1,
        "tickfont": {"color": muted, "size": 11},
        "title": {"font": {"color": muted, "size": 12}},
    }
    return {
        "text": text,
        "muted": muted,
        "surface": surface,
        "layout": {
            "font": {"family": _FONT, "color": text, "size": 12},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "xaxis": ticks,
            "yaxis": ticks,
            "annotationdefaults": {"bgcolor": veil},
            "hoverlabel": {
                "bgcolor": surface,
                "bordercolor": axis,
                "font": {"color": text, "size": 12},
            },
            "modebar": {"color": muted, "activecolor": text, "bgcolor": "rgba(0,0,0,0)"},
        },
    }


THEMES: dict[str, dict[str, Any]] = {
    "light": _theme("#1F2328", "#59616B", "#E9E9E6", "#B9BCC0", "#FFFFFF", "rgba(255,255,255,0.5)"),
    "dark": _theme("#ECEAE6", "#A9ABAE", "#2C2F33", "#565A60", "#1D2024", "rgba(21,23,26,0.5)"),
}
"""Per theme the colours of text, quieter text and surfaces, and `layout`, which is a plotly
template's layout.
"""
