"""The samples of a run at any step, without reading those of all others."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.runs.row_schemas import sample_row
from lab.storage.jsonl import parse_rows, read_bytes

_FIRST = re.compile(rb'^\{"step": (\d{1,15}), "index": 0,', re.MULTILINE)
_HELD_OUT = b'"held_out": true'


@dataclass(frozen=True)
class _Place:
    start: int
    end: int
    held_out: bool


class SampleIndex:
    """Where in samples.jsonl each step stands. The file is searched once, then only what was
    appended.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._offset, self._places = path, 0, {}

    def refresh(self) -> None:
        """Take in what was appended; a step that a resumed run wrote again counts as written last,
        and those after it are gone.
        """
        block = read_bytes(self.path, self._offset)
        block = block[: block.rfind(b"\n") + 1]
        found = list(_FIRST.finditer(block))
        for match, after in zip(found, [*(m.start() for m in found[1:]), len(block)]):
            step = int(match[1])
            for later in (
                [s for s in self._places if s >= step]
                if step <= max(self._places, default=-1)
                else []
            ):
                del self._places[later]
            self._places[step] = _Place(
                self._offset + match.start(),
                self._offset + after,
                _HELD_OUT in block[match.start() : after],
            )
        self._offset += len(block)

    def steps(self) -> list[int]:
        """The steps of which there are samples, in order."""
        return sorted(self._places)

    def at(self, step: int) -> list[dict[str, Any]]:
        """Of the training samples and of the held-out ones, those of the latest recorded step that
        is not after `step`.
        """
        past = [s for s in self.steps() if s <= step]
        latest = past[-1:] + [s for s in past if self._places[s].held_out][-1:]
        rows: list[dict[str, Any]] = []
        for at in dict.fromkeys(latest):
            place = self._places[at]
            block = read_bytes(self.path, place.start, place.end - place.start)
            rows += [row for row in parse_rows(block, sample_row) if row["step"] == at]
        seen: dict[bool, int] = {}
        for row in rows:
            seen[bool(row.get("held_out"))] = max(
                row["step"], seen.get(bool(row.get("held_out")), 0)
            )
        return [row for row in rows if row["step"] == seen[bool(row.get("held_out"))]]
