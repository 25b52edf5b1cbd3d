"""Notebook 05: the ratio, its clip, the distance to the reference, and a baseline without a critic."""

from collections.abc import Callable

import torch

from lab.algorithms.advantages import leave_one_out_advantages
from lab.algorithms.kl import exact_kl, kl_estimate
from lab.algorithms.policy_losses import ppo_loss
from lab.course.exercise import Exercise, KnownMistake, RandomInputs


def _logps(draw: RandomInputs) -> tuple[torch.Tensor, torch.Tensor]:
    old = -draw.normal(2, 6).abs()
    return old + draw.normal(2, 6, std=0.4), old


def _clip_inputs(draw: RandomInputs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    return *_logps(draw), draw.normal(2, 6), draw.between(0.1, 0.3)


def _ones(x: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(x, dtype=torch.bool)


def _lab_ppo(
    logps: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor, epsilon: float
) -> torch.Tensor:
    return ppo_loss(logps, old, advantages, _ones(logps), epsilon=epsilon)[0]


POLICY_RATIO = Exercise(
    "my_ratio",
    5,
    ("token_logps", "old_token_logps"),
    "(B, T) ratios",
    lambda p, o: ppo_loss(p, o, p, _ones(p), epsilon=0.2)[1]["ratio"],
    _logps,
    (
        KnownMistake(
            "exp forgotten",
            lambda p, o: p - o,
            "You give the logarithm of the ratio. Take exp of it.",
        ),
        KnownMistake(
            "inverted",
            lambda p, o: (o - p).exp(),
            "Your ratio is upside down. The present policy is on top, the policy that sampled is"
            " below.",
        ),
        KnownMistake(
            "ratio of logs",
            lambda p, o: p / o,
            "You divide log-probabilities. The ratio of two probabilities is exp of the "
            "difference of their logs.",
        ),
        KnownMistake(
            "summed",
            lambda p, o: (p - o).sum(1).exp(),
            "You compute one ratio for the whole completion. PPO and GRPO compute one for each "
            "token.",
        ),
    ),
)

CLIPPED_SURROGATE = Exercise(
    "my_clipped_surrogate",
    5,
    ("token_logps", "old_token_logps", "advantages", "epsilon"),
    "(B, T) losses, one for each token",
    _lab_ppo,
    _clip_inputs,
    (
        KnownMistake(
            "max instead of min",
            lambda p, o, a, e: (
                -torch.maximum((p - o).exp() * a, (p - o).exp().clamp(1 - e, 1 + e) * a)
            ),
            "You take the larger of the two. Take the smaller: it gives no credit for a step "
            "beyond the clip.",
        ),
        KnownMistake(
            "clip alone",
            lambda p, o, a, e: -(p - o).exp().clamp(1 - e, 1 + e) * a,
            "You always clip. Then a token whose ratio moved in the wrong direction has no "
            "gradient to bring it back. Take the minimum with the unclipped term.",
        ),
        KnownMistake(
            "min before ×A",
            lambda p, o, a, e: -torch.minimum((p - o).exp(), (p - o).exp().clamp(1 - e, 1 + e)) * a,
            "You take the smaller ratio and then multiply by A. For a negative A that is the larger"
            " product. Multiply both by A first, then take the minimum.",
        ),
        KnownMistake(
            "minus forgotten",
            lambda p, o, a, e: torch.minimum(
                (p - o).exp() * a, (p - o).exp().clamp(1 - e, 1 + e) * a
            ),
            "The minus is missing. The method raises the surrogate, but training lowers a loss.",
        ),
        KnownMistake(
            "not clipped", lambda p, o, a, e: -(p - o).exp() * a, "You do not clip the ratio."
        ),
        KnownMistake(
            "product clipped",
            lambda p, o, a, e: (
                -torch.minimum((p - o).exp() * a, ((p - o).exp() * a).clamp(1 - e, 1 + e))
            ),
            "You clip the product of ratio and advantage. Clip only the ratio, to 1 ± ε.",
        ),
        KnownMistake(
            "log-ratio clipped",
            lambda p, o, a, e: -torch.minimum((p - o) * a, (p - o).clamp(-e, e) * a),
            "exp is missing. You clip the logarithm of the ratio.",
        ),
    ),
)


def _each_estimator(
    logps: torch.Tensor, reference: torch.Tensor
) -> list[tuple[torch.Tensor, torch.Tensor, str]]:
    """Return the calls for k1, k2 and k3."""
    return [(logps, reference, name) for name in ("k1", "k2", "k3")]


_Estimator = Callable[[torch.Tensor], torch.Tensor]


def _estimates(k1: _Estimator, k2: _Estimator, k3: _Estimator) -> Callable[..., torch.Tensor]:
    """Return a function of log π, log π_ref and the name of the estimator, from three functions of
    x = log π_ref − log π.
    """
    return lambda p, q, name: {"k1": k1, "k2": k2, "k3": k3}[name](q - p)


KL_ESTIMATE = Exercise(
    "my_kl_estimate",
    5,
    ("token_logps", "reference_token_logps", "estimator"),
    "estimates in the shape of the inputs, for each of k1, k2 and k3",
    kl_estimate,
    _logps,
    (
        KnownMistake(
            "sign of k3",
            _estimates(lambda x: -x, lambda x: x**2 / 2, lambda x: torch.exp(-x) + x - 1),
            "Your k3 uses x with the wrong sign. It must be x = log π_ref − log π. The wrong k3 "
            "is never negative either, so it looks right. But a token that the policy made 4 "
            "nats more likely than the reference costs 49.6 instead of 3.0.",
        ),
        KnownMistake(
            "sign of k1",
            _estimates(lambda x: x, lambda x: x**2 / 2, lambda x: torch.exp(x) - x - 1),
            "Your k1 has the wrong sign. The KL is the average of log π − log π_ref over the "
            "policy's own tokens.",
        ),
        KnownMistake(
            "all signs reversed",
            _estimates(lambda x: x, lambda x: x**2 / 2, lambda x: torch.exp(-x) + x - 1),
            "Your x is log π − log π_ref. Swap the two: x = log π_ref − log π.",
        ),
        KnownMistake(
            "½ forgotten",
            _estimates(lambda x: -x, lambda x: x**2, lambda x: torch.exp(x) - x - 1),
            "The factor ½ is missing in k2.",
        ),
        KnownMistake(
            "1 forgotten",
            _estimates(lambda x: -x, lambda x: x**2 / 2, lambda x: torch.exp(x) - x),
            "Your k3 is 1 for equal policies. It must be 0: subtract 1.",
        ),
        KnownMistake(
            "x forgotten in k3",
            _estimates(lambda x: -x, lambda x: x**2 / 2, lambda x: torch.exp(x) - 1),
            "The term −x is missing: k3 = eˣ − x − 1. Without it the mean is 0, whatever the KL "
            "is.",
        ),
    ),
    calls=_each_estimator,
)


def _logits(draw: RandomInputs) -> tuple[torch.Tensor, torch.Tensor]:
    return draw.normal(4, 7), draw.normal(4, 7)


def _lab_kl(logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    return exact_kl(logits[:, None].repeat(1, 2, 1), reference[:, None].repeat(1, 2, 1))[:, 1]


def _log(x: torch.Tensor) -> torch.Tensor:
    return x.log_softmax(-1)


EXACT_KL = Exercise(
    "my_exact_kl",
    5,
    ("logits", "reference_logits"),
    "(N,) numbers, one for each position",
    _lab_kl,
    _logits,
    (
        KnownMistake(
            "reversed",
            lambda a, b: (_log(b).exp() * (_log(b) - _log(a))).sum(-1),
            "You compute KL(π_ref‖π). Weight with the policy's probabilities.",
        ),
        KnownMistake(
            "softmax forgotten",
            lambda a, b: (_log(a).exp() * (a - b)).sum(-1),
            "You subtract logits. Logits are log-probabilities plus a constant, and the two "
            "constants differ. Use log_softmax first.",
        ),
        KnownMistake(
            "mean over the vocabulary",
            lambda a, b: (_log(a).exp() * (_log(a) - _log(b))).mean(-1),
            "You average over the vocabulary. The probabilities already are the weights, so take"
            " the sum.",
        ),
        KnownMistake(
            "unweighted",
            lambda a, b: (_log(a) - _log(b)).sum(-1),
            "The weights are missing: Σ π·(log π − log π_ref).",
        ),
        KnownMistake(
            "summed over positions",
            lambda a, b: (_log(a).exp() * (_log(a) - _log(b))).sum(),
            "You sum over positions too. Keep one number for each position.",
        ),
    ),
)


def _groups(draw: RandomInputs) -> tuple[torch.Tensor, int]:
    return draw.normal(12), 4


LEAVE_ONE_OUT = Exercise(
    "my_leave_one_out",
    5,
    ("rewards", "group_size"),
    "(N,) advantages, in the order of the rewards",
    leave_one_out_advantages,
    _groups,
    (
        KnownMistake(
            "own reward included",
            lambda r, g: (r.view(-1, g) - r.view(-1, g).mean(1, keepdim=True)).flatten(),
            "Your baseline is the mean of the whole group, and the completion itself is in it. "
            "Use the mean of the other G − 1.",
        ),
        KnownMistake(
            "divided by G",
            lambda r, g: (
                r.view(-1, g) - (r.view(-1, g).sum(1, keepdim=True) - r.view(-1, g)) / g
            ).flatten(),
            "You divide the sum of the others by G. There are G − 1 others.",
        ),
        KnownMistake(
            "whole batch",
            lambda r, g: r - (r.sum() - r) / (len(r) - 1),
            "You use all other completions of the batch. Use only the completions of the same "
            "prompt.",
        ),
        KnownMistake(
            "scaled",
            lambda r, g: (
                (r.view(-1, g) - r.view(-1, g).mean(1, keepdim=True))
                / r.view(-1, g).std(1, keepdim=True)
            ).flatten(),
            "You divide by the standard deviation, as GRPO does. Do not divide here: this "
            "advantage keeps the unit of the reward.",
        ),
    ),
)

EXERCISES = (POLICY_RATIO, CLIPPED_SURROGATE, KL_ESTIMATE, EXACT_KL, LEAVE_ONE_OUT)
