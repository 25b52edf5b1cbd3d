"""Notebook 07: two losses that the lab does not have, and the correction of several comparisons."""

from collections.abc import Callable, Sequence

import torch
from torch.nn.functional import logsigmoid

from lab.analysis.comparison_words import holm
from lab.course.exercise import Exercise, KnownMistake, RandomInputs

SWAPPED = 0.25
_PAIR = (
    "chosen_logps",
    "rejected_logps",
    "reference_chosen_logps",
    "reference_rejected_logps",
    "beta",
)
_LOSSES = "(B,) losses, one for each pair"
_Pairs = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float]


def _pairs(draw: RandomInputs) -> _Pairs:
    """Return the log-probabilities of six pairs with margins on both sides of 0 and of 1/β, and β."""
    logps = [draw.normal(6, mean=-20, std=6) for _ in range(4)]
    return logps[0], logps[1], logps[2], logps[3], draw.between(0.1, 0.4)


def _margin(pw: torch.Tensor, pl: torch.Tensor, qw: torch.Tensor, ql: torch.Tensor) -> torch.Tensor:
    return (pw - qw) - (pl - ql)


def hinge_loss(
    pw: torch.Tensor, pl: torch.Tensor, qw: torch.Tensor, ql: torch.Tensor, beta: float
) -> torch.Tensor:
    """Return SLiC's hinge on DPO's margin (arXiv 2309.06657, Table 1): max(0, 1 − βh).

    Anchor: h = 0 costs 1, h = 4 at β = 0.1 costs 0.6, and beyond h = 1/β nothing.
    """
    return torch.clamp(1 - beta * _margin(pw, pl, qw, ql), min=0)


HINGE_LOSS = Exercise(
    "my_hinge_loss",
    7,
    _PAIR,
    _LOSSES,
    hinge_loss,
    _pairs,
    (
        KnownMistake(
            "no hinge",
            lambda pw, pl, qw, ql, b: 1 - b * _margin(pw, pl, qw, ql),
            "Your loss goes below 0. Beyond βh = 1 it is 0: take the larger of 0 and 1 − βh.",
        ),
        KnownMistake(
            "sign",
            lambda pw, pl, qw, ql, b: torch.relu(1 + b * _margin(pw, pl, qw, ql)),
            "Your sign is reversed: a pair with a large margin costs most. It is 1 − βh.",
        ),
        KnownMistake(
            "no reference",
            lambda pw, pl, qw, ql, b: torch.relu(1 - b * (pw - pl)),
            "The reference is missing. The margin h compares the two log-ratios.",
        ),
        KnownMistake(
            "β on the whole",
            lambda pw, pl, qw, ql, b: b * torch.relu(1 - _margin(pw, pl, qw, ql)),
            "β multiplies the whole loss. It is the factor on the margin alone: 1 − βh.",
        ),
        KnownMistake(
            "target of IPO",
            lambda pw, pl, qw, ql, b: torch.relu(1 / (2 * b) - _margin(pw, pl, qw, ql)),
            "You use IPO's target 1/(2β). The hinge ends at βh = 1.",
        ),
    ),
)


def smoothed_loss(
    pw: torch.Tensor, pl: torch.Tensor, qw: torch.Tensor, ql: torch.Tensor, beta: float
) -> torch.Tensor:
    """Return conservative DPO for a quarter of swapped labels:
    −¾·log σ(βh) − ¼·log σ(−βh) (arXiv 2403.00409 compares it).

    Anchor: h = 0 costs log 2; at βh = 1 it costs ¾·0.3133 + ¼·1.3133 = 0.5633.
    """
    z = beta * _margin(pw, pl, qw, ql)
    return -(1 - SWAPPED) * logsigmoid(z) - SWAPPED * logsigmoid(-z)


def _mixed(kept: float, swapped: float) -> Callable[..., torch.Tensor]:
    def loss(
        pw: torch.Tensor, pl: torch.Tensor, qw: torch.Tensor, ql: torch.Tensor, b: float
    ) -> torch.Tensor:
        z = b * _margin(pw, pl, qw, ql)
        return -kept * logsigmoid(z) - swapped * logsigmoid(-z)

    return loss


SMOOTHED_LOSS = Exercise(
    "my_smoothed_loss",
    7,
    _PAIR,
    _LOSSES,
    smoothed_loss,
    _pairs,
    (
        KnownMistake(
            "swapped weights",
            _mixed(SWAPPED, 1 - SWAPPED),
            "Your two weights are exchanged: three quarters of the labels are right.",
        ),
        KnownMistake(
            "plain DPO",
            _mixed(1.0, 0.0),
            "This is DPO. A quarter of the labels is swapped, so a quarter of the loss takes −βh in"
            " place of βh.",
        ),
        KnownMistake(
            "difference",
            _mixed(1 - SWAPPED, -SWAPPED),
            "You subtract the second part. This is robust DPO without its factor. Add the two parts.",
        ),
        KnownMistake(
            "weight 1", _mixed(1.0, SWAPPED), "The weights add up to 1.25. The first is 1 − 0.25."
        ),
    ),
)


def _p_values(draw: RandomInputs) -> tuple[list[float]]:
    """Return five p-values, not sorted, with one that the correction would lift above 1."""
    few = [draw.between(0.001, 0.01), draw.between(0.012, 0.02), draw.between(0.021, 0.022)]
    return (draw.random.sample([*few, draw.between(0.3, 0.4), draw.between(0.55, 0.9)], 5),)


def _ranked(p: Sequence[float]) -> list[int]:
    return sorted(range(len(p)), key=lambda i: p[i])


def _by_rank(p: Sequence[float], limit: float) -> list[float]:
    """Multiply by m, m − 1, … in ascending order, each at most `limit`, without the running maximum."""
    found = [0.0] * len(p)
    for rank, index in enumerate(_ranked(p)):
        found[index] = min(limit, (len(p) - rank) * p[index])
    return found


HOLM = Exercise(
    "my_holm",
    7,
    ("p_values",),
    "a list of as many numbers, in the order of the p-values",
    lambda p: torch.tensor(holm(p), dtype=torch.float64),
    _p_values,
    (
        KnownMistake(
            "Bonferroni",
            lambda p: torch.tensor([min(1.0, len(p) * x) for x in p]),
            "You multiply every p-value by their number. This is Bonferroni's correction. Holm's"
            " multiplies the smallest by m, the next by m − 1, and so on.",
        ),
        KnownMistake(
            "no running maximum",
            lambda p: torch.tensor(_by_rank(p, 1.0)),
            "A corrected value is smaller than one before it in ascending order. Keep the largest so"
            " far.",
        ),
        KnownMistake(
            "in ascending order",
            lambda p: torch.tensor(sorted(holm(p))),
            "Your values are right but sorted. Return them in the order of the input.",
        ),
        KnownMistake(
            "not corrected", lambda p: torch.tensor(p), "You return the p-values themselves."
        ),
    ),
)

EXERCISES = (HINGE_LOSS, SMOOTHED_LOSS, HOLM)
