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

DARK_COLOURS = {
    "#0072B2": "#4BA3DC",
    "#56B4E9": "#A6DCF8",
    "#E69F00": "#F0B23A",
    "#009E73": "#2DBE93",
    "#D55E00": "#F07B2E",
    "#CC79A7": "#DE94BD",
    REFERENCE_COLOUR: "#9AA0A6",
}
"""What stands for a colour on a dark ground. Figures name the colours of the light theme, and the
browser exchanges them, because it alone knows the theme.
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


def theme_colour(colour: str, theme: str) -> str:
    """The colour that stands for `colour` in a theme, for a picture that the server draws."""
    return DARK_COLOURS.get(colour, colour) if theme == "dark" else colour


def _theme(
    text: str,
    muted: str,
    grid: str,
    axis: str,
    surface: str,
    veil: str,
    colours: dict[str, str] | None = None,
) -> dict[str, Any]:
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
            "meta": colours or {},  # js_component.js exchanges these in the figure
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
    "dark": _theme(
        "#ECEAE6", "#A9ABAE", "#2C2F33", "#565A60", "#1D2024", "rgba(21,23,26,0.5)", DARK_COLOURS
    ),
}
"""For each theme: the colours of text, muted text and surfaces, and the `layout` of a plotly template."""
