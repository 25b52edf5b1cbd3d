"""Notebook 01, second half: advantages from the values of the critic."""

import torch

from lab.algorithms.advantages import gae, whiten
from lab.course.checker import Exercise, KnownMistake, RandomInputs


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
    "(T,) advantages of the tokens of one completion",
    _lab_gae,
    _one_completion,
    (
        KnownMistake(
            "λ forgotten",
            lambda r, v, gamma, lam: _ahead(_delta(r, v, gamma), gamma),
            "λ is missing: each step back multiplies by γ·λ, not by γ alone.",
        ),
        KnownMistake(
            "γ forgotten in the sum",
            lambda r, v, gamma, lam: _ahead(_delta(r, v, gamma), lam),
            "In the sum γ is missing: each step back multiplies by γ·λ.",
        ),
        KnownMistake(
            "one step only",
            lambda r, v, gamma, lam: _delta(r, v, gamma),
            "These are the δ alone, which is λ = 0. Add up those of the later tokens, each times"
            " (γλ)^k.",
        ),
        KnownMistake(
            "next value forgotten",
            lambda r, v, gamma, lam: _ahead(r - v, gamma * lam),
            "δ_t = r_t + γ·V_{t+1} − V_t: the next value is missing.",
        ),
        KnownMistake(
            "returns",
            lambda r, v, gamma, lam: _ahead(_delta(r, v, gamma), gamma * lam) + v,
            "These are the returns, A + V, which the critic learns from. The policy learns from A.",
        ),
        KnownMistake(
            "last value kept",
            lambda r, v, gamma, lam: _ahead(
                r + gamma * torch.cat([v[1:], v[-1:]]) - v, gamma * lam
            ),
            "After the last token nothing is to come: V_{T+1} is 0, not the last value again.",
        ),
    ),
)


def _masked(draw: RandomInputs) -> tuple[torch.Tensor, torch.Tensor]:
    return draw.normal(3, 9, mean=2.0, std=3.0), draw.mask(3, 9)


WHITEN = Exercise(
    "my_whiten",
    1,
    ("advantages", "completion_mask"),
    "(B, T), 0 outside the mask",
    whiten,
    _masked,
    (
        KnownMistake(
            "mean added back",
            lambda a, m: ((a - a[m].mean()) / (a[m].std() + 1e-4) + a[m].mean()) * m,
            "The mean is added back, a slip that is found in published code. Whitened advantages"
            " have mean 0: half the tokens are pushed up, half down.",
        ),
        KnownMistake(
            "mean kept",
            lambda a, m: a / (a[m].std() + 1e-4) * m,
            "You only scale. Subtract the mean first, or every token of a good batch is pushed up.",
        ),
        KnownMistake(
            "padding counted",
            lambda a, m: (a - a.mean()) / (a.std() + 1e-4) * m,
            "Mean and std are over all positions with you, prompt and padding included. Use"
            " advantages[completion_mask].",
        ),
        KnownMistake(
            "variance",
            lambda a, m: (a - a[m].mean()) / (a[m].var() + 1e-4) * m,
            "You divide by the variance; take its root.",
        ),
        KnownMistake(
            "population std",
            lambda a, m: (a - a[m].mean()) / (a[m].std(correction=0) + 1e-4) * m,
            "Your std divides by n; the lab's is the unbiased one, which divides by n − 1 (.std()"
            " in torch).",
        ),
        KnownMistake(
            "outside not cleared",
            lambda a, m: (a - a[m].mean()) / (a[m].std() + 1e-4),
            "Inside the mask it is right. Outside it must be 0.",
        ),
    ),
)

EXERCISES = (GAE, WHITEN)
