"""Group sampling: every prompt is read once, its key-value cache is shared by G completions."""

import hashlib
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import pad as padded
from transformers import DynamicCache, PreTrainedTokenizerBase

from lab.decoder import decoder_of
from lab.decoding import Fill, decode, steady
from lab.errors import LabError
from lab.likelihood import adapter_of, head_of
from lab.models import autocast, merged
from lab.packing import Packed, pack
from lab.parallel import most
from lab.shards import sharded

CACHE = 8 * 2**30
"""Bytes of keys and values that are held at a time; prompts whose completions need more are taken one part after the other."""


@dataclass
class Completions:
    """N = prompts × G completions, the G of a prompt next to each other.

    `ids` (N, T) holds prompt and completion without a gap, right-padded; `completion_mask` (N, T) is true on completion
    tokens, the end token included; `texts` are the decoded completions; `truncated` (N,) marks those that hit the limit.
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
    """A random generator that depends on its arguments alone, so that a resumed run draws what an uninterrupted one would."""
    digest = hashlib.sha256(f"{seed}/{stream}/{step}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def _left_pad(rows: list[list[int]], pad_id: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[pad_id] * (width - len(r)) + r for r in rows], device=device)
    mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows], device=device)
    return ids, mask


@torch.no_grad()
def sample(model: PeftModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], group_size: int, *, max_tokens: int,
           temperature: float, seed: int, step: int, device: torch.device, stream: str = "rollout",
           part: tuple[int, int] = (0, 1)) -> Completions:
    """Sample `group_size` completions of each prompt from the policy: no top-k, no top-p, so that scores are on-policy.

    Noise depends on (`seed`, `stream`, `step`) alone, and is a completion's own: its row and the token's place decide it, not who is still being
    written. Tokens are drawn as argmax of p / Exponential(1), which is exact sampling from p; at temperature 0 the likeliest is taken. Within
    `reference` it is the reference that is sampled. `part` (i, k) says that these prompts are the i-th of k equal parts of a batch, and gives them the noise
    that they would have in the whole. Raises `LabError` for a prompt without tokens.
    """
    prompt_rows = [tokenizer(p)["input_ids"] for p in prompts]
    if not all(prompt_rows):
        raise LabError(f"Prompt {prompt_rows.index([])} has no tokens, so there is nothing to complete. Give every prompt some text.")
    n, (which, of) = len(prompts) * group_size, part

    def noise_from(first: int) -> Fill:
        """What fills the noise of the completions from `first` on; the noise of them all is drawn for it, so that each gets its own."""
        source = generator(seed, stream, step, device)

        def fill(noise: torch.Tensor) -> torch.Tensor:
            if temperature == 0:
                return noise.fill_(1)
            if len(noise) == of * n:
                noise.exponential_(generator=source)
            else:
                start = which * n + first
                noise.copy_(noise.new_empty(of * n, noise.shape[1]).exponential_(generator=source)[start:start + len(noise)])
            return noise

        return fill

    decoder = decoder_of(model)
    if decoder is None or not steady(decoder):
        return _assemble(tokenizer, prompt_rows, group_size, _plain(model, prompt_rows, group_size, tokenizer, max_tokens, temperature, noise_from(0), device))
    together = max(1, CACHE // (decoder.cached() * (max(map(len, prompt_rows)) + max_tokens) * group_size))
    drawn = [decode(decoder, head_of(model), adapter_of(model), _packed(prompt_rows[i:i + together], device), group_size, max_tokens=max_tokens,
                    eos=tokenizer.eos_token_id, temperature=temperature, fill=noise_from(i * group_size)) for i in range(0, len(prompt_rows), together)]
    longest = max(tokens.shape[1] for tokens in drawn)  # Behind its end token a row may hold anything.
    return _assemble(tokenizer, prompt_rows, group_size, torch.cat([padded(tokens, (0, longest - tokens.shape[1])) for tokens in drawn]))


def _packed(rows: list[list[int]], device: torch.device) -> Packed:
    width = max(map(len, rows))
    ids = torch.tensor([r + [0] * (width - len(r)) for r in rows], device=device)
    last = torch.tensor([[len(r) - 1] for r in rows], device=device)
    return pack(ids, torch.arange(width, device=device) == last)


def _plain(model: PeftModel, prompt_rows: list[list[int]], group_size: int, tokenizer: PreTrainedTokenizerBase, max_tokens: int, temperature: float,
           fill: Fill, device: torch.device) -> torch.Tensor:
    """What `lab.decoding` does, by the model's own forward pass: the oracle, and the path of every other architecture and of sharded weights.

    Processes that share the weights take as many steps as the one that writes longest.
    """
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    ids, mask = _left_pad(prompt_rows, pad, device)
    n = len(prompt_rows) * group_size
    drawn = torch.full((n, max_tokens), pad, device=device)
    rows = torch.arange(n, device=device)  # Which completion each row of the running batch is.
    cache = DynamicCache()
    together = sharded(model)
    with merged(model), autocast(device):
        with sdpa_kernel(SDPBackend.MATH):  # Padding before a prompt sees nothing, which other kernels may answer with NaN: it would spread from there.
            logits = model(input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0),
                           past_key_values=cache, logits_to_keep=1, use_cache=True).logits[:, -1]
        cache.batch_repeat_interleave(group_size)
        logits, mask = logits.repeat_interleave(group_size, 0), mask.repeat_interleave(group_size, 0)
        noise = torch.empty(n, logits.shape[1], device=device)
        alive = torch.ones(n, dtype=torch.bool, device=device)
        for t in range(max_tokens):
            token = (logits - fill(noise)[rows].log() * temperature).argmax(-1)  # argmax of log(p / Exponential(1)), times the temperature
            drawn[rows, t] = token
            alive = alive & (token != eos)
            left = int(alive.sum())
            if (most(left) if together else left) == 0 or t + 1 == max_tokens:
                break
            if left <= 0.75 * len(rows):
                keep = alive.nonzero().squeeze(1) if left else rows.new_zeros(1)  # One that has ended goes on while another process needs company.
                cache.batch_select_indices(keep)
                rows, token, mask, alive = rows[keep], token[keep], mask[keep], alive[keep]
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)
            logits = model(input_ids=token[:, None], attention_mask=mask, position_ids=mask.sum(1, keepdim=True) - 1,
                           past_key_values=cache, use_cache=True).logits[:, -1]
    return drawn[:, :t + 1]


def _assemble(tokenizer: PreTrainedTokenizerBase, prompt_rows: list[list[int]], group_size: int, drawn: torch.Tensor) -> Completions:
    """`drawn` (N, T) are the tokens of completions, anything after the first end token."""
    device, eos, pad = drawn.device, tokenizer.eos_token_id, tokenizer.pad_token_id
    ended = drawn == eos
    lengths = torch.where(ended.any(1), ended.long().argmax(1) + 1, drawn.shape[1])
    completions = [row[:k] for row, k in zip(drawn.tolist(), lengths.tolist())]
    starts = [len(r) for r in prompt_rows for _ in range(group_size)]
    width = max(s + len(c) for s, c in zip(starts, completions))
    full = [prompt_rows[i // group_size] + completion for i, completion in enumerate(completions)]
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in full], device=device)
    position = torch.arange(width, device=device)
    start = torch.tensor(starts, device=device)[:, None]
    completion_mask = (position >= start) & (position < start + lengths[:, None])
    texts = tokenizer.batch_decode([c[:-1] if c[-1] == eos else c for c in completions], skip_special_tokens=True)
    return Completions(ids, completion_mask, texts, ~ended.any(1))
