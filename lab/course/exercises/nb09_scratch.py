"""Notebook 09: LoRA, log-probabilities, sampling, and the losses of DPO and GRPO without the lab."""

import torch
from torch.nn.functional import linear, logsigmoid

from lab.algorithms import losses as lab_losses
from lab.algorithms.advantages import group_advantages
from lab.algorithms.logprobs import sequence_logps, token_logps
from lab.algorithms.reductions import batch_mean, token_mean
from lab.course.exercise import Exercise, KnownMistake, RandomInputs


def _layer(
    draw: RandomInputs,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float]:
    rank = draw.random.choice((2, 3))
    return (
        draw.normal(2, 4, 6),
        draw.normal(5, 6),
        draw.normal(rank, 6),
        draw.normal(5, rank),
        draw.random.choice((8.0, 16.0)),
    )


LORA_LAYER = Exercise(
    "my_lora_layer",
    9,
    ("x", "weight", "lora_a", "lora_b", "alpha"),
    "(B, T, out) numbers",
    lambda x, w, a, b, alpha: linear(x, w + alpha / len(a) * b @ a),
    _layer,
    (
        KnownMistake(
            "scale forgotten",
            lambda x, w, a, b, alpha: linear(x, w) + linear(linear(x, a), b),
            "The scale α / r is missing in front of the LoRA part.",
        ),
        KnownMistake(
            "r forgotten",
            lambda x, w, a, b, alpha: linear(x, w) + alpha * linear(linear(x, a), b),
            "The rank is missing. Divide α by r, the number of rows of lora_a.",
        ),
        KnownMistake(
            "base forgotten",
            lambda x, w, a, b, alpha: alpha / len(a) * linear(linear(x, a), b),
            "You return the LoRA part alone. Add the layer's own output, x·Wᵀ.",
        ),
    ),
)


def _logits_and_ids(draw: RandomInputs) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.tensor([[draw.random.randrange(6) for _ in range(5)] for _ in range(3)])
    return draw.normal(3, 5, 6, std=2), ids


def _picked(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Log-probability of token t by the logits at t, which predict token t + 1."""
    return logits.log_softmax(-1).gather(2, ids[:, :, None]).squeeze(2)


def _shifted(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(_picked(logits[:, :-1], ids[:, 1:]), (1, 0))


TOKEN_LOGPS = Exercise(
    "my_token_logps",
    9,
    ("logits", "ids"),
    "(B, T) log-probabilities, and 0 for the first token",
    token_logps,
    _logits_and_ids,
    (
        KnownMistake(
            "not shifted",
            _picked,
            "Your logits and ids are at the same place. The logits at t predict token t + 1: use"
            " logits[:, :-1] with ids[:, 1:].",
        ),
        KnownMistake(
            "zero at the end",
            lambda logits, ids: _shifted(logits, ids).roll(-1, 1),
            "Your numbers are one place too far to the left. The first token has no prediction, so"
            " its entry is 0.",
        ),
        KnownMistake(
            "softmax forgotten",
            lambda logits, ids: torch.nn.functional.pad(
                logits[:, :-1].gather(2, ids[:, 1:, None]).squeeze(2), (1, 0)
            ),
            "You give logits. log_softmax makes log-probabilities of them.",
        ),
        KnownMistake(
            "probability",
            lambda logits, ids: torch.nn.functional.pad(
                logits[:, :-1].softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2), (1, 0)
            ),
            "You give probabilities. Use log_softmax.",
        ),
    ),
)


def _noise(draw: RandomInputs) -> tuple[torch.Tensor, float, torch.Tensor]:
    u = torch.tensor([draw.between(0.001, 0.999) for _ in range(40)], dtype=torch.float64)
    return draw.normal(40, 6, std=2), draw.random.choice((0.5, 0.7, 1.5)), u


def _next_token(logits: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    return (logits.softmax(-1).cumsum(-1) < u[:, None]).sum(-1)


NEXT_TOKEN = Exercise(
    "my_next_token",
    9,
    ("logits", "temperature", "u"),
    "(N,) token ids",
    lambda logits, temperature, u: _next_token(logits / temperature, u),
    _noise,
    (
        KnownMistake(
            "temperature forgotten",
            lambda logits, temperature, u: _next_token(logits, u),
            "The temperature is missing. Divide the logits by it before the softmax.",
        ),
        KnownMistake(
            "temperature multiplied",
            lambda logits, temperature, u: _next_token(logits * temperature, u),
            "You multiply by the temperature. Divide: a small temperature makes the likeliest token"
            " still likelier.",
        ),
        KnownMistake(
            "greedy",
            lambda logits, temperature, u: logits.argmax(-1),
            "You take the likeliest token. Sampling takes each token with its probability: use u.",
        ),
        KnownMistake(
            "one too far",
            lambda logits, temperature, u: _next_token(logits / temperature, u) + 1,
            "You are one token too far. Count the running sums that are below u.",
        ),
    ),
)


def _pair_tokens(draw: RandomInputs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    mask = torch.cat([draw.mask(2, 9), draw.mask(2, 9)])
    reference = -draw.normal(4, 9).abs()
    return reference + draw.normal(4, 9, std=0.5), reference, mask, draw.between(0.1, 0.5)


def _lab_dpo(
    logps: torch.Tensor, reference: torch.Tensor, mask: torch.Tensor, beta: float
) -> torch.Tensor:
    sums = (*sequence_logps(logps, mask).chunk(2), *sequence_logps(reference, mask).chunk(2))
    return batch_mean(lab_losses.dpo_loss(*sums, beta=beta)[0])


def _dpo_of(ratios: torch.Tensor, beta: float) -> torch.Tensor:
    chosen, rejected = ratios.chunk(2)
    return -logsigmoid(beta * (chosen - rejected)).mean()


DPO_BATCH_LOSS = Exercise(
    "my_dpo_batch_loss",
    9,
    ("token_logps", "reference_token_logps", "completion_mask", "beta"),
    "one number: the mean loss of the pairs",
    _lab_dpo,
    _pair_tokens,
    (
        KnownMistake(
            "mask forgotten",
            lambda p, q, m, beta: _dpo_of((p - q).sum(1), beta),
            "The mask is missing, so prompt and padding count.",
        ),
        KnownMistake(
            "reference not subtracted",
            lambda p, q, m, beta: _dpo_of((p * m).sum(1), beta),
            "The reference is missing. Subtract its log-probabilities.",
        ),
        KnownMistake(
            "neighbours paired",
            lambda p, q, m, beta: (
                -logsigmoid(beta * (((p - q) * m).sum(1)[::2] - ((p - q) * m).sum(1)[1::2])).mean()
            ),
            "You pair each row with its neighbour. The first half of the rows is chosen, the second"
            " half rejected: chunk(2).",
        ),
        KnownMistake(
            "summed",
            lambda p, q, m, beta: _dpo_of(((p - q) * m).sum(1), beta) * (len(p) // 2),
            "You sum over the pairs. Take their mean, so that the step does not depend on the batch"
            " size.",
        ),
        KnownMistake(
            "sign",
            lambda p, q, m, beta: _dpo_of(-((p - q) * m).sum(1), beta),
            "Your sign is reversed. Your loss raises the rejected completion.",
        ),
    ),
)


def _rollout(draw: RandomInputs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    mask = torch.cat([draw.mask(4, 9), draw.mask(4, 9)])
    rewards = torch.tensor([1.0, 0, 0, 1, 0, 0, 1, 0], dtype=torch.float64)
    return -draw.normal(8, 9).abs(), mask, rewards[draw.random.sample(range(8), 8)], 4


def _lab_grpo(
    logps: torch.Tensor, mask: torch.Tensor, rewards: torch.Tensor, group_size: int
) -> torch.Tensor:
    """The gradient of GRPO's loss where the ratio is 1, as of a number: log π in place of the ratio
    has the same gradient there.
    """
    advantages = group_advantages(rewards, group_size, scale="group")
    return token_mean(-advantages[:, None] * logps, mask)


def _grpo_of(logps: torch.Tensor, mask: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
    return -(advantages[:, None] * logps * mask).sum() / mask.sum()


def _without_std(rewards: torch.Tensor, group_size: int) -> torch.Tensor:
    return group_advantages(rewards, group_size, scale="none")


def _no_epsilon(rewards: torch.Tensor, group_size: int) -> torch.Tensor:
    groups = rewards.view(-1, group_size)
    centred = groups - groups.mean(1, keepdim=True)
    return (centred / groups.std(1, keepdim=True)).nan_to_num(0.0).flatten()


GRPO_BATCH_LOSS = Exercise(
    "my_grpo_batch_loss",
    9,
    ("token_logps", "completion_mask", "rewards", "group_size"),
    "one number: the mean over all tokens of −A·log π",
    _lab_grpo,
    _rollout,
    (
        KnownMistake(
            "rewards instead of advantages",
            lambda p, m, r, g: _grpo_of(p, m, r),
            "You weight with the rewards. Subtract the mean of the group and divide by its standard"
            " deviation first.",
        ),
        KnownMistake(
            "std forgotten",
            lambda p, m, r, g: _grpo_of(p, m, _without_std(r, g)),
            "You only subtract the group's mean. Divide by its standard deviation too.",
        ),
        KnownMistake(
            "minus forgotten",
            lambda p, m, r, g: -_lab_grpo(p, m, r, g),
            "The minus is missing. Training lowers a loss, and completions with a positive advantage"
            " must become more likely.",
        ),
        KnownMistake(
            "mask forgotten",
            lambda p, m, r, g: -(group_advantages(r, g, scale="group")[:, None] * p).mean(),
            "The mask is missing, so prompt and padding count.",
        ),
        KnownMistake(
            "whole batch",
            lambda p, m, r, g: _grpo_of(p, m, (r - r.mean()) / (r.std() + 1e-4)),
            "You compare with the whole batch. Compare each completion with its own group.",
        ),
    ),
    limit=lambda p, m, r, g: _grpo_of(p, m, _no_epsilon(r, g)),
)

EXERCISES = (LORA_LAYER, TOKEN_LOGPS, NEXT_TOKEN, DPO_BATCH_LOSS, GRPO_BATCH_LOSS)
