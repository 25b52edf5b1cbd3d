"""Notebook 08: the learner's own reward, data set and adapter."""

import json
from collections.abc import Callable
from typing import Any

import torch

from lab.course.exercise import Exercise, KnownMistake, RandomInputs, one_call_for_each_text
from lab.tasks.base import Problem
from lab.tasks.registry import TASKS

BONUS = 0.2


def _is_right(completion: str, answer: str) -> float:
    return TASKS["chain"].score(Problem("", answer), completion).answer or 0.0


def _is_well_formed(completion: str, answer: str) -> float:
    return TASKS["chain"].score(Problem("", answer), completion).format


def _lab_reward(completion: str, answer: str) -> float:
    """Return 1 for a right answer, the bonus for a wrong answer in good form, otherwise 0."""
    return _is_right(completion, answer) or BONUS * _is_well_formed(completion, answer)


def _cases(draw: RandomInputs) -> tuple[list[str], str]:
    right = draw.random.randint(20, 49)
    wrong = right + draw.random.randint(1, 40)
    texts = [
        f"{right}",
        f"{wrong}",
        f"<think>7+5={right}</think>{right}",
        f"<think>7+5={right}</think>{wrong}",
        f"<think>7+5={right}",
        f"{right};{wrong}",
        "",
        f"<think></think>{right}",
    ]
    return draw.random.sample(texts, len(texts)), str(right)


REWARD = Exercise(
    "my_reward",
    8,
    ("completion", "answer"),
    "a number from 0 to 1 for one completion",
    _lab_reward,
    _cases,
    (
        KnownMistake(
            "added up",
            lambda text, answer: _is_right(text, answer) + BONUS * _is_well_formed(text, answer),
            "Your function gives a right answer the bonus too, so it pays 1.2. Pay 1 for a right"
            " answer, and 0.2 for a wrong answer in good form.",
        ),
        KnownMistake(
            "bonus for anything",
            lambda text, answer: _is_right(text, answer) or BONUS,
            "You pay the bonus for every wrong completion, even for nonsense or an empty text. "
            "The policy can then earn it without an answer.",
        ),
        KnownMistake(
            "no bonus",
            lambda text, answer: _is_right(text, answer),
            "You pay no bonus for a wrong answer in good form.",
        ),
        KnownMistake(
            "form only",
            lambda text, answer: BONUS * _is_well_formed(text, answer),
            "You pay the same for right and wrong answers. This rewards only the form.",
        ),
        KnownMistake(
            "contained anywhere",
            lambda text, answer: 1.0 if answer in text else BONUS * _is_well_formed(text, answer),
            "You look for the answer anywhere in the text. A policy that lists many numbers "
            "would earn the reward. Score the final answer.",
        ),
    ),
    calls=one_call_for_each_text,
    uses=("lab.tasks.base", "lab.tasks.registry"),
)


def _texts(draw: RandomInputs) -> tuple[str, str, str]:
    word = draw.random.choice(('say "yes"', "two\nlines", "naïve", "tab\there"))
    return (
        f"{draw.random.randint(1, 9)}+{draw.random.randint(1, 9)}=",
        f"{word} {draw.number}",
        f"no {draw.random.randint(10, 99)}",
    )


def _parsed(function: Callable[..., Any], prompt: str, chosen: str, rejected: str) -> Any:
    line = function(prompt, chosen, rejected)
    if not isinstance(line, str):
        return line
    if "\n" in line.rstrip("\n"):
        return "more than one line"
    try:
        return json.dumps(json.loads(line), sort_keys=True, ensure_ascii=False)
    except ValueError:
        return "a line that is not JSON"


PREFERENCE_LINE = Exercise(
    "my_preference_line",
    8,
    ("prompt", "chosen", "rejected"),
    "one line of JSON, as text",
    lambda prompt, chosen, rejected: json.dumps(
        {"prompt": prompt, "chosen": chosen, "rejected": rejected}, ensure_ascii=False
    ),
    _texts,
    (
        KnownMistake(
            "swapped",
            lambda p, c, r: json.dumps({"prompt": p, "chosen": r, "rejected": c}),
            "You swap chosen and rejected. The model would learn the opposite.",
        ),
        KnownMistake(
            "prompt repeated",
            lambda p, c, r: json.dumps({"prompt": p, "chosen": p + c, "rejected": p + r}),
            "Your completions begin with the prompt. They must hold only the text after it. "
            "Otherwise the model learns to repeat the question.",
        ),
        KnownMistake(
            "Python instead of JSON",
            lambda p, c, r: str({"prompt": p, "chosen": c, "rejected": r}),
            "You print the dict as Python does, with single quotes. json.dumps writes JSON.",
        ),
        KnownMistake(
            "quotation marks by hand",
            lambda p, c, r: f'{{"prompt": "{p}", "chosen": "{c}", "rejected": "{r}"}}',
            "You put the texts between quotation marks by hand. A quotation mark or a line break"
            " inside a text then breaks the line. json.dumps escapes them.",
        ),
        KnownMistake(
            "several lines",
            lambda p, c, r: json.dumps({"prompt": p, "chosen": c, "rejected": r}, indent=1),
            "Your JSON takes several lines. JSONL has one object on each line, so leave indent "
            "out.",
        ),
    ),
    probe=_parsed,
)


def _lora(draw: RandomInputs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    rank = draw.random.choice((2, 3))
    return (
        draw.normal(6, 6),
        draw.normal(rank, 6),
        draw.normal(6, rank),
        draw.random.choice((8.0, 16.0)),
    )


MERGED_WEIGHT = Exercise(
    "my_merged_weight",
    8,
    ("weight", "lora_a", "lora_b", "alpha"),
    "a weight with the shape of the first argument",
    lambda w, a, b, alpha: w + alpha / len(a) * b @ a,
    _lora,
    (
        KnownMistake(
            "α/r forgotten", lambda w, a, b, alpha: w + b @ a, "The scale α / r is missing."
        ),
        KnownMistake(
            "r forgotten",
            lambda w, a, b, alpha: w + alpha * b @ a,
            "The rank is missing. Divide α by r, the number of rows of A.",
        ),
        KnownMistake(
            "root of r",
            lambda w, a, b, alpha: w + alpha / len(a) ** 0.5 * b @ a,
            "You divide by √r, as rsLoRA does. The lab's adapters use α / r.",
        ),
        KnownMistake(
            "base forgotten",
            lambda w, a, b, alpha: alpha / len(a) * b @ a,
            "You return only the change. Add it to the weight.",
        ),
        KnownMistake(
            "transposed",
            lambda w, a, b, alpha: w + alpha / len(a) * (b @ a).T,
            "Your change is transposed. It is B·A, with shape (out, in).",
        ),
    ),
)

EXERCISES = (REWARD, PREFERENCE_LINE, MERGED_WEIGHT)
