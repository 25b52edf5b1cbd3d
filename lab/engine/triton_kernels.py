"""The Triton kernels of the fast path; `lab.engine.fused_ops` calls them. A learner may skip this
module.

Names follow the literature: `m_i`, `l_i` and `acc` are the running maximum, sum and output of the
online softmax (FlashAttention, arXiv 2205.14135). Upper-case arguments are compile-time constants;
BLOCK is a power of two.
"""

import torch

from lab.models.device import has_bfloat16

try:
    import triton
    import triton.language as tl
except ImportError:  # torch for the CPU comes without it.
    triton = None


def on_gpu(x: torch.Tensor) -> bool:
    """Return whether these kernels can take `x`."""
    return triton is not None and x.is_cuda and has_bfloat16(x.device)


if triton:

    @triton.jit
    def swiglu_kernel(gate_up, out, F: tl.constexpr, BLOCK: tl.constexpr):
        """out (N, F) = silu(gate) · up of gate_up (N, 2F), gate first."""
        row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = column < F
        g = tl.load(gate_up + row * 2 * F + column, mask=inside).to(tl.float32)
        u = tl.load(gate_up + row * 2 * F + F + column, mask=inside).to(tl.float32)
        tl.store(out + row * F + column, g * tl.sigmoid(g) * u, mask=inside)

    @triton.jit
    def swiglu_backward_kernel(gate_up, grad, out, F: tl.constexpr, BLOCK: tl.constexpr):
        """out (N, 2F), the gradient for gate_up, given grad (N, F)."""
        row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = column < F
        g = tl.load(gate_up + row * 2 * F + column, mask=inside).to(tl.float32)
        u = tl.load(gate_up + row * 2 * F + F + column, mask=inside).to(tl.float32)
        d = tl.load(grad + row * F + column, mask=inside).to(tl.float32)
        s = tl.sigmoid(g)
        tl.store(out + row * 2 * F + column, d * u * s * (1 + g * (1 - s)), mask=inside)
        tl.store(out + row * 2 * F + F + column, d * g * s, mask=inside)

    @triton.jit
    def rms_norm_kernel(x, weight, out, epsilon, D: tl.constexpr, BLOCK: tl.constexpr):
        """out (N, D) = x · weight / √(mean x² + epsilon)."""
        row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
        inside = column < D
        a = tl.load(x + row * D + column, mask=inside, other=0).to(tl.float32)
        w = tl.load(weight + column, mask=inside, other=0).to(tl.float32)
        tl.store(
            out + row * D + column, a * tl.rsqrt(tl.sum(a * a, 0) / D + epsilon) * w, mask=inside
        )

    @triton.jit
    def rms_norm_backward_kernel(
        x, weight, grad, out, epsilon, D: tl.constexpr, BLOCK: tl.constexpr
    ):
        """out (N, D), the gradient for x, given grad (N, D)."""
        row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
        inside = column < D
        a = tl.load(x + row * D + column, mask=inside, other=0).to(tl.float32)
        g = tl.load(grad + row * D + column, mask=inside, other=0).to(tl.float32) * tl.load(
            weight + column, mask=inside, other=0
        ).to(tl.float32)
        r = tl.rsqrt(tl.sum(a * a, 0) / D + epsilon)
        tl.store(out + row * D + column, r * (g - a * (r * r * tl.sum(a * g, 0) / D)), mask=inside)

    @triton.jit
    def apply_rotary_kernel(
        x,
        cos,
        sin,
        out,
        stride_x,
        stride_c,
        sign,
        HEADS: tl.constexpr,
        HALF: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        """Rotate the pairs (i, i + HALF) of each head of x (N, HEADS, 2·HALF)."""
        row, pair = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
        inside = pair < HEADS * HALF
        i, first = pair % HALF, pair // HALF * 2 * HALF + pair % HALF
        a = tl.load(x + row * stride_x + first, mask=inside).to(tl.float32)
        b = tl.load(x + row * stride_x + first + HALF, mask=inside).to(tl.float32)
        c = tl.load(cos + row * stride_c + i, mask=inside).to(tl.float32)
        s = tl.load(sin + row * stride_c + i, mask=inside).to(tl.float32) * sign
        tl.store(out + row * 2 * HEADS * HALF + first, a * c - b * s, mask=inside)
        tl.store(out + row * 2 * HEADS * HALF + first + HALF, b * c + a * s, mask=inside)

    @triton.jit
    def decode_attention_kernel(
        qkv,
        cos,
        sin,
        keys,
        values,
        pad_offset,
        cache_position,
        out,
        length,
        scale,
        N_HEADS: tl.constexpr,
        N_KV_HEADS: tl.constexpr,
        GROUP: tl.constexpr,
        HALF: tl.constexpr,
        GROUP_BLOCK: tl.constexpr,
        HEAD_BLOCK: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        """One program per (row, key head): rotate, write the cache, attend with the GROUP query
        heads of that key.
        """
        row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
        e, g = tl.arange(0, HEAD_BLOCK), tl.arange(0, GROUP_BLOCK)
        dtype = keys.dtype.element_ty
        width: tl.constexpr = 2 * HALF
        inside, half = e < width, tl.where(e < HALF, e, e - HALF)
        other = tl.where(e < HALF, e + HALF, e - HALF)
        c = tl.load(cos + row * HALF + half, mask=inside, other=0).to(tl.float32)
        s = tl.load(sin + row * HALF + half, mask=inside, other=0).to(tl.float32) * tl.where(
            e < HALF, -1.0, 1.0
        )
        qkv += row * (N_HEADS + 2 * N_KV_HEADS) * width
        at = qkv + (N_HEADS + head) * width
        k = (
            tl.load(at + e, mask=inside, other=0).to(tl.float32) * c
            + tl.load(at + other, mask=inside, other=0).to(tl.float32) * s
        ).to(dtype)
        v = tl.load(qkv + (N_HEADS + N_KV_HEADS + head) * width + e, mask=inside, other=0)
        first, now = tl.load(pad_offset + row).to(tl.int32), tl.load(cache_position).to(tl.int32)
        cell = (row * N_KV_HEADS + head) * length
        tl.store(keys + (cell + now) * width + e, k, mask=inside)
        tl.store(values + (cell + now) * width + e, v, mask=inside)
        at, real = (
            qkv + (head * GROUP + g)[:, None] * width,
            (g < GROUP)[:, None] & inside[None, :],
        )
        q, q_other = (
            tl.load(at + e[None, :], mask=real, other=0).to(tl.float32),
            tl.load(at + other[None, :], mask=real, other=0).to(tl.float32),
        )
        q = (q * c[None, :] + q_other * s[None, :]).to(dtype)
        # The token always attends to itself, so its own score starts the online softmax.
        m_i = tl.sum(q.to(tl.float32) * k.to(tl.float32)[None, :], 1) * scale
        l_i = tl.full([GROUP_BLOCK], 1, tl.float32)
        acc = tl.zeros([GROUP_BLOCK, HEAD_BLOCK], tl.float32) + v.to(tl.float32)[None, :]
        for begin in range(first // BLOCK * BLOCK, now, BLOCK):
            column = begin + tl.arange(0, BLOCK)
            visible = (column >= first) & (column < now)
            cells = (cell + column)[:, None] * width + e[None, :]
            k_block = tl.load(keys + cells, mask=visible[:, None] & inside[None, :], other=0)
            v_block = tl.load(values + cells, mask=visible[:, None] & inside[None, :], other=0)
            score = tl.where(
                visible[None, :],
                tl.dot(q, tl.trans(k_block), input_precision="ieee") * scale,
                float("-inf"),
            )
            m_new = tl.maximum(m_i, tl.max(score, 1))
            alpha, p = tl.exp(m_i - m_new), tl.exp(score - m_new[:, None])
            l_i, m_i = l_i * alpha + tl.sum(p, 1), m_new
            acc = acc * alpha[:, None] + tl.dot(p.to(dtype), v_block, input_precision="ieee")
        tl.store(
            out + row * N_HEADS * width + (head * GROUP + g)[:, None] * width + e[None, :],
            (acc / l_i[:, None]).to(dtype),
            mask=real,
        )

    @triton.jit
    def log_softmax_gather_entropy_kernel(
        logits,
        targets,
        logps,
        entropies,
        vocabulary,
        inv_temperature,
        WRITE_PROBS: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        """Log-probability of the target and entropy of each row of logits, which the probabilities
        may overwrite.
        """
        row, lane = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
        logits += row * vocabulary
        # Each lane runs an online softmax over its own tokens; the lanes are merged at the end.
        m_i = tl.full([BLOCK], -1e30, tl.float32)
        l_i, acc = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
        for begin in range(0, vocabulary, BLOCK):
            z = (
                tl.load(logits + begin + lane, mask=begin + lane < vocabulary, other=-1e30).to(
                    tl.float32
                )
                * inv_temperature
            )
            m_new = tl.maximum(m_i, z)
            alpha, e = tl.exp(m_i - m_new), tl.exp(z - m_new)
            l_i, acc, m_i = l_i * alpha + e, acc * alpha + e * z, m_new
        m_row = tl.max(m_i, 0)
        l_i *= tl.exp(m_i - m_row)
        l_row = tl.sum(l_i, 0)
        logsumexp = m_row + tl.log(l_row)
        target_logit = tl.load(logits + tl.load(targets + row)).to(tl.float32)
        tl.store(logps + row, target_logit * inv_temperature - logsumexp)
        tl.store(entropies + row, logsumexp - tl.sum(acc * tl.exp(m_i - m_row), 0) / l_row)
        if WRITE_PROBS:
            tl.debug_barrier()  # The target's logit has been read.
            for begin in range(0, vocabulary, BLOCK):
                z = (
                    tl.load(logits + begin + lane, mask=begin + lane < vocabulary, other=0).to(
                        tl.float32
                    )
                    * inv_temperature
                )
                tl.store(
                    logits + begin + lane,
                    tl.exp(z - logsumexp).to(logits.dtype.element_ty),
                    mask=begin + lane < vocabulary,
                )

    @triton.jit
    def gumbel_argmax_kernel(
        logits,
        noise,
        noise_rows,
        temperature,
        best_score,
        best_token,
        vocabulary,
        SPLITS: tl.constexpr,
        BLOCK: tl.constexpr,
        BLOCKS: tl.constexpr,
    ):
        """One program per (row, split of the vocabulary): the best token of that split."""
        row, split, lane = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.arange(0, BLOCK)
        logits += row * vocabulary
        noise += tl.load(noise_rows + row) * vocabulary
        t = tl.load(temperature)
        score, best = tl.full([BLOCK], float("-inf"), tl.float32), tl.zeros([BLOCK], tl.int32)
        for block in range(BLOCKS):
            token = (split * BLOCKS + block) * BLOCK + lane
            inside = token < vocabulary
            z = (
                tl.load(logits + token, mask=inside, other=0).to(tl.float32)
                - tl.log(tl.load(noise + token, mask=inside, other=1.0)) * t
            )
            higher = inside & (z > score)
            score, best = tl.where(higher, z, score), tl.where(higher, token, best)
        best_lane = tl.argmax(score, 0)
        tl.store(best_score + row * SPLITS + split, tl.max(score, 0))
        tl.store(best_token + row * SPLITS + split, tl.sum(tl.where(lane == best_lane, best, 0), 0))
