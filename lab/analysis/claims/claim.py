"""A claim of the article, its verdict and the measurement that decides it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from lab.analysis.claims.records import Records


class Verdict(StrEnum):
    """What the numbers say about a claim."""

    HOLDS = "holds"
    """It follows from the definitions, and the lab's own functions give it."""
    HOLDS_HERE = "holds here"
    """The measurement on this lab's task supports it."""
    FAILS_HERE = "fails here"
    """The measurement on this lab's task contradicts it."""
    UNDECIDED = "not decided here"
    """It was measured, but the numbers do not decide it."""
    UNTESTABLE = "cannot be tested here"
    """It speaks about something that this lab does not have."""


@dataclass(frozen=True)
class Measurement:
    """A verdict, and the numbers behind it in one or more sentences."""

    verdict: Verdict
    text: str


@dataclass(frozen=True)
class Claim:
    """A claim of the article.

    key: its name on the command line and in an address
    section: the section of the article
    sentence: the article's words, shortened where they are long
    measure: returns the measurement from the recorded results
    records: the recorded results that it reads; empty where formulas decide
    methods: the methods that it speaks about
    """

    key: str
    section: str
    sentence: str
    measure: Callable[[Records], Measurement]
    records: Sequence[str] = ()
    methods: Sequence[str] = ()

    def commands(self, records: Records) -> list[str]:
        """Return the commands that measure the claim anew."""
        if not self.records:
            return [f"python -m lab claims {self.key}"]
        return [records[name]["command"] for name in self.records]


def decide(word: str, *, holds: str, fails: str) -> Verdict:
    """Return the verdict for the word of a comparison (`lab.analysis.comparison_words.judge`): `holds` and
    `fails` are the words that support and contradict the claim; any other word decides nothing.
    """
    return {holds: Verdict.HOLDS_HERE, fails: Verdict.FAILS_HERE}.get(word, Verdict.UNDECIDED)
