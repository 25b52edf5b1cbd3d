"""The answer in a completion of free text, and whether it is the gold one."""

import logging
import re
import threading
from collections import deque
from fractions import Fraction
from functools import lru_cache
from typing import Any

from lab.errors import LabError

ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"
MATH_SECONDS = 3  # that reading, and again that comparing, one answer may take
NUMBER = re.compile(
    r"(?<![\d)])[-−]?\d[\d,]*(?:\.\d+)?(?:/\d+)?"
)  # A minus behind a digit or a bracket takes away.
EXACT_NUMBER = re.compile(
    r"[-−+]?(?:(?:[1-9]\d{0,2}(?:,\d{3})+|0|[1-9]\d*)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,2})?"
)  # 007 is a name.
WRITTEN_NUMBER = re.compile(
    r"(?<![\d)])[-−]?\d[\d,]*(?:\.\d+)?(?:/\d+|[eE][-+]?\d{1,2}(?!\d))?|(?<![\w.)])[-−]?\.\d+"
)  # As NUMBER, and .5 and 1e-5.
OPERATOR = re.compile(
    r"[\d)}]\s*(?:[-−+*/×÷·^]|\\times|\\cdot|\\div)\s*[({]?\s*$|\}\s*\{$"
)  # Before the last number of 2 + 3 and of \frac{1}{2}.
FINAL_ANSWER_MARK, BOXED = "####", "\\boxed{"  # GSM8K's mark of the final answer, and MATH's.
MAX_NUMBER_CHARACTERS = 100  # Characters of a gold answer that is a number.
RELATIVE_TOLERANCE = Fraction(
    1, 10**6
)  # of numbers that are not whole: a third, or 0.1 in 32 bits.
MATH_DELIMITERS = ("$", "\\(", "\\[", "\\boxed")  # LaTeX that says itself where mathematics begins


def extract_answer(completion: str) -> str:
    """What a completion gives as its answer: the text in the last <answer>…</answer>, or without
    such tags the whole, without space around it.
    """
    before, closed, _ = completion.rpartition(ANSWER_CLOSE)
    _, opened, inside = before.rpartition(ANSWER_OPEN)
    return (inside if closed and opened else completion).strip()


def has_answer_tag(completion: str) -> bool:
    """Whether a completion has exactly one <answer>…</answer>, and text in it."""
    inside = completion.partition(ANSWER_OPEN)[2].partition(ANSWER_CLOSE)
    return completion.count(ANSWER_OPEN) == completion.count(ANSWER_CLOSE) == 1 and bool(
        inside[1] and inside[0].strip()
    )


def last_number(text: str) -> Fraction | None:
    """The last number that a text writes out, such as −12, 1,000, 0.5 or 1/2; None where there is
    none, or where the text breaks off with =.
    """
    found = NUMBER.findall(text)
    if not found or text.rstrip().endswith("="):
        return None
    try:
        return Fraction(found[-1].replace("−", "-").replace(",", ""))
    except (ValueError, ZeroDivisionError):
        return None


def text_after_mark(text: str) -> str:
    """The text behind the last ####, GSM8K's mark, where that is on the last line; otherwise empty."""
    _, mark, behind = text.strip().rpartition("\n")[2].rpartition(FINAL_ANSWER_MARK)
    return behind.strip() if mark else ""


def exact_number(text: str) -> Fraction | None:
    """The number that a text is and nothing else, such as −12, 1,000 or 2.0; None for any other
    text, 1/2 and 007 among them.
    """
    return (
        Fraction(text.replace("−", "-").replace(",", ""))
        if len(text) <= MAX_NUMBER_CHARACTERS and EXACT_NUMBER.fullmatch(text)
        else None
    )


def final_number(completion: str) -> Fraction | None:
    """The number that a completion ends up with: the last one that its answer writes out; None for
    a sum that is left undone, or a question.

    The answer is the text in <answer> tags, or else what stands alone behind ####, or else in
    \\boxed{…}, or else the whole.
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
    """The number behind the last #### that has one behind it, perhaps with its unit, and nothing
    else; a heading such as "#### 2. Add" has not.
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
    """What stands in the last \\boxed{…}, or behind one that is not closed."""
    _, opened, inside = text.rpartition(BOXED)
    depth = 1
    for at, character in enumerate(inside if opened else ""):
        depth += (character == "{") - (character == "}")
        if not depth:
            return inside[:at]
    return inside if opened else ""


def same_answer(gold: str, completion: str, marked: bool = False) -> bool:
    """Whether the answer of a completion is `gold`: the same number if `gold` is one, so that 2.0
    is 2, and otherwise the same text.

    `marked` says that the data writes its answers behind ####; then a completion may do so too.
    Numbers that are not whole agree to a millionth.
    """
    read = exact_number(gold)
    if read is None:
        return extract_answer(completion) == gold or (
            marked and text_after_mark(completion) == gold
        )
    found = final_number(completion)
    return found is not None and (
        found == read
        or (read.denominator != 1 and abs(found - read) <= RELATIVE_TOLERANCE * abs(read))
    )


def same_number(gold: str, completion: str) -> bool:
    """Whether the last number in the answer of a completion is `gold`. Unlike `same_value` it takes
    no sum that is left undone.

    Raises `LabError` when `gold` is no number.
    """
    read = NUMBER.fullmatch(gold.strip()) and last_number(gold)
    if read is None:
        raise LabError(
            f"'{gold[:80]}' is no number, so truth=number cannot compare with it. Use truth=math or"
            " the task's own verifier."
        )
    return last_number(extract_answer(completion)) == read


def same_value(gold: str, completion: str) -> bool:
    """Whether the answer of a completion has the value of `gold`, as math-verify reads both: 0.5 is
    1/2 and x + 1 is 1 + x.

    An expression counts for its value: where the answer is 58, "82 - 24" is right. `gold` is
    mathematics, with or without $ around it. Of a completion in words the last expression counts.
    What takes too long is not equal. Raises `LabError` when the package is missing or `gold` is no
    mathematics.
    """
    target = extract_answer(completion)
    read = _parse(_marked(gold))
    if not read:
        raise LabError(
            f"'{gold[:80]}' is no answer that math-verify can read. Write a number or an"
            " expression, LaTeX or not, or use --reward answer."
        )
    ours = _parse(target)
    compare = {"timeout_seconds": _seconds()}
    return bool(ours and _library().verify(read, ours, **compare)) or bool(
        target != completion.strip() and _library().verify(read, _parse(_marked(target)), **compare)
    )


def _marked(text: str) -> str:
    return text if any(mark in text for mark in MATH_DELIMITERS) else f"${text}$"


@lru_cache(maxsize=4096)
def _parse(text: str) -> list[Any]:
    return _library().parse(text, parsing_timeout=_seconds())


def _seconds() -> int | None:
    """The package limits its time by a signal, which only the main thread may ask for."""
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
