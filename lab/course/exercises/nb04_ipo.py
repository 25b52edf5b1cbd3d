"""Notebook 04, first half: IPO, a margin with a target."""

import torch

from lab.algorithms.losses import ipo_loss, ipo_token_mean_loss
from lab.course.exercise import Exercise, KnownMistake, RandomInputs
from lab.course.exercises.nb03_dpo import PAIR_ARGUMENTS, pair_inputs
from lab.course.exercises.nb03_dpo import margin_of_pairs as _h


def _pair_inputs(
    draw: RandomInputs,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float]:
    return pair_inputs(draw, max_beta=0.4)


IPO_LOSS = Exercise(
    "my_ipo_loss",
    4,
    (*PAIR_ARGUMENTS, "beta"),
    "(B,) losses, one for each pair",
    lambda pw, pl, qw, ql, beta: ipo_loss(pw, pl, qw, ql, beta=beta)[0],
    _pair_inputs,
    (
        KnownMistake(
            "target 1/β",
            lambda pw, pl, qw, ql, beta: (_h(pw, pl, qw, ql) - 1 / beta) ** 2,
            "Your target is 1/β. The paper's target is half of it: 1/(2β).",
        ),
        KnownMistake(
            "target β/2",
            lambda pw, pl, qw, ql, beta: (_h(pw, pl, qw, ql) - beta / 2) ** 2,
            "Your target is β/2. It must be 1/(2β): a larger β means a smaller target.",
        ),
        KnownMistake(
            "margin scaled by β",
            lambda pw, pl, qw, ql, beta: (beta * _h(pw, pl, qw, ql) - 1 / (2 * beta)) ** 2,
            "You multiply the margin by β, as DPO does. In IPO β appears only in the target.",
        ),
        KnownMistake(
            "target with the wrong sign",
            lambda pw, pl, qw, ql, beta: (_h(pw, pl, qw, ql) + 1 / (2 * beta)) ** 2,
            "You add the target. The loss must be lowest at h = 1/(2β): subtract it.",
        ),
        KnownMistake(
            "target 1/2",
            lambda pw, pl, qw, ql, beta: (beta * _h(pw, pl, qw, ql) - 0.5) ** 2,
            "You bring β·h to ½. The minimum is at the right place, but the loss is β² times too"
            " small: (h − 1/(2β))².",
        ),
        KnownMistake(
            "target 2/β",
            lambda pw, pl, qw, ql, beta: (_h(pw, pl, qw, ql) - 2 / beta) ** 2,
            "Your target is 2/β. It must be 1/(2β).",
        ),
        KnownMistake(
            "plus for minus",
            lambda pw, pl, qw, ql, beta: ((pw - qw) + (pl - ql) - 1 / (2 * beta)) ** 2,
            "You add the two log-ratios. h is the chosen one minus the rejected one.",
        ),
        KnownMistake(
            "reference not subtracted",
            lambda pw, pl, qw, ql, beta: (pw - pl - 1 / (2 * beta)) ** 2,
            "The reference is missing in h.",
        ),
        KnownMistake(
            "absolute value",
            lambda pw, pl, qw, ql, beta: (_h(pw, pl, qw, ql) - 1 / (2 * beta)).abs(),
            "You take the absolute value. IPO takes the square, so the pull becomes weaker near "
            "the target.",
        ),
        KnownMistake(
            "one-sided",
            lambda pw, pl, qw, ql, beta: (1 / (2 * beta) - _h(pw, pl, qw, ql)).clamp(min=0) ** 2,
            "Your loss is 0 beyond the target. IPO pulls back there, and this bounds the margin.",
        ),
    ),
)


def _with_lengths(draw: RandomInputs) -> tuple[torch.Tensor | float, ...]:
    *logps, beta = _pair_inputs(draw)
    chosen_lengths = torch.tensor(draw.random.sample(range(3, 15), 5))
    return *logps, chosen_lengths, torch.tensor(draw.random.sample(range(15, 40), 5)), beta


IPO_TOKEN_MEAN = Exercise(
    "my_ipo_token_mean",
    4,
    (*PAIR_ARGUMENTS, "chosen_lengths", "rejected_lengths", "beta"),
    "(B,) losses, one for each pair",
    lambda *a: ipo_token_mean_loss(*a[:6], beta=a[6])[0],
    _with_lengths,
    (
        KnownMistake(
            "sum instead of mean",
            lambda pw, pl, qw, ql, nw, nl, beta: (_h(pw, pl, qw, ql) - 1 / (2 * beta)) ** 2,
            "You use sums, as in the paper. Divide each log-ratio by the length of its own "
            "completion.",
        ),
        KnownMistake(
            "one length for both",
            lambda pw, pl, qw, ql, nw, nl, beta: (
                (_h(pw, pl, qw, ql) / (nw + nl) - 1 / (2 * beta)) ** 2
            ),
            "You divide the whole margin by the sum of both lengths. Divide each log-ratio by "
            "its own length.",
        ),
        KnownMistake(
            "chosen length for both",
            lambda pw, pl, qw, ql, nw, nl, beta: (_h(pw, pl, qw, ql) / nw - 1 / (2 * beta)) ** 2,
            "You divide both log-ratios by the chosen length. Divide the rejected one by the "
            "rejected length.",
        ),
        KnownMistake(
            "reference not divided",
            lambda pw, pl, qw, ql, nw, nl, beta: (
                (pw / nw - qw - (pl / nl - ql) - 1 / (2 * beta)) ** 2
            ),
            "You do not divide the reference's log-probabilities. Divide them too.",
        ),
        KnownMistake(
            "end token dropped",
            lambda pw, pl, qw, ql, nw, nl, beta: (
                ((pw - qw) / (nw - 1) - (pl - ql) / (nl - 1) - 1 / (2 * beta)) ** 2
            ),
            "You divide by length − 1. The end token counts: its log-probability is in the sum.",
        ),
    ),
)

EXERCISES = (IPO_LOSS, IPO_TOKEN_MEAN)
