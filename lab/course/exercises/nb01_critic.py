"""Notebook 01, second half: advantages from the values of the critic."""

import torch

from lab.algorithms.advantages import gae, whiten
from lab.course.exercise import Exercise, KnownMistake, RandomInputs


def _one_completion(draw: RandomInputs) -> tuple[torch.Tensor, torch.Tensor, float, float]:
    return draw.normal(6), draw.normal(6), draw.between(0.8, 0.98), draw.between(0.3, 0.9)


def _lab_gae(rewards: torch.Tensor, values: torch.Tensor, gamma: float, lam: float) -> torch.Tensor:
    return gae(rewards[None], values[None], torch.ones(1, len(rewards)), gamma=gamma, lam=lam)[0][0]


def _ahead(delta: torch.Tensor, factor: float) -> torch.Tensor:
    """Return Σ_k factor^k·δ_{t+k} for each t."""
    sums, future = torch.zeros_like(delta), delta.new_zeros(())
    for t in reversed(range(len(delta))):
        future = delta[t] + factor * future
        sums[t] = future
    return sums


def _delta(rewards: torch.Tensor, values: torch.Tensor, gamma: float) -> torch.Tensor:
    return rewards + gamma * torch.nn.functional.pad(values[1:], (0, 1)) - values


GAE = Exercise(
    "my_gae",
    1,
    ("rewards", "values", "gamma", "lam"),
    "(T,) advantages, one for each token of a completion",
    _lab_gae,
    _one_completion,
    (
        KnownMistake(
            "λ forgotten",
            lambda r, v, gamma, lam: _ahead(_delta(r, v, gamma), gamma),
            "λ is missing. Each step back multiplies by γ·λ, not by γ alone.",
        ),
        KnownMistake(
            "γ forgotten in the sum",
            lambda r, v, gamma, lam: _ahead(_delta(r, v, gamma), lam),
            "γ is missing in the sum. Each step back multiplies by γ·λ.",
        ),
        KnownMistake(
            "one step only",
            lambda r, v, gamma, lam: _delta(r, v, gamma),
            "You return the δ of each token alone, as if λ were 0. Add the δ of the later "
            "tokens, each times (γλ)^k.",
        ),
        KnownMistake(
            "next value forgotten",
            lambda r, v, gamma, lam: _ahead(r - v, gamma * lam),
            "The value of the next token is missing: δ_t = r_t + γ·V_{t+1} − V_t.",
        ),
        KnownMistake(
            "forward loop",
            lambda r, v, gamma, lam: _ahead(_delta(r, v, gamma).flip(0), gamma * lam).flip(0),
            "You sum from the first token to the last, so each token gets the δ of those before it."
            " Loop from the end: a token gets the δ of those after it.",
        ),
        KnownMistake(
            "returns",
            lambda r, v, gamma, lam: _ahead(_delta(r, v, gamma), gamma * lam) + v,
            "You give the returns, A + V. The critic learns from them. The policy learns from A.",
        ),
        KnownMistake(
            "last value kept",
            lambda r, v, gamma, lam: _ahead(
                r + gamma * torch.cat([v[1:], v[-1:]]) - v, gamma * lam
            ),
            "You use the last value twice. No reward comes after the last token, so V_{T+1} is 0.",
        ),
    ),
)


def _masked(draw: RandomInputs) -> tuple[torch.Tensor, torch.Tensor]:
    return draw.normal(3, 9, mean=2.0, std=3.0), draw.mask(3, 9)


WHITEN = Exercise(
    "my_whiten",
    1,
    ("advantages", "completion_mask"),
    "(B, T) advantages, and 0 outside the mask",
    whiten,
    _masked,
    (
        KnownMistake(
            "mean added back",
            lambda a, m: ((a - a[m].mean()) / (a[m].std() + 1e-4) + a[m].mean()) * m,
            "You add the mean back. Published code makes this mistake too. Whitened advantages "
            "have mean 0: some tokens are pushed up, others down.",
        ),
        KnownMistake(
            "mean kept",
            lambda a, m: a / (a[m].std() + 1e-4) * m,
            "You only divide by the standard deviation. Subtract the mean first. Otherwise every"
            " token of a good batch is pushed up.",
        ),
        KnownMistake(
            "padding counted",
            lambda a, m: (a - a.mean()) / (a.std() + 1e-4) * m,
            "Your mean and standard deviation include the prompt and the padding. Use "
            "advantages[completion_mask].",
        ),
        KnownMistake(
            "variance",
            lambda a, m: (a - a[m].mean()) / (a[m].var() + 1e-4) * m,
            "You divide by the variance. Take its square root.",
        ),
        KnownMistake(
            "population std",
            lambda a, m: (a - a[m].mean()) / (a[m].std(correction=0) + 1e-4) * m,
            "Your standard deviation divides by n. The lab uses the unbiased one, which divides "
            "by n − 1 (.std() in torch).",
        ),
        KnownMistake(
            "outside not cleared",
            lambda a, m: (a - a[m].mean()) / (a[m].std() + 1e-4),
            "Your values inside the mask are right. Outside the mask they must be 0.",
        ),
        KnownMistake(
            "one token too few",
            lambda a, m: (a - (a * m).sum() / (m.sum() - 1)) / (a[m].std() + 1e-4) * m,
            "Your mean divides by mask.sum() − 1. Only the variance does that; the mean divides by"
            " mask.sum().",
        ),
    ),
    limit=lambda a, m: whiten(a, m, epsilon_std=0.0),
)

EXERCISES = (GAE, WHITEN)
