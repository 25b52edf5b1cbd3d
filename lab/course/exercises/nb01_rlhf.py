"""Notebook 01, first half: preferences, the reward model, and the reward of each token."""

import torch

from lab.algorithms.advantages import kl_shaped_rewards
from lab.algorithms.losses import reward_model_loss
from lab.course.exercise import Exercise, KnownMistake, RandomInputs


def _two_rewards(draw: RandomInputs) -> tuple[torch.Tensor, torch.Tensor]:
    return draw.normal(5, std=2), draw.normal(5, std=2)


BRADLEY_TERRY = Exercise(
    "my_bradley_terry",
    1,
    ("chosen_rewards", "rejected_rewards"),
    "(B,) probabilities that the chosen completion is preferred",
    lambda chosen, rejected: (-reward_model_loss(chosen, rejected)[0]).exp(),
    _two_rewards,
    (
        KnownMistake(
            "sign",
            lambda c, r: torch.sigmoid(r - c),
            "Your sign is reversed. A higher chosen reward makes the preference more likely: "
            "σ(r_w − r_l).",
        ),
        KnownMistake(
            "sum instead of difference",
            lambda c, r: torch.sigmoid(c + r),
            "You add the rewards. Only their difference counts: raising both changes no"
            " preference.",
        ),
        KnownMistake(
            "odds",
            lambda c, r: (c - r).exp(),
            "exp(r_w − r_l) gives the odds. The probability is odds / (1 + odds), which is σ of "
            "the difference.",
        ),
        KnownMistake(
            "log-probability",
            lambda c, r: torch.nn.functional.logsigmoid(c - r),
            "You give the logarithm of the probability. Leave the log out.",
        ),
        KnownMistake(
            "rewards without exp",
            lambda c, r: c / (c + r),
            "r_w / (r_w + r_l) needs positive rewards. Bradley-Terry puts exp(r) in their place.",
        ),
    ),
)

REWARD_MODEL_LOSS = Exercise(
    "my_reward_model_loss",
    1,
    ("chosen_rewards", "rejected_rewards"),
    "(B,) losses, one for each pair",
    lambda chosen, rejected: reward_model_loss(chosen, rejected)[0],
    _two_rewards,
    (
        KnownMistake(
            "sign of the difference",
            lambda c, r: -torch.nn.functional.logsigmoid(r - c),
            "Your loss raises the rejected reward. It must be −log σ(r_w − r_l).",
        ),
        KnownMistake(
            "minus forgotten",
            lambda c, r: torch.nn.functional.logsigmoid(c - r),
            "The minus is missing. Training lowers a loss, but the log-likelihood must rise.",
        ),
        KnownMistake(
            "log forgotten",
            lambda c, r: 1 - torch.sigmoid(c - r),
            "You use 1 − σ, which is not a log-likelihood. Its gradient is small for pairs that "
            "are badly wrong. Use −log σ.",
        ),
        KnownMistake(
            "averaged",
            lambda c, r: -torch.nn.functional.logsigmoid(c - r).mean(),
            "You average over the pairs. The lab's losses are one number for each pair; "
            "averaging is a separate step.",
        ),
    ),
)


def _tokens(
    draw: RandomInputs,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float]:
    return (
        draw.normal(3),
        -draw.normal(3, 9).abs(),
        -draw.normal(3, 9).abs(),
        draw.mask(3, 9),
        draw.between(0.02, 0.5),
    )


def _last(mask: torch.Tensor) -> torch.Tensor:
    return mask & (mask.flip(1).cumsum(1).flip(1) == 1)


KL_SHAPED_REWARDS = Exercise(
    "my_kl_shaped_rewards",
    1,
    ("scores", "token_logps", "reference_token_logps", "completion_mask", "beta"),
    "(B, T) rewards, one for each token, and 0 outside the mask",
    lambda scores, logps, reference, mask, beta: kl_shaped_rewards(
        scores, logps, reference, mask, beta=beta
    ),
    _tokens,
    (
        KnownMistake(
            "β forgotten",
            lambda s, p, q, m, beta: (q - p) * m + _last(m) * s[:, None],
            "β is missing. It is the price of one nat.",
        ),
        KnownMistake(
            "sign of the KL",
            lambda s, p, q, m, beta: beta * (p - q) * m + _last(m) * s[:, None],
            "Your sign pays the policy for leaving the reference. The penalty is −β·(log π − log"
            " π_ref).",
        ),
        KnownMistake(
            "score on every token",
            lambda s, p, q, m, beta: (beta * (q - p) + s[:, None]) * m,
            "You give the score to every token. The reward model scores the whole completion "
            "once. The score belongs to the last token.",
        ),
        KnownMistake(
            "score instead of the penalty",
            lambda s, p, q, m, beta: torch.where(_last(m), s[:, None], beta * (q - p) * m),
            "On the last token the score replaces the penalty. That token has both: add them.",
        ),
        KnownMistake(
            "score in the last column",
            lambda s, p, q, m, beta: (
                beta * (q - p) * m + torch.nn.functional.pad(s[:, None], (m.shape[1] - 1, 0))
            ),
            "You put the score into the last column, which is padding for a short completion. It"
            " belongs to the last token inside the mask.",
        ),
        KnownMistake(
            "prompt counted",
            lambda s, p, q, m, beta: beta * (q - p) + _last(m) * s[:, None],
            "You give the penalty to the prompt and the padding too. Only tokens that the policy"
            " wrote get it. Outside the mask the reward is 0.",
        ),
    ),
)

EXERCISES = (BRADLEY_TERRY, REWARD_MODEL_LOSS, KL_SHAPED_REWARDS)
