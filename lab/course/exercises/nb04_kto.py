"""Notebook 04, second half: KTO, judgements without pairs."""

import torch

from lab.algorithms.losses import kto_loss, kto_reference_point
from lab.course.exercise import Exercise, KnownMistake, RandomInputs


def _kto_inputs(
    draw: RandomInputs,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float, float, float]:
    base = draw.normal(6, mean=-20, std=4)
    return (
        base + draw.normal(6, std=4),
        base,
        draw.flags(6),
        torch.tensor(draw.between(0.5, 3.0), dtype=torch.float64),
        draw.between(0.1, 0.5),
        draw.between(1.1, 1.6),
        draw.between(0.5, 0.9),
    )


def _kto(
    p: torch.Tensor,
    q: torch.Tensor,
    good: torch.Tensor,
    z: torch.Tensor,
    beta: float,
    good_weight: float,
    bad_weight: float,
) -> torch.Tensor:
    gain = beta * torch.where(good, p - q - z, z - (p - q))
    return torch.where(good, good_weight, bad_weight) * (1 - torch.sigmoid(gain))


KTO_LOSS = Exercise(
    "my_kto_loss",
    4,
    (
        "logps",
        "reference_logps",
        "desirable",
        "z",
        "beta",
        "desirable_weight",
        "undesirable_weight",
    ),
    "(B,) losses, one for each completion",
    lambda p, q, good, z, beta, gw, bw: kto_loss(
        p, q, good, z, beta=beta, desirable_weight=gw, undesirable_weight=bw
    )[0],
    _kto_inputs,
    (
        KnownMistake(
            "undesirable not reversed",
            lambda p, q, good, z, beta, gw, bw: (
                torch.where(good, gw, bw) * (1 - torch.sigmoid(beta * (p - q - z)))
            ),
            "You pull undesirable completions up, like desirable ones. For them use z − r "
            "instead of r − z.",
        ),
        KnownMistake(
            "z forgotten",
            lambda p, q, good, z, beta, gw, bw: _kto(p, q, good, 0 * z, beta, gw, bw),
            "The reference point z is missing. KTO measures a gain relative to z.",
        ),
        KnownMistake(
            "z without β",
            lambda p, q, good, z, beta, gw, bw: _kto(p, q, good, z / beta, beta, gw, bw),
            "β multiplies the reward only, and z stands outside of it. It must be β·(r − z).",
        ),
        KnownMistake(
            "plus for minus",
            lambda p, q, good, z, beta, gw, bw: _kto(p, q, good, -z, beta, gw, bw),
            "You add z. KTO measures the gain over z: r − z.",
        ),
        KnownMistake(
            "λ forgotten",
            lambda p, q, good, z, beta, gw, bw: _kto(p, q, good, z, beta, 1.0, 1.0),
            "The weights λ_D and λ_U are missing.",
        ),
        KnownMistake(
            "λ swapped",
            lambda p, q, good, z, beta, gw, bw: _kto(p, q, good, z, beta, bw, gw),
            "λ_D and λ_U are swapped.",
        ),
        KnownMistake(
            "β forgotten",
            lambda p, q, good, z, beta, gw, bw: _kto(p, q, good, z, 1.0, gw, bw),
            "β is missing inside the sigmoid.",
        ),
        KnownMistake(
            "log σ",
            lambda p, q, good, z, beta, gw, bw: (
                -torch.where(good, gw, bw)
                * torch.sigmoid(beta * torch.where(good, p - q - z, z - p + q)).log()
            ),
            "You use −log σ, as DPO does. KTO uses 1 − σ, which is flat at both ends: an outlier"
            " stops pulling.",
        ),
        KnownMistake(
            "reference not subtracted",
            lambda p, q, good, z, beta, gw, bw: _kto(p, 0 * q, good, z, beta, gw, bw),
            "The reference is missing: r = log π − log π_ref.",
        ),
    ),
)


def _mismatched_inputs(draw: RandomInputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log-probabilities (B, B) under policy and reference: row i, column j is completion j after
    prompt i. Every second input has a negative mismatched mean, so that z is 0.
    """
    base, ratio = draw.normal(5, 5, mean=-30, std=3), draw.normal(5, 5)
    ratio = ratio - _next(ratio).mean() + (-0.3 if draw.number % 2 else 0.3)
    return base + ratio + 4 * torch.eye(5, dtype=torch.float64), base


def _next(x: torch.Tensor) -> torch.Tensor:
    """Return the entry right of the diagonal of every row; for the last row that in column 0."""
    return x.roll(-1, 1).diagonal()


KTO_Z = Exercise(
    "my_kto_z",
    4,
    ("logps", "reference_logps"),
    "one number without a gradient",
    lambda p, q: kto_reference_point(_next(p), _next(q)),
    _mismatched_inputs,
    (
        KnownMistake(
            "matched pairs",
            lambda p, q: (p - q).diagonal().mean().clamp(min=0).detach(),
            "You use the diagonal: each completion with its own prompt. z uses prompt i with "
            "completion i + 1.",
        ),
        KnownMistake(
            "clamp forgotten",
            lambda p, q: _next(p - q).mean().detach(),
            "z estimates a KL, and a KL is never negative. Clamp the mean at 0.",
        ),
        KnownMistake(
            "clamped before the mean",
            lambda p, q: _next(p - q).clamp(min=0).mean().detach(),
            "You clamp every ratio. Average first, then clamp. Otherwise z is too large on "
            "average.",
        ),
        KnownMistake(
            "not detached",
            lambda p, q: _next(p - q).mean().clamp(min=0),
            "Your value is right, but a gradient flows through it. z is a constant of the loss: "
            "use .detach().",
        ),
        KnownMistake(
            "sign",
            lambda p, q: _next(q - p).mean().clamp(min=0).detach(),
            "Your sign is reversed: you subtract the policy from the reference. z is a mean of"
            " log π − log π_ref.",
        ),
        KnownMistake(
            "rolled the other way",
            lambda p, q: (p - q).roll(1, 1).diagonal().mean().clamp(min=0).detach(),
            "You roll the other way: prompt i stands with completion i − 1. The exercise asks for"
            " completion i + 1, which x.roll(-1, 1) moves to the diagonal.",
        ),
        KnownMistake(
            "all pairs",
            lambda p, q: (p - q).mean().clamp(min=0).detach(),
            "You average over all pairs, and each completion with its own prompt is among them. "
            "Use only prompt i with completion i + 1.",
        ),
        KnownMistake(
            "reference not subtracted",
            lambda p, q: _next(p).mean().clamp(min=0).detach(),
            "The reference is missing: z is a mean of log π − log π_ref.",
        ),
    ),
    detached=True,
)


def _counts(draw: RandomInputs) -> tuple[int, int, float, float]:
    return (
        draw.random.randint(10, 90),
        draw.random.randint(100, 900),
        draw.between(0.5, 0.9),
        draw.between(1.05, 1.33),
    )


DESIRABLE_WEIGHT = Exercise(
    "my_desirable_weight",
    4,
    ("n_desirable", "n_undesirable", "undesirable_weight", "ratio"),
    "one number: λ_D",
    lambda good, bad, weight, ratio: ratio * weight * bad / good,
    _counts,
    (
        KnownMistake(
            "inverted",
            lambda good, bad, weight, ratio: ratio * weight * good / bad,
            "Your fraction is upside down. The rarer kind needs the larger weight.",
        ),
        KnownMistake(
            "λ_U forgotten",
            lambda good, bad, weight, ratio: ratio * bad / good,
            "λ_U is missing. The rule is about λ_D·n_D / (λ_U·n_U).",
        ),
        KnownMistake(
            "ratio forgotten",
            lambda good, bad, weight, ratio: weight * bad / good,
            "The ratio is missing. λ_D·n_D / (λ_U·n_U) must equal the ratio, not 1.",
        ),
        KnownMistake(
            "ratio divides",
            lambda good, bad, weight, ratio: weight * bad / good / ratio,
            "You divide by the ratio. Solve λ_D·n_D / (λ_U·n_U) = ratio for λ_D.",
        ),
    ),
)

EXERCISES = (KTO_LOSS, KTO_Z, DESIRABLE_WEIGHT)
