"""Completions of a batch of prompts: their tokens, texts and lengths."""

from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedTokenizerBase

from lab.engine.generate import DecodeOptions


@dataclass
class Completions:
    """N = prompts × G completions; the G completions of a prompt are next to each other.

    `ids` (N, T) holds prompt and completion without a gap, right-padded; `completion_mask` (N, T)
    is true on completion tokens, the end token included; `texts` are the decoded completions;
    `truncated` (N,) marks the completions that reached the token limit. `logps` (N, T) are the
    log-probabilities that another engine sampled with, NaN where it gave none and 0 outside the
    completions; None for the lab's own sampler, whose are the policy's.
    """

    ids: torch.Tensor
    completion_mask: torch.Tensor
    texts: list[str]
    truncated: torch.Tensor
    logps: torch.Tensor | None = None

    @property
    def lengths(self) -> torch.Tensor:
        """Lengths of the completions in tokens (N,), end token included."""
        return self.completion_mask.sum(1)

    @property
    def completion_ids(self) -> list[list[int]]:
        """Token ids of each completion, end token included."""
        return [row[mask].tolist() for row, mask in zip(self.ids.cpu(), self.completion_mask.cpu())]


def pad_id_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id of the padding token."""
    pad_id = tokenizer.pad_token_id
    assert isinstance(pad_id, int)  # Loading a tokenizer makes sure of it.
    return pad_id


def completions_of(
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    options: DecodeOptions,
    rows: list[list[int]],
    truncated: torch.Tensor,
) -> Completions:
    """Build `Completions` from the tokens of N completions, `group_size` for each prompt, on the device
    of `truncated` (N,).
    """
    device, pad_id, group_size = truncated.device, pad_id_of(tokenizer), options.group_size
    starts = [len(prompt) for prompt in prompts for _ in range(group_size)]
    width = max(n + len(row) for n, row in zip(starts, rows))
    full = [prompts[i // group_size] + row for i, row in enumerate(rows)]
    ids = torch.tensor([row + [pad_id] * (width - len(row)) for row in full], device=device)
    position = torch.arange(width, device=device)
    start = torch.tensor(starts, device=device)[:, None]
    end = torch.tensor(list(map(len, full)), device=device)[:, None]
    completion_mask = (position >= start) & (position < end)
    texts = tokenizer.batch_decode(
        [row[:-1] if row[-1] in options.end_ids else row for row in rows], skip_special_tokens=True
    )
    return Completions(ids, completion_mask, texts, truncated)


def with_logps(completions: Completions, rows: list[list[float]]) -> Completions:
    """Return `completions` with the log-probabilities of each completion's tokens, as an engine gave
    them.
    """
    logps = torch.zeros(completions.ids.shape, device=completions.ids.device)
    flat = [logp for row in rows for logp in row]
    logps[completions.completion_mask] = torch.tensor(flat, device=logps.device)
    return replace(completions, logps=logps)
