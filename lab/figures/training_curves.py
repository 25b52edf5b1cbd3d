"""Training curves of several runs as small multiples: one panel per metric, every event a labelled
line.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lab.config.number_text import number_text
from lab.figures.palette import DASHES, METHOD_COLOURS, SYMBOLS, THEMES
from lab.runs.metrics import METRICS, is_change

Column = tuple[Sequence[int], Sequence[float]]

PANELS: tuple[str, ...] = (
    "gold/accuracy",
    "gold/reward",
    "gold/reward_accuracy",
    "gold/reward_margin",
    "eval/rewards/accuracies",
    "eval/rewards/margins",
    "eval/loss",
    "eval/perplexity",
    "reward",
    "rewards/margins",
    "gold/scratchpad_share",
    "gold/kl",
    "gold/repetition",
    "gold/mean_length",
    "grad_norm",
    "value/explained_variance",
    "loss",
    "rewards/accuracies",
    "frac_reward_zero_std",
    "logps/chosen",
    "logps/rejected",
    "rewards/chosen",
    "rewards/rejected",
    "kto/z",
    "entropy",
    "reward_std",
    "completions/clipped_ratio",
    "clip_ratio/region_mean",
    "ratio",
    "gold/format",
    "gold/distinct_2",
    "gold/empty",
    "reward/missing",
    "kl_coefficient",
    "eval/logps/chosen",
    "eval/logps/rejected",
    "eval/rewards/chosen",
    "eval/rewards/rejected",
    "loss/policy",
    "loss/value",
    "grad_norm/critic",
    "learning_rate",
)
"""Every panel there is, the most telling first."""

UNDER: dict[str, str] = {
    "gold/accuracy": "gold/rollout_accuracy",
    "gold/kl": "kl",
    "gold/mean_length": "completions/mean_length",
    "eval/loss": "loss",
    "eval/rewards/accuracies": "rewards/accuracies",
    "eval/rewards/margins": "rewards/margins",
}
"""The same quantity on the training batch of every step, drawn as a thin line under the held-out
points.
"""

SYMBOL: dict[str, str] = {
    "loss": "L",
    "grad_norm": "‖∇L‖",
    "learning_rate": "η",
    "rewards/chosen": "r_w",
    "rewards/rejected": "r_l",
    "rewards/margins": "r_w − r_l",
    "rewards/accuracies": "r_w > r_l",
    "logps/chosen": "log π(y_w|x)",
    "logps/rejected": "log π(y_l|x)",
    "kto/z": "z",
    "entropy": "H(π)",
    "gold/kl": "KL(π‖π_ref)",
    "gold/mean_length": "|y|",
    "reward": "mean r",
    "reward_std": "std r",
    "frac_reward_zero_std": "std r = 0",
    "ratio": "π/π_old",
}

AXES: dict[str, str] = {
    "step": "step (updates)",
    "tokens": "completion tokens trained on",
    "seconds": "seconds of training",
}
"""What the curves can be drawn against."""

_SHARES = {name for name, metric in METRICS.items() if metric.unit == "share"} - {
    "value/explained_variance"
}  # That one can be negative.
_ROW, _HEAD, _TOP, _BOTTOM, _LEFT, _RIGHT, _GAP, _LEGEND = 150, 54, 30, 40, 46, 12, 56, 26  # pixels
_WIDTHS = {
    1: 360,
    2: 760,
    3: 1180,
    4: 1600,
}  # the width for which margins and gaps of a column count are made


@dataclass(frozen=True)
class RunCurves:
    """What the figure needs of one run.

    `columns` maps a metric's name to its steps and values, both in order; `events` are rows of
    metrics.jsonl with type "event"; `order` is the run's place among the shown runs of its method
    and picks dash and symbol. `clock` maps a step to where it stands on the x axis when that is not
    the step itself.
    """

    name: str
    method: str
    label: str
    columns: Mapping[str, Column]
    events: Sequence[Mapping[str, Any]] = ()
    order: int = 0
    steps: int = 0
    clock: Mapping[int, float] | None = None
    style: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        at = self.order % len(DASHES)
        object.__setattr__(
            self,
            "style",
            {"colour": METHOD_COLOURS[self.method], "dash": DASHES[at], "symbol": SYMBOLS[at]},
        )

    def x(self, step: int) -> float:
        """Where a step stands on the x axis."""
        return step if self.clock is None else self.clock.get(step, 0)


def axis(name: str, place: int) -> str:
    """Plotly's name for the axis of a panel; the first carries no number."""
    return name if place == 1 else f"{name}{place}"


def panels_with_data(runs: Iterable[RunCurves]) -> list[str]:
    """The panels for which at least one run has a number, the most telling first."""
    there = set().union(*(run.columns for run in runs), set())
    return [name for name in PANELS if name in there]


def default_panels(runs: Iterable[RunCurves]) -> list[str]:
    """The nine panels to show first: what the task says, what the method raises, how far the policy
    moved, gradient, loss.
    """
    return panels_with_data(runs)[:9]


def run_labels(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """A short label for each run: its name, and the knobs in which the runs of its method differ.

    `configs` maps run names to `lab.config.methods.to_dict` dicts. With two GRPO runs that differ
    in β: "grpo-1, β 0", "grpo-2, β 0.1".
    """
    words = {"beta": "β", "group_size": "G", "learning_rate": "lr", "seed": "seed"}
    labels = {}
    for name, config in configs.items():
        same_method = [c for c in configs.values() if c["method"] == config["method"]]
        differ = [
            k
            for k in config
            if k not in ("method", "device") and any(c.get(k) != config[k] for c in same_method)
        ]
        parts = [
            f"{words.get(k, k.replace('_', ' '))} {number_text(config[k])}"
            for k in sorted(differ, key=lambda k: k not in words)[:3]
        ]
        labels[name] = ", ".join([name, *parts])
    return labels


def decimate(
    steps: Sequence[int], values: Sequence[float], limit: int
) -> tuple[list[int], list[float | None]]:
    """At most `limit` points that keep the first, the last and every bucket's lowest and highest
    value, so that no spike is lost.

    Values that are not finite become None, a gap in the line.
    """
    if len(steps) <= limit:
        return list(steps), [v if math.isfinite(v) else None for v in values]
    y = np.asarray(values, dtype=float)
    size = math.ceil(len(y) / max(1, (limit - 2) // 2))
    finite = np.where(np.isfinite(y), y, 0.0)
    buckets = np.pad(finite, (0, -len(y) % size), mode="edge").reshape(-1, size)
    starts = np.arange(len(buckets)) * size
    keep = {
        0,
        len(y) - 1,
        *(starts + buckets.argmin(1)).tolist(),
        *(starts + buckets.argmax(1)).tolist(),
    }
    at = sorted(i for i in keep if i < len(y))
    return [steps[i] for i in at], [values[i] if math.isfinite(values[i]) else None for i in at]


def smooth(values: Sequence[float], weight: float) -> list[float]:
    """The exponential moving average of `values`, in which each value counts `weight` times as much
    as the next.

    Divided by the sum of its weights, so that it starts at the first value and not at zero. A value
    that is not finite stays a gap and moves nothing. With weight 0.5, (0, 1, 1) becomes (0, 2/3,
    6/7).
    """
    total = norm = 0.0
    out = []
    for value in values:
        if math.isfinite(value):
            total, norm = weight * total + (1 - weight) * value, weight * norm + (1 - weight)
            out.append(total / norm)
        else:
            out.append(value)
    return out


def ghost(style: Mapping[str, Any]) -> dict[str, Any]:
    """The look of the raw values behind a smoothed line."""
    return {
        **style,
        "opacity": 0.5 * style.get("opacity", 0.6),
        "line": style["line"] | {"width": 1, "dash": "solid"},
        "hoverinfo": "skip",
        "hovertemplate": None,
    }


def in_front(style: Mapping[str, Any]) -> dict[str, Any]:
    """The look of a smoothed line: without the points, which belong to the raw values."""
    return {**style, "mode": "lines"}


def trace_styles(run: RunCurves, panels: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """(metric, plotly trace without its points) for every line that `run` draws on `panels`."""
    colour, dash, symbol = run.style["colour"], run.style["dash"], run.style["symbol"]
    out = []
    for place, panel in enumerate(panels, start=1):
        base = {
            "type": "scatter",
            "xaxis": axis("x", place),
            "yaxis": axis("y", place),
            "name": run.label,
            "showlegend": False,
            "legendgroup": run.name,
            "meta": run.name,
        }
        under = UNDER.get(panel)
        if under in run.columns:
            out.append(
                (
                    under,
                    base
                    | {
                        "mode": "lines",
                        "line": {"color": colour, "dash": dash, "width": 1},
                        "opacity": 0.55,
                        "name": f"{run.label}, training batch",
                        "hovertemplate": "%{y:.4g}",
                    },
                )
            )
        if panel in run.columns:
            held_out = panel.startswith(("gold/", "eval/"))
            marker = (
                {"marker": {"color": colour, "symbol": symbol, "size": 6, "maxdisplayed": 30}}
                if held_out
                else {}
            )
            out.append(
                (
                    panel,
                    base
                    | marker
                    | {
                        "mode": "lines+markers" if held_out else "lines",
                        "hovertemplate": "%{y:.4g}",
                        "line": {"color": colour, "dash": dash, "width": 2},
                    },
                )
            )
    return out


def traces(run: RunCurves, panels: Sequence[str], limit: int = 400) -> list[dict[str, Any]]:
    """The plotly traces of `run` on `panels`, each of at most `limit` points."""
    return [
        style | dict(zip("xy", decimate(*run.columns[metric], limit)))
        for metric, style in trace_styles(run, panels)
    ]


def event_text(row: Mapping[str, Any], short: bool = False) -> str:
    """What an event's line says, empty for events that are not drawn (start, end, refused commands,
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
    """(shapes, annotations): on every panel a vertical line in the run's colour for every event,
    and its label along the line.

    Events within 4 % of the steps of each other share one label, so that no label lies on another.
    Each carries the run's name as its `name`.
    """
    end = max(last_step(runs), 1)
    found = sorted(
        (
            (run.x(row["step"]), event_text(row, short=True), run)
            for run in runs
            for row in run.events
            if event_text(row)
        ),
        key=lambda e: e[0],
    )
    shapes, groups = [], []
    for step, text, run in found:
        if groups and step - groups[-1][0] < 0.04 * end:
            groups[-1][1].append(text)
        else:
            groups.append((step, [text], run.name))
        shapes += [
            {
                "type": "line",
                "xref": axis("x", place),
                "yref": axis("y", place) + " domain",
                "x0": step,
                "x1": step,
                "y0": 0,
                "y1": 1,
                "layer": "below",
                "line": {"color": run.style["colour"], "width": 1.5, "dash": "dot"},
                "name": run.name,
            }
            for place in range(1, len(panels) + 1)
        ]
    annotations = [
        {
            "text": shorten(", ".join(dict.fromkeys(texts)), 24),
            "xref": axis("x", place),
            "yref": axis("y", place) + " domain",
            "x": step,
            "y": 1,
            "name": name,
            "xanchor": "right",
            "yanchor": "top",
            "textangle": -90,
            "showarrow": False,
            "font": {"size": 10},
            "borderpad": 0,
            "xshift": 1,
        }
        for step, texts, name in groups
        for place in range(1, len(panels) + 1)
    ]
    return shapes, annotations


def shorten(text: str, length: int) -> str:
    """`text`, cut to `length` characters with an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def last_step(runs: Sequence[RunCurves]) -> int:
    """Where the x axis ends: the smallest 1-2-5 number that holds every run so far, and never
    beyond the steps that are planned.
    """
    reached = max(
        (run.x(steps[-1]) for run in runs for steps, _ in run.columns.values() if len(steps)),
        default=0,
    )
    planned = max((run.steps for run in runs if run.clock is None), default=0)
    end = next(m * 10**e for e in range(1, 12) for m in (1, 2, 5) if m * 10**e >= reached)
    return max(reached, min(end, planned or end))


def layout(
    panels: Sequence[str], columns: int, end: float, theme: str = "light", along: str = "step"
) -> dict[str, Any]:
    """Plotly layout of `panels` in a grid of `columns`, with x axes from 0 to `end`, of the kind
    `along`, that zoom together.
    """
    columns = min(columns, max(1, len(panels)))
    rows = math.ceil(len(panels) / columns)
    pitch = _ROW + _HEAD
    inner_width, inner_height = _WIDTHS[columns] - _LEFT - _RIGHT, rows * pitch - _HEAD
    panel = (inner_width - _GAP * (columns - 1)) / columns
    out: dict[str, Any] = {
        "template": {"layout": THEMES[theme]["layout"]},
        "height": inner_height + _TOP + _BOTTOM,
        "showlegend": False,
        "uirevision": "keep",
        "hovermode": "x",
        "dragmode": "zoom",
        "margin": {"l": _LEFT, "r": _RIGHT, "t": _TOP, "b": _BOTTOM},
        "annotations": [],
    }
    for place, name in enumerate(panels, start=1):
        row, column = divmod(place - 1, columns)
        left = column * (panel + _GAP) / inner_width
        top = 1 - row * pitch / inner_height
        lowest = place + columns > len(panels)
        out[axis("xaxis", place)] = {
            "domain": [left, min(1.0, left + panel / inner_width)],
            "anchor": axis("y", place),
            "range": [-0.02 * end, end * 1.02],
            "showgrid": False,
            "ticks": "outside",
            "ticklen": 3,
            "showline": True,
            "nticks": 7,
            "hoverformat": ".4~g" if along == "seconds" else "d",
            "zeroline": False,
            "title": {"text": AXES[along] if lowest else "", "standoff": 6},
        } | ({"matches": "x"} if place > 1 else {})
        out[axis("yaxis", place)] = {
            "domain": [max(0.0, top - _ROW / inner_height), min(1.0, top)],
            "anchor": axis("x", place),
            "nticks": 5,
            "zeroline": True,
            "rangemode": (
                "tozero"
                if name in ("grad_norm", "gold/kl", "gold/mean_length", "entropy", "reward_std")
                else "normal"
            ),
        }
        if name in _SHARES:
            out[axis("yaxis", place)] |= {
                "range": [-0.03, 1.03],
                "tickvals": [0, 0.25, 0.5, 0.75, 1],
                "ticktext": ["0", "", "0.5", "", "1"],
            }
        metric = METRICS[name]
        unit = f"{SYMBOL[name]}, {metric.unit}" if name in SYMBOL else metric.unit
        out["annotations"].append(
            {
                "text": f'<b>{metric.label}</b>  <span style="font-size:11px">{unit}</span>',
                "showarrow": False,
                "xref": "paper",
                "yref": "paper",
                "x": left,
                "y": top,
                "xanchor": "left",
                "yanchor": "bottom",
                "xshift": -6,
                "yshift": 3,
                "font": {"size": 13},
                "bgcolor": "rgba(0,0,0,0)",
            }
        )
    return out


def training_curves(
    runs: Sequence[RunCurves],
    panels: Sequence[str] | None = None,
    *,
    columns: int = 3,
    theme: str = "light",
) -> go.Figure:
    """Training curves of up to eight runs: colour is the method, dash and symbol the run, points
    are held-out evaluations.

    `panels` are metric names (default: `default_panels`); `columns` 1 to 4. In a notebook the
    legend is plotly's own.
    """
    panels = list(panels) if panels is not None else default_panels(runs)
    data = [trace for run in runs for trace in traces(run, panels)]
    named: set[str] = set()
    for trace in data:
        trace["showlegend"] = trace["meta"] not in named and "training batch" not in trace["name"]
        if trace["showlegend"]:
            named.add(trace["meta"])
    shapes, labels = event_marks(runs, panels)
    spec = layout(panels, columns, last_step(runs), theme)
    spec |= {
        "shapes": shapes,
        "annotations": spec["annotations"] + labels,
        "showlegend": len(runs) > 1,
        "legend": {
            "orientation": "h",
            "yanchor": "bottom",
            "y": 1 + _TOP / (spec["height"] - _TOP - _BOTTOM),
            "x": 0,
        },
    }
    if len(runs) > 1:  # The legend stands above the titles of the first row.
        spec |= {
            "height": spec["height"] + _LEGEND,
            "margin": spec["margin"] | {"t": _TOP + _LEGEND},
        }
    return go.Figure({"data": data, "layout": spec})


def points_json(column: Column, limit: int, clock: Mapping[int, float] | None = None) -> str:
    """`"x":[…],"y":[…]` of a decimated column with five significant digits: the part of a trace
    that grows.
    """
    steps, values = decimate(*column, limit)
    x = (
        json.dumps(steps)
        if clock is None
        else f"[{','.join(f'{clock.get(step, 0):.7g}' for step in steps)}]"
    )
    return f'"x":{x},"y":[{",".join("null" if v is None else f"{v:.5g}" for v in values)}]'
