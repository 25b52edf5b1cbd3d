"""Reads what another trainer recorded: a trainer state of transformers (TRL), JSON lines (verl and
others), or the event files of TensorBoard.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.storage.jsonl import read_text

TRAINER_STATE, EVENT_FILES = "trainer_state.json", "events.out.tfevents.*"
Rows = dict[int, dict[str, float]]


@dataclass
class ForeignRecords:
    """The metrics of a run by step, under the names of the trainer that wrote them.

    `kind` names the format for readers, `path` the file or folder; `seconds` maps a step to the
    seconds since the first record, where the format has a time.
    """

    path: Path
    kind: str
    rows: Rows = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)

    def add(self, step: Any, metrics: Mapping[str, Any]) -> None:
        """Add the numbers among `metrics` to a step; other values are no metrics."""
        if type(step) is not int or step < 0:
            raise LabError(
                f"{self.path} has a record whose step is {step!r:.40}, but takes a whole number from"
                " 0. Nothing is imported."
            )
        numbers = {
            name: float(value)
            for name, value in metrics.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        self.rows.setdefault(step, {}).update(numbers)


def read_foreign_records(source: Path) -> ForeignRecords:
    """Return the records in a folder, or in one file of it.

    In a folder a trainer state is preferred, then JSON lines, then event files. Raises `LabError`
    where none is found, where there are several runs, and for a file that cannot be read.
    """
    if source.is_file():
        files = [source]
    elif source.is_dir():
        files = []
    else:
        raise LabError(f"There is no '{source}'. Give the folder of a run of TRL or verl.")
    readers: list[tuple[Callable[[Path], list[Path]], Callable[[Path], ForeignRecords]]] = [
        (_trainer_states, _read_trainer_state),
        (lambda folder: sorted(folder.glob("*.jsonl")), _read_json_lines),
        (_event_folders, _read_events),
    ]
    if files:
        return _reader_of(source)(source)
    for find, read in readers:
        if found := find(source):
            _require_one(source, found)
            return read(found[0])
    raise LabError(
        f"{source} holds no run that can be imported: no {TRAINER_STATE}, no .jsonl file and no"
        f" {EVENT_FILES}. Give the output folder of TRL, or the file in which verl logs."
    )


def _reader_of(file: Path) -> Callable[[Path], ForeignRecords]:
    if file.name == TRAINER_STATE:
        return _read_trainer_state
    return _read_events if "tfevents" in file.name else _read_json_lines


def _require_one(source: Path, found: list[Path]) -> None:
    if len(found) > 1:
        names = ", ".join(str(path.relative_to(source)) for path in found[:5])
        raise LabError(f"{source} holds several runs: {names}. Name the one to import.")


def _trainer_states(folder: Path) -> list[Path]:
    """The trainer state of a folder, or of its checkpoint with the most updates."""
    if (folder / TRAINER_STATE).is_file():
        return [folder / TRAINER_STATE]
    checkpoints = [
        (int(number), path)
        for path in folder.glob(f"checkpoint-*/{TRAINER_STATE}")
        if (number := path.parent.name.removeprefix("checkpoint-")).isdigit()
    ]
    return [max(checkpoints)[1]] if checkpoints else []


def _event_folders(folder: Path) -> list[Path]:
    return sorted({path.parent for path in folder.rglob(EVENT_FILES)})


def _read_trainer_state(path: Path) -> ForeignRecords:
    records = ForeignRecords(path, "a trainer state of transformers")
    state = _parsed(path, read_text(path), path)
    history = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(history, list):
        raise LabError(f"{path} has no list log_history, so it is no trainer state.")
    for row in history:
        if isinstance(row, dict):
            records.add(row.pop("step", None), row)
    return _not_empty(records)


def _read_json_lines(path: Path) -> ForeignRecords:
    """Lines with a step and metrics beside it, or below "data" as verl's file logger writes them."""
    records = ForeignRecords(path, "JSON lines")
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        row = _parsed(path, line, f"{path}, line {number}")
        step = next((row[name] for name in ("step", "global_step") if name in row), None)
        data = row.get("data", row)
        if not isinstance(data, dict):
            raise LabError(f"{path}, line {number}: 'data' is no object of metrics.")
        records.add(
            step, {name: data[name] for name in data if name not in ("step", "global_step")}
        )
    return _not_empty(records)


def _parsed(path: Path, text: str, place: Any) -> Any:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LabError(f"{place} is no JSON: {' '.join(str(error).split())[:120]}") from None
    if not isinstance(row, dict):
        raise LabError(f"{place} holds {type(row).__name__}, but takes an object.")
    return row


def _read_events(path: Path) -> ForeignRecords:
    """The scalars of event files, read by TensorBoard's own reader."""
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        raise LabError(
            f"{path} holds event files of TensorBoard, which its package reads: pip install"
            " tensorboard"
        ) from None
    records = ForeignRecords(path, "event files of TensorBoard")
    events = EventAccumulator(str(path), size_guidance={"scalars": 0})
    events.Reload()
    points = [(tag, point) for tag in events.Tags()["scalars"] for point in events.Scalars(tag)]
    start = min((point.wall_time for _, point in points), default=0.0)
    for tag, point in points:
        records.add(point.step, {tag: point.value})
        records.seconds[point.step] = max(
            records.seconds.get(point.step, 0.0), point.wall_time - start
        )
    return _not_empty(records)


def _not_empty(records: ForeignRecords) -> ForeignRecords:
    if not any(records.rows.values()):
        raise LabError(f"{records.path} holds no metrics.")
    return records


def running_seconds(rows: Rows, names: Iterable[str]) -> dict[int, float]:
    """Return the seconds up to each step as the sum of the first of `names` that a row has."""
    total, seconds = 0.0, {}
    for step in sorted(rows):
        value = next((rows[step][name] for name in names if name in rows[step]), 0.0)
        total += value if math.isfinite(value) else 0.0
        seconds[step] = total
    return seconds
