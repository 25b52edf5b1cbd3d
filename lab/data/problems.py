"""Collects what is wrong with a data file, problem by problem, each with its lines."""

import re
from typing import Any

from lab.errors import LabError

OMITTED_PREFIX = "is left out"
"""The beginning of the problem of a row that training leaves out."""
CUT = "loses its"
"""Words in the problem of a text that training cuts."""
EQUAL = "chosen equals rejected"
"""The beginning of the problem of a pair that prefers nothing."""


class Problems:
    """Problems by their text, each with the lines that have it.

    Texts that differ only inside of round brackets count as one problem.
    """

    def __init__(self) -> None:
        self._by_text: dict[str, tuple[str, bool, set[int]]] = {}

    def note(self, text: str, line: int, refused: bool = True) -> None:
        """Adds a line to a problem; `refused` says that training stops at it."""
        without_brackets = re.sub(r" \(.*?\)", "", text)
        self._by_text.setdefault(without_brackets, (text, refused, set()))[2].add(line)

    def lines(self, words: str) -> set[int]:
        """Returns the lines of the problems whose text contains `words`."""
        return {
            line for text, _, lines in self._by_text.values() if words in text for line in lines
        }

    def refused(self) -> set[int]:
        """Returns the lines at which training stops."""
        return {line for _, refused, lines in self._by_text.values() if refused for line in lines}

    def rows(self) -> list[dict[str, Any]]:
        """Returns a dict for each problem: first those that training refuses, then by line."""
        rows = [
            {"problem": text, "refused": refused, "lines": sorted(lines)}
            for text, refused, lines in self._by_text.values()
        ]
        return sorted(rows, key=lambda row: (not row["refused"], row["lines"]))


def without_location(error: LabError, where: str) -> str:
    """Returns the message of an error without the location `where` at its beginning."""
    return str(error).removeprefix(where).lstrip(": ")
