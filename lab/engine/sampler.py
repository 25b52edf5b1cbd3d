"""Group sampling: every prompt is read once, its key-value cache is shared by G completions."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from peft import PeftModel
from torch.nn.functional import pad as padded
from transformers import PreTrainedTokenizerBase

from lab.data.packing import Packed, pack
from lab.distributed.collectives import all_reduce_max_int
from lab.distributed.fsdp import is_sharded
from lab.engine.decode_any_model import Rows, base_of, way_of
from lab.engine.generate import Fill, decode, is_end, steady
from lab.engine.llama import decoder_of
from lab.engine.token_logprobs import adapter_of, head_of
from lab.errors import LabError
from lab.models.adapters import adapter_merged
from lab.models.context_length import max_new_tokens
from lab.models.device import autocast
from lab.models.tokenizer import end_token_ids

CACHE = 8 * 2**30
"""Bytes of keys and values that are held at a time; prompts whose completions need more are taken
one part after the other.
"""


@dataclass
class Completions:
    """N = prompts × G completions, the G of a prompt next to each other.

    `ids` (N, T) holds prompt and completion without a gap, right-padded; `completion_mask` (N, T)
    is true on completion tokens, the end token included; `texts` are the decoded completions;
    `truncated` (N,) marks those that hit the limit.
    """

    ids: torch.Tensor
    completion_mask: torch.Tensor
    texts: list[str]
    truncated: torch.Tensor

    @property
    def lengths(self) -> torch.Tensor:
        """Completion lengths in tokens (N,), end token included."""
        return self.completion_mask.sum(1)

    @property
    def completion_ids(self) -> list[list[int]]:
        """The tokens of each completion, end token included."""
        return [row[mask].tolist() for row, mask in zip(self.ids.cpu(), self.completion_mask.cpu())]


def generator(seed: int, stream: str, step: int, device: torch.device) -> torch.Generator:
    """A random generator that depends on its arguments alone, so that a resumed run draws what an
    uninterrupted one would.
    """
    digest = hashlib.sha256(f"{seed}/{stream}/{step}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@torch.no_grad()
def sample(
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
    part: tuple[int, int] = (0, 1),
) -> Completions:
    """Sample `group_size` completions of each of `prompts`, lists of token ids, from the policy: no
    top-k, no top-p, so that scores are on-policy.

    Noise depends on (`seed`, `stream`, `step`) alone, and is a completion's own: its row and the
    token's place decide it, not who is still being written. Tokens are drawn as argmax of p /
    Exponential(1), which is exact sampling from p; at temperature 0 the likeliest is taken. Within
    `reference` it is the reference that is sampled. `part` (i, k) says that these prompts are the
    i-th of k equal parts of a batch, and gives them the noise that they would have in the whole.
    Completions end at the last position that the model has. Raises `LabError` for a prompt without
    tokens.
    """
    prompt_rows = prompts
    if not all(prompt_rows):
        raise LabError(
            f"Prompt {prompt_rows.index([])} has no tokens, so there is nothing to complete. Give"
            " every prompt some text."
        )
    n, (which, of) = len(prompts) * group_size, part
    ends = end_token_ids(model, tokenizer)

    def noise_from(first: int) -> Fill:
        """What fills the noise of the completions from `first` on; the noise of them all is drawn
        for it, so that each gets its own.
        """
        source = generator(seed, stream, step, device)

        def fill(noise: torch.Tensor) -> torch.Tensor:
            if temperature == 0:
                return noise.fill_(1)
            if len(noise) == of * n:
                noise.exponential_(generator=source)
            else:
                start = which * n + first
                noise.copy_(
                    noise.new_empty(of * n, noise.shape[1]).exponential_(generator=source)[
                        start : start + len(noise)
                    ]
                )
            return noise

        return fill

    max_tokens = max_new_tokens(base_of(model).config, max(map(len, prompt_rows)), max_tokens)
    decoder = decoder_of(model)
    if decoder is None or not steady(decoder):
        plain = _plain(
            model,
            prompt_rows,
            group_size,
            tokenizer.pad_token_id,
            ends,
            max_tokens,
            temperature,
            partial(noise_from, 0),
            device,
        )
        return _assemble(tokenizer, prompt_rows, group_size, plain, ends)
    together = max(
        1, CACHE // (decoder.cached() * (max(map(len, prompt_rows)) + max_tokens) * group_size)
    )
    drawn = [
        decode(
            decoder,
            head_of(model),
            adapter_of(model),
            _packed(prompt_rows[i : i + together], device),
            group_size,
            max_tokens=max_tokens,
            ends=ends,
            temperature=temperature,
            fill=noise_from(i * group_size),
        )
        for i in range(0, len(prompt_rows), together)
    ]
    longest = max(
        tokens.shape[1] for tokens in drawn
    )  # Behind its end token a row may hold anything.
    return _assemble(
        tokenizer,
        prompt_rows,
        group_size,
        torch.cat([padded(tokens, (0, longest - tokens.shape[1])) for tokens in drawn]),
        ends,
    )


def _packed(rows: list[list[int]], device: torch.device) -> Packed:
    width = max(map(len, rows))
    ids = torch.tensor([r + [0] * (width - len(r)) for r in rows], device=device)
    last = torch.tensor([[len(r) - 1] for r in rows], device=device)
    return pack(ids, torch.arange(width, device=device) == last)


def _plain(
    model: PeftModel,
    prompt_rows: list[list[int]],
    group_size: int,
    pad: int,
    ends: list[int],
    max_tokens: int,
    temperature: float,
    noise: Callable[[], Fill],
    device: torch.device,
) -> torch.Tensor:
    """What `lab.engine.generate` does, by the model's own forward pass: the oracle, and the path of
    every other architecture and of sharded weights.

    Where prompts have to be of one length, those of each length are taken together; a completion's
    noise is its own all the same.
    """
    with adapter_merged(model), autocast(device):
        way = way_of(model)
        lengths = [len(row) if way.aligned else 0 for row in prompt_rows]
        drawn = torch.full((len(prompt_rows) * group_size, max_tokens), pad, device=device)
        longest = 1
        for length in sorted(set(lengths)):
            which = [i for i, own in enumerate(lengths) if own == length]
            rows = torch.tensor(
                [i * group_size + k for i in which for k in range(group_size)], device=device
            )
            growing = way(model, [prompt_rows[i] for i in which], group_size)
            longest = max(
                longest, _grow(growing, drawn, rows, ends, temperature, noise(), is_sharded(model))
            )
    return drawn[:, :longest]


def _grow(
    growing: Rows,
    drawn: torch.Tensor,
    rows: torch.Tensor,
    ends: list[int],
    temperature: float,
    fill: Fill,
    together: bool,
) -> int:
    """Write completions into the `rows` of `drawn` (N, T) until all have ended; returns the tokens
    of the longest.

    Processes that share the weights (`together`) take as many steps as the one that writes longest.
    """
    logits = growing.prefill()
    noise = torch.empty(len(drawn), logits.shape[1], device=drawn.device)
    alive = torch.ones_like(rows, dtype=torch.bool)
    for t in range(drawn.shape[1]):
        token = (logits - fill(noise)[rows].log() * temperature).argmax(
            -1
        )  # argmax of log(p / Exponential(1)), times the temperature
        drawn[rows, t] = token
        alive = alive & ~is_end(token, ends)
        left = int(alive.sum())
        if (all_reduce_max_int(left) if together else left) == 0 or t + 1 == drawn.shape[1]:
            break
        if left <= 0.75 * len(rows):
            keep = (
                alive.nonzero().squeeze(1) if left else rows.new_zeros(1)
            )  # One that has ended goes on while another process needs company.
            growing.keep(keep)
            rows, token, alive = rows[keep], token[keep], alive[keep]
        logits = growing.step(token)
    return t + 1


def _assemble(
    tokenizer: PreTrainedTokenizerBase,
    prompt_rows: list[list[int]],
    group_size: int,
    drawn: torch.Tensor,
    ends: list[int],
) -> Completions:
    """`drawn` (N, T) are the tokens of completions, anything after the first of the end tokens
    `ends`.
    """
    device, pad = drawn.device, tokenizer.pad_token_id
    ended = is_end(drawn, ends)
    lengths = torch.where(ended.any(1), ended.long().argmax(1) + 1, drawn.shape[1])
    completions = [row[:k] for row, k in zip(drawn.tolist(), lengths.tolist())]
    starts = [len(r) for r in prompt_rows for _ in range(group_size)]
    width = max(s + len(c) for s, c in zip(starts, completions))
    full = [prompt_rows[i // group_size] + completion for i, completion in enumerate(completions)]
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in full], device=device)
    position = torch.arange(width, device=device)
    start = torch.tensor(starts, device=device)[:, None]
    completion_mask = (position >= start) & (position < start + lengths[:, None])
    texts = tokenizer.batch_decode(
        [c[:-1] if c[-1] in ends else c for c in completions], skip_special_tokens=True
    )
    return Completions(ids, completion_mask, texts, ~ended.any(1))
