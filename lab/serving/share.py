"""A run as one HTML file: curves, marks of changed settings and completions, with a button that replays
the run. The file needs neither Python nor a network.

All texts travel as data and become text nodes in the browser, and the file's own security policy
allows no script and no style but the two that are written here.
"""

import base64
import hashlib
import html
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from lab.analysis.diagnose import MetricColumn
from lab.config.json_format import to_dict
from lab.config.methods import make_config
from lab.config.number_text import WHOLE_BELOW
from lab.errors import LabError
from lab.figures.curve_points import decimate
from lab.figures.events import event_text
from lab.figures.palette import METHOD_COLOURS, METHOD_NAMES
from lab.figures.panel_layout import METRIC_SYMBOLS
from lab.figures.run_curves import TRAINING_METRIC, RunCurves, default_panels, x_axis_end
from lab.runs.damage import damage
from lab.runs.folder import RunFolder
from lab.runs.metrics import METRICS
from lab.runs.states import ACTIVE_STATES, WAITING_STATES

MAX_POINTS = 300  # of a line
MAX_TEXT = 1200  # characters of a prompt or a completion
MAX_HELD_OUT, MAX_GROUP = 8, 16  # completions of one step
MAX_SAMPLES_BYTES = 1_500_000  # of all completions; the rest of the file is smaller than 1 MB
_SHARE = {name for name, metric in METRICS.items() if metric.unit == "share"}
_CODE = {
    kind: Path(__file__).with_name(f"share.{kind}").read_text("utf-8") for kind in ("js", "css")
}


def share_page(
    folder: RunFolder, title: str = "", sections: Sequence[Mapping[str, Any]] = ()
) -> str:
    """Return the HTML file of a run, called `title` or else as its folder, with further `sections`.
    Each has a title, `texts` or `rows` of texts under a `head`, and may be `top` or `folded`.

    Raises `LabError` for a damaged run, and for one that has measured nothing unless there are
    sections.
    """
    if reason := damage(folder):
        raise LabError(f"{folder.name} is damaged and cannot be shared: {_last_names(reason)}")
    data = _run_data(folder, title or folder.path.resolve().name) | {"sections": list(sections)}
    if not data["panels"] and not sections:
        raise LabError(
            f"{folder.name} has not measured anything yet, so there is nothing to share. Wait for"
            " its first update."
        )
    return _html(data)


def _last_names(reason: str) -> str:
    """The reason without the folders in which the server keeps its runs."""
    return " ".join(
        PurePosixPath(word).name if PurePosixPath(word).is_absolute() else word
        for word in reason.split()
    )


def _run_data(folder: RunFolder, title: str) -> dict[str, Any]:
    """What the script of the file draws."""
    config = to_dict(folder.config)
    rows = folder.history()
    steps = [row for row in rows if row["type"] == "step"]
    columns: dict[str, tuple[list[int], list[float]]] = {}
    for row in steps:
        for name, value in row["metrics"].items():
            column = columns.setdefault(name, ([], []))
            column[0].append(row["step"])
            column[1].append(float("nan") if value is None else value)
    run = RunCurves(folder.name, config["method"], title, dict(columns), steps=config["steps"])
    step = steps[-1]["step"] if steps else 0
    samples, notices = _samples(folder.samples())
    if folder.state in ACTIVE_STATES + WAITING_STATES:
        notices.append(
            f"The run was not over when this file was written: it had done {step} updates."
        )
    return {
        "title": title,
        "method": METHOD_NAMES[config["method"]],
        "colour": METHOD_COLOURS[config["method"]],
        "state": str(folder.state),
        "step": step,
        "steps": config["steps"],
        "end": x_axis_end([run]),
        "panels": [_panel(name, columns) for name in default_panels([run])],
        "marks": [
            [row["step"], text]
            for row in rows
            if row["type"] == "event" and (text := event_text(row))
        ],
        "samples": samples,
        "notices": notices,
        "source": _source(config),
        "command": repeat_command(config),
    }


def _panel(name: str, columns: Mapping[str, MetricColumn]) -> dict[str, Any]:
    """One panel: held-out values as points, those of every update as a line."""
    metric = METRICS[name]
    held_out = name.startswith(("gold/", "eval/"))
    training = TRAINING_METRIC.get(name, "") if held_out else name
    return {
        "title": metric.label,
        "unit": f"{METRIC_SYMBOLS[name]}, {metric.unit}" if name in METRIC_SYMBOLS else metric.unit,
        "meaning": metric.meaning,
        "share": name in _SHARE and name != "value/explained_variance",
        "points": _thinned(columns[name]) if held_out else None,
        "line": _thinned(columns[training]) if training in columns else None,
    }


def _thinned(column: MetricColumn) -> list[list[Any]]:
    steps, values = decimate(*column, MAX_POINTS)
    return [steps, [None if v is None else float(f"{v:.5g}") for v in values]]


def _samples(rows: list[dict[str, Any]]) -> tuple[list[list[Any]], list[str]]:
    """The completions by step, and what is left out of them in words."""
    by_step: dict[int, dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        if "completion" in row:
            kinds = by_step.setdefault(row["step"], {"held_out": [], "group": []})
            kinds["held_out" if row.get("held_out") else "group"].append(_sample(row))
    if not by_step:
        return [], ["This run recorded no completions."]
    steps: list[list[Any]] = []
    for step, kinds in sorted(by_step.items()):
        group = sorted(kinds["group"], key=lambda row: -(row.get("reward") or 0))
        steps.append([step, kinds["held_out"][:MAX_HELD_OUT], group[:MAX_GROUP]])
    every = 1
    while len(json.dumps(steps[::every])) > MAX_SAMPLES_BYTES and every < len(steps):
        every += 1
    shown = steps[::every]
    if every == 1:
        return shown, []
    return shown, [
        f"The run recorded completions at {len(steps)} steps. To stay small, this file holds those of"
        f" {len(shown)}."
    ]


def _sample(row: Mapping[str, Any]) -> dict[str, Any]:
    sample: dict[str, Any] = {
        "prompt": _clipped(row["prompt"]),
        "completion": _clipped(row["completion"]),
    }
    if row.get("held_out"):
        answer, gold = row.get("answer"), row.get("gold")
        return sample | {
            "answer": "" if answer is None else _clipped(str(answer)),
            "right": None if gold is None else bool(gold),
        }
    return sample | {
        name: row[name] for name in ("reward", "advantage") if row.get(name) is not None
    }


def _clipped(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} … ({len(text)} characters)"


def _source(config: Mapping[str, Any]) -> str:
    """Seed, device and measurement of the run."""
    every = f"every {config['eval_every']} updates"
    if not config["task"]:
        return f"Seed {config['seed']}, device {config['device']}, held-out rows measured {every}."
    return (
        f"Seed {config['seed']}, device {config['device']}, {config['eval_prompts']} held-out prompts"
        f" measured {every}, with one completion each at temperature 1."
    )


def repeat_command(config: Mapping[str, Any]) -> str:
    """Return the command that trains the run, with file names in place of paths."""
    own_data = {"data": config["data"]} if config.get("data") else {}
    default = to_dict(make_config(config["method"], own_data)) | {"data": ""}
    words = ["alab", "train", config["method"]]
    for name, value in config.items():
        if value == default[name] and name != "seed":
            continue
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
            continue
        text = shlex.quote(without_folders(exact_text(value)))
        words += [f"--{option}={text}"] if text.startswith("-") else [f"--{option}", text]
    return " ".join(words)


def exact_text(value: Any) -> str:
    """Return a setting as text with all its digits, as the command line takes it.

    Anchors: 0.1 is "0.1", 1e-05 is "1e-05", 2.0 is "2", True is "on" and None is "none".
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float) and value.is_integer() and abs(value) < WHOLE_BELOW:
        return str(int(value))
    return str(value)


def without_folders(text: str) -> str:
    """Return a text, of an absolute path the last part alone."""
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(text).is_absolute():
            return kind(text).name
    return text


def _html(data: Mapping[str, Any]) -> str:
    # "<" would let a text end the script element that holds the data.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_hash(_CODE['js'])}'",
            f"style-src '{_hash(_CODE['css'])}'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{html.escape(data["title"])}</title>
<style>{_CODE["css"]}</style>
</head>
<body>
<main id="run"></main>
<noscript>This file draws its curves with JavaScript, which your browser has turned off.</noscript>
<script type="application/json" id="data">{text}</script>
<script>{_CODE["js"]}</script>
</body>
</html>
"""


def _hash(code: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}"
