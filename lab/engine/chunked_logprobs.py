"""From hidden states to log-probabilities, entropy and KL without ever holding the logits of all
tokens: a stretch of tokens at a time.

What is computed per token is what `lab.algorithms.logprobs` computes from logits; the tests compare
the two.
"""

from dataclasses import dataclass

import torch
from torch.autograd.function import once_differentiable

from lab.engine.triton_kernels import on_gpu, weighed

LOGITS, LOGITS_FUSED = 16 * 2**20, 64 * 2**20
"""Logits of one stretch, in numbers; the kernel that fuses what is made of them keeps no copies, so
more of them take no more memory.
"""


@dataclass
class PerToken:
    """Of M tokens each: `logps` with gradient, `entropy`, and against a reference `reference_logps`
    and `kl`, exact over the vocabulary, all in nats (M,).
    """

    logps: torch.Tensor
    entropy: torch.Tensor | None = None
    reference_logps: torch.Tensor | None = None
    kl: torch.Tensor | None = None


def per_token(
    hidden: torch.Tensor,
    head: torch.Tensor,
    targets: torch.Tensor,
    temperature: float,
    *,
    reference: torch.Tensor | None = None,
    entropy: bool = False,
) -> PerToken:
    """What the next-token distributions say of `targets` (M,).

    z = hidden·headᵀ / temperature,  log p = z[target] − logsumexp(z);  H = −Σ p·log p;  KL = Σ
    p·(log p − log p_ref)

    Shapes: hidden and `reference`, the reference's hidden states, (M, H), head (V, H). Only `logps`
    has a gradient, and only for `hidden`: ∂ log p / ∂ hidden = (head[target] − Σ_v p_v·head_v) /
    temperature, which the forward pass computes while it has the logits.
    """
    logps, *rest = OfVocabulary.apply(hidden, head, targets, temperature, reference, entropy)
    return PerToken(logps, *rest)


class OfVocabulary(torch.autograd.Function):
    """`per_token` as one function with its own way back."""

    @staticmethod
    def forward(ctx, hidden, head, targets, temperature, reference, entropy):
        slopes, logps, entropies, frozen, kl = [], [], [], [], []
        fused = on_gpu(hidden) and reference is None
        for rows in _stretches(len(hidden), len(head), LOGITS_FUSED) if fused else ():
            logits = hidden[rows] @ head.T
            logp, spread = weighed(logits, targets[rows], temperature, ctx.needs_input_grad[0])
            logps.append(logp)
            if entropy:
                entropies.append(spread)
            if ctx.needs_input_grad[0]:
                slopes.append(
                    (head[targets[rows]] - logits @ head) / temperature
                )  # By now they are probabilities.
        for rows in () if fused else _stretches(len(hidden), len(head), LOGITS):
            target = targets[rows, None]
            log_p = _log_softmax(hidden[rows], head, temperature)
            logps.append(log_p.gather(1, target).squeeze(1))
            p = log_p.exp() if ctx.needs_input_grad[0] or entropy or reference is not None else None
            if entropy:
                entropies.append(-(p * log_p).sum(1))
            if reference is not None:
                log_q = _log_softmax(reference[rows], head, temperature)
                frozen.append(log_q.gather(1, target).squeeze(1))
                kl.append((p * (log_p - log_q)).sum(1))
            if ctx.needs_input_grad[0]:
                slopes.append((head[targets[rows]] - p.to(head.dtype) @ head) / temperature)
        if slopes:
            ctx.save_for_backward(torch.cat(slopes))
        found = tuple(
            torch.cat(parts) if parts else None for parts in (logps, entropies, frozen, kl)
        )
        ctx.mark_non_differentiable(*(part for part in found[1:] if part is not None))
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, *_):
        (slopes,) = ctx.saved_tensors
        return slopes * grad[:, None].to(slopes.dtype), None, None, None, None, None


def _stretches(tokens: int, vocabulary: int, logits: int) -> list[slice]:
    size = max(1, logits // vocabulary)
    return [slice(start, start + size) for start in range(0, tokens, size)]


def _log_softmax(hidden: torch.Tensor, head: torch.Tensor, temperature: float) -> torch.Tensor:
    z = (hidden @ head.T).to(torch.promote_types(hidden.dtype, torch.float32))
    return (z if temperature == 1 else z / temperature).log_softmax(1)
