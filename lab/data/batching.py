"""Makes padded batches of encoded examples, and picks the examples of each update."""

import random
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from lab.data.packing import Packed, pack, pack_shared_prefix
from lab.data.token_rows import (
    EncodedExample,
    TextPair,
    omission_reason,
    refusal_reason,
    tokenize_rows,
    truncate,
)
from lab.errors import LabError


@dataclass
class TokenBatch:
    """A right-padded batch: `ids` (B, T) and `completion_mask` (B, T), true on completion tokens,
    the end token included.
    """

    ids: torch.Tensor
    completion_mask: torch.Tensor

    @cached_property
    def packed(self) -> Packed:
        """The batch without its padding."""
        return pack(self.ids, self.completion_mask)

    @cached_property
    def scored(self) -> Packed:
        """The tokens needed to score completions; on the CPU a prefix that rows share is stored
        once.
        """
        if self.ids.device.type == "cpu":
            return pack_shared_prefix(self.ids, self.completion_mask)
        return self.packed

    def to(self, device: torch.device) -> "TokenBatch":
        """Returns the batch on another device."""
        return TokenBatch(self.ids.to(device), self.completion_mask.to(device))


def last_token(tokens: TokenBatch) -> torch.Tensor:
    """Returns the position of the last token of each completion (B,).

    The position comes from the mask, not from the pad token, so that it is right when padding and
    end token share an id.
    """
    positions = torch.arange(tokens.ids.shape[1], device=tokens.ids.device)
    return (tokens.completion_mask * positions).amax(1)


def encode_examples(
    tokenizer: PreTrainedTokenizerBase,
    texts: list[TextPair],
    max_length: int,
    where: str,
    mode: str = "keep_start",
) -> list[EncodedExample]:
    """Returns (prompt, completion) pairs, all plain or all conversations, as token ids.

    A plain completion gets the end token where it is missing; a conversation ends as the chat
    template ends it.

    Args:
        tokenizer: the tokenizer of the model.
        texts: the pairs; a completion of None says that the text is imitated as a whole.
        max_length: tokens of a row that are kept.
        where: the name of the data in errors, which add the number of the pair.
        mode: keep_start or keep_end, which end of a longer row is kept.

    Raises:
        LabError: training would refuse a pair, or leave it out.
    """
    examples = []
    for number, (text, row) in enumerate(zip(texts, tokenize_rows(tokenizer, texts, where)), 1):
        if reason := refusal_reason(tokenizer, text, row) or omission_reason(
            [row], max_length, mode
        ):
            raise LabError(f"{where} {number}: {reason}")
        examples.append(truncate(row, max_length, mode))
    return examples


def collate(examples: list[EncodedExample], pad_id: int) -> TokenBatch:
    """Returns the examples, right-padded to the longest with `pad_id`.

    The mask comes from lengths, so it is right when padding and end token share an id.
    """
    width = max(len(e.ids) for e in examples)
    ids = torch.from_numpy(
        np.array([e.ids + [pad_id] * (width - len(e.ids)) for e in examples], dtype=np.int64)
    )  # Much faster than torch.tensor.
    position = torch.arange(width)
    start = torch.tensor([e.prompt_length for e in examples])[:, None]
    end = torch.tensor([len(e.ids) for e in examples])[:, None]
    mask = (position >= start) & (position < end)
    for row, example in enumerate(examples):
        if example.mask is not None:
            mask[row, : len(example.ids)] &= torch.tensor(example.mask)
    return TokenBatch(ids, mask)


def batch_indices(n: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Returns the indices of the examples, of `n`, that update `step` (the first is 1) trains on:
    shuffled epochs without repetition.

    This is a pure function of its arguments, so that a resumed run needs no data state. The short
    batch at an epoch's end is left out, unless all the data is shorter than a batch.
    """
    size = min(batch_size, n)
    epoch, position = divmod(step - 1, n // size)
    return epoch_order(n, seed, epoch)[position * size : (position + 1) * size].tolist()


@lru_cache(maxsize=4)
def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the numbers below `n` in the order of an epoch, which counts from 0. The last few orders
    stay in memory, because shuffling a large data set takes longer than an update.
    """
    order = list(range(n))
    random.Random(f"order/{seed}/{epoch}").shuffle(order)
    return np.array(order, dtype=np.int64)
