"""Functions that look alike: near-duplicates between learners, and copies of the lab's solutions."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

from lab.course.grading.normalised import Form

ALIKE = 0.95
"""Functions that have at least this share of their pieces in common are near-duplicates."""
MIN_PARTS = 25
"""A shorter function can hardly be written in another way, so it is not compared."""
NAMED_PARTS = 45
"""From this length on the same text with the same variables of one's own is marked by itself."""
LONG_PARTS = 60
"""From this length on a near-duplicate is marked by itself if it is the only one in a class of at least
`SMALLEST_CLASS`.
"""
USUAL_SHARE = 0.2
"""A form that more than this share of a class hands in is usual."""
FEW = 4
"""A form that fewer learners share is never called usual."""
SMALLEST_CLASS = 12
"""A smaller class is judged as one of this size, where few forms are rare by chance."""
SAME_TEXT = "same text"
LAB = "the lab's solution"
"""The name under which the lab's solution stands among the learners."""
Pair = frozenset[str]


@dataclass(frozen=True)
class Match:
    """Two functions that are alike.

    `how` is the share of common pieces, or `SAME_TEXT`. `bits` says how rare the form is in the class:
    −log2 of the share of learners who have it. A form is `usual` if more than `USUAL_SHARE` have it.
    `alone` says that the match is marked even if it is the only one of its pair.
    """

    how: str
    bits: float
    usual: bool
    alone: bool


def similarity(one: Form, other: Form) -> float:
    """Return the share of pieces that two functions have in common: 1 for the same code."""
    if one.normalised == other.normalised:
        return 1.0
    common = (one.pieces & other.pieces).total()
    return common / max(1, (one.pieces | other.pieces).total())


def is_compared(form: Form) -> bool:
    """Whether a function is long enough to be compared with others."""
    return form.parts >= MIN_PARTS


def near_duplicates(forms: Mapping[str, Form]) -> dict[Pair, Match]:
    """Return, by pair of learners, the near-duplicates of one exercise; short functions are left out.

    The name `LAB` stands for the lab's solution. Two learners who both have its form are not a pair:
    each of them is one with the lab.
    """
    long = {name: form for name, form in forms.items() if is_compared(form)}
    shares = {
        frozenset(pair): share
        for pair in combinations(long, 2)
        if (share := similarity(*map(long.__getitem__, pair))) >= ALIKE
    }
    like_lab = {name for pair in shares if LAB in pair for name in pair} - {LAB}
    shares = {pair: share for pair, share in shares.items() if not pair <= like_lab}
    others = Counter(name for pair in shares for name in pair)
    texts = Counter(form.text for name, form in long.items() if name != LAB)
    learners = max(2, len(forms.keys() - {LAB}))
    is_only_pair = learners >= SMALLEST_CLASS and sum(LAB not in pair for pair in shares) == 1
    found = {}
    for pair, share in shares.items():
        one, other = (long[name] for name in pair)
        has_names = one.text == other.text and one.own_names >= 2
        number = max(others[name] for name in pair)
        usual = number >= max(FEW, USUAL_SHARE * learners) and not has_names
        if one.text == other.text:
            number = max(1, texts[one.text] - (LAB not in pair))
        long_enough = min(one.parts, other.parts) >= (NAMED_PARTS if has_names else LONG_PARTS)
        found[pair] = Match(
            SAME_TEXT if one.text == other.text else f"{share:.2f}",
            math.log2(learners / number),
            usual,
            long_enough and (has_names or LAB not in pair and is_only_pair),
        )
    return found


def _pairs(learners: int) -> int:
    return learners * (learners - 1) // 2


def suspicious_pairs(
    forms: Mapping[str, Mapping[str, Form]], alike: Mapping[str, Mapping[Pair, Match]]
) -> set[Pair]:
    """Return the pairs to look at, from the forms and the near-duplicates by exercise.

    A pair is marked for one match that is a mark by itself, or for near-duplicates in at least two
    exercises and in half of those that can be compared, if all of them together are rarer than one in
    as many pairs as the class has.
    """
    matches: dict[Pair, list[Match]] = {}
    for found in alike.values():
        for pair, match in found.items():
            matches.setdefault(pair, []).append(match)
    learners = {name for own in forms.values() for name in own} - {LAB}
    needed = math.log2(_pairs(max(SMALLEST_CLASS, len(learners))))
    return {
        pair
        for pair, found in matches.items()
        if any(match.alone for match in found)
        or len(found) >= 2
        and 2 * len(found) >= number_compared(forms, pair)
        and sum(match.bits for match in found) >= needed
    }


def number_compared(forms: Mapping[str, Mapping[str, Form]], names: Iterable[str]) -> int:
    """Return the number of exercises in which the functions of all `names` can be compared."""
    own = set(names)
    return sum(
        all(name in learners and is_compared(learners[name]) for name in own)
        for learners in forms.values()
    )


def is_copy(form: Form, solution: Form | None) -> bool:
    """Whether a function is the lab's solution with its very variables."""
    return (
        solution is not None
        and is_compared(form)
        and form.own_names >= 1
        and form.text == solution.text
    )
