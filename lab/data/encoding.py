"""Token ids of prompts and completions: the only place that makes them, for training, sampling,
evaluation and `lab data` alike.
"""

from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from lab.data.chat_template import assistant_mask, prompt_text, render, whole_text
from lab.data.examples import Text, template_of
from lab.models.tokenizer import marks_assistant

Ids = list[int]
ANCHORS = ("", "\n", "a")
"""Texts behind which a completion is tokenised on its own, the first that adds nothing to it:
alone, a sentencepiece tokenizer puts a space before it.
"""


class Encoded(NamedTuple):
    """Ids of a prompt and of its completion; `left_out` is the end of the prompt, as it is sampled
    from, that the trained text does not have.
    """

    prompt: Ids
    completion: Ids
    left_out: str = ""


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase, prompts: list[Text], where: str = "prompt"
) -> list[Ids]:
    """Ids from which the policy samples, and which stand before a completion in training; `where`
    and a number name a prompt in errors.

    A plain prompt has what the tokenizer puts before every text (a start token) and not what it
    puts behind (an end token). A conversation has what its chat template writes and nothing else.
    """
    texts = [
        prompt_text(tokenizer, prompt, f"{where} {number}")
        for number, prompt in enumerate(prompts, 1)
    ]
    return tokenize_texts(tokenizer, texts, [isinstance(prompt, str) for prompt in prompts])


def completion_ids(
    tokenizer: PreTrainedTokenizerBase, texts: list[tuple[Text, Text]], where: str
) -> list[Encoded]:
    """Ids of prompts and of their completions, whole; all are plain or all are conversations.
    `where` and a number name one in errors.

    Prompt and completion are tokenised together, so that the text is the file's, and cut behind the
    prompt, as in TRL. There are two exceptions:

    - Where tokens merge over the border ("A: " + "An" has the token " An"), the prompt keeps the
      ids of `prompt_ids` and the completion is
      tokenised behind them: the text stays, and the policy samples from what stands before it in
      training. TRL shortens the prompt there, and warns that the two differ.
    - Where the chat template writes the prompt of a whole conversation otherwise than the prompt
      alone (alone, it opens a think block that the
      completion lacks), no ids give both. The completion begins where the two depart, as in TRL,
      and `left_out` is the rest of the prompt.

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
    different = list(dict.fromkeys(starts))
    ids_of = dict(zip(different, tokenize_texts(tokenizer, different, [plain] * len(different))))
    found, merged = [], []
    for start, text, whole in zip(
        starts, wholes, tokenize_texts(tokenizer, wholes, [plain] * len(wholes))
    ):
        prompt = ids_of[start]
        if whole[: len(prompt)] == prompt:
            found.append(Encoded(prompt, whole[len(prompt) :]))
        elif text.startswith(start):
            merged.append((len(found), prompt, whole, text[len(start) :]))
            found.append(Encoded(prompt, whole))
        else:
            cut = next(
                (i for i, (a, b) in enumerate(zip(prompt, whole)) if a != b),
                min(len(prompt), len(whole)),
            )
            found.append(Encoded(whole[:cut], whole[cut:], tokenizer.decode(prompt[cut:])))
    for (row, prompt, *_), ids in zip(merged, _behind(tokenizer, [rest for _, *rest in merged])):
        found[row] = Encoded(prompt, ids)
    end = [tokenizer.eos_token_id]
    return (
        [
            e if e.completion[-1:] == end else e._replace(completion=e.completion + end)
            for e in found
        ]
        if plain
        else found
    )


def _behind(tokenizer: PreTrainedTokenizerBase, rows: list[tuple[Ids, Ids, str]]) -> list[Ids]:
    """Ids of completions that go on from the ids of their prompts.

    A row has the prompt's ids, the ids of prompt and completion together, and the completion's
    text. Prompt and completion decode to the same text as together; where no ids do (a tokenizer
    that drops spaces), they are those of the completion alone.
    """
    found: dict[int, Ids] = {}
    for anchor in ANCHORS:
        left = [i for i in range(len(rows)) if i not in found]
        skip = tokenize_texts(tokenizer, [anchor], [False])[0]
        for i, ids in zip(
            left,
            tokenize_texts(tokenizer, [anchor + rows[i][2] for i in left], [False] * len(left)),
        ):
            prompt, whole, _ = rows[i]
            if ids[: len(skip)] == skip and _decoded(
                tokenizer, prompt + ids[len(skip) :]
            ) == _decoded(tokenizer, whole):
                found[i] = ids[len(skip) :]
    return [
        found[i] if i in found else tokenize_texts(tokenizer, [text], [False])[0]
        for i, (*_, text) in enumerate(rows)
    ]


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: Ids) -> str:
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def tokenize_texts(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], plain: list[bool]
) -> list[Ids]:
    """Ids of texts; those that are `plain` begin with what the tokenizer puts before every text,
    the others bring their special tokens.
    """
    if not texts:
        return []
    before = _before(tokenizer) if any(plain) else []
    return [
        before + ids if bare else ids
        for ids, bare in zip(tokenizer(texts, add_special_tokens=False)["input_ids"], plain)
    ]


def _before(tokenizer: PreTrainedTokenizerBase) -> Ids:
    """Ids that the tokenizer puts before every text."""
    bare, full = (
        tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True)
    )
    return next((full[:i] for i in range(len(full)) if full[i : i + len(bare)] == bare), [])


def whole_ids(
    tokenizer: PreTrainedTokenizerBase, texts: list[Text], where: str
) -> list[tuple[Ids, list[bool]]]:
    """Ids of whole texts or conversations, and which of them are trained on; all are plain or all
    are conversations. `where` and a number name one in errors.

    Of a conversation these are the assistant's words where the chat template marks them with {%
    generation %}, otherwise, and of plain text, all tokens that another precedes. Plain text gets
    the end token where it is missing.
    """
    plain, end = bool(texts) and isinstance(texts[0], str), tokenizer.eos_token_id
    shown = [
        text if plain else render(tokenizer, text, f"{where} {number}", template_of(text))
        for number, text in enumerate(texts, 1)
    ]
    found = tokenize_texts(tokenizer, shown, [plain] * len(shown))
    if plain:
        found = [ids if ids[-1:] == [end] else [*ids, end] for ids in found]
    if plain or not marks_assistant(tokenizer):
        return [(ids, [False] + [True] * (len(ids) - 1)) for ids in found]
    return [(ids, [False, *assistant_mask(tokenizer, text)[1:]]) for ids, text in zip(found, texts)]


def input_texts(
    tokenizer: PreTrainedTokenizerBase, prompt: Text, completion: Text
) -> tuple[str, ...]:
    """The texts that a prompt and completion are read as: both where they are plain, one where they
    are a conversation.
    """
    return (
        (prompt, completion)
        if isinstance(prompt, str)
        else (whole_text(tokenizer, prompt, completion, "The text"),)
    )


def unknown_text(tokenizer: PreTrainedTokenizerBase, ids: Ids, *texts: str) -> str:
    """The first part of `texts`, of which `ids` were made, for which the tokenizer has no token;
    empty where there is none.

    The id of the unknown token alone says nothing: in GPT-2 and its kin it is also the start or end
    token, and a text may write it out.
    """
    unk = tokenizer.unk_token_id
    if unk is None or unk not in ids:
        return ""
    if not tokenizer.is_fast:
        special = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
        pieces = () if unk in special else (*"".join(texts), *texts)
        return next(
            (
                part
                for part in pieces
                if unk in tokenizer(part, add_special_tokens=False)["input_ids"]
            ),
            "",
        )
    marked = [
        tokenizer(text, add_special_tokens=False, return_offsets_mapping=True) for text in texts
    ]
    pieces = [
        text[a:b]
        for text, m in zip(texts, marked)
        for i, (a, b) in zip(m["input_ids"], m["offset_mapping"])
        if i == unk
    ]
    return next((part[:20] for part in pieces if part and tokenizer.unk_token not in part), "")
