"""Keeps answers from the verifiers of reasoning-gym that would run them or that they cannot stand."""

import re

ARITHMETIC_TASKS = ("countdown", "puzzle24")
"""Tasks whose verifiers run the answer; they see only answers that are `PLAIN_ARITHMETIC`."""
PLAIN_ARITHMETIC = re.compile(r"(?:[0-9\s()+-]|[*/](?![*/]))*")
"""Sums and products without powers and names: such a text runs nothing and takes no time."""
NOT_A_FINITE_NUMBER = re.compile(
    r"[\s(+-]*(?:nan|inf|infinity)(?![a-z])|.*\d[eE][+-]?\d{4}", re.IGNORECASE | re.DOTALL
)
"""Numbers that a verifier may find equal to all others, or that may fill the memory."""
MAX_ANSWER_CHARACTERS = 10_000


def is_safe_answer(task: str, answer: str) -> bool:
    """Returns whether the verifier of a task (the NAME of gym:NAME) may see an answer."""
    if len(answer) > MAX_ANSWER_CHARACTERS or NOT_A_FINITE_NUMBER.match(answer):
        return False
    return task not in ARITHMETIC_TASKS or PLAIN_ARITHMETIC.fullmatch(answer) is not None
