"""The look of a sweep: runs of one method that differ in one setting have colours in the order of its
values, and a label at the end of every line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.config.number_text import number_text
from lab.config.sweep import SWEPT_SETTINGS
from lab.figures.base import axis_name
from lab.figures.panel_layout import ROW_HEIGHT
from lab.figures.run_curves import SETTING_SYMBOLS, RunCurves

LOW_TO_HIGH = ("#3B6CE0", "#8A55D6", "#C2429A", "#D2553C", "#A87400")
"""The colours of a sweep from the lowest value to the highest; each has a contrast of 3 to both themes."""
LABEL_GAP = 13  # pixels between two labels of one panel
SAME_RUN = ("seed", "device")  # settings in which the runs of one value may differ


@dataclass(frozen=True)
class SweepPlace:
    """The place of a run in its sweep: "β 0.2" and the colour of that value."""

    text: str
    colour: str


def sweep_places(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, SweepPlace]:
    """Return the place of every run by its name; empty unless all runs are of one method and differ in
    one of β, G and the learning rate, with at least two values. The runs of one value may differ in
    their seed, which their text then names.
    """
    rows = list(configs.values())
    if len({row["method"] for row in rows}) != 1:
        return {}
    differing = [
        knob
        for knob in rows[0]
        if knob not in SAME_RUN and any(row.get(knob) != rows[0][knob] for row in rows)
    ]
    if len(differing) != 1 or differing[0] not in SWEPT_SETTINGS:
        return {}
    (knob,) = differing
    values = sorted({row[knob] for row in rows})
    texts = {name: f"{SETTING_SYMBOLS[knob]} {number_text(c[knob])}" for name, c in configs.items()}
    if len(set(texts.values())) < len(rows):
        texts = {name: f"{text}, seed {configs[name]['seed']}" for name, text in texts.items()}
    if len(set(texts.values())) < len(rows):
        texts = {name: f"{text} ({name})" for name, text in texts.items()}
    return {
        name: SweepPlace(texts[name], sweep_colour(values.index(c[knob]), len(values)))
        for name, c in configs.items()
    }


def sweep_colour(place: int, count: int) -> str:
    """Return the colour of the value at `place` of `count` values in rising order.

    Anchor: of two values the first has the first colour and the second the last.
    """
    position = place / max(count - 1, 1) * (len(LOW_TO_HIGH) - 1)
    left = min(int(position), len(LOW_TO_HIGH) - 2)
    share = position - left
    ends = [
        [int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in LOW_TO_HIGH[left : left + 2]
    ]
    return "#" + "".join(f"{round(a + share * (b - a)):02X}" for a, b in zip(*ends))


def end_labels(runs: Sequence[RunCurves], panels: Sequence[str]) -> list[dict[str, Any]]:
    """Return plotly annotations: at the last point of the first line of each colour, what its run is.
    Labels of one panel keep `LABEL_GAP` pixels apart.
    """
    labels = []
    for number, panel in enumerate(panels, start=1):
        ends: dict[str, tuple[float, float, RunCurves]] = {}
        for run in runs:
            if run.end_label and len(run.columns.get(panel, ((), ()))[0]):
                steps, values = run.columns[panel]
                ends.setdefault(run.style["colour"], (run.x(steps[-1]), values[-1], run))
        shifts = _shifts([y for _, y, _ in ends.values()], panel, runs)
        labels += [
            _end_label(x, y, run, number, shift)
            for (x, y, run), shift in zip(ends.values(), shifts)
            if y == y  # not NaN
        ]
    return labels


def _shifts(heights: Sequence[float], panel: str, runs: Sequence[RunCurves]) -> list[float]:
    """Pixels by which the labels at `heights` move up, so that they do not overlap."""
    values = [v for run in runs for v in run.columns.get(panel, ((), ()))[1] if v == v]
    span = max(values, default=1.0) - min(values, default=0.0) or 1.0
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    shifts, last = [0.0] * len(heights), float("-inf")
    for i in order:
        pixels = heights[i] / span * ROW_HEIGHT
        last = max(pixels, last + LABEL_GAP) if pixels == pixels else last
        shifts[i] = last - pixels if pixels == pixels else 0.0
    return shifts


def _end_label(x: float, y: float, run: RunCurves, number: int, shift: float) -> dict[str, Any]:
    return {
        "text": f'<span style="color:{run.style["colour"]}">●</span> {run.end_label}',
        "xref": axis_name("x", number),
        "yref": axis_name("y", number),
        "x": x,
        "y": y,
        "yshift": round(shift + 2, 1),
        "name": run.name,
        "xanchor": "right",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"size": 12},
        "borderpad": 0,
    }
