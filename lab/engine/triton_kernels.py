"""Pieces of the fast path as single GPU kernels; elsewhere torch computes the same. A learner may
skip this module.
"""

import torch

from lab.models.device import has_bfloat16

try:
    import triton
    import triton.language as tl
except ImportError:  # torch for the CPU comes without it
    triton = None


if triton:

    @triton.jit
    def _gate(both, out, F: tl.constexpr, BLOCK: tl.constexpr):
        row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = column < F
        g = tl.load(both + row * 2 * F + column, mask=inside).to(tl.float32)
        u = tl.load(both + row * 2 * F + F + column, mask=inside).to(tl.float32)
        tl.store(out + row * F + column, g * tl.sigmoid(g) * u, mask=inside)

    @triton.jit
    def _gate_back(both, grad, out, F: tl.constexpr, BLOCK: tl.constexpr):
        row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = column < F
        g = tl.load(both + row * 2 * F + column, mask=inside).to(tl.float32)
        u = tl.load(both + row * 2 * F + F + column, mask=inside).to(tl.float32)
        d = tl.load(grad + row * F + column, mask=inside).to(tl.float32)
        s = tl.sigmoid(g)
        tl.store(out + row * 2 * F + column, d * u * s * (1 + g * (1 - s)), mask=inside)
        tl.store(out + row * 2 * F + F + column, d * g * s, mask=inside)

    @triton.jit
    def _norm(x, weight, out, epsilon, H: tl.constexpr, BLOCK: tl.constexpr):
        row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
        inside = column < H
        a = tl.load(x + row * H + column, mask=inside, other=0).to(tl.float32)
        w = tl.load(weight + column, mask=inside, other=0).to(tl.float32)
        tl.store(
            out + row * H + column, a * tl.rsqrt(tl.sum(a * a, 0) / H + epsilon) * w, mask=inside
        )

    @triton.jit
    def _norm_back(x, weight, grad, out, epsilon, H: tl.constexpr, BLOCK: tl.constexpr):
        row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
        inside = column < H
        a = tl.load(x + row * H + column, mask=inside, other=0).to(tl.float32)
        g = tl.load(grad + row * H + column, mask=inside, other=0).to(tl.float32) * tl.load(
            weight + column, mask=inside, other=0
        ).to(tl.float32)
        r = tl.rsqrt(tl.sum(a * a, 0) / H + epsilon)
        tl.store(out + row * H + column, r * (g - a * (r * r * tl.sum(a * g, 0) / H)), mask=inside)

    @triton.jit
    def _turn(
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
        row, place = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
        inside = place < HEADS * HALF
        i, first = place % HALF, place // HALF * 2 * HALF + place % HALF
        a = tl.load(x + row * stride_x + first, mask=inside).to(tl.float32)
        b = tl.load(x + row * stride_x + first + HALF, mask=inside).to(tl.float32)
        c = tl.load(cos + row * stride_c + i, mask=inside).to(tl.float32)
        s = tl.load(sin + row * stride_c + i, mask=inside).to(tl.float32) * sign
        tl.store(out + row * 2 * HEADS * HALF + first, a * c - b * s, mask=inside)
        tl.store(out + row * 2 * HEADS * HALF + first + HALF, b * c + a * s, mask=inside)

    @triton.jit
    def _look(
        mixed,
        cos,
        sin,
        keys,
        values,
        start,
        column,
        out,
        length,
        scale,
        QUERIES: tl.constexpr,
        KEYS: tl.constexpr,
        GROUP: tl.constexpr,
        HALF: tl.constexpr,
        PADDED: tl.constexpr,
        WIDE: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
        e, g = tl.arange(0, WIDE), tl.arange(0, PADDED)
        kind = keys.dtype.element_ty
        width: tl.constexpr = 2 * HALF
        inside, half = e < width, tl.where(e < HALF, e, e - HALF)
        other = tl.where(e < HALF, e + HALF, e - HALF)
        c = tl.load(cos + row * HALF + half, mask=inside, other=0).to(tl.float32)
        s = tl.load(sin + row * HALF + half, mask=inside, other=0).to(tl.float32) * tl.where(
            e < HALF, -1.0, 1.0
        )
        mixed += row * (QUERIES + 2 * KEYS) * width
        at = mixed + (QUERIES + head) * width
        k = (
            tl.load(at + e, mask=inside, other=0).to(tl.float32) * c
            + tl.load(at + other, mask=inside, other=0).to(tl.float32) * s
        ).to(kind)
        v = tl.load(mixed + (QUERIES + KEYS + head) * width + e, mask=inside, other=0)
        first, now = tl.load(start + row).to(tl.int32), tl.load(column).to(tl.int32)
        cell = (row * KEYS + head) * length
        tl.store(keys + (cell + now) * width + e, k, mask=inside)
        tl.store(values + (cell + now) * width + e, v, mask=inside)
        at, real = (
            mixed + (head * GROUP + g)[:, None] * width,
            (g < GROUP)[:, None] & inside[None, :],
        )
        q, aside = (
            tl.load(at + e[None, :], mask=real, other=0).to(tl.float32),
            tl.load(at + other[None, :], mask=real, other=0).to(tl.float32),
        )
        q = (q * c[None, :] + aside * s[None, :]).to(kind)
        most = (
            tl.sum(q.to(tl.float32) * k.to(tl.float32)[None, :], 1) * scale
        )  # The token itself is always looked at.
        total, found = (
            tl.full([PADDED], 1, tl.float32),
            tl.zeros([PADDED, WIDE], tl.float32) + v.to(tl.float32)[None, :],
        )
        for begin in range(first // BLOCK * BLOCK, now, BLOCK):
            place = begin + tl.arange(0, BLOCK)
            seen = (place >= first) & (place < now)
            cells = (cell + place)[:, None] * width + e[None, :]
            k_seen = tl.load(keys + cells, mask=seen[:, None] & inside[None, :], other=0)
            v_seen = tl.load(values + cells, mask=seen[:, None] & inside[None, :], other=0)
            score = tl.where(
                seen[None, :],
                tl.dot(q, tl.trans(k_seen), input_precision="ieee") * scale,
                float("-inf"),
            )
            higher = tl.maximum(most, tl.max(score, 1))
            shrink, p = tl.exp(most - higher), tl.exp(score - higher[:, None])
            total, most = total * shrink + tl.sum(p, 1), higher
            found = found * shrink[:, None] + tl.dot(p.to(kind), v_seen, input_precision="ieee")
        tl.store(
            out + row * QUERIES * width + (head * GROUP + g)[:, None] * width + e[None, :],
            (found / total[:, None]).to(kind),
            mask=real,
        )

    @triton.jit
    def _weigh(
        logits, targets, logps, entropies, size, coldness, SHARES: tl.constexpr, BLOCK: tl.constexpr
    ):
        row, lane = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
        logits += row * size
        most = tl.full(
            [BLOCK], -1e30, tl.float32
        )  # Each lane goes down its own column, and they meet at the end.
        total, product = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
        for begin in range(0, size, BLOCK):
            z = (
                tl.load(logits + begin + lane, mask=begin + lane < size, other=-1e30).to(tl.float32)
                * coldness
            )
            higher = tl.maximum(most, z)
            shrink, e = tl.exp(most - higher), tl.exp(z - higher)
            total, product, most = total * shrink + e, product * shrink + e * z, higher
        top = tl.max(most, 0)
        total *= tl.exp(most - top)
        norm = tl.sum(total, 0)
        whole = top + tl.log(norm)
        tl.store(
            logps + row, tl.load(logits + tl.load(targets + row)).to(tl.float32) * coldness - whole
        )
        tl.store(entropies + row, whole - tl.sum(product * tl.exp(most - top), 0) / norm)
        if SHARES:
            tl.debug_barrier()  # The target's logit has been read.
            for begin in range(0, size, BLOCK):
                z = (
                    tl.load(logits + begin + lane, mask=begin + lane < size, other=0).to(tl.float32)
                    * coldness
                )
                tl.store(
                    logits + begin + lane,
                    tl.exp(z - whole).to(logits.dtype.element_ty),
                    mask=begin + lane < size,
                )

    @triton.jit
    def _pick(
        logits,
        noise,
        owners,
        temperature,
        best,
        place,
        size,
        SPLITS: tl.constexpr,
        BLOCK: tl.constexpr,
        PARTS: tl.constexpr,
    ):
        row, split, lane = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.arange(0, BLOCK)
        logits += row * size
        noise += tl.load(owners + row) * size
        heat = tl.load(temperature)
        most, where = tl.full([BLOCK], float("-inf"), tl.float32), tl.zeros([BLOCK], tl.int32)
        for part in range(PARTS):
            token = (split * PARTS + part) * BLOCK + lane
            inside = token < size
            z = (
                tl.load(logits + token, mask=inside, other=0).to(tl.float32)
                - tl.log(tl.load(noise + token, mask=inside, other=1.0)) * heat
            )
            higher = inside & (z > most)
            most, where = tl.where(higher, z, most), tl.where(higher, token, where)
        found = tl.argmax(most, 0)
        tl.store(best + row * SPLITS + split, tl.max(most, 0))
        tl.store(place + row * SPLITS + split, tl.sum(tl.where(lane == found, where, 0), 0))


def on_gpu(x: torch.Tensor) -> bool:
    """Whether these kernels take `x`."""
    return triton is not None and x.is_cuda and has_bfloat16(x.device)


def gated(both: torch.Tensor) -> torch.Tensor:
    """silu(gate)·up of (N, 2F), gate first → (N, F)."""
    width = both.shape[1] // 2
    if not on_gpu(both):
        gate, up = both.chunk(2, 1)
        return torch.nn.functional.silu(gate).mul_(up)
    out, block = both.new_empty(len(both), width), min(1024, triton.next_power_of_2(width))
    _gate[len(both), triton.cdiv(width, block)](both, out, width, block)
    return out


def gated_back(both: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    """The gradient of `gated` at `both` (N, 2F), for `grad` (N, F) of its result."""
    out, width = torch.empty_like(both), grad.shape[1]
    if not on_gpu(both):
        (gate, up), (to_gate, to_up) = both.chunk(2, 1), out.chunk(2, 1)
        s = gate.sigmoid()
        smooth = gate * s
        torch.mul(smooth, grad, out=to_up)
        torch.mul(s.addcmul_(smooth, 1 - s).mul_(up), grad, out=to_gate)
        return out
    block = min(1024, triton.next_power_of_2(width))
    _gate_back[len(both), triton.cdiv(width, block)](both, grad.contiguous(), out, width, block)
    return out


def inverse_rms(x: torch.Tensor, epsilon: float) -> torch.Tensor:
    """1/√(mean x² + epsilon) over the last dimension of x (…, H) → (…, 1)."""
    return (
        torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        .square_()
        .div_(x.shape[-1])
        .add_(epsilon)
        .rsqrt_()
    )


def normed(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    """x·r·weight with r = 1/√(mean x² + epsilon) over the last dimension of x (…, H); on a GPU
    without a gradient, which `norm_back` has.
    """
    if not on_gpu(x):
        return (x * inverse_rms(x, epsilon)).mul_(weight)
    x, width = x.contiguous(), len(weight)
    out = torch.empty_like(x)
    _norm[x.numel() // width,](x, weight, out, epsilon, width, triton.next_power_of_2(width))
    return out


def norm_back(
    x: torch.Tensor, weight: torch.Tensor, epsilon: float, grad: torch.Tensor
) -> torch.Tensor:
    """The gradient of `normed` for x (N, H) and `grad` (N, H) of its result: r·(g − x·r²·mean(x·g))
    with g = grad·weight.
    """
    if not on_gpu(x):
        r = (torch.linalg.vecdot(x, x)[:, None] / x.shape[1] + epsilon).rsqrt_()
        g = grad * weight
        return g.addcmul_(
            x, torch.linalg.vecdot(x, g)[:, None].mul_(r).mul_(r), value=-1 / x.shape[1]
        ).mul_(r)
    out = torch.empty_like(x)
    _norm_back[len(x),](
        x, weight, grad.contiguous(), out, epsilon, x.shape[1], triton.next_power_of_2(x.shape[1])
    )
    return out


def turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, sign: int = 1) -> torch.Tensor:
    """The pairs (x_i, x_{i+d/2}) of x (N, heads, d), turned by the angles of cos and sin (N, 1,
    d/2); `sign` −1 turns back.
    """
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    if not on_gpu(x):
        for (a, b), there, way in zip(
            (x.chunk(2, -1), x.chunk(2, -1)[::-1]), out.chunk(2, -1), (-sign, sign)
        ):
            torch.mul(a, cos, out=there).addcmul_(b, sin, value=way)
        return out
    tokens, heads, width = x.shape
    x = x if x.stride()[1:] == (width, 1) else x.contiguous()
    _turn[tokens,](
        x,
        cos,
        sin,
        out,
        x.stride(0),
        cos.stride(0),
        sign,
        heads,
        width // 2,
        triton.next_power_of_2(heads * width // 2),
    )
    return out


def looked(
    mixed: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    cache: torch.Tensor,
    start: torch.Tensor,
    column: torch.Tensor,
) -> torch.Tensor:
    """Attention of one token of each row, on a GPU alone: turns its queries and keys, writes keys
    and values, and looks at what is filled.

    `mixed` (R, queries + 2·keys, d) are its queries, keys and values, cos and sin (R, d/2) its
    angles; `cache` (2, ≥ R, keys, L, d) gets the new column `column` (1,), and each row looks at
    its columns from `start` (≥ R,) on → (R, queries·d).
    """
    rows, heads, width = mixed.shape
    _, _, keys, length, _ = cache.shape
    queries = heads - 2 * keys
    out = mixed.new_empty(rows, queries * width)
    _look[rows, keys](
        mixed,
        cos,
        sin,
        cache[0],
        cache[1],
        start,
        column,
        out,
        length,
        width**-0.5,
        queries,
        keys,
        queries // keys,
        width // 2,
        max(16, triton.next_power_of_2(queries // keys)),
        max(16, triton.next_power_of_2(width)),
        64,
    )
    return out


def weighed(
    logits: torch.Tensor, targets: torch.Tensor, temperature: float, shares: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of `targets` (R,) and entropies (R,) under softmax(logits / temperature),
    in float32, on a GPU alone: (R, V) read once.

    With `shares` the logits are then overwritten by the probabilities, in their own dtype.
    """
    logps, entropies = (logits.new_empty(len(logits), dtype=torch.float32) for _ in range(2))
    _weigh[len(logits),](
        logits, targets, logps, entropies, logits.shape[1], 1 / temperature, shares, 1024
    )
    return logps, entropies


def picked(
    logits: torch.Tensor, noise: torch.Tensor, owners: torch.Tensor, temperature: torch.Tensor
) -> torch.Tensor:
    """The likeliest token (R, 1) of logits (R, V) less `temperature` (1,) times the log of each
    row's noise, row `owners` (≥ R,) of (N, V); on a GPU alone.
    """
    rows, size = logits.shape
    block, parts = 1024, 4
    splits = triton.cdiv(size, block * parts)
    best, place = (
        logits.new_empty(rows, splits, dtype=torch.float32),
        owners.new_empty(rows, splits),
    )
    _pick[rows, splits](logits, noise, owners, temperature, best, place, size, splits, block, parts)
    return place.gather(1, best.argmax(1, keepdim=True))
