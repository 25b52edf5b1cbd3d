"""The curves of running runs: a plotly.js figure that stays mounted while its data grows.

Streamlit's chart elements remount at every change, which loses the zoom. This element receives the
thinned points of every run as JSON text, computed once per run for all sessions, and passes them to
`Plotly.react`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence

from lab.dashboard.components.js_component import js_component, plotly_url
from lab.dashboard.components.present import presented_panels
from lab.dashboard.state.run_cache import Snapshot
from lab.figures.events import event_marks
from lab.figures.palette import THEMES
from lab.figures.panel_layout import panel_layout
from lab.figures.run_curves import TRAINING_METRIC, RunCurves, x_axis_end
from lab.figures.sweep_style import end_labels
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
    """The data of one refresh: layouts for one to four columns, event lines, and per run its style and
    its traces as JSON text.

    `along` is the x axis: step, tokens or seconds. With a smoothing `weight` above 0 the raw values
    stay visible, faint.
    """
    panels = presented_panels(panels)
    end = x_axis_end(runs)
    shapes, labels = event_marks(runs, panels)
    labels += end_labels(runs, panels)
    run_data = [
        {
            "name": run.name,
            "label": run.label,
            "colour": run.style["colour"],
            "dash": run.style["dash"],
            "traces": f"[{','.join(traces_json(run, snapshots[run.name], panels, along, weight))}]",
        }
        for run in runs
    ]
    has_training_batch = any(
        TRAINING_METRIC.get(panel) in run.columns for run in runs for panel in panels
    )
    legend = ["points: held-out prompts; thin line: training batch"] * has_training_batch + [
        f"faint line: original values; line: smoothed with {weight:g}"
    ] * bool(weight)
    return {
        "runs": run_data,
        "shapes": shapes,
        "labels": labels,
        "along": along,
        "layouts": {
            c: panel_layout(panels, c, end, along=along) | {"template": None} for c in (1, 2, 3, 4)
        },
        "themes": {name: theme["layout"] for name, theme in THEMES.items()},
        "alt": alt,
        "step": max(s.step for s in snapshots.values()),
        "key": "; ".join(legend),
        "plotly": plotly_url(),
    }


def traces_json(
    run: RunCurves, snapshot: Snapshot, panels: Sequence[str], along: str, weight: float
) -> Iterator[str]:
    """The traces of a run as JSON text: the style of every trace joined with its points, which are
    computed once per snapshot.
    """
    for metric, style in trace_styles(run, panels):
        for trace, trace_weight in (
            ((raw_line_style(style), 0.0), (smoothed_line_style(style), weight))
            if weight
            else ((style, 0.0),)
        ):
            yield f"{json.dumps(trace)[:-1]},{snapshot.points_of(metric, along, trace_weight)}}}"


def live_curves(
    runs: Sequence[RunCurves],
    snapshots: Mapping[str, Snapshot],
    panels: Sequence[str],
    alt: str,
    along: str = "step",
    weight: float = 0.0,
) -> None:
    """Draw the curves of `runs`; `alt` describes them for screen readers."""
    live_chart_element(key="live-curves", data=payload(runs, snapshots, panels, alt, along, weight))
