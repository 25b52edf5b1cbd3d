"""The fast path of sampling: from the prompts to the end of all rows.

A learner may skip this module, `lab.engine.decode` and `lab.engine.decode_cpu`: given the same
noise, they sample the tokens that the reference implementation in `lab.engine.sampler` samples, and
the tests compare the two. They are faster because the adapter is merged into the weights (unless
memory is to be saved), the key-value cache is never copied to grow, rows that have ended leave, and
on CUDA a step is one replayed graph.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from lab.data.packing import Packed
from lab.engine.allocator import NO_RECORD, Allocator, MemoryKind
from lab.engine.decode import StaticCacheDecoder
from lab.engine.decode_cpu import CpuStaticCacheDecoder
from lab.engine.decode_policy import DECODE_POLICIES
from lab.engine.llama import Decoder
from lab.engine.llama_cpu import supports
from lab.engine.truncation import Truncation

DrawNoise = Callable[[torch.Tensor], torch.Tensor]
"""Fills a tensor (N, V) with the noise of the next token, and returns it: Exponential(1) for exact
sampling, 1 for the most likely token.
"""


@dataclass(frozen=True)
class DecodeOptions:
    """How completions are sampled: `group_size` for each prompt, of at most `max_tokens` tokens,
    until the first of the tokens `end_ids`. At temperature 0 a token is the most likely one.
    `truncation` leaves tokens out before one is sampled.
    """

    group_size: int
    max_tokens: int
    end_ids: list[int]
    temperature: float
    truncation: Truncation | None = None


SDPA_BACKENDS = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Attention backends allowed on a GPU: they accept any mask and do not plan anew for each length."""


def has_static_rope(decoder: Decoder) -> bool:
    """Return whether the rotary angles of a position are the same in short and in long texts, so
    that they can be computed in advance.
    """
    return getattr(decoder.rotary, "rope_type", "default") not in ("dynamic", "longrope")


def is_end(tokens: torch.Tensor, end_ids: list[int]) -> torch.Tensor:
    """Return a mask of the `tokens` that end a completion. It compares with one end token after the
    other, because `torch.isin` takes ten times as long for a single end token.
    """
    mask = tokens == end_ids[0]
    for end_id in end_ids[1:]:
        mask |= tokens == end_id
    return mask


def persistent_tensors(decoder: Decoder | None) -> list[tuple[MemoryKind, torch.Tensor]]:
    """Return the tensors that sampling keeps for the next call, each with its memory kind."""
    static_decoder = None if decoder is None else _STATIC_DECODERS.get(decoder)
    if decoder is None or static_decoder is None:
        return []
    return [
        ("cache", static_decoder.cache),
        ("activations", static_decoder.noise),
        *(
            ("weights", weight)
            for projection, product in zip(decoder.projections(), static_decoder.products)
            for weight in product.owned(projection)
        ),
    ]


_STATIC_DECODERS: WeakKeyDictionary[Decoder, StaticCacheDecoder] = WeakKeyDictionary()


def static_decoder_for(
    decoder: Decoder,
    lm_head: torch.Tensor,
    rows: int,
    length: int,
    allocator: Allocator = NO_RECORD,
) -> StaticCacheDecoder:
    """Return a decoder for at least `rows` rows of `length` tokens. On CUDA it is kept for the next
    call, since a CUDA graph refers to its memory by address.
    """
    if not lm_head.is_cuda:
        cls = CpuStaticCacheDecoder if supports(decoder) else StaticCacheDecoder
        return cls(decoder, lm_head, rows, length, allocator)
    previous = _STATIC_DECODERS.get(decoder)
    if (
        previous is not None
        and previous.lm_head.data_ptr() == lm_head.data_ptr()
        and rows <= previous.max_rows
        and length <= previous.max_length
    ):
        return previous
    if previous is not None:
        rows, length = max(rows, previous.max_rows), max(length, previous.max_length)
        del previous, _STATIC_DECODERS[decoder]  # Frees its memory before the new one is allocated.
    _STATIC_DECODERS[decoder] = StaticCacheDecoder(decoder, lm_head, rows, length, allocator)
    return _STATIC_DECODERS[decoder]


def decode(
    decoder: Decoder,
    lm_head: torch.Tensor,
    adapter: str | None,
    packed: Packed,
    options: DecodeOptions,
    draw_noise: DrawNoise,
    allocator: Allocator = NO_RECORD,
) -> torch.Tensor:
    """Return the tokens (N, ≤ max_tokens) of the completions of the packed prompts under `adapter`,
    or under the reference if it is None.

    `lm_head` is (V, H). The tokens after a row's first end token are arbitrary.
    """
    group_size, max_tokens = options.group_size, options.max_tokens
    rows = packed.rows * group_size
    policy = DECODE_POLICIES[lm_head.device.type]
    columns = policy.attended_columns(packed.width + max_tokens)
    static_decoder = static_decoder_for(decoder, lm_head, rows, columns, allocator)
    static_decoder.load_adapter(decoder, adapter, allocator)
    completion_ids = torch.zeros(rows, max_tokens, dtype=torch.long, device=lm_head.device)
    logits = static_decoder.prefill(packed, group_size).repeat_interleave(group_size, 0)
    static_decoder.temperature.fill_(options.temperature)
    static_decoder.truncation = options.truncation
    draw_noise(static_decoder.noise[:rows])
    static_decoder.sample_next(logits)
    with sdpa_kernel(SDPA_BACKENDS) if lm_head.is_cuda else nullcontext():
        return _decode_until_end(
            static_decoder, packed.width, completion_ids, options.end_ids, draw_noise
        )


def _decode_until_end(
    static_decoder: StaticCacheDecoder,
    prompt_width: int,
    completion_ids: torch.Tensor,
    end_ids: list[int],
    draw_noise: DrawNoise,
) -> torch.Tensor:
    """Fill `completion_ids` (N, max_tokens), whose first column is sampled already, until all rows
    have ended; return the columns that were filled.
    """
    n_completions, max_tokens = completion_ids.shape
    policy, rows, length = static_decoder.policy, n_completions, 1
    while True:
        token_ids = static_decoder.token_ids[:rows, prompt_width : prompt_width + length]
        ended = is_end(token_ids, end_ids).any(1)
        alive = rows - int(ended.sum())
        rows_to_keep = policy.rows_to_keep(alive, rows)
        finished = alive == 0 or length == max_tokens
        if finished or rows_to_keep < rows:
            completion_ids[:, :length].index_copy_(
                0, static_decoder.completion_index[:rows], token_ids
            )
        if finished:
            return completion_ids[:, :length]
        if rows_to_keep < rows:
            static_decoder.compact_rows(ended, rows_to_keep, prompt_width + length)
            rows = rows_to_keep
        for _ in range(min(policy.eos_check_interval, max_tokens - length)):
            draw_noise(static_decoder.noise[:n_completions])
            columns = policy.attended_columns(prompt_width + length)
            static_decoder.decode_step_graphed(rows, columns)
            length += 1
