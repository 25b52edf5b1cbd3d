"""Preference pairs and judged completions, from texts to masked batches."""

import random
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from lab.chat import marks_assistant, unread
from lab.encoding import completion_ids, parts, remark, unknown, whole_ids
from lab.errors import LabError
from lab.packing import Packed, pack, pack_scored
from lab.pairs import Labelled, Pair, Text, template_of

Judged = TypeVar("Judged", Pair, Labelled)


@dataclass(frozen=True)
class Example:
    """Token ids of prompt and completion together; the first `prompt_length` are the prompt. `beyond` are those that `max_length` cut off.

    Where `mask` is given, only tokens with true are trained on.
    """

    ids: list[int]
    prompt_length: int
    mask: list[bool] | None = None
    beyond: tuple[int, ...] = field(default=(), compare=False)

    @property
    def trained(self) -> int:
        """How many tokens are trained on."""
        return len(self.ids) - self.prompt_length if self.mask is None else sum(self.mask[self.prompt_length:])

    def answered_by(self, other: "Example", max_length: int) -> "Example":
        """This example's prompt with the whole completion of another, cut at `max_length` tokens."""
        ids = [*self.ids[:self.prompt_length], *other.ids[other.prompt_length:], *other.beyond]
        return Example(ids[:max_length], self.prompt_length)


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


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[tuple[Text, Text]], max_length: int, where: str) -> list[Example]:
    """Tokenise (prompt, completion) pairs, all plain or all conversations, and cut them at `max_length` tokens from the end.

    A plain completion gets the end token where it is missing; a conversation ends as the chat template ends it. `where` names the data in errors,
    with the number of the pair: a completion that the cut empties, text outside of the vocabulary, or a prompt without tokens.
    """
    examples, departing = [], []
    for number, (text, (start, rest, left_out)) in enumerate(zip(texts, completion_ids(tokenizer, texts, where)), 1):
        if reason := unfit(tokenizer, text, start, rest, max_length):
            raise LabError(f"{where} {number}: {reason}")
        departing += [(number, left_out)] if left_out else []
        whole = start + rest
        examples.append(Example(whole[:max_length], len(start), beyond=tuple(whole[max_length:])))
    for said in remarks(tokenizer, texts[0][0], whole=False) if texts else []:
        remark(f"{where} 1: {said}")
    if departing:
        others = f" and {len(departing) - 1} more" if departing[1:] else ""
        remark(f"{where} {departing[0][0]}{others}: {departs(departing[0][1])}")
    return examples


def unfit(tokenizer: PreTrainedTokenizerBase, text: tuple[Text, Text], start: list[int], rest: list[int], max_length: int) -> str:
    """Why a prompt and completion, with their ids `start` and `rest`, cannot be trained on; empty when they can."""
    if tokenizer.unk_token_id in start + rest and (odd := unknown(tokenizer, start + rest, *parts(tokenizer, *text))):
        return f"the model's vocabulary has no {odd!r}. Use data made for this model, or another --model."
    if not start:
        return "the prompt has no tokens, so nothing predicts the completion's first token. Give it a prompt."
    if len(start) >= max_length:
        return (f"the prompt fills all {max_length} tokens of max_length (it has {len(start)}), so no completion is left. "
                "Raise max_length or shorten the prompt.")
    return ""


def encode_whole(tokenizer: PreTrainedTokenizerBase, texts: list[Text], max_length: int, where: str) -> list[Example]:
    """Tokenise texts or conversations that are imitated as a whole, and cut them at `max_length` tokens from the end; `where` as in `encode`."""
    examples = []
    for number, (text, (ids, trained)) in enumerate(zip(texts, whole_ids(tokenizer, texts, where)), 1):
        if reason := unfit_whole(tokenizer, text, ids, trained, max_length):
            raise LabError(f"{where} {number}: {reason}")
        examples.append(Example(ids[:max_length], 1, trained[:max_length]))
    for said in remarks(tokenizer, texts[0]) if texts else []:
        remark(f"{where} 1: {said}")
    return examples


def unfit_whole(tokenizer: PreTrainedTokenizerBase, text: Text, ids: list[int], trained: list[bool], max_length: int) -> str:
    """Why a whole text, with its ids and those that are trained on, cannot be trained on; empty when it can."""
    if odd := unknown(tokenizer, ids, *parts(tokenizer, text, "" if isinstance(text, str) else [])):
        return f"the model's vocabulary has no {odd!r}. Use data made for this model, or another --model."
    if not any(trained):
        return "nothing in it is trained on: it has no second token, or no words that the chat template marks as the assistant's. Remove it."
    if not any(trained[:max_length]):
        return f"its first token to train on lies behind the {max_length} tokens of max_length. Raise max_length, or remove it."
    return ""


def remarks(tokenizer: PreTrainedTokenizerBase, text: Text, whole: bool = True) -> list[str]:
    """What the user should know of the way in which a prompt, or a `whole` conversation, is read."""
    if isinstance(text, str):
        return []
    said = [f"the model's chat template does not read {name}, so that it reaches no token." for name in unread(tokenizer, template_of(text))]
    if whole and not marks_assistant(tokenizer):
        said.append("the model's chat template does not mark the assistant's words with {% generation %}, so every token of a conversation is trained on, "
                    "the user's too. Give prompt and completion apart to train on the completion alone.")
    return said


def departs(left_out: str) -> str:
    """What to say where a prompt to sample from ends with `left_out`, and the same prompt before a completion to train on does not."""
    return (f"the chat template ends the prompt to sample from with {left_out[-60:]!r}, which the text to train on lacks (as in TRL). "
            "Write it into the completions, or set an option of the template: --template-options enable_thinking=false")


def collate(examples: list[Example], pad_id: int) -> Tokens:
    """Right-pad examples to the longest; the mask comes from lengths, so it is right when padding and end token share an id."""
    width = max(len(e.ids) for e in examples)
    ids = torch.from_numpy(np.array([e.ids + [pad_id] * (width - len(e.ids)) for e in examples], dtype=np.int64))  # Much faster than torch.tensor.
    position = torch.arange(width)
    start = torch.tensor([e.prompt_length for e in examples])[:, None]
    end = torch.tensor([len(e.ids) for e in examples])[:, None]
    mask = (position >= start) & (position < end)
    for row, example in enumerate(examples):
        if example.mask is not None:
            mask[row, :len(example.ids)] &= torch.tensor(example.mask)
    return Tokens(ids, mask)


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
