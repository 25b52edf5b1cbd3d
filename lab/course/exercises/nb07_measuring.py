"""Notebooks 00 and 07: the uncertainty of a number from a few runs."""

import torch

from lab.analysis.recorded_results import relative_cost
from lab.analysis.statistics import interval, paired_interval
from lab.analysis.student_t import t_quantile
from lab.course.checker import Exercise, KnownMistake, RandomInputs, numbers_of_texts
from lab.tasks.base import Problem
from lab.tasks.registry import TASKS


def _completions(draw: RandomInputs) -> tuple[list[str], str]:
    """Return completions of every kind and a right answer of two digits."""
    right = draw.random.randint(20, 49)
    wrong = right + draw.random.randint(1, 40)
    texts = [
        f"{right}",
        f"<think>7+5={wrong};{wrong}-3={right}</think>{right}",
        f"{wrong}",
        f"<think>7+5={right};{right}+0={wrong}</think>{wrong}",
        f"{right}{wrong}",
        f"{wrong}{right}",
        f"<think>7+5={right}",
        "",
    ]
    return draw.random.sample(texts, len(texts)), str(right)


def _seeds(draw: RandomInputs) -> tuple[torch.Tensor, float]:
    n = 3 + draw.number % 4
    return draw.normal(n, mean=0.7, std=0.1), t_quantile(n - 1)


def _two_arms(draw: RandomInputs) -> tuple[torch.Tensor, torch.Tensor, float]:
    n = 3 + draw.number % 4
    luck = draw.normal(n, mean=0.7, std=0.1)
    return (
        luck + draw.normal(n, mean=0.1, std=0.03),
        luck + draw.normal(n, std=0.03),
        t_quantile(n - 1),
    )


def _half(values: torch.Tensor, t: float) -> torch.Tensor:
    return t * values.std() / len(values) ** 0.5


def _lab_interval(values: torch.Tensor, t: float) -> tuple[float, float]:
    result = interval(values.tolist())
    return result.mean, result.half


def _lab_paired(first: torch.Tensor, second: torch.Tensor, t: float) -> tuple[float, float]:
    result = paired_interval(first.tolist(), second.tolist())
    return result.mean, result.half


SCORE = Exercise(
    "my_score",
    0,
    ("completion", "answer"),
    "1 or 0 for one completion",
    lambda text, answer: TASKS["chain"].score(Problem("", answer), text).answer,
    _completions,
    (
        KnownMistake(
            "contained anywhere",
            lambda text, answer: answer in text,
            "You look for the answer anywhere in the text. It may occur in a step or inside "
            "another number. Only the text after </think> counts.",
        ),
        KnownMistake(
            "thinking not allowed",
            lambda text, answer: text == answer,
            "Your function gives 0 to a completion that thinks first. Cut off everything up to "
            "</think>, then compare.",
        ),
        KnownMistake(
            "ends with",
            lambda text, answer: text.endswith(answer),
            "You test whether the completion ends with the answer, so 6364 passes for 64. "
            "Compare the whole text after </think>.",
        ),
        KnownMistake(
            "form instead of answer",
            lambda text, answer: text.split("</think>")[-1].isdigit(),
            "You pay for any number. This rewards the form. Compare with the answer.",
        ),
    ),
    numbers_of_texts,
)

CONFIDENCE_INTERVAL = Exercise(
    "my_confidence_interval",
    0,
    ("values", "t"),
    "two numbers: the mean, and half the width of its interval",
    _lab_interval,
    _seeds,
    (
        KnownMistake(
            "population std",
            lambda v, t: (v.mean(), t * v.std(correction=0) / len(v) ** 0.5),
            "Your standard deviation divides by n. Divide by n − 1, because the mean comes from "
            "the same n runs (values.std() in torch).",
        ),
        KnownMistake(
            "interval of one run",
            lambda v, t: (v.mean(), t * v.std()),
            "You give the uncertainty of a single run. The mean of n runs is more certain by a "
            "factor √n: divide by n ** 0.5.",
        ),
        KnownMistake(
            "divided by n",
            lambda v, t: (v.mean(), t * v.std() / len(v)),
            "You divide by n. The standard error of a mean is the standard deviation divided by "
            "√n.",
        ),
        KnownMistake(
            "whole width",
            lambda v, t: (v.mean(), 2 * t * v.std() / len(v) ** 0.5),
            "You give the whole width. The number after ± is half of it.",
        ),
        KnownMistake(
            "normal instead of t",
            lambda v, t: (v.mean(), 1.96 * v.std() / len(v) ** 0.5),
            "You use 1.96, the factor of the normal distribution. With a few runs the standard "
            "deviation is itself uncertain. Use Student's t, which is an argument.",
        ),
    ),
)

PAIRED_DIFFERENCE = Exercise(
    "my_paired_difference",
    7,
    ("first", "second", "t"),
    "two numbers: the mean of first minus second, and half the width of its interval",
    _lab_paired,
    _two_arms,
    (
        KnownMistake(
            "unpaired",
            lambda a, b, t: ((a - b).mean(), t * (a.var() + b.var()).sqrt() / len(a) ** 0.5),
            "You add the two variances, as if the two runs of a seed had nothing in common. "
            "Subtract seed by seed first.",
        ),
        KnownMistake(
            "sign",
            lambda a, b, t: ((b - a).mean(), _half(b - a, t)),
            "Your sign is reversed. Return first minus second.",
        ),
        KnownMistake(
            "population std",
            lambda a, b, t: ((a - b).mean(), t * (a - b).std(correction=0) / len(a) ** 0.5),
            "Your standard deviation divides by n. Divide by n − 1.",
        ),
        KnownMistake(
            "interval of one difference",
            lambda a, b, t: ((a - b).mean(), t * (a - b).std()),
            "You give the uncertainty of a single difference. Divide by √n for the uncertainty "
            "of their mean.",
        ),
    ),
)


def _costs(draw: RandomInputs) -> tuple[torch.Tensor, torch.Tensor]:
    n = 3 + draw.number % 3
    return draw.normal(n, mean=40, std=8).abs() + 1, draw.normal(n, mean=90, std=15).abs() + 1


def _lab_relative(cost: torch.Tensor, baseline: torch.Tensor) -> float:
    table = {
        "runs": {
            "one": [{"cost": c} for c in cost.tolist()],
            "all": [{"cost": c} for c in baseline.tolist()],
        }
    }
    return relative_cost(table, "cost", {"it": "one"}, "all")["it"]["mean"]


RELATIVE_COST = Exercise(
    "my_relative_cost",
    7,
    ("cost", "baseline"),
    "one number in percent",
    _lab_relative,
    _costs,
    (
        KnownMistake(
            "ratio of means",
            lambda c, b: 100 * c.mean() / b.mean(),
            "You divide the means. Divide seed by seed and average the ratios, so that one slow "
            "run does not weigh more than the others.",
        ),
        KnownMistake(
            "share instead of percent",
            lambda c, b: (c / b).mean(),
            "You give a share. Multiply by 100 for percent.",
        ),
        KnownMistake(
            "inverted",
            lambda c, b: 100 * (b / c).mean(),
            "You divide the baseline by the cost. The baseline is 100 %, so divide by the "
            "baseline.",
        ),
        KnownMistake(
            "saving",
            lambda c, b: 100 * (1 - c / b).mean(),
            "You give the saving. The exercise asks for the cost in percent of the baseline.",
        ),
    ),
)

EXERCISES = (SCORE, CONFIDENCE_INTERVAL, PAIRED_DIFFERENCE, RELATIVE_COST)
