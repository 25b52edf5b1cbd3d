"""The palette of all figures: the colour shows the method, dash and symbol show the run.

The colours are those of Okabe and Ito, which colour-blind readers can distinguish.
"""

from typing import Any

from lab.config.methods import MethodTexts

REFERENCE_COLOUR = "#808080"  # The reference policy is grey, and always dashed.

# A reward model is the first half of RLHF and PPO the second, so they share a colour; no figure
# compares the two.
METHOD_COLOURS = MethodTexts("colour")
METHOD_NAMES = MethodTexts("title")

ABOVE, BELOW = "#009E73", "#D55E00"
"""Colours of "better" and "worse than expected". Figures that use them show no method in these
colours, and repeat the meaning by a hatching or a symbol.
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
        "tickfont": {"color": muted, "size": 12},
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
            "yaxis": ticks | {"ticklabeloverflow": "allow"},  # to hide labels, plotly measures each
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
"""For each theme: the colours of text, muted text and surfaces, and the `layout` of a plotly template."""
