"""The answer in a completion of free text, and whether it is the gold one."""

import logging
import re
import threading
from fractions import Fraction
from functools import lru_cache
from typing import Any

from lab.errors import LabError

OPEN, CLOSE = "<answer>", "</answer>"
MATH_SECONDS = 3  # that reading, and again that comparing, one answer may take
NUMBER = re.compile(r"(?<![\d)])[-−]?\d[\d,]*(?:\.\d+)?(?:/\d+)?")  # A minus behind a digit or a bracket takes away.
MARKS = ("$", "\\(", "\\[", "\\boxed")  # LaTeX that says itself where mathematics begins


def extracted(completion: str) -> str:
    """What a completion gives as its answer: the text in the last <answer>…</answer>, or without such tags the whole, without space around it."""
    before, closed, _ = completion.rpartition(CLOSE)
    _, opened, inside = before.rpartition(OPEN)
    return (inside if closed and opened else completion).strip()


def tagged(completion: str) -> bool:
    """Whether a completion has exactly one <answer>…</answer>, and text in it."""
    inside = completion.partition(OPEN)[2].partition(CLOSE)
    return completion.count(OPEN) == completion.count(CLOSE) == 1 and bool(inside[1] and inside[0].strip())


def last_number(text: str) -> Fraction | None:
    """The last number that a text writes out, such as −12, 1,000, 0.5 or 1/2; None where there is none, or where the text breaks off with =."""
    found = NUMBER.findall(text)
    if not found or text.rstrip().endswith("="):
        return None
    try:
        return Fraction(found[-1].replace("−", "-").replace(",", ""))
    except (ValueError, ZeroDivisionError):
        return None


def same_number(gold: str, completion: str) -> bool:
    """Whether the last number in the answer of a completion is `gold`. Unlike `same_value` it takes no sum that is left undone.

    Raises `LabError` when `gold` is no number.
    """
    read = NUMBER.fullmatch(gold.strip()) and last_number(gold)
    if read is None:
        raise LabError(f"'{gold[:80]}' is no number, so truth=number cannot compare with it. Use truth=math or the task's own verifier.")
    return last_number(extracted(completion)) == read


def same_value(gold: str, completion: str) -> bool:
    """Whether the answer of a completion has the value of `gold`, as math-verify reads both: 0.5 is 1/2 and x + 1 is 1 + x.

    An expression counts for its value: where the answer is 58, "82 - 24" is right. `gold` is mathematics, with or without $ around it. Of a completion in
    words the last expression counts. What takes too long is not equal.
    Raises `LabError` when the package is missing or `gold` is no mathematics.
    """
    target = extracted(completion)
    read = _parse(_marked(gold))
    if not read:
        raise LabError(f"'{gold[:80]}' is no answer that math-verify can read. Write a number or an expression, LaTeX or not, or use --reward answer.")
    ours = _parse(target)
    compare = {"timeout_seconds": _seconds()}
    return bool(ours and _library().verify(read, ours, **compare)) or bool(
        target != completion.strip() and _library().verify(read, _parse(_marked(target)), **compare))


def _marked(text: str) -> str:
    return text if any(mark in text for mark in MARKS) else f"${text}$"


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
        raise LabError("The rule math needs the package math-verify, which is missing. Install it: python -m pip install math-verify") from None
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # It reports every expression that took too long.
    return math_verify
