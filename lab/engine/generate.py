"""The fast path of sampling: from the prompts to the end of all rows.

A learner may skip this module, `lab.engine.decode` and `lab.engine.decode_cpu`: from the same noise
they draw what the plain loop of `lab.engine.sampler` draws, and the tests compare the two. They are
faster because the adapter is merged into the products, the key-value cache is never copied to grow,
rows that have ended leave, and on CUDA a token is one replayed graph.
"""

from collections.abc import Callable
from contextlib import nullcontext
from weakref import WeakKeyDictionary

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from lab.data.packing import Packed
from lab.engine.decode import PACES, Loop
from lab.engine.decode_cpu import SmallLoop
from lab.engine.llama import Decoder
from lab.engine.llama_cpu import supports

Fill = Callable[[torch.Tensor], torch.Tensor]
KERNELS = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Those that a GPU may attend with: they take any mask, and a new length needs no planning."""


def steady(decoder: Decoder) -> bool:
    """Whether a position's angles are the same in short and long texts, so that they can be laid
    out beforehand.
    """
    return getattr(decoder.rotary, "rope_type", "default") not in ("dynamic", "longrope")


def is_end(tokens: torch.Tensor, ends: list[int]) -> torch.Tensor:
    """Which of `tokens` end a completion. Compared one after the other: `torch.isin` takes ten
    times as long for a single end token.
    """
    found = tokens == ends[0]
    for end in ends[1:]:
        found |= tokens == end
    return found


def kept(decoder: Decoder | None) -> list[tuple[str, torch.Tensor]]:
    """What is kept for the next call: each tensor with what it is, "weights", "cache" or
    "activations".
    """
    loop = None if decoder is None else _LOOPS.get(decoder)
    if loop is None:
        return []
    return [
        ("cache", loop.cache),
        ("activations", loop.noise),
        *(("weights", weight) for weight, _ in loop.weights),
    ]


_LOOPS: WeakKeyDictionary[Decoder, Loop] = WeakKeyDictionary()


def loop_of(decoder: Decoder, head: torch.Tensor, rows: int, length: int) -> Loop:
    """Memory for so many rows and tokens. On CUDA it is kept for the next call, since a graph knows
    its memory by address.
    """
    if not head.is_cuda:
        return (SmallLoop if supports(decoder) else Loop)(decoder, head, rows, length)
    kept = _LOOPS.get(decoder)
    if (
        kept is None
        or kept.head.data_ptr() != head.data_ptr()
        or rows > kept.rows
        or length > kept.length
    ):
        if kept is not None:
            rows, length = max(rows, kept.rows), max(length, kept.length)
            del kept, _LOOPS[decoder]
        kept = _LOOPS[decoder] = Loop(decoder, head, rows, length)
    return kept


def decode(
    decoder: Decoder,
    head: torch.Tensor,
    adapter: str | None,
    packed: Packed,
    group: int,
    *,
    max_tokens: int,
    ends: list[int],
    temperature: float,
    fill: Fill,
) -> torch.Tensor:
    """Tokens (N, ≤ max_tokens) of `group` completions of each of the packed prompts under
    `adapter`, None for the reference.

    What follows a row's first token of `ends` is anything. `fill` writes the noise of the next
    token into (N, V), for exact sampling Exponential(1).
    """
    n, width = packed.rows * group, packed.width
    pace = PACES[head.device.type]
    loop = loop_of(decoder, head, n, pace.columns(width + max_tokens))
    loop.merge(decoder, adapter)
    drawn = torch.zeros(n, max_tokens, dtype=torch.long, device=head.device)
    logits = loop.read(packed, group).repeat_interleave(group, 0)
    loop.temperature.fill_(temperature)
    fill(loop.noise[:n])
    loop.choose(logits)
    with sdpa_kernel(KERNELS) if head.is_cuda else nullcontext():
        return _go_on(loop, n, width, drawn, ends, fill)


def _go_on(
    loop: Loop, n: int, width: int, drawn: torch.Tensor, ends: list[int], fill: Fill
) -> torch.Tensor:
    rows, done, pace, (_, max_tokens) = n, 1, loop.pace, drawn.shape
    while True:
        written = loop.ids[:rows, width : width + done]
        ended = is_end(written, ends).any(1)
        left = rows - int(ended.sum())
        fewer = pace.rows(left, rows)
        if left == 0 or done == max_tokens or fewer < rows:
            drawn[:, :done].index_copy_(0, loop.row[:rows], written)
        if left == 0 or done == max_tokens:
            return drawn[:, :done]
        if fewer < rows:
            loop.keep(ended, fewer, width + done)
            rows = fewer
        for _ in range(min(pace.check, max_tokens - done)):
            fill(loop.noise[:n])
            loop.advance(rows, pace.columns(width + done))
            done += 1
