"""Preference pairs and judged completions, from texts to masked batches."""

import random
from dataclasses import dataclass
from functools import cached_property

import torch
from transformers import PreTrainedTokenizerBase

from lab.errors import LabError
from lab.packing import Packed, pack
from lab.pairs import Pair


@dataclass(frozen=True)
class Labelled:
    """One completion with a thumb up or down."""

    prompt: str
    completion: str
    desirable: bool


@dataclass(frozen=True)
class Example:
    """Token ids of prompt and completion together; the first `prompt_length` are the prompt."""

    ids: list[int]
    prompt_length: int


@dataclass
class Tokens:
    """A right-padded batch: `ids` (B, T) and `completion_mask` (B, T), true on completion tokens, the end token included."""

    ids: torch.Tensor
    completion_mask: torch.Tensor

    @cached_property
    def packed(self) -> Packed:
        """The batch without its padding."""
        return pack(self.ids, self.completion_mask)

    def to(self, device: torch.device) -> "Tokens":
        """The same batch on another device."""
        return Tokens(self.ids.to(device), self.completion_mask.to(device))


def last_token(tokens: Tokens) -> torch.Tensor:
    """Where each completion ends (B,): from its mask, not from the pad token, so that it is right when padding and end share an id."""
    return (tokens.completion_mask * torch.arange(tokens.ids.shape[1], device=tokens.ids.device)).amax(1)


def add_label_noise(pairs: list[Pair], share: float, seed: int) -> list[Pair]:
    """Swap chosen and rejected in exactly round(share · n) pairs, picked by `seed`."""
    swapped = set(random.Random(f"noise/{seed}").sample(range(len(pairs)), round(share * len(pairs))))
    return [Pair(p.prompt, p.rejected, p.chosen) if i in swapped else p for i, p in enumerate(pairs)]


def unpair(pairs: list[Pair], desirable_share: float, seed: int) -> list[Labelled]:
    """The same completions without their pairing; only `desirable_share` of the desirable ones (at least one) is kept."""
    kept = set(random.Random(f"unpair/{seed}").sample(range(len(pairs)), max(1, round(desirable_share * len(pairs)))))
    return [x for i, p in enumerate(pairs) for x in
            ([Labelled(p.prompt, p.chosen, True)] if i in kept else []) + [Labelled(p.prompt, p.rejected, False)]]


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[tuple[str, str]], max_length: int, where: str) -> list[Example]:
    """Tokenise (prompt, completion) pairs, append the end token where it is missing, cut at `max_length` tokens from the end.

    `where` names the data in errors, with the number of the pair: a completion that the cut empties, text outside of the
    vocabulary, or a prompt without tokens.
    """
    prompts = tokenizer([p for p, _ in texts])["input_ids"]
    completions = tokenizer([c for _, c in texts], add_special_tokens=False)["input_ids"]
    examples = []
    for number, (start, rest, text) in enumerate(zip(prompts, completions, texts), 1):
        if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in start + rest:
            odd = next(c for c in (*"".join(text), *text) if tokenizer.unk_token_id in tokenizer(c, add_special_tokens=False)["input_ids"])
            raise LabError(f"{where} {number}: the model's vocabulary has no {odd!r}. Use data made for this model, or another --model.")
        if not start:
            raise LabError(f"{where} {number}: the prompt has no tokens, so nothing predicts the completion's first token. Give it a prompt.")
        if len(start) >= max_length:
            raise LabError(f"{where} {number}: the prompt fills all {max_length} tokens of max_length (it has {len(start)}), so no completion is left. "
                           "Raise max_length or shorten the prompt.")
        end = [] if rest[-1:] == [tokenizer.eos_token_id] else [tokenizer.eos_token_id]
        examples.append(Example((start + rest + end)[:max_length], len(start)))
    return examples


def collate(examples: list[Example], pad_id: int) -> Tokens:
    """Right-pad examples to the longest; the mask comes from lengths, so it is right when padding and end token share an id."""
    width = max(len(e.ids) for e in examples)
    ids = torch.tensor([e.ids + [pad_id] * (width - len(e.ids)) for e in examples])
    position = torch.arange(width)
    start = torch.tensor([e.prompt_length for e in examples])[:, None]
    end = torch.tensor([len(e.ids) for e in examples])[:, None]
    return Tokens(ids, (position >= start) & (position < end))


def batch_indices(n: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Which of `n` examples update `step` (the first is 1) trains on: shuffled epochs without repetition.

    A pure function of its arguments, so that a resumed run needs no data state. The short batch at an epoch's end is left
    out, unless all the data is shorter than a batch.
    """
    size = min(batch_size, n)
    epoch, position = divmod(step - 1, n // size)
    order = list(range(n))
    random.Random(f"order/{seed}/{epoch}").shuffle(order)
    return order[position * size:(position + 1) * size]
