"""Notebook 06: two rewards for the group, one for the steps and one for a short completion."""

import re
from collections.abc import Callable

from lab.course.exercise import Exercise, KnownMistake, RandomInputs, one_call_for_each_text
from lab.tasks.base import Problem
from lab.tasks.registry import TASKS

_STEP = re.compile(r"(\d+)([-+*])(\d+)=(\d+)")
_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": int.__add__,
    "-": int.__sub__,
    "*": int.__mul__,
}
FREE_CHARACTERS, MOST_CHARACTERS = 20, 60


def _steps(text: str) -> list[str]:
    """The steps between the two tags, or nothing without the first tag."""
    if "<think>" not in text:
        return []
    return text.partition("<think>")[2].partition("</think>")[0].split(";")


def _is_right(step: str, modulus: int = 100) -> bool:
    parts = _STEP.fullmatch(step)
    if parts is None:
        return False
    a, sign, b, result = parts.groups()
    value = _OPERATIONS[sign](int(a), int(b))
    return (value % modulus if modulus else value) == int(result)


def steps_reward(text: str, answer: str) -> float:
    """Return the share of the written steps that are right modulo 100; 0 without steps.

    Anchor: `<think>7+5=12;12*3=35</think>35` has one right step of two, so 0.5.
    """
    steps = _steps(text)
    return sum(map(_is_right, steps)) / len(steps) if steps else 0.0


def _scratchpads(draw: RandomInputs) -> tuple[list[str], str]:
    """Return completions with right, wrong, malformed and missing steps, and an answer."""
    a, b = draw.random.randint(11, 49), draw.random.randint(2, 9)
    wrapped, wrong = (90 + a) % 100, a + b + draw.random.randint(1, 20)
    texts = [
        f"<think>{a}+{b}={a + b}</think>{a + b}",
        f"<think>{a}+{b}={a + b};{a}+{b}={wrong}</think>{wrong}",
        f"<think>90+{a}={wrapped};{b}-{a}={(b - a) % 100}</think>7",
        f"<think>{a}*{b}={a * b % 100};and then;{a}-{b}={wrong}</think>{wrong}",
        f"<think>{a}+{b}={a + b};{a}-{b}={a - b}",
        f"{a}+{b}={a + b}",
        f"{a}",
        "<think></think>1",
    ]
    return draw.random.sample(texts, len(texts)), str(a + b)


STEPS_REWARD = Exercise(
    "my_steps_reward",
    6,
    ("completion", "answer"),
    "a number from 0 to 1 for one completion",
    steps_reward,
    _scratchpads,
    (
        KnownMistake(
            "modulo forgotten",
            lambda t, a: (
                sum(_is_right(s, 0) for s in _steps(t)) / len(_steps(t)) if _steps(t) else 0.0
            ),
            "You compare without modulo 100. Here 90+15 is 5 and 3-4 is 99: take % 100 of the result.",
        ),
        KnownMistake(
            "number instead of share",
            lambda t, a: float(sum(map(_is_right, _steps(t)))),
            "You count the right steps. Divide by the number of steps: otherwise more steps always"
            " pay more.",
        ),
        KnownMistake(
            "equals signs counted",
            lambda t, a: float(t.count("=")),
            "You count the = signs. A wrong step has one too: compute both sides of each step.",
        ),
        KnownMistake(
            "share of equals signs",
            lambda t, a: t.count("=") / (t.count(";") + 1),
            "You count the = signs, for each step. A wrong step has one too: compute both sides of each"
            " step.",
        ),
        KnownMistake(
            "all or nothing",
            lambda t, a: float(bool(_steps(t)) and all(map(_is_right, _steps(t)))),
            "You pay only if all steps are right. Give the share of the steps that are right.",
        ),
        KnownMistake(
            "steps outside the tags",
            lambda t, a: steps_reward(t if "<think>" in t else f"<think>{t}", a),
            "You count steps without <think> before them. A completion without <think> has no steps"
            " and gets 0.",
        ),
        KnownMistake(
            "malformed steps ignored",
            lambda t, a: (
                sum(map(_is_right, _steps(t))) / len(known)
                if (known := [s for s in _steps(t) if _STEP.fullmatch(s)])
                else 0.0
            ),
            "You leave out the steps that cannot be read. They are steps too, and they are wrong.",
        ),
    ),
    calls=one_call_for_each_text,
)


def _excess(text: str) -> float:
    over = (len(text) - FREE_CHARACTERS) / (MOST_CHARACTERS - FREE_CHARACTERS)
    return min(1.0, max(0.0, over))


def _gold(text: str, answer: str) -> float:
    return TASKS["chain"].score(Problem("", answer), text).answer or 0.0


def short_reward(text: str, answer: str) -> float:
    """Return 1 for a right answer, else 0, minus a penalty that grows from 0 at 20 characters to 1 at 60
    (as DAPO's soft overlong punishment, arXiv 2503.14476, Eq. 13, does with tokens).

    Anchor: a right completion of 40 characters gets 0.5, a wrong one of 40 gets −0.5.
    """
    return _gold(text, answer) - _excess(text)


def _lengths(draw: RandomInputs) -> tuple[list[str], str]:
    """Return right and wrong completions of many lengths, and the right answer."""
    right, wrong = draw.random.sample(range(11, 99), 2)
    short = draw.random.randint(1, 2)
    pads = [0, short, 3, 4, 6, 7, 9]
    texts = [f"{right}", f"{wrong}"] + [
        f"<think>{';'.join(['7+5=12'] * pad)}</think>{value}"
        for pad, value in zip(pads[1:], [right, right, right, right, wrong, wrong])
    ]
    return draw.random.sample(texts, len(texts)), str(right)


SHORT_REWARD = Exercise(
    "my_short_reward",
    6,
    ("completion", "answer"),
    "a number from −1 to 1 for one completion",
    short_reward,
    _lengths,
    (
        KnownMistake(
            "penalty only if right",
            lambda t, a: _gold(t, a) * (1 - _excess(t)),
            "A wrong completion pays no penalty. Subtract it from every completion.",
        ),
        KnownMistake(
            "sign",
            lambda t, a: _gold(t, a) + _excess(t),
            "You add the penalty, so a long completion gets more. Subtract it.",
        ),
        KnownMistake(
            "penalty from the first character",
            lambda t, a: _gold(t, a) - min(1.0, len(t) / MOST_CHARACTERS),
            "Your penalty begins at the first character. Up to 20 characters it is 0.",
        ),
        KnownMistake(
            "no lower limit",
            lambda t, a: (
                _gold(t, a)
                - min(1.0, (len(t) - FREE_CHARACTERS) / (MOST_CHARACTERS - FREE_CHARACTERS))
            ),
            "Below 20 characters your penalty is negative, so it pays. Limit it to at least 0.",
        ),
        KnownMistake(
            "no upper limit",
            lambda t, a: (
                _gold(t, a)
                - max(0.0, (len(t) - FREE_CHARACTERS) / (MOST_CHARACTERS - FREE_CHARACTERS))
            ),
            "Beyond 60 characters your penalty grows above 1. Limit it to at most 1.",
        ),
        KnownMistake(
            "length ignored",
            lambda t, a: _gold(t, a),
            "You pay for the answer alone. Subtract the penalty for characters beyond 20.",
        ),
    ),
    calls=one_call_for_each_text,
    uses=("lab.tasks.base", "lab.tasks.registry"),
)

EXERCISES = (STEPS_REWARD, SHORT_REWARD)
