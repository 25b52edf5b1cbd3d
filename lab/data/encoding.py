"""Token ids of prompts and completions: the only module that makes them, for training, sampling,
evaluation and `lab data` alike.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from transformers import PreTrainedTokenizerBase

from lab.data.chat_template import assistant_mask, prompt_text, render, whole_text
from lab.data.examples import Text, template_of
from lab.models.tokenizer import marks_assistant

TokenIds = list[int]
ANCHORS = ("", "\n", "a")
"""Texts behind which a completion is tokenised without its prompt; the first anchor whose ids do
not change is used. Alone, a sentencepiece tokenizer would put a space before the completion.
"""


class EncodedCompletion(NamedTuple):
    """Ids of a prompt and of its completion; `left_out` is the end of the prompt, as the policy
    samples from it, that the trained text does not have.
    """

    prompt: TokenIds
    completion: TokenIds
    left_out: str = ""


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Text], where: str = "prompt"
) -> list[TokenIds]:
    """Returns the ids from which the policy samples, and which stand before a completion in
    training. Errors name a prompt by `where` and its number.

    A plain prompt has what the tokenizer puts before every text (a start token) and not what it
    puts behind (an end token). A conversation has what its chat template writes and nothing else.
    """
    texts = [
        prompt_text(tokenizer, prompt, f"{where} {number}")
        for number, prompt in enumerate(prompts, 1)
    ]
    return tokenize_texts(tokenizer, texts, [isinstance(prompt, str) for prompt in prompts])


def completion_ids(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[tuple[Text, Text]], where: str
) -> list[EncodedCompletion]:
    """Returns the ids of prompts and of their completions, before truncation.

    All are plain or all are conversations. Errors name a row by `where` and its number.

    Prompt and completion are tokenised together, so that the text is the file's, and cut behind the
    prompt, as in TRL. There are two exceptions:

    - Where tokens merge over the border ("A: " + "An" has the token " An"), the prompt keeps the
      ids of `prompt_ids` and the completion is tokenised behind them: the text stays the same, and
      the policy samples from the ids that stand before the completion in training. TRL shortens the
      prompt there, and warns that the two differ.
    - Where the chat template writes the prompt of a whole conversation otherwise than the prompt
      alone (alone, it opens a think block that the completion lacks), no ids give both. The
      completion begins where the two depart, as in TRL, and `left_out` is the rest of the prompt.

    A plain completion gets the end token where it is missing; a conversation ends as the chat
    template ends it.
    """
    if not texts:
        return []
    plain = isinstance(texts[0][0], str)
    starts = [
        prompt_text(tokenizer, prompt, f"{where} {number}")
        for number, (prompt, _) in enumerate(texts, 1)
    ]
    wholes = [
        whole_text(tokenizer, prompt, completion, f"{where} {number}")
        for number, (prompt, completion) in enumerate(texts, 1)
    ]
    encoded = _cut_behind_prompts(tokenizer, starts, wholes, plain)
    if not plain:
        return encoded
    end = [tokenizer.eos_token_id]
    return [
        e if e.completion[-1:] == end else e._replace(completion=e.completion + end)
        for e in encoded
    ]


def _cut_behind_prompts(
    tokenizer: PreTrainedTokenizerBase, starts: list[str], wholes: list[str], plain: bool
) -> list[EncodedCompletion]:
    """The ids of whole texts, each cut behind its prompt, whose text is in `starts`."""
    different = list(dict.fromkeys(starts))
    ids_of = dict(zip(different, tokenize_texts(tokenizer, different, [plain] * len(different))))
    whole_ids = tokenize_texts(tokenizer, wholes, [plain] * len(wholes))
    encoded: list[EncodedCompletion] = []
    merged: list[tuple[int, MergedRow]] = []
    for start, text, ids in zip(starts, wholes, whole_ids):
        prompt = ids_of[start]
        if ids[: len(prompt)] == prompt:
            encoded.append(EncodedCompletion(prompt, ids[len(prompt) :]))
        elif text.startswith(start):
            merged.append((len(encoded), MergedRow(prompt, ids, text[len(start) :])))
            encoded.append(EncodedCompletion(prompt, ids))
        else:
            cut = next(
                (i for i, (a, b) in enumerate(zip(prompt, ids)) if a != b),
                min(len(prompt), len(ids)),
            )
            left_out = cast(str, tokenizer.decode(prompt[cut:]))
            encoded.append(EncodedCompletion(ids[:cut], ids[cut:], left_out))
    completions = _ids_behind_prompts(tokenizer, [row for _, row in merged])
    for (i, row), completion in zip(merged, completions):
        encoded[i] = EncodedCompletion(row.prompt, completion)
    return encoded


class MergedRow(NamedTuple):
    """A row in which a token merges the end of the prompt with the beginning of the completion: ids
    of the prompt, ids of both together, and the completion's text.
    """

    prompt: TokenIds
    whole: TokenIds
    completion: str


def _ids_behind_prompts(
    tokenizer: PreTrainedTokenizerBase, rows: list[MergedRow]
) -> list[TokenIds]:
    """Ids of completions that go on from the ids of their prompts.

    Prompt and completion decode to the same text as together; where no ids do (a tokenizer that
    drops spaces), the completion is tokenised alone.
    """
    ids_of_row: dict[int, TokenIds] = {}
    for anchor in ANCHORS:
        remaining = [i for i in range(len(rows)) if i not in ids_of_row]
        anchor_ids = tokenize_texts(tokenizer, [anchor], [False])[0]
        texts = [anchor + rows[i].completion for i in remaining]
        for i, ids in zip(remaining, tokenize_texts(tokenizer, texts, [False] * len(remaining))):
            row, completion = rows[i], ids[len(anchor_ids) :]
            if ids[: len(anchor_ids)] == anchor_ids and _decode(
                tokenizer, row.prompt + completion
            ) == _decode(tokenizer, row.whole):
                ids_of_row[i] = completion
    return [
        ids_of_row[i]
        if i in ids_of_row
        else tokenize_texts(tokenizer, [row.completion], [False])[0]
        for i, row in enumerate(rows)
    ]


def _decode(tokenizer: PreTrainedTokenizerBase, ids: TokenIds) -> str:
    return cast(str, tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def tokenize_texts(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], plain: list[bool]
) -> list[TokenIds]:
    """Returns the ids of texts. A `plain` text begins with what the tokenizer puts before every
    text; the others bring their special tokens.
    """
    if not texts:
        return []
    prefix = _prefix_ids(tokenizer) if any(plain) else []
    return [
        prefix + ids if is_plain else ids
        for ids, is_plain in zip(tokenizer(texts, add_special_tokens=False)["input_ids"], plain)
    ]


def _prefix_ids(tokenizer: PreTrainedTokenizerBase) -> TokenIds:
    """Ids that the tokenizer puts before every text."""
    without, full = (
        tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True)
    )
    return next((full[:i] for i in range(len(full)) if full[i : i + len(without)] == without), [])


def full_text_ids(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text], where: str
) -> list[tuple[TokenIds, list[bool]]]:
    """Returns the ids of full texts or conversations, and which of them are trained on.

    All are plain or all are conversations. Errors name a text by `where` and its number.

    Of a conversation the assistant's words are trained on where the chat template marks them with
    {% generation %}; otherwise, and of plain text, all tokens but the first. Plain text gets the
    end token where it is missing.
    """
    if texts and isinstance(texts[0], str):
        plain_texts = cast(list[str], list(texts))
        end = tokenizer.eos_token_id
        ids = tokenize_texts(tokenizer, plain_texts, [True] * len(plain_texts))
        ids = [row if row[-1:] == [end] else [*row, end] for row in ids]
        return [(row, _all_but_first(row)) for row in ids]
    conversations = cast(list[list[dict[str, Any]]], list(texts))
    rendered = [
        render(tokenizer, messages, f"{where} {number}", template_of(messages))
        for number, messages in enumerate(conversations, 1)
    ]
    ids = tokenize_texts(tokenizer, rendered, [False] * len(rendered))
    if not marks_assistant(tokenizer):
        return [(row, _all_but_first(row)) for row in ids]
    return [
        (row, [False, *assistant_mask(tokenizer, messages)[1:]])
        for row, messages in zip(ids, conversations)
    ]


def _all_but_first(ids: TokenIds) -> list[bool]:
    return [False] + [True] * (len(ids) - 1)


def input_texts(
    tokenizer: PreTrainedTokenizerBase, prompt: Text, completion: Text
) -> tuple[str, ...]:
    """Returns the texts that the tokenizer reads: prompt and completion where they are plain, one
    text where they are a conversation.
    """
    if isinstance(prompt, str) and isinstance(completion, str):
        return prompt, completion
    return (whole_text(tokenizer, prompt, completion, "The text"),)


def unknown_text(tokenizer: PreTrainedTokenizerBase, ids: TokenIds, *texts: str) -> str:
    """Returns the first piece of `texts` for which the tokenizer has no token; empty where there is
    none. `ids` are those of the texts.

    The id of the unknown token alone proves nothing: in GPT-2 and its kin it is also the start or
    end token, and a text may write it out.
    """
    unk = tokenizer.unk_token_id
    if unk is None or unk not in ids:
        return ""
    if not tokenizer.is_fast:
        special = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
        candidates = () if unk in special else (*"".join(texts), *texts)
        return next(
            (
                text
                for text in candidates
                if unk in tokenizer(text, add_special_tokens=False)["input_ids"]
            ),
            "",
        )
    encoded = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)
    pieces = (
        text[start:end]
        for text, ids, offsets in zip(texts, encoded["input_ids"], encoded["offset_mapping"])
        for i, (start, end) in zip(ids, offsets)
        if i == unk
    )
    unk_token = str(tokenizer.unk_token)
    return next((piece[:20] for piece in pieces if piece and unk_token not in piece), "")
