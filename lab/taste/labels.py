"""A person's labels on disk. Every choice is written at once, as a line of JSON in TRL's preference
format, so that a reload, a crash or another visitor loses none.

A label set is the folder `taste/NAME/POOL` of the folder of runs: `labels.jsonl` (pairs),
`thumbs.jsonl` (single answers, unpaired preference format) and `skipped.jsonl`. Beside TRL's columns
a row has `pair` (id), `turn` (number of the action), `picked` (random or uncertain), `held_out` and
`repeat`.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from lab.errors import LabError
from lab.storage.jsonl import append_rows, parse_rows, read_bytes, replace_file
from lab.storage.paths import require_space, runs_root
from lab.taste.pools import PoolPair, answer_row, find_pool, known_pairs, load_pool, pair_row

TASTE_FOLDER = "taste"
PAIRS, THUMBS, SKIPPED = FILES = ("labels.jsonl", "thumbs.jsonl", "skipped.jsonl")
SET_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
MAX_SETS = 500
"""Label sets of one server; a visitor's first label makes one."""


class LabelSet:
    """The labels that one person has given to one pool."""

    def __init__(self, name: str, pool: str, root: Path | None = None) -> None:
        if not SET_NAME.fullmatch(name):
            raise LabError(
                f"'{name[:60]}' cannot be the name of a label set. A name has up to 40 lower-case"
                " letters, digits and dashes, and starts with a letter or a digit."
            )
        self.name, self.pool = name, find_pool(pool)
        self.folder = (runs_root() if root is None else root) / TASTE_FOLDER / name / pool

    @property
    def pairs_path(self) -> Path:
        """The file of labelled pairs, whether it exists or not."""
        return self.folder / PAIRS

    def pairs(self) -> list[dict[str, Any]]:
        """Returns the labelled pairs in the order in which they were given."""
        return self._rows(PAIRS)

    def thumbs(self) -> list[dict[str, Any]]:
        """Returns the rated single answers in their order."""
        return self._rows(THUMBS)

    def skipped(self) -> list[dict[str, Any]]:
        """Returns the skipped pairs in their order."""
        return self._rows(SKIPPED)

    def uncounted(self) -> dict[str, list[int]]:
        """Returns, by file, the numbers of the lines that do not count, from 1: broken lines, and labels
        of a pair that the pool does not have. They stay in the file. A file without them is left out.
        """
        found = {file: [n for n, row in self._lines(file) if row is None] for file in FILES}
        return {file: numbers for file, numbers in found.items() if numbers}

    def _rows(self, file: str) -> list[dict[str, Any]]:
        return [row for _, row in self._lines(file) if row is not None]

    def _lines(self, file: str) -> list[tuple[int, dict[str, Any] | None]]:
        """The lines of a file that are not blank, with their numbers: a row that is a label of a pair of the
        pool, and None for any other line.
        """
        lines = read_bytes(self.folder / file).split(b"\n")
        found = [(n, parse_rows(line, _checked)) for n, line in enumerate(lines, 1) if line.strip()]
        known = self.known_pairs() if found else {}
        return [
            (n, row[0] if row and _is_label(file, row[0], known.get(row[0]["pair"])) else None)
            for n, row in found
        ]

    def turn(self) -> int:
        """Returns the number of the next action: one more than that of the last."""
        return 1 + max((row["turn"] for file in FILES for row in self._rows(file)), default=0)

    def choose(
        self,
        pair: PoolPair,
        chosen: int,
        turn: int,
        *,
        picked: str = "random",
        held_out: bool = False,
        repeat: bool = False,
    ) -> bool:
        """Writes the label that prefers the answer `chosen` of a pair; returns whether it was written.

        A label of another turn than the next is a second press of a key or comes from an older
        page, and is not written.
        """
        more = {"picked": picked, "held_out": held_out, "repeat": repeat}
        return self._append(PAIRS, pair_row(self.pool, pair, chosen), pair, turn, more)

    def rate(self, pair: PoolPair, answer: int, desirable: bool, turn: int) -> bool:
        """Writes a thumb for one answer of a pair; returns whether it was written, as `choose` does."""
        row = answer_row(self.pool, pair, answer, desirable)
        return self._append(THUMBS, row, pair, turn, {"answer": answer})

    def skip(self, pair: PoolPair, turn: int) -> bool:
        """Notes that a pair was skipped; returns whether it was noted, as `choose` does."""
        return self._append(SKIPPED, {}, pair, turn, {})

    def _append(
        self, file: str, row: dict[str, Any], pair: PoolPair, turn: int, more: dict[str, Any]
    ) -> bool:
        self._require_room()
        with self._alone():
            if turn != self.turn():
                return False
            append_rows(self.folder / file, [row | {"pair": pair.id, "turn": turn} | more])
            return True

    def _require_room(self) -> None:
        require_space(self.folder)
        sets = self.folder.parents[1]
        if not self.folder.parent.is_dir() and sets.is_dir():
            count = sum(1 for _ in sets.iterdir())
            if count >= MAX_SETS:
                raise LabError(
                    f"{sets} holds {count} label sets, and takes at most {MAX_SETS}. Delete those that"
                    " nobody needs."
                )
        self.folder.mkdir(parents=True, exist_ok=True)

    def undo(self) -> dict[str, Any] | None:
        """Takes back the last label, thumb or skip and returns its row; None where there is none."""
        if not self.folder.is_dir():
            return None
        with self._alone():
            found = [(row, n, f) for f in FILES for n, row in self._lines(f) if row is not None]
            if not found:
                return None
            last, number, file = max(found, key=lambda one: one[0]["turn"])
            lines = read_bytes(self.folder / file).split(b"\n")
            del lines[number - 1]
            replace_file(self.folder / file, b"\n".join(lines))
            return last

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Within it no other session writes into the folder."""
        with FileLock(self.folder / ".lock"):
            yield

    def pool_pairs(self) -> dict[str, PoolPair]:
        """Returns the pairs of the set's pool by id."""
        return load_pool(self.pool.name)

    def known_pairs(self) -> dict[str, PoolPair]:
        """Returns the pairs that a label may name: those of the pool, and its retired ones."""
        return known_pairs(self.pool.name)


def uncounted_text(labels: LabelSet) -> str:
    """Returns which lines of a label set do not count, in words; "" where all do."""
    return " ".join(
        f"{file}: {lines_text(numbers)} not counted, because no label of a pair of the pool can be"
        " read there; the file keeps them."
        for file, numbers in labels.uncounted().items()
    )


def lines_text(numbers: Sequence[int], unit: str = "line") -> str:
    """Returns text such as "line 3 is" or "2 lines (3 and 7) are"."""
    if len(numbers) == 1:
        return f"{unit} {numbers[0]} is"
    listed = f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
    return f"{len(numbers)} {unit}s ({listed}) are"


def _checked(row: dict[str, Any]) -> dict[str, Any] | None:
    """The row if it is one that this module writes; None for any other."""
    is_own = isinstance(row.get("pair"), str) and type(row.get("turn")) is int
    return row if is_own else None


def _is_label(file: str, row: dict[str, Any], pair: PoolPair | None) -> bool:
    if pair is None or file == SKIPPED:
        return pair is not None
    if file == THUMBS:
        return row.get("answer") in (0, 1) and isinstance(row.get("label"), bool)
    try:
        return chosen_answer(row, pair) in (0, 1)
    except (KeyError, TypeError, IndexError, ValueError):  # No text, or none of the pair's.
        return False


def chosen_answer(row: dict[str, Any], pair: PoolPair) -> int:
    """Returns the index of the answer that a labelled pair prefers."""
    return pair.answers.index(text_of(row["chosen"]))


def text_of(completion: Any) -> str:
    """Returns the words of a completion that is text, or a list of one message."""
    return completion if isinstance(completion, str) else completion[0]["content"]
