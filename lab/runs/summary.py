"""What a list of runs says of each: from the head and the tail of its record, so that a long run
costs no more than a short one.
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
from lab.storage.jsonl import parse_rows

BLOCK = 4 * 1024  # bytes that are read first from either end
MOST = 4 * 1024 * 1024  # and at most, when evaluations are far apart
GOLD = ("gold/accuracy", "gold/reward_accuracy")
HELD_OUT = "eval/loss"  # Of own data without a task, where there is no gold.


@dataclass(frozen=True)
class Summary:
    """One run in one line. `gold` is the gold accuracy (a reward model's ranking accuracy) of its
    first and its last evaluation, None before the first; `held_out` the loss on held-out rows where
    there is no gold; `started` is in seconds since 1970; `seconds` are of training.
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
    """Each run that can be read, the one that was started last first."""
    found = []
    for folder in folders:
        try:
            found.append(summarise(folder))
        except LabError:  # It was deleted or damaged a moment ago.
            continue
    return sorted(found, key=lambda s: s.started, reverse=True)


def summarise(folder: RunFolder) -> Summary:
    """The run as it is on disk now; files that have not changed since the last call are not read
    again. `LabError` when its config cannot be read.
    """
    try:
        config = (folder.path / "config.json").stat()
    except OSError as error:
        raise LabError(
            f"{folder.path / 'config.json'} cannot be read: {error.strerror}."
        ) from error
    path = folder.path / "metrics.jsonl"
    try:
        found = path.stat()
        ends = _ends(path, found.st_ino, found.st_size, found.st_mtime_ns)
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
    """Progress from the last row, and the first and the last evaluation, read further from the end
    only until they are found.
    """
    block = BLOCK
    with path.open("rb") as file:
        before = _evaluated(reversed(_steps(file.read(BLOCK))))
        while True:
            start = max(0, size - block)
            file.seek(start)
            rows = _steps(file.read(size - start), whole=start == 0)
            after = _evaluated(rows)
            if (rows and after) or start == 0 or block >= MOST:
                break
            block *= 8
    if not rows:
        return _Ends()
    both = {name: (before[name], after[name]) for name in before if name in after}
    return _Ends(
        rows[0]["step"],
        rows[0]["seconds"],
        rows[0]["tokens"],
        next((both[name] for name in GOLD if name in both), None),
        both.get(HELD_OUT),
    )


def _steps(block: bytes, whole: bool = True) -> list[dict[str, Any]]:
    """The step rows of a piece of metrics.jsonl, the last one first; unless `whole`, the piece
    begins within a line.
    """
    rows = parse_rows(block if whole else block.partition(b"\n")[2], metrics_row)
    return [row for row in reversed(rows) if row.get("type") == "step"]


def _evaluated(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """What the first of the rows that evaluated says by the measures that a list shows."""
    found = (
        {
            name: row["metrics"][name]
            for name in (*GOLD, HELD_OUT)
            if row["metrics"].get(name) is not None
        }
        for row in rows
    )
    return next(filter(None, found), {})
