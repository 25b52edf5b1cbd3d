"""Imports a run of another trainer as a run folder, which the dashboard shows and nothing continues."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.config.changes import parse_setting
from lab.config.config_file import RUN_YAML
from lab.config.methods import METHODS, make_config
from lab.errors import LabError, unknown
from lab.runs.folder import RunFolder, create
from lab.runs.foreign_records import ForeignRecords, Rows, read_foreign_records, running_seconds
from lab.runs.records import Event, StepRecord
from lab.runs.states import EventKind, RunState
from lab.runs.trl_names import LENGTH, lab_metrics
from lab.storage.jsonl import append_rows, replace_file
from lab.storage.paths import runs_root

IMPORT_FILE = "imported.json"
UNKNOWN_SOURCE = "imported/unknown"
"""The name of the task or data of an imported run: its records do not name them."""
VERL_NAMES = {
    "actor/pg_loss": "loss",
    "actor/entropy": "entropy",
    "actor/entropy_loss": "entropy",
    "actor/grad_norm": "grad_norm",
    "actor/lr": "learning_rate",
    "actor/pg_clipfrac": "clip_ratio/region_mean",
    "actor/kl_loss": "kl",
    "critic/rewards/mean": "reward",
    "critic/vf_loss": "loss/value",
    "critic/grad_norm": "grad_norm/critic",
    "critic/vf_explained_var": "value/explained_variance",
    "response_length/mean": LENGTH,
    "response_length/clip_ratio": "completions/clipped_ratio",
}
"""verl's names of metrics and the lab's."""
VERL_ACCURACY = re.compile(r"val-core/.+/acc/mean@\d+")
"""The accuracy on a data set of held-out prompts; of several none is the gold accuracy."""
NO_METRICS = re.compile(
    r"(train/)?(epoch|total_flos|train_(loss|runtime|\w+_per_second))"
    r"|eval[_/](runtime|\w+_per_second)"
)
"""Names that a trainer logs about itself and not about the training."""
STEP_SECONDS = ("timing_s/step", "perf/time_per_step", "step_time", "train/step_time")


def import_run(
    source: Path, out: Path | None = None, method: str = "", known: Sequence[str] = ()
) -> RunFolder:
    """Create a finished run folder with the records of another trainer; return it.

    The method is told from the names of the metrics unless it is given. Names and units become the
    lab's; a metric that the lab does not have keeps its name. `known` are settings that the user
    knows and the records do not hold, as SETTING=VALUE.

    Raises `LabError` for records that cannot be read or tell no method, a setting that the method
    does not take, and a folder that exists.
    """
    if method and method not in METHODS:
        raise unknown("method", method, list(METHODS))
    for text in known:
        if "=" not in text:
            raise LabError(f"'{text}' is no setting. Write SETTING=VALUE, such as beta=0.1.")
    records = read_foreign_records(source)
    method = method or method_of_names({name for row in records.rows.values() for name in row})
    rows = {
        step: _lab_metrics(method, logged)
        for step, logged in sorted(records.rows.items())
        if any(not NO_METRICS.fullmatch(name) for name in logged)
    }
    given = _parsed(method, known)
    config = make_config(method, _settings(method, rows) | given)
    folder = create(out or runs_root() / _name_of(source), config, RunState.FINISHED)
    try:
        (folder.path / RUN_YAML).unlink()  # The settings that are not known cannot be repeated.
        replace_file(
            folder.path / IMPORT_FILE,
            (json.dumps({"source": str(source.resolve()), "kind": records.kind}) + "\n").encode(),
        )
        append_rows(folder.path / "metrics.jsonl", _rows(records, rows, given))
        folder.write_status(RunState.FINISHED, max(rows))
    except OSError as error:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise LabError(f"Cannot write in {folder.path}: {error.strerror}.") from error
    return folder


def is_imported(path: Path) -> bool:
    """Return whether the run of a folder was imported from another trainer."""
    return (path / IMPORT_FILE).is_file()


def require_own(folder: RunFolder) -> None:
    """Raise `LabError` for an imported run, which has records and no weights."""
    if is_imported(folder.path):
        raise LabError(
            f"{folder.path} was imported from another trainer: it can be looked at, but has no"
            " weights of this lab, so it cannot be continued, measured or asked."
        )


def method_of_names(names: set[str]) -> str:
    """Return the method whose trainer logs metrics of these names."""
    short = {name.removeprefix("train/") for name in names}
    if any(name.startswith(("actor/", "critic/")) for name in short):
        return "ppo" if "critic/vf_loss" in short else "grpo"
    rules = {
        "online_dpo": {"objective/scores", "rewards/margins"},
        "kto": {"kl", "rewards/margins"},
        "dpo": {"rewards/margins"},
        "grpo": {"reward", "reward_std"},
        "reward_model": {"accuracy", "margin"},
        "sft": {"loss"},
    }
    for method, needed in rules.items():
        if needed <= short:
            return method
    raise LabError(
        f"The metrics ({', '.join(sorted(short)[:6])}) tell no method. Name it: --method"
        f" {' or '.join(METHODS)}"
    )


def _parsed(method: str, known: Sequence[str]) -> dict[str, Any]:
    settings = {}
    for text in known:
        name, _, value = text.partition("=")
        settings[name] = parse_setting(METHODS[method].config, name, value)
    return settings


def _lab_metrics(method: str, logged: Mapping[str, float]) -> dict[str, float]:
    accuracies = [name for name in logged if VERL_ACCURACY.fullmatch(name)]
    names = VERL_NAMES | ({accuracies[0]: "gold/accuracy"} if len(accuracies) == 1 else {})
    kept = {
        names.get(name, name): value
        for name, value in logged.items()
        if not NO_METRICS.fullmatch(name)
    }
    return lab_metrics("grpo" if method == "ppo" else method, kept)


def _settings(method: str, rows: Rows) -> dict[str, Any]:
    """The settings that the records tell: the number of updates and the highest learning rate."""
    rates = [
        row["learning_rate"] for row in rows.values() if 1e-8 <= row.get("learning_rate", 0) <= 1
    ]
    known: dict[str, Any] = {"steps": max(1, *rows), "model": UNKNOWN_SOURCE}
    if rates:
        known["learning_rate"] = max(rates)
    return known | {"data" if METHODS[method].offline else "task": UNKNOWN_SOURCE}


def _rows(records: ForeignRecords, rows: Rows, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    seconds = records.seconds or running_seconds(records.rows, STEP_SECONDS)
    known = ", ".join(["steps", "learning_rate", *given])
    note = (
        f"Imported from {records.kind}, {records.path}. Of the settings only {known} are known; the"
        " others show the lab's defaults."
    )
    return [
        Event(0, EventKind.NOTED, {"message": note}).row(),
        *(
            StepRecord(step, metrics, seconds.get(step, 0.0), 0).row()
            for step, metrics in rows.items()
        ),
        Event(max(rows), EventKind.FINISHED).row(),
    ]


def _name_of(source: Path) -> str:
    """The name of the new run: that of the folder, with dashes for what a run's name cannot have."""
    path = source.resolve()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem if path.is_file() else path.name)
    return name.strip("-._")[:100] or "imported"
