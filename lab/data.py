"""Preference pairs and judged completions, from texts to masked batches."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeVar

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from lab.chat import conversation_ids
from lab.errors import LabError
from lab.packing import Packed, pack, pack_scored
from lab.pairs import Labelled, Pair, Text, plain

Judged = TypeVar("Judged", Pair, Labelled)
Ids = Sequence[int]


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

    @cached_property
    def scored(self) -> Packed:
        """What of it decides how likely its completions are; on the CPU a beginning that rows share is there once."""
        return pack_scored(self.ids, self.completion_mask) if self.ids.device.type == "cpu" else self.packed

    def to(self, device: torch.device) -> "Tokens":
        """The same batch on another device."""
        return Tokens(self.ids.to(device), self.completion_mask.to(device))


def last_token(tokens: Tokens) -> torch.Tensor:
    """Where each completion ends (B,): from its mask, not from the pad token, so that it is right when padding and end share an id."""
    return (tokens.completion_mask * torch.arange(tokens.ids.shape[1], device=tokens.ids.device)).amax(1)


def add_label_noise(examples: list[Judged], share: float, seed: int) -> list[Judged]:
    """Swap chosen and rejected, or a thumb up and down, in exactly round(share · n) examples, picked by `seed`."""
    swapped = set(random.Random(f"noise/{seed}").sample(range(len(examples)), round(share * len(examples))))
    return [e.flipped() if i in swapped else e for i, e in enumerate(examples)]


def unpair(pairs: list[Pair]) -> list[Labelled]:
    """The same completions without their pairing: of each pair the desirable one, then the undesirable one."""
    return [x for p in pairs for x in (Labelled(p.prompt, p.chosen, True), Labelled(p.prompt, p.rejected, False))]


def keep_desirable(labelled: list[Labelled], share: float, seed: int) -> list[Labelled]:
    """All undesirable completions and `share` of the desirable ones (at least one if there is one), picked by `seed`."""
    desirable = [i for i, x in enumerate(labelled) if x.desirable]
    kept = random.Random(f"unpair/{seed}").sample(range(len(desirable)), min(len(desirable), max(1, round(share * len(desirable)))))
    dropped = set(desirable) - {desirable[i] for i in kept}
    return [x for i, x in enumerate(labelled) if i not in dropped]


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[tuple[Text, Text]], max_length: int, where: str, mode: str = "keep_start") -> list[Example]:
    """Tokenise (prompt, completion) pairs, all plain or all conversations, and cut them to `max_length` tokens, of which `mode` keeps start or end.

    A plain completion gets the end token where it is missing; a conversation ends as the chat template ends it. `where` names the data in errors,
    with the number of the pair: a completion that the cut empties, text outside of the vocabulary, or a prompt without tokens.
    """
    examples = []
    for number, (text, (start, rest)) in enumerate(zip(texts, tokenised(tokenizer, texts, where)), 1):
        if reason := unfit(tokenizer, text, start, rest) or left_out([(start, rest)], max_length, mode):
            raise LabError(f"{where} {number}: {reason}")
        examples.append(truncated(start, rest, max_length, mode))
    return examples


def unfit(tokenizer: PreTrainedTokenizerBase, text: tuple[Text, Text], start: Ids, rest: Ids) -> str:
    """Why training refuses a prompt and completion, with their ids `start` and `rest`; empty when it takes them."""
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in [*start, *rest]:
        return f"the model's vocabulary has no {_unknown(tokenizer, text)!r}. Use data made for this model, or another --model."
    if not len(start):
        return "the prompt has no tokens, so nothing predicts the completion's first token. Give it a prompt."
    return ""


def left_out(sides: Sequence[tuple[Ids, Ids]], max_length: int, mode: str = "keep_start") -> str:
    """Why training leaves out a row, whose `sides` are the ids of its prompt and of each completion; empty when it trains on the row.

    A prompt that fills `max_length` leaves no completion, unless the end is kept; a pair that is equal after truncation prefers nothing.
    With 4 tokens kept, ([1, 2], [3, 4, 5]) against ([1, 2], [3, 4, 6]) is left out, and at 5 tokens it is not.
    """
    longest = max(len(start) for start, _ in sides)
    if mode == "keep_start" and longest >= max_length:
        return f"the prompt fills all {max_length} tokens of max_length (it has {longest}), so no completion is left. Raise max_length or shorten the prompt."
    if len(sides) == 2 and truncated(*sides[0], max_length, mode).ids == truncated(*sides[1], max_length, mode).ids:
        kept = "last" if mode == "keep_end" else "first"
        return f"chosen and rejected are equal in the {kept} {max_length} tokens, which max_length keeps, so the pair prefers nothing. Raise max_length."
    return ""


def truncated(start: Ids, rest: Ids, max_length: int, mode: str = "keep_start") -> Example:
    """Prompt and completion as one example of at most `max_length` tokens, the first ones or, with `mode` keep_end, the last ones.

    Where the end alone fills it, its first token stands in for the prompt, as nothing predicts it: 4 tokens of ([1, 2], [3, 4, 5, 6, 7]) are [4, 5, 6, 7],
    of which the last three are trained on.
    """
    ids = [*start, *rest]
    if mode == "keep_end":
        return Example(ids[-max_length:], max(1, len(start) - max(0, len(ids) - max_length)))
    return Example(ids[:max_length], len(start))


def tokenised(tokenizer: PreTrainedTokenizerBase, texts: list[tuple[Text, Text]], where: str) -> list[tuple[list[int], list[int]]]:
    """Ids of each prompt and of its completion, whole, the end included."""
    if not isinstance(texts[0][0], str):
        return conversation_ids(tokenizer, texts, where)
    end, prompts = tokenizer.eos_token_id, tokenizer([p for p, _ in texts])["input_ids"]
    completions = tokenizer([c for _, c in texts], add_special_tokens=False)["input_ids"]
    return [(start, rest if rest[-1:] == [end] else [*rest, end]) for start, rest in zip(prompts, completions)]


def _unknown(tokenizer: PreTrainedTokenizerBase, text: tuple[Text, Text]) -> str:
    """The first character, or else the first text, that the tokenizer has no token for."""
    parts = [plain(part) for part in text]
    return next((c for c in (*"".join(parts), *parts) if tokenizer.unk_token_id in tokenizer(c, add_special_tokens=False)["input_ids"]), "its chat template")


def collate(examples: list[Example], pad_id: int) -> Tokens:
    """Right-pad examples to the longest; the mask comes from lengths, so it is right when padding and end token share an id."""
    width = max(len(e.ids) for e in examples)
    ids = torch.from_numpy(np.array([e.ids + [pad_id] * (width - len(e.ids)) for e in examples], dtype=np.int64))  # Much faster than torch.tensor.
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
    return _order(n, seed, epoch)[position * size:(position + 1) * size].tolist()


@lru_cache(maxsize=4)
def _order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The numbers below `n` in the order of an epoch; the last few orders are kept, for shuffling takes longer than an update where there is much data."""
    order = list(range(n))
    random.Random(f"order/{seed}/{epoch}").shuffle(order)
    return np.array(order, dtype=np.int64)
