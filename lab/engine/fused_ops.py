"""Operations of the fast path: each is one Triton kernel on a GPU; elsewhere torch computes the
same numbers.

Shapes: N tokens, D hidden width, F width inside the gated layer, V vocabulary, R rows of a decode
step, d head width. A learner may skip this module.
"""

import torch

from lab.engine import triton_kernels as kernels
from lab.engine.triton_kernels import on_gpu


def swiglu(gate_up: torch.Tensor) -> torch.Tensor:
    """Return silu(gate) · up (N, F) of gate_up (N, 2F), gate first (arXiv 2002.05202)."""
    width = gate_up.shape[1] // 2
    if not on_gpu(gate_up):
        gate, up = gate_up.chunk(2, 1)
        return torch.nn.functional.silu(gate).mul_(up)
    out = gate_up.new_empty(len(gate_up), width)
    block = min(1024, kernels.triton.next_power_of_2(width))
    kernels.swiglu_kernel[len(gate_up), kernels.triton.cdiv(width, block)](
        gate_up, out, width, block
    )
    return out


def swiglu_backward(gate_up: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    """Return the gradient for gate_up (N, 2F) of `swiglu`, given `grad` (N, F) for its result."""
    out, width = torch.empty_like(gate_up), grad.shape[1]
    if not on_gpu(gate_up):
        (gate, up), (grad_gate, grad_up) = gate_up.chunk(2, 1), out.chunk(2, 1)
        s = gate.sigmoid()
        silu = gate * s
        torch.mul(silu, grad, out=grad_up)
        torch.mul(s.addcmul_(silu, 1 - s).mul_(up), grad, out=grad_gate)
        return out
    block = min(1024, kernels.triton.next_power_of_2(width))
    kernels.swiglu_backward_kernel[len(gate_up), kernels.triton.cdiv(width, block)](
        gate_up, grad.contiguous(), out, width, block
    )
    return out


def inverse_rms(x: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Return 1/√(mean x² + epsilon) over the last dimension: x (…, D) → (…, 1)."""
    return (
        torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        .square_()
        .div_(x.shape[-1])
        .add_(epsilon)
        .rsqrt_()
    )


def rms_norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Return x · weight / √(mean x² + epsilon) over the last dimension of x (…, D) (arXiv
    1910.07467).

    On a GPU autograd does not see it; `rms_norm_backward` is its gradient.
    """
    if not on_gpu(x):
        return (x * inverse_rms(x, epsilon)).mul_(weight)
    x, width = x.contiguous(), len(weight)
    out = torch.empty_like(x)
    kernels.rms_norm_kernel[x.numel() // width,](
        x, weight, out, epsilon, width, kernels.triton.next_power_of_2(width)
    )
    return out


def rms_norm_backward(
    x: torch.Tensor, weight: torch.Tensor, epsilon: float, grad: torch.Tensor
) -> torch.Tensor:
    """Return the gradient for x (N, D) of `rms_norm`, given `grad` (N, D) for its result.

    It is r·(g − x·r²·mean(x·g)) with g = grad·weight and r = 1/√(mean x² + epsilon).
    """
    if not on_gpu(x):
        r = (torch.linalg.vecdot(x, x)[:, None] / x.shape[1] + epsilon).rsqrt_()
        g = grad * weight
        return g.addcmul_(
            x, torch.linalg.vecdot(x, g)[:, None].mul_(r).mul_(r), value=-1 / x.shape[1]
        ).mul_(r)
    out, width = torch.empty_like(x), x.shape[1]
    kernels.rms_norm_backward_kernel[len(x),](
        x, weight, grad.contiguous(), out, epsilon, width, kernels.triton.next_power_of_2(width)
    )
    return out


def apply_rotary(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, sign: int = 1
) -> torch.Tensor:
    """Return x (N, heads, d) with its pairs (x_i, x_{i+d/2}) rotated by the angles of cos and sin
    (N, 1, d/2).

    This is the rotary position embedding (arXiv 2104.09864); `sign` −1 rotates by the negative
    angles.
    """
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    if not on_gpu(x):
        (first, second), (out_first, out_second) = x.chunk(2, -1), out.chunk(2, -1)
        torch.mul(first, cos, out=out_first).addcmul_(second, sin, value=-sign)
        torch.mul(second, cos, out=out_second).addcmul_(first, sin, value=sign)
        return out
    tokens, heads, width = x.shape
    x = x if x.stride()[1:] == (width, 1) else x.contiguous()
    kernels.apply_rotary_kernel[tokens,](
        x,
        cos,
        sin,
        out,
        x.stride(0),
        cos.stride(0),
        sign,
        heads,
        width // 2,
        kernels.triton.next_power_of_2(heads * width // 2),
    )
    return out


def decode_attention(
    qkv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    cache: torch.Tensor,
    pad_offset: torch.Tensor,
    cache_position: torch.Tensor,
) -> torch.Tensor:
    """Return attention (R, n_heads·d) of one new token per row, on a GPU only.

    Rotates queries and keys, writes keys and values into the cache, and attends to its filled part.

    `qkv` (R, n_heads + 2·n_kv_heads, d): queries, keys and values of the new tokens. cos and sin
    (R, d/2): their angles. `cache` (2, ≥ R, n_kv_heads, L, d): gets the new column `cache_position`
    (1,). `pad_offset` (≥ R,): first column of each row that is not padding.
    """
    rows, heads, width = qkv.shape
    _, _, n_kv_heads, length, _ = cache.shape
    n_heads = heads - 2 * n_kv_heads
    out = qkv.new_empty(rows, n_heads * width)
    kernels.decode_attention_kernel[rows, n_kv_heads](
        qkv,
        cos,
        sin,
        cache[0],
        cache[1],
        pad_offset,
        cache_position,
        out,
        length,
        width**-0.5,
        n_heads,
        n_kv_heads,
        n_heads // n_kv_heads,
        width // 2,
        max(16, kernels.triton.next_power_of_2(n_heads // n_kv_heads)),
        max(16, kernels.triton.next_power_of_2(width)),
        64,
    )
    return out


def fused_log_softmax_gather_entropy(
    logits: torch.Tensor, targets: torch.Tensor, temperature: float, write_probs: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log-probabilities of `targets` (R,) and entropies (R,) under softmax(logits /
    temperature), in float32.

    On a GPU only; reads the logits (R, V) once. With `write_probs` it overwrites them by the
    probabilities, in the logits' dtype.
    """
    logps, entropies = (logits.new_empty(len(logits), dtype=torch.float32) for _ in range(2))
    kernels.log_softmax_gather_entropy_kernel[len(logits),](
        logits, targets, logps, entropies, logits.shape[1], 1 / temperature, write_probs, 1024
    )
    return logps, entropies


def gumbel_argmax_sample(
    logits: torch.Tensor, noise: torch.Tensor, noise_rows: torch.Tensor, temperature: torch.Tensor
) -> torch.Tensor:
    """Return argmax(logits − temperature · log(noise[noise_rows])) (R, 1), a Gumbel-max sample; on
    a GPU only.

    `logits` (R, V); `noise` (N, V), Exponential(1); `noise_rows` (≥ R,): row of `noise` for each
    row of the logits; `temperature` (1,).
    """
    rows, vocabulary = logits.shape
    block, blocks = 1024, 4
    splits = kernels.triton.cdiv(vocabulary, block * blocks)
    best_score = logits.new_empty(rows, splits, dtype=torch.float32)
    best_token = noise_rows.new_empty(rows, splits)
    kernels.gumbel_argmax_kernel[rows, splits](
        logits,
        noise,
        noise_rows,
        temperature,
        best_score,
        best_token,
        vocabulary,
        splits,
        block,
        blocks,
    )
    return best_token.gather(1, best_score.argmax(1, keepdim=True))
