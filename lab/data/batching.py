"""Preference pairs and judged completions, from texts to masked batches."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from lab.data.encoding import completion_ids, input_texts, unknown_text, whole_ids
from lab.data.examples import Pair, Text, UnpairedExample, template_of
from lab.data.packing import Packed, pack, pack_shared_prefix
from lab.errors import LabError
from lab.models.tokenizer import marks_assistant, unread_options

FlippableExample = TypeVar("FlippableExample", Pair, UnpairedExample)
TextPair = tuple[Text, Text | None]
"""A prompt and a completion, or a whole text and None."""


@dataclass(frozen=True)
class Example:
    """Token ids of prompt and completion together; the first `prompt_length` are the prompt. Where
    `mask` is given, only tokens with true are trained on.
    """

    ids: list[int]
    prompt_length: int
    mask: list[bool] | None = None

    @property
    def trained(self) -> int:
        """How many tokens are trained on."""
        return (
            len(self.ids) - self.prompt_length
            if self.mask is None
            else sum(self.mask[self.prompt_length :])
        )


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
        """What of it decides how likely its completions are; on the CPU a beginning that rows share
        is there once.
        """
        return (
            pack_shared_prefix(self.ids, self.completion_mask)
            if self.ids.device.type == "cpu"
            else self.packed
        )

    def to(self, device: torch.device) -> "TokenBatch":
        """The same batch on another device."""
        return TokenBatch(self.ids.to(device), self.completion_mask.to(device))


def last_token(tokens: TokenBatch) -> torch.Tensor:
    """Where each completion ends (B,): from its mask, not from the pad token, so that it is right
    when padding and end share an id.
    """
    return (
        tokens.completion_mask * torch.arange(tokens.ids.shape[1], device=tokens.ids.device)
    ).amax(1)


def add_label_noise(
    examples: list[FlippableExample], share: float, seed: int
) -> list[FlippableExample]:
    """Swap chosen and rejected, or a thumb up and down, in exactly round(share · n) examples,
    picked by `seed`.
    """
    swapped = set(
        random.Random(f"noise/{seed}").sample(range(len(examples)), round(share * len(examples)))
    )
    return [e.flipped() if i in swapped else e for i, e in enumerate(examples)]


def unpair(pairs: list[Pair]) -> list[UnpairedExample]:
    """The same completions without their pairing: of each pair the desirable one, then the
    undesirable one.
    """
    return [
        x
        for p in pairs
        for x in (
            UnpairedExample(p.prompt, p.chosen, True),
            UnpairedExample(p.prompt, p.rejected, False),
        )
    ]


def keep_desirable(
    labelled: list[UnpairedExample], share: float, seed: int
) -> list[UnpairedExample]:
    """All undesirable completions and `share` of the desirable ones (at least one if there is one),
    picked by `seed`.
    """
    desirable = [i for i, x in enumerate(labelled) if x.desirable]
    kept = random.Random(f"unpair/{seed}").sample(
        range(len(desirable)), min(len(desirable), max(1, round(share * len(desirable))))
    )
    dropped = set(desirable) - {desirable[i] for i in kept}
    return [x for i, x in enumerate(labelled) if i not in dropped]


def encode_examples(
    tokenizer: PreTrainedTokenizerBase,
    texts: list[TextPair],
    max_length: int,
    where: str,
    mode: str = "keep_start",
) -> list[Example]:
    """Tokenise (prompt, completion) pairs, all plain or all conversations, and cut them to
    `max_length` tokens, of which `mode` keeps start or end.

    A completion of None says that the text is imitated as a whole. A plain completion gets the end
    token where it is missing; a conversation ends as the chat template ends it. `where` names the
    data in errors, with the number of the pair: a row that is left out, text outside of the
    vocabulary, or a prompt without tokens.
    """
    examples = []
    for number, (text, row) in enumerate(zip(texts, tokenize_rows(tokenizer, texts, where)), 1):
        if reason := refusal_reason(tokenizer, text, row) or omission_reason(
            [row], max_length, mode
        ):
            raise LabError(f"{where} {number}: {reason}")
        examples.append(truncate(row, max_length, mode))
    return examples


class RowIds(NamedTuple):
    """Ids of a prompt and of its completion, whole. Of a whole text `start` is the first token, and
    `trained` says of each token whether it is trained on.

    `departure` is the end of the prompt to sample from that the text to train on lacks, empty where
    the two agree.
    """

    start: list[int]
    rest: list[int]
    trained: list[bool] | None = None
    departure: str = ""

    @property
    def ids(self) -> list[int]:
        """All ids."""
        return self.start + self.rest

    def beginning_at(self, length: int) -> "RowIds":
        """The same ids, of which the first `length` are the prompt."""
        return (
            self
            if length == len(self.start)
            else self._replace(start=self.ids[:length], rest=self.ids[length:])
        )

    def answered_by(self, other: "RowIds") -> "RowIds":
        """This row's prompt with the completion of another."""
        return RowIds(self.start, other.rest)


def tokenize_rows(
    tokenizer: PreTrainedTokenizerBase, texts: list[TextPair], where: str
) -> list[RowIds]:
    """Ids of prompts and of their completions, or of whole texts where the completion is None; all
    are of one kind. `where` and a number name one in errors.
    """
    if texts and texts[0][1] is None:
        return [
            RowIds(ids[:1], ids[1:], trained)
            for ids, trained in whole_ids(tokenizer, [text for text, _ in texts], where)
        ]
    return [
        RowIds(start, rest, None, departure)
        for start, rest, departure in completion_ids(tokenizer, texts, where)
    ]


def refusal_reason(tokenizer: PreTrainedTokenizerBase, text: TextPair, row: RowIds) -> str:
    """Why training refuses a prompt and completion with these ids; empty when it takes them."""
    prompt, completion = text
    if completion is None:
        completion = "" if isinstance(prompt, str) else []
    if tokenizer.unk_token_id in row.ids and (
        odd := unknown_text(tokenizer, row.ids, *input_texts(tokenizer, prompt, completion))
    ):
        return (
            f"the model's vocabulary has no {odd!r}. Use data made for this model, or another"
            " --model."
        )
    if row.trained is not None and not any(row.trained):
        return (
            "nothing in it is trained on: it has no second token, or no words that the chat"
            " template marks as the assistant's. Remove it."
        )
    if not row.start:
        return (
            "the prompt has no tokens, so nothing predicts the completion's first token. Give it a"
            " prompt."
        )
    return ""


def omission_reason(sides: Sequence[RowIds], max_length: int, mode: str = "keep_start") -> str:
    """Why training leaves out a row, whose `sides` are the ids of its prompt and of each
    completion; empty when it trains on the row.

    A prompt that fills `max_length` leaves no completion, unless the end is kept; a pair that is
    equal after truncation prefers nothing. With 4 tokens kept, ([1, 2], [3, 4, 5]) against ([1, 2],
    [3, 4, 6]) is left out, and at 5 tokens it is not.
    """
    examples = [truncate(side, max_length, mode) for side in sides]
    longest = max(len(side.start) for side in sides)
    if mode == "keep_start" and longest >= max_length:
        return (
            f"the prompt fills all {max_length} tokens of max_length (it has {longest}), so no"
            " completion is left. Raise max_length or shorten the prompt."
        )
    end = "last" if mode == "keep_end" else "first"
    if not all(example.trained > 0 for example in examples):
        return (
            f"none of its tokens to train on is among the {end} {max_length}, which max_length"
            " keeps. Raise max_length."
        )
    if len(examples) == 2 and examples[0].ids == examples[1].ids:
        return (
            f"chosen and rejected are equal in the {end} {max_length} tokens, which max_length"
            " keeps, so the pair prefers nothing. Raise max_length."
        )
    return ""


def truncate(row: RowIds, max_length: int, mode: str = "keep_start") -> Example:
    """A row as an example of at most `max_length` tokens, the first ones or, with `mode` keep_end,
    the last ones.

    Where the end alone fills it, its first token stands in for the prompt, as nothing predicts it:
    4 tokens of ([1, 2], [3, 4, 5, 6, 7]) are [4, 5, 6, 7], of which the last three are trained on.
    """
    ids, length = row.ids, len(row.start)
    part = slice(-max_length, None) if mode == "keep_end" else slice(max_length)
    if mode == "keep_end":
        length = max(1, length - max(0, len(ids) - max_length))
    return Example(ids[part], length, row.trained if row.trained is None else row.trained[part])


def template_notes(tokenizer: PreTrainedTokenizerBase, text: Text, whole: bool = True) -> list[str]:
    """Notes on how a prompt, or a `whole` conversation, is read."""
    if isinstance(text, str):
        return []
    said = [
        f"the model's chat template does not read {name}, so that it reaches no token."
        for name in unread_options(tokenizer, template_of(text))
    ]
    if whole and not marks_assistant(tokenizer):
        said.append(
            "the model's chat template does not mark the assistant's words with {% generation %},"
            " so every token of a conversation is trained on, the user's too. Give prompt and"
            " completion apart to train on the completion alone."
        )
    return said


def departure_note(left_out: str) -> str:
    """The note for a prompt to sample from that ends with `left_out`, while the same prompt before
    a completion to train on does not.
    """
    return (
        f"the chat template ends the prompt to sample from with {left_out[-60:]!r}, which the text"
        " to train on lacks (as in TRL). Write it into the completions, or set an option of the"
        " template: --template-options enable_thinking=false"
    )


def collate(examples: list[Example], pad_id: int) -> TokenBatch:
    """Right-pad examples to the longest; the mask comes from lengths, so it is right when padding
    and end token share an id.
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
    """Which of `n` examples update `step` (the first is 1) trains on: shuffled epochs without
    repetition.

    A pure function of its arguments, so that a resumed run needs no data state. The short batch at
    an epoch's end is left out, unless all the data is shorter than a batch.
    """
    size = min(batch_size, n)
    epoch, position = divmod(step - 1, n // size)
    return _order(n, seed, epoch)[position * size : (position + 1) * size].tolist()


@lru_cache(maxsize=4)
def _order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The numbers below `n` in the order of an epoch; the last few orders are kept, for shuffling
    takes longer than an update where there is much data.
    """
    order = list(range(n))
    random.Random(f"order/{seed}/{epoch}").shuffle(order)
    return np.array(order, dtype=np.int64)
