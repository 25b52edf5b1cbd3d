"""Token ids of data rows, the reasons for which training refuses or leaves out a row, and
truncation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from transformers import PreTrainedTokenizerBase

from lab.data.encoding import completion_ids, full_text_ids, input_texts, unknown_text
from lab.data.examples import Text, template_of
from lab.models.tokenizer import marks_assistant, unread_options

TextPair = tuple[Text, Text | None]
"""A prompt and a completion, or a full text and None."""


@dataclass(frozen=True)
class EncodedExample:
    """Token ids of prompt and completion together; the first `prompt_length` are the prompt's.

    Where `mask` is given, only tokens with true are trained on.
    """

    ids: list[int]
    prompt_length: int
    mask: list[bool] | None = None

    @property
    def trained(self) -> int:
        """The number of tokens that are trained on."""
        if self.mask is None:
            return len(self.ids) - self.prompt_length
        return sum(self.mask[self.prompt_length :])


class RowIds(NamedTuple):
    """Ids of a prompt (`start`) and of its completion (`rest`), before truncation.

    Of a full text `start` is the first token, and `trained` says of each token whether it is
    trained on. `departure` is the end of the prompt to sample from that the text to train on lacks,
    empty where the two agree.
    """

    start: list[int]
    rest: list[int]
    trained: list[bool] | None = None
    departure: str = ""

    @property
    def ids(self) -> list[int]:
        """The ids of prompt and completion."""
        return self.start + self.rest

    def beginning_at(self, length: int) -> "RowIds":
        """Returns the row with its first `length` ids as the prompt."""
        if length == len(self.start):
            return self
        return self._replace(start=self.ids[:length], rest=self.ids[length:])

    def answered_by(self, other: "RowIds") -> "RowIds":
        """Returns this row's prompt with the completion of another row."""
        return RowIds(self.start, other.rest)


def tokenize_rows(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[TextPair], where: str
) -> list[RowIds]:
    """Returns the ids of prompts and completions, or of full texts, whose completion is None.

    All are of one kind. Errors name a row by `where` and its number.
    """
    if texts and texts[0][1] is None:
        return [
            RowIds(ids[:1], ids[1:], trained)
            for ids, trained in full_text_ids(tokenizer, [text for text, _ in texts], where)
        ]
    pairs = cast(Sequence[tuple[Text, Text]], texts)
    return [
        RowIds(encoded.prompt, encoded.completion, None, encoded.left_out)
        for encoded in completion_ids(tokenizer, pairs, where)
    ]


def refusal_reason(tokenizer: PreTrainedTokenizerBase, text: TextPair, row: RowIds) -> str:
    """Returns why training refuses a text whose ids are `row`; empty when training takes it."""
    prompt, completion = text
    if completion is None:
        completion = "" if isinstance(prompt, str) else []
    if tokenizer.unk_token_id in row.ids:
        unknown = unknown_text(tokenizer, row.ids, *input_texts(tokenizer, prompt, completion))
        if unknown:
            return (
                f"the model's vocabulary has no {unknown!r}. Use data made for this model, or"
                " another --model."
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
    """Returns why training leaves out a row; empty when it trains on the row.

    `sides` are the ids of the row's prompt with each of its completions. A prompt that fills
    `max_length` leaves no completion, unless the end is kept; a pair that is equal after truncation
    prefers nothing. With 4 tokens kept, ([1, 2], [3, 4, 5]) against ([1, 2], [3, 4, 6]) is left
    out, and with 5 tokens it is not.
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


def truncate(row: RowIds, max_length: int, mode: str = "keep_start") -> EncodedExample:
    """Returns a row as an example of at most `max_length` tokens: the first tokens or, with `mode`
    keep_end, the last tokens.

    Where the completion alone fills `max_length`, the first token that is kept stands in for the
    prompt, as nothing predicts it: 4 tokens of ([1, 2], [3, 4, 5, 6, 7]) are [4, 5, 6, 7], of which
    the last three are trained on.
    """
    ids, prompt_length = row.ids, len(row.start)
    window = slice(-max_length, None) if mode == "keep_end" else slice(max_length)
    if mode == "keep_end":
        prompt_length = max(1, prompt_length - max(0, len(ids) - max_length))
    mask = None if row.trained is None else row.trained[window]
    return EncodedExample(ids[window], prompt_length, mask)


def template_notes(
    tokenizer: PreTrainedTokenizerBase, text: Text, is_full_text: bool = True
) -> list[str]:
    """Returns notes on how the chat template reads a prompt or a full conversation."""
    if isinstance(text, str):
        return []
    notes = [
        f"the model's chat template does not read {name}, so that it reaches no token."
        for name in unread_options(tokenizer, template_of(text))
    ]
    if is_full_text and not marks_assistant(tokenizer):
        notes.append(
            "the model's chat template does not mark the assistant's words with {% generation %},"
            " so every token of a conversation is trained on, the user's too. Give prompt and"
            " completion apart to train on the completion alone."
        )
    return notes


def departure_note(left_out: str) -> str:
    """Returns the note for a prompt to sample from that ends with `left_out`, while the same prompt
    before a completion to train on does not.
    """
    return (
        f"the chat template ends the prompt to sample from with {left_out[-60:]!r}, which the text"
        " to train on lacks (as in TRL). Write it into the completions, or set an option of the"
        " template: --template-options enable_thinking=false"
    )
