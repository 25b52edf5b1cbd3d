"""Events of a run (a changed setting, a pause) as labelled vertical lines in its panels."""

from collections.abc import Mapping, Sequence
from typing import Any

from lab.config.number_text import number_text
from lab.figures.base import axis_name
from lab.figures.labels import truncate_text
from lab.figures.run_curves import RunCurves, x_axis_end
from lab.runs.records import is_change


def event_text(row: Mapping[str, Any], short: bool = False) -> str:
    """Return the label of an event, empty for events that are not drawn (start, end, refused commands,
    a change to the same value). `short` gives only the new value.
    """
    detail = row.get("detail") or {}
    if row["kind"] == "changed":
        if not is_change(row):
            return ""
        word = {"beta": "β", "group_size": "G", "learning_rate": "lr"}.get(
            detail["knob"], detail["knob"].replace("_", " ")
        )
        return (
            f"{word} {number_text(detail['to'])}"
            if short
            else f"{word} {number_text(detail['from'])} → {number_text(detail['to'])}"
        )
    return row["kind"] if row["kind"] in ("resumed", "paused", "stopped", "failed") else ""


def event_marks(
    runs: Sequence[RunCurves], panels: Sequence[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return (shapes, annotations): on every panel a vertical line in the colour of the run for every
    event, and its label along the line.

    Events closer than 4 % of the steps share one label, so that labels do not overlap. The `name` of
    each shape and annotation is the name of the run.
    """
    end = max(x_axis_end(runs), 1)
    events = sorted(
        (
            (run.x(row["step"]), event_text(row, short=True), run)
            for run in runs
            for row in run.events
            if event_text(row)
        ),
        key=lambda e: e[0],
    )
    shapes: list[dict[str, Any]] = []
    groups: list[tuple[float, list[str], str]] = []
    for step, text, run in events:
        if groups and step - groups[-1][0] < 0.04 * end:
            groups[-1][1].append(text)
        else:
            groups.append((step, [text], run.name))
        shapes += [
            {
                "type": "line",
                "xref": axis_name("x", number),
                "yref": axis_name("y", number) + " domain",
                "x0": step,
                "x1": step,
                "y0": 0,
                "y1": 1,
                "layer": "below",
                "line": {"color": run.style["colour"], "width": 1.5, "dash": "dot"},
                "name": run.name,
            }
            for number in range(1, len(panels) + 1)
        ]
    annotations = [
        _label(", ".join(dict.fromkeys(texts)), step, number, name)
        for step, texts, name in groups
        for number in range(1, len(panels) + 1)
    ]
    return shapes, annotations


def _label(text: str, x: float, number: int, name: str) -> dict[str, Any]:
    """Return the label of a line at `x` in panel `number`."""
    return {
        "text": truncate_text(text, 24),
        "xref": axis_name("x", number),
        "yref": axis_name("y", number) + " domain",
        "x": x,
        "y": 1,
        "name": name,
        "xanchor": "right",
        "yanchor": "top",
        "textangle": -90,
        "showarrow": False,
        "font": {"size": 12},
        "borderpad": 0,
        "xshift": 1,
    }
