"""Notebook 05: the ratio, its clip, the distance to the reference, and a baseline without a critic."""

from collections.abc import Callable
from typing import Any

import torch

from lab.algorithms.advantages import leave_one_out_advantages
from lab.algorithms.kl import exact_kl, kl_estimate
from lab.algorithms.policy_losses import ppo_loss
from lab.course.checker import Exercise, KnownMistake, RandomInputs, stack_results


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
            "exp forgotten", lambda p, o: p - o, "This is the logarithm of the ratio: exp it."
        ),
        KnownMistake(
            "inverted",
            lambda p, o: (o - p).exp(),
            "Upside down: the policy of now over the one that sampled.",
        ),
        KnownMistake(
            "ratio of logs",
            lambda p, o: p / o,
            "You divide log-probabilities. The ratio of probabilities is exp of the difference of"
            " their logs.",
        ),
        KnownMistake(
            "summed",
            lambda p, o: (p - o).sum(1).exp(),
            "One ratio for the whole completion. PPO and GRPO take one for each token.",
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
            "You take the larger of the two. The smaller is the pessimistic one: it gives no credit"
            " for going too far.",
        ),
        KnownMistake(
            "clip alone",
            lambda p, o, a, e: -(p - o).exp().clamp(1 - e, 1 + e) * a,
            "You always clip. Then a token that went the wrong way has no gradient to come back by:"
            " take the minimum with the unclipped term.",
        ),
        KnownMistake(
            "minus forgotten",
            lambda p, o, a, e: torch.minimum(
                (p - o).exp() * a, (p - o).exp().clamp(1 - e, 1 + e) * a
            ),
            "The minus is missing: the surrogate is raised, a loss is lowered.",
        ),
        KnownMistake("not clipped", lambda p, o, a, e: -(p - o).exp() * a, "Nothing is clipped."),
        KnownMistake(
            "product clipped",
            lambda p, o, a, e: (
                -torch.minimum((p - o).exp() * a, ((p - o).exp() * a).clamp(1 - e, 1 + e))
            ),
            "You clip ratio times advantage. It is the ratio that stays within 1 ± ε.",
        ),
        KnownMistake(
            "log-ratio clipped",
            lambda p, o, a, e: -torch.minimum((p - o) * a, (p - o).clamp(-e, e) * a),
            "exp is missing: this clips the logarithm of the ratio.",
        ),
    ),
)


def _all_estimators(
    function: Callable[..., Any], logps: torch.Tensor, reference: torch.Tensor
) -> torch.Tensor | None:
    """Return k1, k2 and k3 of one function as one tensor."""
    return stack_results([function(logps, reference, name) for name in ("k1", "k2", "k3")])


_Estimator = Callable[[torch.Tensor], torch.Tensor]


def _estimates(k1: _Estimator, k2: _Estimator, k3: _Estimator) -> Callable[..., torch.Tensor]:
    """Return a function of log π, log π_ref and the name of the estimator, from three functions of
    x = log π_ref − log π.
    """
    return lambda p, q, name: {"k1": k1, "k2": k2, "k3": k3}[name](q - p)


KL_ESTIMATE = Exercise(
    "my_kl_estimate",
    5,
    ("token_logps", "reference_token_logps"),
    "for each of k1, k2 and k3 the shape of the inputs",
    kl_estimate,
    _logps,
    (
        KnownMistake(
            "sign of k3",
            _estimates(lambda x: -x, lambda x: x**2 / 2, lambda x: torch.exp(-x) + x - 1),
            "k3 has x of the wrong sign: x = log π_ref − log π. It is positive all the same, but a"
            " token that the policy made 4 nats likelier than the reference costs 49.6 instead of"
            " 3.0.",
        ),
        KnownMistake(
            "sign of k1",
            _estimates(lambda x: x, lambda x: x**2 / 2, lambda x: torch.exp(x) - x - 1),
            "k1 has the wrong sign: averaged over the policy's own tokens log π − log π_ref is"
            " the KL.",
        ),
        KnownMistake(
            "all signs",
            _estimates(lambda x: x, lambda x: x**2 / 2, lambda x: torch.exp(-x) + x - 1),
            "Your x is log π − log π_ref; it is the other way round.",
        ),
        KnownMistake(
            "half forgotten",
            _estimates(lambda x: -x, lambda x: x**2, lambda x: torch.exp(x) - x - 1),
            "k2 is half the square.",
        ),
        KnownMistake(
            "1 forgotten",
            _estimates(lambda x: -x, lambda x: x**2 / 2, lambda x: torch.exp(x) - x),
            "k3 of equal policies must be 0: subtract 1.",
        ),
        KnownMistake(
            "x forgotten in k3",
            _estimates(lambda x: -x, lambda x: x**2 / 2, lambda x: torch.exp(x) - 1),
            "k3 is eˣ − x − 1. Without −x it is 0 on average and estimates nothing.",
        ),
    ),
    _all_estimators,
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
    "(N,), one number for each position",
    _lab_kl,
    _logits,
    (
        KnownMistake(
            "reversed",
            lambda a, b: (_log(b).exp() * (_log(b) - _log(a))).sum(-1),
            "This is KL(π_ref‖π): weigh with the policy's probabilities.",
        ),
        KnownMistake(
            "softmax forgotten",
            lambda a, b: (_log(a).exp() * (a - b)).sum(-1),
            "You subtract logits. They are log-probabilities but for a constant, and the constants"
            " differ: log_softmax.",
        ),
        KnownMistake(
            "mean over the vocabulary",
            lambda a, b: (_log(a).exp() * (_log(a) - _log(b))).mean(-1),
            "You average over the vocabulary. The probabilities are the weights already: sum.",
        ),
        KnownMistake(
            "unweighted",
            lambda a, b: (_log(a) - _log(b)).sum(-1),
            "The weights are missing: Σ π·(log π − log π_ref).",
        ),
        KnownMistake(
            "summed over positions",
            lambda a, b: (_log(a).exp() * (_log(a) - _log(b))).sum(),
            "You sum over positions too; keep one number for each.",
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
            "itself included",
            lambda r, g: (r.view(-1, g) - r.view(-1, g).mean(1, keepdim=True)).flatten(),
            "The baseline is the mean of the whole group, the completion itself included. Leave it"
            " out: the mean of the other G − 1.",
        ),
        KnownMistake(
            "divided by G",
            lambda r, g: (
                r.view(-1, g) - (r.view(-1, g).sum(1, keepdim=True) - r.view(-1, g)) / g
            ).flatten(),
            "The sum of the others is divided by G; there are G − 1 of them.",
        ),
        KnownMistake(
            "whole batch",
            lambda r, g: r - (r.sum() - r) / (len(r) - 1),
            "The others are all of the batch with you. Only completions of the same prompt can be"
            " compared.",
        ),
        KnownMistake(
            "scaled",
            lambda r, g: (
                (r.view(-1, g) - r.view(-1, g).mean(1, keepdim=True))
                / r.view(-1, g).std(1, keepdim=True)
            ).flatten(),
            "You divide by the std, which is GRPO's advantage. This one stays in units of the"
            " reward.",
        ),
    ),
)

EXERCISES = (POLICY_RATIO, CLIPPED_SURROGATE, KL_ESTIMATE, EXACT_KL, LEAVE_ONE_OUT)
