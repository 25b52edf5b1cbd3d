"""Group sampling: every prompt is read once, its key-value cache is shared by G completions."""

import hashlib
from dataclasses import dataclass

import torch
from peft import PeftModel
from transformers import DynamicCache, PreTrainedTokenizerBase

from lab.models import autocast, merged


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
           temperature: float, seed: int, step: int, device: torch.device, stream: str = "rollout") -> Completions:
    """Sample `group_size` completions of each prompt from the policy: no top-k, no top-p, so that scores are on-policy.

    Noise depends on (`seed`, `stream`, `step`) alone. Tokens are drawn as argmax of p / Exponential(1), which is exact
    sampling from p; at temperature 0 the likeliest is taken. Finished sequences leave the batch once they are a quarter of it.
    """
    prompt_rows = [tokenizer(p)["input_ids"] for p in prompts]
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    ids, mask = _left_pad(prompt_rows, pad, device)
    noise = generator(seed, stream, step, device)
    n = len(prompts) * group_size
    drawn = torch.full((n, max_tokens), pad, device=device)
    lengths = torch.full((n,), max_tokens, device=device)
    rows = torch.arange(n, device=device)  # Which completion each row of the running batch is.
    cache = DynamicCache()
    with merged(model), autocast(device):
        logits = model(input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0),
                       past_key_values=cache, logits_to_keep=1, use_cache=True).logits[:, -1]
        cache.batch_repeat_interleave(group_size)
        logits, mask = logits.repeat_interleave(group_size, 0), mask.repeat_interleave(group_size, 0)
        alive = torch.ones(n, dtype=torch.bool, device=device)
        for t in range(max_tokens):
            if temperature:
                p = torch.softmax(logits.float() / temperature, -1)
                token = (p / torch.empty_like(p).exponential_(generator=noise)).argmax(-1)
            else:
                token = logits.argmax(-1)
            drawn[rows[alive], t] = token[alive]
            ended = alive & (token == eos)
            lengths[rows[ended]] = t + 1
            alive = alive & (token != eos)
            left = int(alive.sum())
            if left == 0 or t + 1 == max_tokens:
                break
            if left <= 0.75 * len(rows):
                keep = alive.nonzero().squeeze(1)
                cache.batch_select_indices(keep)
                rows, token, mask, alive = rows[keep], token[keep], mask[keep], alive[keep]
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)
            logits = model(input_ids=token[:, None], attention_mask=mask, position_ids=mask.sum(1, keepdim=True) - 1,
                           past_key_values=cache, use_cache=True).logits[:, -1]
    return _assemble(tokenizer, prompt_rows, group_size, drawn, lengths, eos, pad)


def _assemble(tokenizer: PreTrainedTokenizerBase, prompt_rows: list[list[int]], group_size: int, drawn: torch.Tensor,
              lengths: torch.Tensor, eos: int, pad: int) -> Completions:
    device, n = drawn.device, len(drawn)
    completions = [row[:k] for row, k in zip(drawn.tolist(), lengths.tolist())]
    starts = [len(r) for r in prompt_rows for _ in range(group_size)]
    width = max(s + len(c) for s, c in zip(starts, completions))
    full = [prompt_rows[i // group_size] + completions[i] for i in range(n)]
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in full], device=device)
    position = torch.arange(width, device=device)
    start = torch.tensor(starts, device=device)[:, None]
    completion_mask = (position >= start) & (position < start + lengths[:, None])
    texts = tokenizer.batch_decode([c[:-1] if c[-1] == eos else c for c in completions], skip_special_tokens=True)
    truncated = torch.tensor([c[-1] != eos for c in completions], device=device)
    return Completions(ids, completion_mask, texts, truncated)
