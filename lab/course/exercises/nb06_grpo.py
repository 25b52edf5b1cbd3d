"""Notebook 06: groups, their advantages, dead groups, and the reduction of token losses."""

from collections.abc import Callable
from math import comb

import torch

from lab.algorithms.advantages import dead_group_probability, group_advantages
from lab.algorithms.reductions import fixed_length, sequence_mean, token_mean
from lab.analysis.statistics import pass_at_k
from lab.course.exercise import Exercise, KnownMistake, RandomInputs


def _rewards(draw: RandomInputs) -> tuple[torch.Tensor, int]:
    """Return rewards of four groups with different mean and spread, one of them dead, and G."""
    g = draw.random.choice((4, 8))
    groups = draw.normal(4, g) * draw.normal(4, 1).abs() + draw.normal(4, 1)
    groups[draw.random.randrange(4)] = 0.5
    return groups.flatten(), g


def _centred(r: torch.Tensor, g: int) -> torch.Tensor:
    return r.view(-1, g) - r.view(-1, g).mean(1, keepdim=True)


def _scaled(correction: int, epsilon: float) -> Callable[..., torch.Tensor]:
    return lambda r, g: (
        _centred(r, g) / (r.view(-1, g).std(1, keepdim=True, correction=correction) + epsilon)
    ).flatten()


def _guarded(r: torch.Tensor, g: int) -> torch.Tensor:
    """Advantages without ε; a dead group has 0, as where a condition guards the division."""
    return _scaled(1, 0.0)(r, g).nan_to_num(0.0)


GROUP_ADVANTAGES = Exercise(
    "my_group_advantages",
    6,
    ("rewards", "group_size"),
    "(N,) advantages, in the order of the rewards",
    lambda r, g: group_advantages(r, g, scale="group"),
    _rewards,
    (
        KnownMistake(
            "population std",
            _scaled(0, 1e-4),
            "Your standard deviation divides by G. The lab, like TRL, divides by G − 1. With one"
            " right completion of 4 this gives 1.50, not 1.73.",
        ),
        KnownMistake(
            "ε forgotten",
            _scaled(1, 0.0),
            "Your function computes 0/0 for a group of equal rewards. Add 1e-4 to the standard "
            "deviation.",
        ),
        KnownMistake(
            "std forgotten",
            lambda r, g: _centred(r, g).flatten(),
            "You only subtract the mean, as Dr. GRPO does. GRPO also divides by the group's "
            "standard deviation.",
        ),
        KnownMistake(
            "whole batch",
            lambda r, g: (r - r.mean()) / (r.std() + 1e-4),
            "You use the mean and the standard deviation of the batch. Then all completions of "
            "an easy prompt look good. Compare within the group.",
        ),
        KnownMistake(
            "std of the batch",
            lambda r, g: (_centred(r, g) / (r.std() + 1e-4)).flatten(),
            "Your mean is the group's, but your standard deviation is the batch's. Use the "
            "group's.",
        ),
        KnownMistake(
            "variance",
            lambda r, g: (_centred(r, g) / (r.view(-1, g).var(1, keepdim=True) + 1e-4)).flatten(),
            "You divide by the variance. Take its square root.",
        ),
        KnownMistake(
            "groups across prompts",
            lambda r, g: (
                (r.view(g, -1) - r.view(g, -1).mean(0)) / (r.view(g, -1).std(0) + 1e-4)
            ).flatten(),
            "Your groups take every (N/G)-th completion. The G completions of a prompt are "
            "neighbours: view(-1, group_size).",
        ),
    ),
    limit=_guarded,
)


def _rate(draw: RandomInputs) -> tuple[float, int]:
    return draw.between(0.1, 0.45), draw.random.choice((2, 4, 8))


DEAD_GROUP_RATE = Exercise(
    "my_dead_group_rate",
    6,
    ("pass_rate", "group_size"),
    "one number",
    dead_group_probability,
    _rate,
    (
        KnownMistake(
            "only all right",
            lambda p, g: p**g,
            "You count only the groups in which all completions are right. A group in which all "
            "are wrong is dead too.",
        ),
        KnownMistake(
            "only all wrong",
            lambda p, g: (1 - p) ** g,
            "You count only the groups in which all completions are wrong. A group in which all "
            "are right is dead too.",
        ),
        KnownMistake(
            "live groups counted",
            lambda p, g: 1 - p**g - (1 - p) ** g,
            "You give the share of groups that are not dead. Subtract it from 1.",
        ),
        KnownMistake(
            "multiplied",
            lambda p, g: p**g * (1 - p) ** g,
            "You multiply. A group cannot be all right and all wrong at once, so add the two "
            "probabilities.",
        ),
    ),
)


def _token_losses(draw: RandomInputs) -> tuple[torch.Tensor, torch.Tensor, int]:
    return draw.normal(3, 9, mean=1.0), draw.mask(3, 9), 20


_REDUCTION_KINDS = ("sequence_mean", "token_mean", "fixed_length")


def _each_kind(
    losses: torch.Tensor, mask: torch.Tensor, max_length: int
) -> list[tuple[torch.Tensor, torch.Tensor, str, int]]:
    """Return the calls for the three kinds."""
    return [(losses, mask, kind, max_length) for kind in _REDUCTION_KINDS]


_Reduction = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]


def _reductions(
    sequence: _Reduction, token: _Reduction, fixed: _Reduction
) -> Callable[..., torch.Tensor]:
    return lambda losses, mask, kind, n: {
        "sequence_mean": sequence,
        "token_mean": token,
        "fixed_length": fixed,
    }[kind](losses * mask, mask, n)


def _sequence(x: torch.Tensor, m: torch.Tensor, n: int) -> torch.Tensor:
    return (x.sum(1) / m.sum(1)).mean()


def _token(x: torch.Tensor, m: torch.Tensor, n: int) -> torch.Tensor:
    return x.sum() / m.sum()


def _fixed(x: torch.Tensor, m: torch.Tensor, n: int) -> torch.Tensor:
    return x.sum() / (len(x) * n)


def _lab_reduction(
    losses: torch.Tensor, mask: torch.Tensor, kind: str, max_length: int
) -> torch.Tensor:
    return (
        fixed_length(losses, mask, max_length)
        if kind == "fixed_length"
        else {"sequence_mean": sequence_mean, "token_mean": token_mean}[kind](losses, mask)
    )


REDUCTION = Exercise(
    "my_reduction",
    6,
    ("losses", "completion_mask", "kind", "max_length"),
    "one number for each kind: sequence_mean, token_mean and fixed_length",
    _lab_reduction,
    _token_losses,
    (
        KnownMistake(
            "sequence_mean is token_mean",
            _reductions(_token, _token, _fixed),
            "Your sequence_mean is token_mean. Average within each completion first, then over "
            "completions.",
        ),
        KnownMistake(
            "token_mean is sequence_mean",
            _reductions(_sequence, _sequence, _fixed),
            "Your token_mean is sequence_mean. Divide the sum over all tokens by the number of "
            "all tokens.",
        ),
        KnownMistake(
            "padding counted in the mean",
            _reductions(lambda x, m, n: x.mean(1).mean(), lambda x, m, n: x.mean(), _fixed),
            "You divide by the width of the batch, which includes prompt and padding. Divide by "
            "the number of tokens in the mask.",
        ),
        KnownMistake(
            "one token too few",
            _reductions(
                lambda x, m, n: (x.sum(1) / (m.sum(1) - 1)).mean(),
                lambda x, m, n: x.sum() / (m.sum() - 1),
                _fixed,
            ),
            "You divide by mask.sum() − 1. The end token counts: divide by mask.sum().",
        ),
        KnownMistake(
            "width instead of max_length",
            _reductions(_sequence, _token, lambda x, m, n: x.sum() / x.numel()),
            "Your fixed_length divides by the width of this batch, and the width differs from "
            "batch to batch. Divide by max_length.",
        ),
        KnownMistake(
            "batch forgotten",
            _reductions(_sequence, _token, lambda x, m, n: x.sum() / n),
            "Your fixed_length does not divide by the number of completions.",
        ),
        KnownMistake(
            "mask forgotten",
            lambda losses, m, kind, n: (
                _fixed(losses, m, n) if kind == "fixed_length" else losses.mean()
            ),
            "Your sums include the prompt and the padding. Multiply by the mask first.",
        ),
    ),
    calls=_each_kind,
)


def _trials(draw: RandomInputs) -> tuple[int, int, int]:
    n = draw.random.randint(8, 16)
    return n, draw.random.randint(2, n // 2 - 1), draw.random.randint(2, 4)


PASS_AT_K = Exercise(
    "my_pass_at_k",
    6,
    ("n", "correct", "k"),
    "one number",
    pass_at_k,
    _trials,
    (
        KnownMistake(
            "with replacement",
            lambda n, c, k: 1 - (1 - c / n) ** k,
            "1 − (1 − c/n)^k draws with replacement and is too low. Count the ways to choose k "
            "of n without a right completion: C(n − c, k) / C(n, k).",
        ),
        KnownMistake(
            "k ignored",
            lambda n, c, k: c / n,
            "You give pass@1. With k tries, one right completion is enough.",
        ),
        KnownMistake(
            "fail instead of pass",
            lambda n, c, k: comb(n - c, k) / comb(n, k),
            "You give the probability that all k fail. Subtract it from 1.",
        ),
        KnownMistake(
            "all k right",
            lambda n, c, k: comb(c, k) / comb(n, k),
            "You give the probability that all k are right. One right completion is enough.",
        ),
    ),
)

EXERCISES = (GROUP_ADVANTAGES, DEAD_GROUP_RATE, REDUCTION, PASS_AT_K)
