"""Notebook 02: the derivation of DPO for a bandit with K responses."""

import torch

from lab.analysis.bandit import implied_rewards, objective, optimal_policy, partition
from lab.course.exercise import Exercise, KnownMistake, RandomInputs


def _beta(draw: RandomInputs) -> float:
    return draw.random.choice((0.3, 0.6, 1.7, 3.0)) * draw.between(0.9, 1.1)


def _bandit(draw: RandomInputs) -> tuple[torch.Tensor, torch.Tensor, float]:
    return draw.probabilities(5), draw.normal(5), _beta(draw)


def _policies(draw: RandomInputs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    return draw.probabilities(5), *_bandit(draw)


OBJECTIVE = Exercise(
    "my_objective",
    2,
    ("policy", "reference", "rewards", "beta"),
    "one number",
    lambda p, q, r, beta: objective(p, q, r, beta=beta),
    _policies,
    (
        KnownMistake(
            "β forgotten",
            lambda p, q, r, beta: (p * r).sum() - (p * (p / q).log()).sum(),
            "β is missing: E[r] − β·KL.",
        ),
        KnownMistake(
            "KL reversed",
            lambda p, q, r, beta: (p * r).sum() - beta * (q * (q / p).log()).sum(),
            "You compute KL(π_ref‖π), an average over the reference. RLHF uses KL(π‖π_ref): "
            "weight with the policy's probabilities.",
        ),
        KnownMistake(
            "sign of the KL",
            lambda p, q, r, beta: (p * r).sum() + beta * (p * (p / q).log()).sum(),
            "You add the KL. It is a cost, so subtract it.",
        ),
        KnownMistake(
            "reward under the reference",
            lambda p, q, r, beta: (q * r).sum() - beta * (p * (p / q).log()).sum(),
            "You average the reward over the reference's responses. The policy writes the "
            "responses: E_π[r] = Σ π·r.",
        ),
        KnownMistake(
            "rewards unweighted",
            lambda p, q, r, beta: r.mean() - beta * (p * (p / q).log()).sum(),
            "You average the rewards as if all responses had equal probability. Weight them with"
            " the policy's probabilities.",
        ),
    ),
)

LOG_PARTITION = Exercise(
    "my_log_partition",
    2,
    ("reference", "rewards", "beta"),
    "one number",
    lambda q, r, beta: partition(q, r, beta=beta).log(),
    _bandit,
    (
        KnownMistake(
            "log forgotten",
            lambda q, r, beta: (q * (r / beta).exp()).sum(),
            "You give Z. The exercise asks for log Z.",
        ),
        KnownMistake(
            "reference forgotten",
            lambda q, r, beta: (r / beta).logsumexp(0),
            "The reference is missing: Z = Σ π_ref(y)·exp(r(y)/β).",
        ),
        KnownMistake(
            "β multiplied",
            lambda q, r, beta: (q * (r * beta).exp()).sum().log(),
            "You multiply by β. Divide by it: exp(r/β). A small β must make the policy sharper.",
        ),
        KnownMistake(
            "β forgotten", lambda q, r, beta: (q * r.exp()).sum().log(), "β is missing: exp(r/β)."
        ),
        KnownMistake(
            "log inside the sum",
            lambda q, r, beta: (q * r / beta).sum(),
            "The log of a sum is not the sum of logs. Add first, then take the log.",
        ),
    ),
)

OPTIMAL_POLICY = Exercise(
    "my_optimal_policy",
    2,
    ("reference", "rewards", "beta"),
    "(K,) probabilities",
    lambda q, r, beta: optimal_policy(q, r, beta=beta),
    _bandit,
    (
        KnownMistake(
            "not normalised",
            lambda q, r, beta: q * (r / beta).exp(),
            "Your probabilities do not sum to 1. Divide by Z.",
        ),
        KnownMistake(
            "reference forgotten",
            lambda q, r, beta: (r / beta).softmax(0),
            "The reference is missing. A response with probability 0 under the reference has "
            "probability 0 under the optimal policy too.",
        ),
        KnownMistake(
            "β multiplied",
            lambda q, r, beta: (q.log() + r * beta).softmax(0),
            "You multiply by β. Divide by it: exp(r/β). β is the price of leaving the reference,"
            " so a large β keeps the policy near it.",
        ),
        KnownMistake(
            "β forgotten", lambda q, r, beta: (q.log() + r).softmax(0), "β is missing: exp(r/β)."
        ),
        KnownMistake(
            "reference without log",
            lambda q, r, beta: (q + r / beta).softmax(0),
            "Inside a softmax the reference needs its logarithm: log π_ref + r/β.",
        ),
    ),
)


def _two_policies(draw: RandomInputs) -> tuple[torch.Tensor, torch.Tensor, float]:
    return draw.probabilities(5), draw.probabilities(5), _beta(draw)


IMPLIED_REWARD = Exercise(
    "my_implied_reward",
    2,
    ("policy", "reference", "beta"),
    "(K,) rewards",
    lambda p, q, beta: implied_rewards(p, q, beta=beta),
    _two_policies,
    (
        KnownMistake(
            "β forgotten",
            lambda p, q, beta: (p / q).log(),
            "β is missing. A log-ratio of one nat is a reward of β.",
        ),
        KnownMistake(
            "reference not subtracted",
            lambda p, q, beta: beta * p.log(),
            "The reference is missing. The implied reward depends on how much more likely the "
            "policy makes the response.",
        ),
        KnownMistake(
            "β divides",
            lambda p, q, beta: (p / q).log() / beta,
            "You divide by β. Solve π* = π_ref·exp(r/β)/Z for r: β becomes a factor.",
        ),
        KnownMistake(
            "inverted",
            lambda p, q, beta: beta * (q / p).log(),
            "Your sign is reversed. A response that became more likely has the higher reward: "
            "log(π/π_ref).",
        ),
        KnownMistake("log forgotten", lambda p, q, beta: beta * p / q, "The logarithm is missing."),
        KnownMistake(
            "quotient of logs",
            lambda p, q, beta: beta * p.log() / q.log(),
            "You divide logarithms. The log of a ratio is a difference: log π − log π_ref.",
        ),
    ),
)

EXERCISES = (OBJECTIVE, LOG_PARTITION, OPTIMAL_POLICY, IMPLIED_REWARD)
