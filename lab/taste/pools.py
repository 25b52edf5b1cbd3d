"""The pools of answer pairs that the lab ships to be labelled, and the rules that order the answers of a
pair.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lab.errors import unknown

POOLS_FOLDER = Path(__file__).parents[1] / "assets" / "taste"


@dataclass(frozen=True)
class PoolPair:
    """Two answers to a prompt. `sources` names the checkpoint or the style of each answer, and
    `measures` holds its numbers, such as length and right.
    """

    id: str
    prompt: str
    answers: tuple[str, str]
    sources: tuple[str, str]
    measures: tuple[dict[str, float], dict[str, float]]


@dataclass(frozen=True)
class PoolInfo:
    """One pool: its name, the model whose answers it holds, and the question that a person answers.

    `is_chat` tells whether prompts and answers are messages of a chat; `truth` is the rule of the
    task's ground truth, empty for a pool without one.
    """

    name: str
    title: str
    model: str
    question: str
    is_chat: bool
    truth: str


POOLS = {
    pool.name: pool
    for pool in (
        PoolInfo(
            "chain",
            "Calculator chains",
            "embedded",
            "Which answer do you prefer: short or with its working, neat or rambling?",
            False,
            "right",
        ),
        PoolInfo(
            "tone",
            "Short English texts",
            "smollm2-135m",
            "Which text do you prefer: dry or warm, short or rich?",
            True,
            "",
        ),
    )
}
RULES: dict[str, tuple[str, tuple[tuple[str, int], ...]]] = {
    "right": ("chain", (("right", 1), ("thinks", 1), ("length", -1))),
    "thinking": ("chain", (("thinks", 1), ("neat", 1), ("length", -1))),
    "short": ("chain", (("length", -1),)),
    "warm": ("tone", (("warmth", 1),)),
    "brief": ("tone", (("length", -1),)),
}
"""By rule, its pool and the measures that it compares in turn, with +1 where more is better: `right`
prefers the right answer, of two equally right ones that which thinks first, and then the shorter."""


def find_pool(name: str) -> PoolInfo:
    """Returns the pool of this name. Raises `LabError`, with the names, for an unknown one."""
    if name not in POOLS:
        raise unknown("pool", name, list(POOLS))
    return POOLS[name]


@lru_cache(maxsize=4)
def load_pool(name: str) -> dict[str, PoolPair]:
    """Returns the pairs of a pool by id, in their order."""
    return _read_pairs(POOLS_FOLDER / f"{find_pool(name).name}.jsonl")


@lru_cache(maxsize=4)
def known_pairs(name: str) -> dict[str, PoolPair]:
    """Returns the pairs of a pool and its retired ones by id. Nobody is asked a retired pair, but an
    earlier label may name it.
    """
    retired = POOLS_FOLDER / f"{find_pool(name).name}-retired.jsonl"
    return load_pool(name) | (_read_pairs(retired) if retired.is_file() else {})


def _read_pairs(path: Path) -> dict[str, PoolPair]:
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return {
        row["id"]: PoolPair(
            row["id"],
            row["prompt"],
            (row["first"], row["second"]),
            tuple(row["sources"]),
            tuple(row["measures"]),
        )
        for row in rows
    }


def pool_record(name: str) -> dict[str, Any]:
    """Returns the command, seed, device and model with which a pool was recorded."""
    return json.loads((POOLS_FOLDER / f"{name}.json").read_text("utf-8"))


def preferred_by(rule: str, pair: PoolPair) -> int | None:
    """Returns the index of the answer that a rule prefers; None where its measures are all equal.

    Raises `LabError`, with the names, for an unknown rule.
    """
    if rule not in RULES:
        raise unknown("rule", rule, list(RULES))
    for measure, sign in RULES[rule][1]:
        first, second = (sign * own[measure] for own in pair.measures)
        if first != second:
            return int(second > first)
    return None


def truth_of(pair: PoolPair) -> int | None:
    """Returns the index of the right answer where exactly one of the two is right; otherwise None."""
    first, second = (own.get("right") for own in pair.measures)
    return None if first is None or first == second else int(bool(second))


def pair_row(pool: PoolInfo, pair: PoolPair, chosen: int) -> dict[str, Any]:
    """Returns the pair as a row of TRL's preference format, with the answer `chosen` preferred."""
    prompt, first, second = as_texts(pool, pair)
    answers = (first, second)
    return {"prompt": prompt, "chosen": answers[chosen], "rejected": answers[1 - chosen]}


def answer_row(pool: PoolInfo, pair: PoolPair, answer: int, desirable: bool) -> dict[str, Any]:
    """Returns one answer as a row of TRL's unpaired preference format."""
    prompt, *answers = as_texts(pool, pair)
    return {"prompt": prompt, "completion": answers[answer], "label": desirable}


def as_texts(pool: PoolInfo, pair: PoolPair) -> tuple[Any, Any, Any]:
    """Returns prompt and both answers as the pool's model takes them: text, or messages of a chat."""
    if not pool.is_chat:
        return pair.prompt, *pair.answers
    first, second = ([{"role": "assistant", "content": text}] for text in pair.answers)
    return [{"role": "user", "content": pair.prompt}], first, second
