"""From hidden states to log-probabilities, entropy and KL in chunks of tokens, so that the logits
of all tokens are never in memory at once.

It computes per token what `lab.algorithms.logprobs` computes from logits, and the tests compare the
two. Fused linear-cross-entropy kernels (Liger, arXiv 2410.10989; cut cross-entropy, arXiv
2411.09009) follow the same idea for a loss; here the results are log-probabilities, so that any
loss can use them.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from lab.engine.cpu_products import product
from lab.engine.fused_ops import fused_log_softmax_gather_entropy
from lab.engine.triton_kernels import on_gpu

MAX_CHUNK_LOGITS, MAX_CHUNK_LOGITS_FUSED = 16 * 2**20, 64 * 2**20
"""Most logits in one chunk, in elements: without and with the fused kernel, which makes no copies
of them, so that larger chunks take no more memory.
"""


@dataclass
class TokenStatistics:
    """Statistics of M tokens, each (M,) in nats.

    `logps`: log-probabilities, with gradient. `entropy`: of the next-token distribution. With a
    reference also `reference_logps` and `kl`, the exact KL over the vocabulary.
    """

    logps: torch.Tensor
    entropy: torch.Tensor | None = None
    reference_logps: torch.Tensor | None = None
    kl: torch.Tensor | None = None


def chunked_token_statistics(
    hidden: torch.Tensor,
    head: torch.Tensor,
    targets: torch.Tensor,
    temperature: float,
    *,
    reference: torch.Tensor | None = None,
    entropy: bool = False,
) -> TokenStatistics:
    """Return the statistics of `targets` (M,) under the next-token distributions.

    z = hidden·headᵀ / temperature,  log p = z[target] − logsumexp(z);  H = −Σ p·log p;  KL = Σ
    p·(log p − log p_ref)

    Shapes: hidden and `reference`, the reference's hidden states, (M, D); head (V, D). Only `logps`
    has a gradient, and only for `hidden`: ∂ log p / ∂ hidden = (head[target] − Σ_v p_v·head_v) /
    temperature. The forward pass computes that gradient while the chunk's logits are in memory.
    """
    logps, *rest = ChunkedLinearLogprob.apply(
        hidden, head, targets, temperature, reference, entropy
    )
    return TokenStatistics(logps, *rest)


class ChunkedLinearLogprob(torch.autograd.Function):
    """`chunked_token_statistics` as one function with its own backward."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        head: torch.Tensor,
        targets: torch.Tensor,
        temperature: float,
        reference: torch.Tensor | None,
        entropy: bool,
    ) -> tuple[torch.Tensor | None, ...]:
        """Return the fields of `TokenStatistics` (N,) of hidden states (N, H), and keep their gradient."""
        needs_grad: bool = ctx.needs_input_grad[0]
        if on_gpu(hidden) and reference is None:
            chunks = [
                _fused_chunk(hidden[rows], head, targets[rows], temperature, needs_grad)
                for rows in _chunks(len(hidden), len(head), MAX_CHUNK_LOGITS_FUSED)
            ]
        else:
            chunks = [
                _chunk(
                    hidden[rows],
                    head,
                    targets[rows],
                    temperature,
                    None if reference is None else reference[rows],
                    entropy=entropy,
                    needs_grad=needs_grad,
                )
                for rows in _chunks(len(hidden), len(head), MAX_CHUNK_LOGITS)
            ]
        logps, entropies, reference_logps, kl, grad_hidden = (
            _cat([chunk[i] for chunk in chunks]) for i in range(5)
        )
        if grad_hidden is not None:
            ctx.save_for_backward(grad_hidden)
        rest = (entropies if entropy else None, reference_logps, kl)
        ctx.mark_non_differentiable(*(values for values in rest if values is not None))
        return logps, *rest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:
        """Return the gradient of the hidden states (N, H) for that of the log-probabilities (N,)."""
        (grad_hidden,) = ctx.saved_tensors
        return grad_hidden * grad[:, None].to(grad_hidden.dtype), None, None, None, None, None


_Chunk = tuple[
    torch.Tensor, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None
]
"""logps, entropies, reference logps, KL, and ∂ logps / ∂ hidden of some tokens."""


def _fused_chunk(
    hidden: torch.Tensor,
    head: torch.Tensor,
    targets: torch.Tensor,
    temperature: float,
    needs_grad: bool,
) -> _Chunk:
    """Return the statistics of a chunk without a reference, by the GPU kernel."""
    logits = hidden @ head.T
    logps, entropies = fused_log_softmax_gather_entropy(
        logits, targets, temperature, write_probs=needs_grad
    )
    if not needs_grad:
        return logps, entropies, None, None, None
    probs = logits  # The kernel has overwritten the logits.
    return logps, entropies, None, None, (head[targets] - probs @ head) / temperature


def _chunk(
    hidden: torch.Tensor,
    head: torch.Tensor,
    targets: torch.Tensor,
    temperature: float,
    reference: torch.Tensor | None,
    *,
    entropy: bool,
    needs_grad: bool,
) -> _Chunk:
    """Return the statistics of a chunk, by torch's operations."""
    log_p = _log_softmax(hidden, head, temperature)
    logps = log_p.gather(1, targets[:, None]).squeeze(1)
    if not (needs_grad or entropy or reference is not None):
        return logps, None, None, None, None
    p = log_p.exp()
    entropies = -(p * log_p).sum(1) if entropy else None
    reference_logps = kl = grad_hidden = None
    if reference is not None:
        log_q = _log_softmax(reference, head, temperature)
        reference_logps = log_q.gather(1, targets[:, None]).squeeze(1)
        kl = (p * (log_p - log_q)).sum(1)
    if needs_grad:
        grad_hidden = (head[targets] - product(p.to(head.dtype), head.T)) / temperature
    return logps, entropies, reference_logps, kl, grad_hidden


def _cat(parts: list[torch.Tensor | None]) -> torch.Tensor | None:
    """Return the parts of all chunks in one tensor, or None if they are None."""
    tensors = [part for part in parts if part is not None]
    return torch.cat(tensors) if tensors else None


def _chunks(tokens: int, vocabulary: int, max_logits: int) -> list[slice]:
    """Cut `tokens` into slices whose logits are at most `max_logits` elements, or into single
    tokens.
    """
    size = max(1, max_logits // vocabulary)
    return [slice(start, start + size) for start in range(0, tokens, size)]


def _log_softmax(hidden: torch.Tensor, head: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the log-probabilities (tokens, V), at least in float32."""
    z = product(hidden, head).to(torch.promote_types(hidden.dtype, torch.float32))
    return (z if temperature == 1 else z / temperature).log_softmax(1)
