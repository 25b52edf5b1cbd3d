"""Reductions: how unreduced losses become the one number that is differentiated.

A training batch may be processed in micro-batches. Each reduction therefore takes the size of the
whole batch (`total…`), so that the results of the micro-batches add up to that of the whole batch.
"""

import torch

from lab.algorithms.shapes import check_same_shape
from lab.errors import LabError


def batch_mean(losses: torch.Tensor, total: int | None = None) -> torch.Tensor:
    """Return the mean over examples.

    Σ losses / B

    Shapes: losses (B,) → scalar. `total` is the number of examples in the whole batch, by default
    B. Raises `LabError` for another number of dimensions.
    Anchor: losses 1, 2, 6 give 3; the micro-batches (1, 2) and (6) with total 3 give 1 + 2.
    """
    check_same_shape(1, losses=losses)
    return losses.sum() / (len(losses) if total is None else total)


def _masked(losses: torch.Tensor, completion_mask: torch.Tensor) -> torch.Tensor:
    """Losses with 0 outside the mask."""
    check_same_shape(2, losses=losses, completion_mask=completion_mask)
    return losses.masked_fill(~completion_mask.bool(), 0.0)


def sequence_mean(
    losses: torch.Tensor, completion_mask: torch.Tensor, total_sequences: int | None = None
) -> torch.Tensor:
    """Return GRPO's reduction (arXiv 2402.03300, Eq. 3): the mean over the tokens of each
    completion, then the mean over completions.

    (1/B)·Σ_i (1/|o_i|)·Σ_t loss_{i,t}

    Every completion has the same weight, so a token of a long completion has less weight than a
    token of a short one: a wrong answer is pushed down less when it is long (arXiv 2503.20783).
    Shapes: (B, T), (B, T) → scalar. `total_sequences` is the number of completions in the whole
    batch, by default B. Raises `LabError` when the shapes differ.
    Anchor: token losses (1, 1) and (4) give (1 + 4) / 2 = 2.5.
    """
    per_sequence = _masked(losses, completion_mask).sum(1) / completion_mask.sum(1).clamp(min=1)
    return per_sequence.sum() / (
        len(losses) if total_sequences is None else total_sequences
    )  # Eq. 3


def token_mean(
    losses: torch.Tensor, completion_mask: torch.Tensor, total_tokens: int | None = None
) -> torch.Tensor:
    """Return DAPO's reduction (arXiv 2503.14476, Eq. 12, https://arxiv.org/abs/2503.14476): the mean
    over all tokens of all completions.

    Σ_i Σ_t loss_{i,t} / Σ_i |o_i|

    Every token has the same weight, so a long completion has more weight than a short one.
    Shapes: (B, T), (B, T) → scalar. `total_tokens` is the number of completion tokens in the whole
    batch, by default that of the mask. Raises `LabError` when the shapes differ.
    Anchor: token losses (1, 1) and (4) give 6 / 3 = 2.
    """
    total = completion_mask.sum().clamp(min=1) if total_tokens is None else total_tokens
    return _masked(losses, completion_mask).sum() / total  # Eq. 12


def fixed_length(
    losses: torch.Tensor,
    completion_mask: torch.Tensor,
    max_length: int,
    total_sequences: int | None = None,
) -> torch.Tensor:
    """Return Dr. GRPO's reduction (arXiv 2503.20783, §3.2, https://arxiv.org/abs/2503.20783): the
    sum divided by a constant length.

    Σ_i Σ_t loss_{i,t} / (B·max_length)

    The weight of a token depends neither on the length of its completion nor on the batch. Shapes:
    (B, T), (B, T) → scalar. `max_length` is the longest completion allowed, in tokens;
    `total_sequences` is the number of completions in the whole batch, by default B. Raises
    `LabError` when the shapes differ or max_length < 1.
    Anchor: token losses (1, 1) and (4) with max_length 10 give 6 / 20 = 0.3.
    """
    if max_length < 1:
        raise LabError(
            f"max_length is {max_length}, but takes the longest completion allowed, at least 1"
            " token."
        )
    return _masked(losses, completion_mask).sum() / (
        max_length * (len(losses) if total_sequences is None else total_sequences)
    )
