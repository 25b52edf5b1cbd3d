"""The results of a class: one grade for each exercise of each learner."""

from collections.abc import Mapping
from dataclasses import dataclass, field

PASSED, USES_LAB, UNREADABLE, NO_NOTEBOOK = "passed", "uses the lab", "unreadable", "no notebook"
ABSENT = ("missing", "not written", NO_NOTEBOOK)


@dataclass(frozen=True)
class Grade:
    """The result of one exercise of one learner. `result` is "passed", the name of the mistake, or why
    there is none. `like` names learners with nearly the same code, `marks` what to look at; `short`
    says that the function is too short to be compared. `cpu_seconds` is the processor time of all calls.
    """

    learner: str
    exercise: str
    result: str
    message: str = ""
    code: str = ""
    like: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    short: bool = False
    cpu_seconds: float = 0.0
    claimed: bool = False

    @property
    def passed(self) -> bool:
        """Whether the function passed its check."""
        return self.result == PASSED


@dataclass(frozen=True)
class Grades:
    """The grades of a class. `problems` says by learner why there is nothing, or not everything, to
    grade; `note` says what could not be limited on this system.
    """

    rows: tuple[Grade, ...]
    seed: int
    note: str = ""
    problems: Mapping[str, str] = field(default_factory=dict)

    def learners(self) -> dict[str, list[Grade]]:
        """Return the grades by learner."""
        names = dict.fromkeys(row.learner for row in self.rows)
        return {name: [row for row in self.rows if row.learner == name] for name in names}
