"""Summaries of runs for lists.

A summary reads the first and the last bytes of a run's record, so that a long run costs no more than a
short one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lab.config.json_format import to_dict
from lab.errors import LabError
from lab.runs.folder import RunFolder
from lab.runs.row_schemas import metrics_row
from lab.storage.jsonl import open_to_read, parse_rows

FIRST_READ_BYTES = 4 * 1024  # Read at first from either end of the record.
MAX_READ_BYTES = 4 * 1024 * 1024  # Read at most, when evaluations are far apart.
GOLD_METRICS = ("gold/accuracy", "gold/reward_accuracy")
HELD_OUT_LOSS = "eval/loss"  # For runs on own data without a task, which have no gold answers.


@dataclass(frozen=True)
class Summary:
    """One run in one line.

    `gold` is the gold accuracy (a reward model's ranking accuracy) at its first and its last
    evaluation, None before the first; `held_out` is the loss on held-out rows where there is no gold
    answer. `started` is in seconds since 1970, `seconds` counts the time of training.
    """

    name: str
    path: Path
    state: str
    config: Mapping[str, Any]
    started: float
    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    gold: tuple[float, float] | None = None
    held_out: tuple[float, float] | None = None


@dataclass(frozen=True)
class _Ends:
    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    gold: tuple[float, float] | None = None
    held_out: tuple[float, float] | None = None


def summaries(folders: Iterable[RunFolder]) -> list[Summary]:
    """Return the summary of each run that can be read, the one that was started last first."""
    readable = []
    for folder in folders:
        try:
            readable.append(summarise(folder))
        except LabError:  # It was deleted or damaged a moment ago.
            continue
    return sorted(readable, key=lambda s: s.started, reverse=True)


def summarise(folder: RunFolder) -> Summary:
    """Return the summary of a run as it is on disk now; raise `LabError` when its config cannot be
    read.

    Files that have not changed since the last call are not read again.
    """
    try:
        config = (folder.path / "config.json").stat()
    except OSError as error:
        raise LabError(
            f"{folder.path / 'config.json'} cannot be read: {error.strerror}."
        ) from error
    path = folder.path / "metrics.jsonl"
    try:
        record = path.stat()
        ends = _ends(path, record.st_ino, record.st_size, record.st_mtime_ns)
    except OSError:
        ends = _Ends()
    return Summary(
        folder.name,
        folder.path,
        folder.state,
        _config(folder, config.st_ino, config.st_mtime_ns),
        config.st_mtime,
        ends.step,
        ends.seconds,
        ends.tokens,
        ends.gold,
        ends.held_out,
    )


@lru_cache(maxsize=4096)
def _config(folder: RunFolder, inode: int, changed: int) -> dict[str, Any]:
    return to_dict(folder.config)


@lru_cache(maxsize=4096)
def _ends(path: Path, inode: int, size: int, changed: int) -> _Ends:
    """Progress from the last row, with the first and the last evaluation.

    More bytes are read from the end only until an evaluation is among them.
    """
    block = FIRST_READ_BYTES
    with open_to_read(path) as file:
        before = _evaluated(reversed(_steps(file.read(FIRST_READ_BYTES))))
        while True:
            start = max(0, size - block)
            file.seek(start)
            rows = _steps(file.read(size - start), whole=start == 0)
            after = _evaluated(rows)
            if (rows and after) or start == 0 or block >= MAX_READ_BYTES:
                break
            block *= 8
    if not rows:
        return _Ends()
    both = {name: (before[name], after[name]) for name in before if name in after}
    return _Ends(
        rows[0]["step"],
        rows[0]["seconds"],
        rows[0]["tokens"],
        next((both[name] for name in GOLD_METRICS if name in both), None),
        both.get(HELD_OUT_LOSS),
    )


def _steps(block: bytes, whole: bool = True) -> list[dict[str, Any]]:
    """The step rows in some bytes of metrics.jsonl, the last one first; unless `whole`, the bytes
    begin within a line.
    """
    rows = parse_rows(block if whole else block.partition(b"\n")[2], metrics_row)
    return [row for row in reversed(rows) if row.get("type") == "step"]


def _evaluated(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The metrics that a list shows, of the first row that has an evaluation."""
    evaluations = (
        {
            name: row["metrics"][name]
            for name in (*GOLD_METRICS, HELD_OUT_LOSS)
            if row["metrics"].get(name) is not None
        }
        for row in rows
    )
    return next(filter(None, evaluations), {})
