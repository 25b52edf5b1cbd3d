"""Finds the answer in a completion of free text, and compares it with the gold answer."""

import logging
import re
import threading
from collections import deque
from fractions import Fraction
from functools import lru_cache
from typing import Any

from lab.errors import LabError

ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"
MATH_SECONDS = 3
"""Seconds that reading one answer may take, and again that comparing it may take."""
NUMBER = re.compile(r"(?<![\d)])[-−]?\d[\d,]*(?:\.\d+)?(?:/\d+)?")
"""A number in a text. A minus behind a digit or a bracket is an operator, not a sign."""
EXACT_NUMBER = re.compile(
    r"[-−+]?(?:(?:[1-9]\d{0,2}(?:,\d{3})+|0|[1-9]\d*)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,2})?"
)
"""A text that is a number and nothing else; 007 is a name."""
WRITTEN_NUMBER = re.compile(
    r"(?<![\d)])[-−]?\d[\d,]*(?:\.\d+)?(?:/\d+|[eE][-+]?\d{1,2}(?!\d))?|(?<![\w.)])[-−]?\.\d+"
)
"""As `NUMBER`, and also .5 and 1e-5."""
OPERATOR = re.compile(r"[\d)}]\s*(?:[-−+*/×÷·^]|\\times|\\cdot|\\div)\s*[({]?\s*$|\}\s*\{$")
"""The operator before the last number of 2 + 3 and of \\frac{1}{2}."""
FINAL_ANSWER_MARK, BOXED = "####", "\\boxed{"
"""GSM8K's mark of the final answer, and MATH's."""
MAX_NUMBER_CHARACTERS = 100
"""Characters of a gold answer that is a number."""
RELATIVE_TOLERANCE = Fraction(1, 10**6)
"""Of numbers that are not whole: a third, or 0.1 in 32 bits."""
MATH_DELIMITERS = ("$", "\\(", "\\[", "\\boxed")
"""LaTeX that marks where mathematics begins."""


def extract_answer(completion: str) -> str:
    """Returns the answer of a completion: the text in the last <answer>…</answer>, or without such
    tags the whole completion, stripped of white space.
    """
    before, closing_tag, _ = completion.rpartition(ANSWER_CLOSE)
    _, opening_tag, answer = before.rpartition(ANSWER_OPEN)
    return (answer if closing_tag and opening_tag else completion).strip()


def has_answer_tag(completion: str) -> bool:
    """Returns whether a completion has exactly one <answer>…</answer>, with text in it."""
    if not completion.count(ANSWER_OPEN) == completion.count(ANSWER_CLOSE) == 1:
        return False
    answer, closing_tag, _ = completion.partition(ANSWER_OPEN)[2].partition(ANSWER_CLOSE)
    return bool(closing_tag and answer.strip())


def last_number(text: str) -> Fraction | None:
    """Returns the last number that a text writes out, such as −12, 1,000, 0.5 or 1/2; None where the
    text has no number, or ends with =.
    """
    numbers = NUMBER.findall(text)
    if not numbers or text.rstrip().endswith("="):
        return None
    try:
        return Fraction(numbers[-1].replace("−", "-").replace(",", ""))
    except (ValueError, ZeroDivisionError):
        return None


def text_after_mark(text: str) -> str:
    """Returns the text behind the last ####, GSM8K's mark, where the mark is on the last line;
    otherwise empty.
    """
    _, mark, behind = text.strip().rpartition("\n")[2].rpartition(FINAL_ANSWER_MARK)
    return behind.strip() if mark else ""


def exact_number(text: str) -> Fraction | None:
    """Returns the value of a text that is a number and nothing else, such as −12, 1,000 or 2.0; None
    for any other text, also for 1/2 and 007.
    """
    return (
        Fraction(text.replace("−", "-").replace(",", ""))
        if len(text) <= MAX_NUMBER_CHARACTERS and EXACT_NUMBER.fullmatch(text)
        else None
    )


def final_number(completion: str) -> Fraction | None:
    r"""Returns the last number that the answer of a completion writes out; None for an uncomputed
    sum, or a question.

    The answer is the text in <answer> tags, or else the number behind ####, or else the text in
    \boxed{…}, or else the whole completion.
    """
    text = extract_answer(completion)
    text = (
        (_marked_number(text) or _boxed(text) or text)
        .replace("{,}", ",")
        .replace("\\,", ",")
        .strip()
    )  # LaTeX writes 1{,}000 and 1\,000.
    last = next(iter(deque(WRITTEN_NUMBER.finditer(text), maxlen=1)), None)
    if (
        last is None
        or text.endswith(("=", "?"))
        or OPERATOR.search(text[max(0, last.start() - MAX_NUMBER_CHARACTERS) : last.start()])
    ):
        return None
    try:
        return Fraction(last[0].replace("−", "-").replace(",", ""))
    except (ValueError, ZeroDivisionError):
        return None


def _marked_number(text: str) -> str:
    """The number behind the last #### that is followed by a number, perhaps with a unit, and nothing
    else; a heading such as "#### 2. Add" is skipped. Empty where there is no such number.
    """
    for line in reversed(text.splitlines()):
        words = line.rpartition(FINAL_ANSWER_MARK)[2].split() if FINAL_ANSWER_MARK in line else []
        number = (
            words[0].lstrip("$€£*").rstrip("*%." if len(words) == 1 else "*%")
            if len(words) in (1, 2)
            else ""
        )
        if exact_number(number) is not None:
            return number
    return ""


def _boxed(text: str) -> str:
    r"""The text in the last \boxed{…}, or behind a \boxed{ that is not closed."""
    _, mark, content = text.rpartition(BOXED)
    if not mark:
        return ""
    depth = 1
    for i, character in enumerate(content):
        depth += (character == "{") - (character == "}")
        if not depth:
            return content[:i]
    return content


def same_answer(gold: str, completion: str, marked: bool = False) -> bool:
    """Returns whether the answer of a completion is `gold`: equal in value if `gold` is a number, so
    that 2.0 is 2, and otherwise equal as text.

    `marked` says that the data writes its answers behind ####; a completion may then do so too.
    Numbers that are not whole may differ by a millionth.
    """
    expected = exact_number(gold)
    if expected is None:
        if extract_answer(completion) == gold:
            return True
        return marked and text_after_mark(completion) == gold
    number = final_number(completion)
    if number is None:
        return False
    tolerance = 0 if expected.denominator == 1 else RELATIVE_TOLERANCE * abs(expected)
    return abs(number - expected) <= tolerance


def same_number(gold: str, completion: str) -> bool:
    """Returns whether the last number in the answer of a completion is `gold`. Unlike `same_value`,
    it does not accept an uncomputed sum.

    Raises `LabError` when `gold` is not a number.
    """
    expected = NUMBER.fullmatch(gold.strip()) and last_number(gold)
    if expected is None:
        raise LabError(
            f"'{gold[:80]}' is no number, so truth=number cannot compare with it. Use truth=math or"
            " the task's own verifier."
        )
    return last_number(extract_answer(completion)) == expected


def same_value(gold: str, completion: str) -> bool:
    """Returns whether the answer of a completion has the value of `gold`, as math-verify reads both:
    0.5 is 1/2 and x + 1 is 1 + x.

    An expression counts for its value: where the answer is 58, "82 - 24" is right. `gold` is
    mathematics, with or without $ around it. Of a completion in words the last expression counts.
    A comparison that takes too long counts as not equal. Raises `LabError` when the package is
    missing or `gold` is not mathematics.
    """
    answer = extract_answer(completion)
    expected = _parse(_with_delimiters(gold))
    if not expected:
        raise LabError(
            f"'{gold[:80]}' is no answer that math-verify can read. Write a number or an"
            " expression, LaTeX or not, or use --reward answer."
        )
    seconds = _time_limit()
    expression = _parse(answer)
    if expression and _library().verify(expected, expression, timeout_seconds=seconds):
        return True
    if answer == completion.strip():
        return False
    expression = _parse(_with_delimiters(answer))
    return bool(_library().verify(expected, expression, timeout_seconds=seconds))


def _with_delimiters(text: str) -> str:
    return text if any(mark in text for mark in MATH_DELIMITERS) else f"${text}$"


@lru_cache(maxsize=4096)
def _parse(text: str) -> list[Any]:
    return _library().parse(text, parsing_timeout=_time_limit())


def _time_limit() -> int | None:
    """Seconds for a call of math-verify. The limit needs a signal, which only the main thread gets."""
    return MATH_SECONDS if threading.current_thread() is threading.main_thread() else None


@lru_cache(maxsize=1)
def _library() -> Any:
    try:
        import math_verify
    except ImportError:
        raise LabError(
            "The rule math needs the package math-verify, which is missing. Install it: python -m"
            " pip install math-verify"
        ) from None
    logging.getLogger("math_verify").setLevel(
        logging.CRITICAL
    )  # It reports every expression that took too long.
    return math_verify
