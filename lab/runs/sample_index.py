"""Finds the samples of a step in samples.jsonl without reading the whole file."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.runs.row_schemas import sample_row
from lab.storage.jsonl import parse_rows, read_bytes

_FIRST = re.compile(rb'^\{"step": (\d{1,15}), "index": 0,', re.MULTILINE)
_HELD_OUT = b'"held_out": true'


@dataclass(frozen=True)
class _ByteRange:
    start: int
    end: int
    held_out: bool


class SampleIndex:
    """The byte range of each step in samples.jsonl. The file is searched once, then only the rows
    that were appended since.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._offset = path, 0
        self._ranges: dict[int, _ByteRange] = {}

    def refresh(self) -> None:
        """Index the rows that were appended.

        When a resumed run has written a step again, its last samples count, and the index forgets the
        steps after it.
        """
        block = read_bytes(self.path, self._offset)
        block = block[: block.rfind(b"\n") + 1]
        matches = list(_FIRST.finditer(block))
        for match, end in zip(matches, [*(m.start() for m in matches[1:]), len(block)]):
            step = int(match[1])
            for later in (
                [s for s in self._ranges if s >= step]
                if step <= max(self._ranges, default=-1)
                else []
            ):
                del self._ranges[later]
            self._ranges[step] = _ByteRange(
                self._offset + match.start(),
                self._offset + end,
                _HELD_OUT in block[match.start() : end],
            )
        self._offset += len(block)

    def steps(self) -> list[int]:
        """Return the steps that have samples, in order."""
        return sorted(self._ranges)

    def at(self, step: int) -> list[dict[str, Any]]:
        """Return the training samples and the held-out samples of `step`, or of the latest step before
        it that has some, each kind for itself.
        """
        past = [s for s in self.steps() if s <= step]
        latest = past[-1:] + [s for s in past if self._ranges[s].held_out][-1:]
        rows: list[dict[str, Any]] = []
        for indexed_step in dict.fromkeys(latest):
            span = self._ranges[indexed_step]
            block = read_bytes(self.path, span.start, span.end - span.start)
            rows += [row for row in parse_rows(block, sample_row) if row["step"] == indexed_step]
        last_step: dict[bool, int] = {}
        for row in rows:
            held_out = bool(row.get("held_out"))
            last_step[held_out] = max(row["step"], last_step.get(held_out, 0))
        return [row for row in rows if row["step"] == last_step[bool(row.get("held_out"))]]
