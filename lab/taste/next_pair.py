"""Which pair is asked next: a pure function of the labels so far, so that a reload asks the same pair.

Every fifth new pair is picked at random and held out from training, so that agreement is measured on
random pairs however the others are picked. After every ninth label the next is a repeat: an earlier pair
with its sides swapped, which shows how often a person agrees with themselves.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lab.taste.labels import LabelSet
from lab.taste.pools import PoolPair

Pick = Literal["random", "uncertain"]
HELD_OUT_EVERY, REPEAT_EVERY, REPEAT_DISTANCE = 5, 10, 8


@dataclass(frozen=True)
class Question:
    """The pair that is asked next. `left` is the index of the answer that is shown first; `picked`,
    `held_out` and `repeat` go into the label.
    """

    pair: PoolPair
    left: int
    turn: int
    picked: Pick
    held_out: bool = False
    repeat: bool = False


def answer_question(labels: LabelSet, question: Question, *, left: bool) -> bool:
    """Writes the label that prefers the answer shown on the left, or on the right; returns whether it
    was written, as `LabelSet.choose` does.
    """
    return labels.choose(
        question.pair,
        question.left if left else 1 - question.left,
        question.turn,
        picked=question.picked,
        held_out=question.held_out,
        repeat=question.repeat,
    )


def shuffled(ids: Iterable[str], name: str) -> list[str]:
    """Returns the ids in an order that depends on the name of a label set alone."""
    return sorted(ids, key=lambda own: hashlib.sha256(f"{name}/{own}".encode()).digest())


def left_answer(pair_id: str, name: str, repeat: bool = False) -> int:
    """Returns the index of the answer that is shown on the left; a repeat swaps the sides."""
    return (hashlib.sha256(f"side/{name}/{pair_id}".encode()).digest()[0] & 1) ^ repeat


def most_uncertain(ids: Sequence[str], margins: Mapping[str, float], count: int = 1) -> list[str]:
    """Returns the `count` ids whose margin is nearest to 0, the nearest first; of equal ones the first
    in `ids`. Pairs without a margin come last.

    Anchor: margins 2, −0.5 and 1 of a, b and c give b, c, a.
    """
    order = {own: number for number, own in enumerate(ids)}
    nearness = {own: abs(margins[own]) if own in margins else float("inf") for own in ids}
    return sorted(ids, key=lambda own: (nearness[own], order[own]))[:count]


def next_question(
    labels: LabelSet, pick: Pick = "random", margins: Mapping[str, float] | None = None
) -> Question | None:
    """Returns the next pair to label; None when every pair of the pool is labelled or skipped.

    With `pick` uncertain it is the pair whose margin h of the last trained model is nearest to 0;
    before a model is trained, and for the held-out fifth, pairs come at random.
    """
    return _Pairs(labels, pick, margins or {}).asked()


class _Pairs:
    """What decides which pair is asked next, with actions that are foreseen and not yet written."""

    def __init__(self, labels: LabelSet, pick: Pick, margins: Mapping[str, float]) -> None:
        self.name, self.pool, self.turn = labels.name, labels.pool_pairs(), labels.turn()
        self.rows, self.skipped = labels.pairs(), labels.skipped()
        self.by_margin = margins if pick == "uncertain" else {}
        self.order = shuffled(self.pool, labels.name)

    def asked(self) -> Question | None:
        """Returns the pair that is asked now."""
        if (again := _due_repeat(self.rows, self.skipped)) in self.pool:
            left = left_answer(again, self.name, repeat=True)
            held_out = any(row["pair"] == again and row.get("held_out") for row in self.rows)
            return Question(self.pool[again], left, self.turn, "random", held_out, repeat=True)
        seen = {row["pair"] for row in (*self.rows, *self.skipped)}
        fresh = [own for own in self.order if own not in seen]
        if not fresh:
            return None
        new = sum(not row.get("repeat") for row in self.rows)
        held_out = new % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
        by_margin = bool(self.by_margin) and not held_out
        own = most_uncertain(fresh, self.by_margin)[0] if by_margin else fresh[0]
        picked: Pick = "uncertain" if by_margin else "random"
        return Question(self.pool[own], left_answer(own, self.name), self.turn, picked, held_out)

    def after_skip(self, asked: Question) -> Question | None:
        """Returns the pair that is asked once `asked` is skipped."""
        row = {"pair": asked.pair.id, "turn": self.turn}
        self.skipped, self.turn = [*self.skipped, row], self.turn + 1
        found = self.asked()
        self.skipped, self.turn = self.skipped[:-1], self.turn - 1
        return found

    def label(self, asked: Question) -> None:
        """Foresee a label of `asked`; which answer it prefers does not matter for what is asked next."""
        more = {"held_out": asked.held_out, "repeat": asked.repeat}
        self.rows = [*self.rows, {"pair": asked.pair.id, "turn": self.turn} | more]
        self.turn += 1


def next_questions(
    labels: LabelSet, count: int, pick: Pick = "random", margins: Mapping[str, float] | None = None
) -> list[tuple[Question, Question | None]]:
    """Returns the next `count` pairs, each asked after a label of the one before, and with each the
    pair that is asked if it is skipped. Arguments are those of `next_question`, and `count` ≥ 1.
    """
    state = _Pairs(labels, pick, margins or {})
    found: list[tuple[Question, Question | None]] = []
    while len(found) < count and (asked := state.asked()) is not None:
        found.append((asked, state.after_skip(asked)))
        state.label(asked)
    return found


def _due_repeat(rows: Sequence[Mapping[str, Any]], skipped: Sequence[Mapping[str, Any]]) -> str:
    """The id of the pair to repeat now: the one that was new `REPEAT_DISTANCE` labels ago; empty where
    none is due, or where the repeat was skipped.
    """
    if len(rows) % REPEAT_EVERY != REPEAT_EVERY - 1:
        return ""
    candidate = rows[-REPEAT_DISTANCE]
    was_skipped = any(
        row["pair"] == candidate["pair"] and row["turn"] > candidate["turn"] for row in skipped
    )
    return "" if candidate.get("repeat") or was_skipped else str(candidate["pair"])


@dataclass(frozen=True)
class Answer:
    """The single answer that is rated next: the answer `index` of a pair."""

    pair: PoolPair
    index: int
    turn: int


def next_answer(labels: LabelSet) -> Answer | None:
    """Returns the next single answer to rate; None when every answer of the pool is rated or skipped.

    Both answers of a pair come one after the other, so that opposite thumbs make a labelled pair.
    """
    return next((asked for asked, _ in next_answers(labels, 1)), None)


def next_answers(labels: LabelSet, count: int) -> list[tuple[Answer, Answer | None]]:
    """Returns the next `count` single answers, each asked after a thumb for the one before, and with
    each the answer that is asked if its pair is skipped.
    """
    pool, turn = labels.pool_pairs(), labels.turn()
    rated = {(row["pair"], row.get("answer")) for row in labels.thumbs()}
    skipped = {row["pair"] for row in labels.skipped()}
    left = [
        (own, index)
        for own in shuffled(pool, labels.name)
        for first in (left_answer(own, labels.name),)
        for index in (first, 1 - first)
        if own not in skipped and (own, index) not in rated
    ]
    found: list[tuple[Answer, Answer | None]] = []
    for place, (own, index) in enumerate(left[:count]):
        other = next((each for each in left[place + 1 :] if each[0] != own), None)
        behind = other and Answer(pool[other[0]], other[1], turn + place + 1)
        found.append((Answer(pool[own], index, turn + place), behind))
    return found
