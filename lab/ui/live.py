"""The curves of running runs: plotly.js that stays mounted while its data grows.

Streamlit's chart elements remount at every change, which loses the zoom. This one gets decimated points per run as ready
JSON text, computed once per run and shared by all sessions, and hands them to `Plotly.react`.
"""

import json
from collections.abc import Mapping, Sequence

from lab.figures.curves import UNDER, RunCurves, event_marks, last_step, layout, trace_styles
from lab.figures.palette import THEMES
from lab.ui.element import element, serve_plotly
from lab.ui.records import Snapshot

_element = element("live")


def payload(runs: Sequence[RunCurves], snapshots: Mapping[str, Snapshot], panels: Sequence[str], alt: str) -> dict:
    """What one tick sends: layouts for one to four columns, event lines, and per run its look and its traces as JSON text."""
    end = last_step(runs)
    shapes, labels = event_marks(runs, panels)
    sent = []
    for run in runs:
        points = snapshots[run.name].points_of
        lines = (f"{json.dumps(style)[:-1]},{points(metric)}}}" for metric, style in trace_styles(run, panels))
        sent.append({"name": run.name, "label": run.label, "colour": run.style["colour"], "dash": run.style["dash"], "traces": f"[{','.join(lines)}]"})
    both = any(UNDER.get(panel) in run.columns for run in runs for panel in panels)
    return {"runs": sent, "shapes": shapes, "labels": labels, "layouts": {c: layout(panels, c, end) | {"template": None} for c in (1, 2, 3, 4)},
            "themes": {name: theme["layout"] for name, theme in THEMES.items()}, "alt": alt, "step": max(s.step for s in snapshots.values()),
            "key": "points: held-out prompts, thin line: training batch" if both else "",
            "plotly": serve_plotly()}


def live_curves(runs: Sequence[RunCurves], snapshots: Mapping[str, Snapshot], panels: Sequence[str], alt: str) -> None:
    """Draw the curves of `runs`; `alt` is what a screen reader says of them."""
    _element(key="live-curves", data=payload(runs, snapshots, panels, alt))
