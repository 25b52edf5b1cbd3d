"""The curves of running runs: plotly.js that stays mounted while its data grows.

Streamlit's chart elements remount at every change, which loses the zoom. This one gets decimated
points per run as ready JSON text, computed once per run and shared by all sessions, and hands them
to `Plotly.react`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence

from lab.dashboard.components.js_component import js_component, plotly_url
from lab.dashboard.state.run_cache import Snapshot
from lab.figures.events import event_marks
from lab.figures.palette import THEMES
from lab.figures.panel_layout import panel_layout
from lab.figures.run_curves import TRAINING_METRIC, RunCurves, x_axis_end
from lab.figures.training_curves import raw_line_style, smoothed_line_style, trace_styles

live_chart_element = js_component("live_chart")


def payload(
    runs: Sequence[RunCurves],
    snapshots: Mapping[str, Snapshot],
    panels: Sequence[str],
    alt: str,
    along: str = "step",
    weight: float = 0.0,
) -> dict:
    """What one tick sends: layouts for one to four columns, event lines, and per run its look and
    its traces as JSON text.

    `along` is what the curves are drawn against; with a `weight` of smoothing the raw values stay
    behind as a ghost.
    """
    end = x_axis_end(runs)
    shapes, labels = event_marks(runs, panels)
    sent = [
        {
            "name": run.name,
            "label": run.label,
            "colour": run.style["colour"],
            "dash": run.style["dash"],
            "traces": f"[{','.join(traces_json(run, snapshots[run.name], panels, along, weight))}]",
        }
        for run in runs
    ]
    both = any(TRAINING_METRIC.get(panel) in run.columns for run in runs for panel in panels)
    words = ["points: held-out prompts, thin line: training batch"] * both + [
        f"faint: raw, line: smoothed with {weight:g}"
    ] * bool(weight)
    return {
        "runs": sent,
        "shapes": shapes,
        "labels": labels,
        "along": along,
        "layouts": {
            c: panel_layout(panels, c, end, along=along) | {"template": None} for c in (1, 2, 3, 4)
        },
        "themes": {name: theme["layout"] for name, theme in THEMES.items()},
        "alt": alt,
        "step": max(s.step for s in snapshots.values()),
        "key": "; ".join(words),
        "plotly": plotly_url(),
    }


def traces_json(
    run: RunCurves, snapshot: Snapshot, panels: Sequence[str], along: str, weight: float
) -> Iterator[str]:
    """The traces of a run as JSON text: its styles, completed with points that are computed once
    per snapshot.
    """
    for metric, style in trace_styles(run, panels):
        for look, amount in (
            ((raw_line_style(style), 0.0), (smoothed_line_style(style), weight))
            if weight
            else ((style, 0.0),)
        ):
            yield f"{json.dumps(look)[:-1]},{snapshot.points_of(metric, along, amount)}}}"


def live_curves(
    runs: Sequence[RunCurves],
    snapshots: Mapping[str, Snapshot],
    panels: Sequence[str],
    alt: str,
    along: str = "step",
    weight: float = 0.0,
) -> None:
    """Draw the curves of `runs`; `alt` is what a screen reader says of them."""
    live_chart_element(key="live-curves", data=payload(runs, snapshots, panels, alt, along, weight))
