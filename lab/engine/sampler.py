"""Group sampling: every prompt is read once, and its G completions share the key-value cache."""

import hashlib
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch.nn.functional import pad
from transformers import PreTrainedTokenizerBase

from lab.data.packing import Packed, pack
from lab.distributed.collectives import all_reduce_max_int
from lab.distributed.fsdp import is_sharded, whole_layers
from lab.engine.allocator import NO_RECORD, Allocator
from lab.engine.completions import Completions, completions_of, pad_id_of
from lab.engine.decode_any_model import NextTokenDecoder, base_of
from lab.engine.fastest_decoder import fastest_decoder
from lab.engine.generate import DecodeOptions, DrawNoise, decode, has_static_rope, is_end
from lab.engine.llama import Decoder, decoder_of
from lab.engine.token_logprobs import active_adapter_name, lm_head_weight
from lab.engine.truncation import Truncation
from lab.errors import LabError
from lab.models.adapters import adapter_merged
from lab.models.context_length import max_new_tokens
from lab.models.device import autocast
from lab.models.tokenizer import end_token_ids

MAX_CACHE_BYTES = 8 * 2**30
"""Bytes of keys and values in memory at a time. Prompts whose completions need more are sampled in
several batches, one after the other.
"""


def generator(seed: int, stream: str, step: int, device: torch.device) -> torch.Generator:
    """Return a random generator that depends on its arguments alone, so that a resumed run draws
    the same numbers as an uninterrupted run.
    """
    digest = hashlib.sha256(f"{seed}/{stream}/{step}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@torch.no_grad()
def sample(  # noqa: PLR0913  Each argument is needed to say what is sampled.
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    group_size: int,
    *,
    max_tokens: int,
    temperature: float,
    seed: int,
    step: int,
    device: torch.device,
    stream: str = "rollout",
    shard: tuple[int, int] = (0, 1),
    truncation: Truncation | None = None,
    allocator: Allocator = NO_RECORD,
    plain: bool = False,
) -> Completions:
    """Sample `group_size` completions of each of `prompts`, lists of token ids, from the policy,
    or from what `truncation` leaves of it. Within `adapter_disabled` it samples from the reference.

    A token is argmax of p / Exponential(1), which is exact sampling from p; at temperature 0 it is
    the most likely token. The noise depends on (`seed`, `stream`, `step`) alone, and each (row,
    position) has its own, whichever other rows have ended. `shard` (i, k) says that these prompts
    are shard i of the k equal shards of a batch; their noise is then the noise that they would have
    in the whole batch. A completion ends at the latest at the model's last position. `allocator`
    provides the memory of the key-value cache. `plain` takes the model's own forward pass where a fast
    path exists. Raises `LabError` for a prompt without tokens.
    """
    options = decode_options(
        model, tokenizer, prompts, group_size, max_tokens, temperature, truncation
    )
    noise = _Noise(seed, stream, step, device, temperature, len(prompts) * group_size, shard)
    decoder = decoder_of(model)
    if plain or decoder is None or not has_static_rope(decoder):
        pad_id = pad_id_of(tokenizer)
        completion_ids = _sample_any_model(model, prompts, options, noise, pad_id, allocator)
    else:
        completion_ids = _sample_known_model(model, decoder, prompts, options, noise, allocator)
    return _assemble(tokenizer, prompts, options, completion_ids)


def decode_options(  # noqa: PLR0913  They are those of `sample`.
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    group_size: int,
    max_tokens: int,
    temperature: float,
    truncation: Truncation | None,
) -> DecodeOptions:
    """Return how completions of `prompts` are sampled from `model`; raise `LabError` for a prompt without
    tokens, or that leaves no position of the model for a completion.
    """
    if not all(prompts):
        raise LabError(
            f"Prompt {prompts.index([])} has no tokens, so there is nothing to complete. Give every prompt some text."
        )
    return DecodeOptions(
        group_size=group_size,
        max_tokens=max_new_tokens(base_of(model).config, max(map(len, prompts)), max_tokens),
        end_ids=end_token_ids(model, tokenizer),
        temperature=temperature,
        truncation=truncation if temperature else None,
    )


@dataclass(frozen=True)
class _Noise:
    """The noise of `rows` completions, which are shard `shard[0]` of `shard[1]` equal shards."""

    seed: int
    stream: str
    step: int
    device: torch.device
    temperature: float
    rows: int
    shard: tuple[int, int]

    def from_row(self, first: int) -> DrawNoise:
        """Return a function that draws one token's noise for the rows from `first` on. It draws the
        noise of the whole batch and takes these rows, so that every row gets its own.
        """
        source = generator(self.seed, self.stream, self.step, self.device)
        index, count = self.shard

        def draw_exponential_noise(noise: torch.Tensor) -> torch.Tensor:
            if self.temperature == 0:
                return noise.fill_(1)
            if len(noise) == count * self.rows:
                return noise.exponential_(generator=source)
            whole = noise.new_empty(count * self.rows, noise.shape[1])
            whole.exponential_(generator=source)
            start = index * self.rows + first
            return noise.copy_(whole[start : start + len(noise)])

        return draw_exponential_noise


def _sample_known_model(
    model: PeftModel,
    decoder: Decoder,
    prompts: list[list[int]],
    options: DecodeOptions,
    noise: _Noise,
    allocator: Allocator,
) -> torch.Tensor:
    """Return completion tokens (N, ≤ max_tokens) by the fast path, as many prompts at a time as the
    key-value cache may hold.
    """
    longest = max(map(len, prompts)) + options.max_tokens
    prompt_bytes = decoder.kv_bytes_per_token() * longest * options.group_size
    prompts_at_once = max(1, MAX_CACHE_BYTES // prompt_bytes)
    batches = [
        decode(
            decoder,
            lm_head_weight(model),
            active_adapter_name(model),
            _pack_prompts(prompts[i : i + prompts_at_once], noise.device),
            options,
            noise.from_row(i * options.group_size),
            allocator,
        )
        for i in range(0, len(prompts), prompts_at_once)
    ]
    width = max(batch.shape[1] for batch in batches)
    return torch.cat([pad(batch, (0, width - batch.shape[1])) for batch in batches])


def _pack_prompts(prompts: list[list[int]], device: torch.device) -> Packed:
    """Pack prompts so that the last token of each counts as its completion."""
    width = max(map(len, prompts))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in prompts], device=device)
    last = torch.tensor([[len(row) - 1] for row in prompts], device=device)
    return pack(ids, torch.arange(width, device=device) == last)


def _sample_any_model(
    model: PeftModel,
    prompts: list[list[int]],
    options: DecodeOptions,
    noise: _Noise,
    pad_id: int,
    allocator: Allocator,
) -> torch.Tensor:
    """Return completion tokens (N, ≤ max_tokens) by the model's own forward pass: the reference
    implementation for `lab.engine.generate`, and the path of all other architectures and of sharded
    weights.

    Where prompts in a batch must have equal lengths, the prompts of each length form a batch; every
    (row, position) still has its own noise.
    """
    group_size, device = options.group_size, noise.device
    with whole_layers(model), adapter_merged(model), autocast(device):
        decoder_class = fastest_decoder(model)
        lengths = [len(row) if decoder_class.needs_equal_lengths else 0 for row in prompts]
        completion_ids = torch.full((noise.rows, options.max_tokens), pad_id, device=device)
        longest = 1
        for length in sorted(set(lengths)):
            members = [i for i, own_length in enumerate(lengths) if own_length == length]
            rows = torch.tensor(
                [i * group_size + k for i in members for k in range(group_size)], device=device
            )
            decoder = decoder_class(model, [prompts[i] for i in members], group_size, allocator)
            steps = _decode_rows(decoder, completion_ids, rows, options, noise, is_sharded(model))
            longest = max(longest, steps)
    return completion_ids[:, :longest]


def _decode_rows(
    decoder: NextTokenDecoder,
    completion_ids: torch.Tensor,
    rows: torch.Tensor,
    options: DecodeOptions,
    noise: _Noise,
    in_lockstep: bool,
) -> int:
    """Write completions into the `rows` of `completion_ids` (N, T) until all have ended; return the
    number of tokens of the longest.

    Processes that share the weights go `in_lockstep`: they take as many steps as the one with the
    longest completion.
    """
    logits = decoder.prefill()
    noise_of_token = torch.empty(len(completion_ids), logits.shape[1], device=noise.device)
    draw_noise = noise.from_row(0)
    alive = torch.ones_like(rows, dtype=torch.bool)
    for t in range(completion_ids.shape[1]):
        # argmax of log(p / Exponential(1)), times the temperature.
        log_noise = draw_noise(noise_of_token)[rows].log()
        if options.truncation:
            logits = options.truncation.restrict(logits, noise.temperature)
        token = (logits - log_noise * noise.temperature).argmax(-1)
        completion_ids[rows, t] = token
        alive = alive & ~is_end(token, options.end_ids)
        n_alive = int(alive.sum())
        anywhere_alive = all_reduce_max_int(n_alive) if in_lockstep else n_alive
        if anywhere_alive == 0 or t + 1 == completion_ids.shape[1]:
            break
        if n_alive <= 0.75 * len(rows):
            # In lockstep, a process whose rows have all ended goes on with one of them.
            surviving = alive.nonzero().squeeze(1) if n_alive else rows.new_zeros(1)
            decoder.keep_rows(surviving)
            rows, token, alive = rows[surviving], token[surviving], alive[surviving]
        logits = decoder.step(token)
    return t + 1


def _assemble(
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    options: DecodeOptions,
    completion_ids: torch.Tensor,
) -> Completions:
    """Build `Completions` from `completion_ids` (N, T), whose tokens after the first end token
    are arbitrary.
    """
    end_mask = is_end(completion_ids, options.end_ids)
    ended = end_mask.any(1)
    lengths = torch.where(ended, end_mask.long().argmax(1) + 1, completion_ids.shape[1])
    rows = [row[:n] for row, n in zip(completion_ids.tolist(), lengths.tolist())]
    return completions_of(tokenizer, prompts, options, rows, ~ended)
