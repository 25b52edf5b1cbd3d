"""Proves from its characters that a row fits: tokenising all of a large file would take longer than
the training.

Only plain ASCII is judged, and only for tokenizers that neither drop nor add characters, so that a
text has at most one token a character and two different texts have different ids. Nothing is said
of any other row, which is then tokenised.
"""

import json
import re
import string
from collections.abc import Sequence
from os.path import commonprefix
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from lab.data.conversation_shapes import ConversationShapes, Surroundings
from lab.data.examples import Message, Text
from lab.models.tokenizer import marks_assistant

SPARE_TOKENS = 4
"""Tokens beside those of the characters: a space before the text, the end token, and some to
spare.
"""
LOSSLESS_STEPS = {"NFC", "NFD", "NFKC", "NFKD", "Prepend", "ByteLevel", "Metaspace", "Digits"}
"""Normalizers and pre-tokenizers that lose nothing of ASCII text."""
WORDS_OR_CHARACTERS = re.compile(r"((?:[\w<>/]+\|)*)\[\\s\\S\]")
"""The pattern of a pre-tokenizer that splits a text into these words and, elsewhere, into single
characters.
"""


class CharacterBounds:
    """Judges texts by their characters, without the tokens that `tokenizer` makes of them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._extra_tokens = SPARE_TOKENS
        self._shapes = ConversationShapes(tokenizer)
        self._marks_assistant = marks_assistant(tokenizer)
        self._known_text: re.Pattern[str] | None = None
        self._words: list[str] = []
        words = _known_words(tokenizer)
        if words is None:
            return
        self._extra_tokens += tokenizer.num_special_tokens_to_add()
        unknown = tokenizer.unk_token_id
        candidates = [*string.printable, *words]
        encoded = tokenizer(candidates, add_special_tokens=False)["input_ids"]
        known = [
            text
            for text, ids in zip(candidates, encoded)
            if ids and (unknown is None or unknown not in ids)
        ]
        letters = "".join(re.escape(text) for text in known if len(text) == 1)
        self._words = [word for word in words if word in known]
        if letters:
            pieces = [*map(re.escape, self._words), f"[{letters}]++"]
            self._known_text = re.compile(f"(?:{'|'.join(pieces)})++")
        # Texts that contain these may have the ids of other texts.
        ambiguous = [cast(str, tokenizer.eos_token)] + [
            token.content
            for token in tokenizer.added_tokens_decoder.values()
            if token.lstrip or token.rstrip
        ]
        self._ambiguous_text = re.compile("|".join(map(re.escape, ambiguous)))

    def fit(
        self, prompt: Text, completions: Sequence[Text | None], max_length: int, mode: str
    ) -> bool:
        """Returns whether a row surely fits: all its text is in the vocabulary, its length does not
        leave it out, and the completions of a pair differ after truncation.
        """
        if self._known_text is None:
            return False
        around = Surroundings(0, 0)
        before, behind = list[Text | None]([prompt]), list(completions)
        if not isinstance(prompt, str):
            known = self._shapes.surroundings(prompt, completions)
            if known is None:
                return False
            around = known
            before = _contents(prompt)
            behind = [_only_content(text) for text in completions]
        is_full_text = list(completions) == [None]
        texts = before if is_full_text else [*before, *behind]
        if not all(map(self._is_known, texts)):
            return False
        prompt_tokens = around.prompt + sum(map(self._max_tokens, cast(list[str], before)))
        if is_full_text:
            return self._trains_on(prompt, max_length - self._extra_tokens - prompt_tokens)
        room = max_length - self._extra_tokens - around.completion
        if mode == "keep_start":
            room -= prompt_tokens
        if len(behind) == 1:
            return room > 0 or mode == "keep_end"
        chosen, rejected = cast(list[str], behind)
        return self._differ(chosen, rejected, room, mode)

    def _trains_on(self, text: Text, room: int) -> bool:
        """Whether something of a full text, which leaves `room` tokens, is surely trained on."""
        if isinstance(text, str) or not self._marks_assistant:
            return bool(text)  # Its second token or its end is.
        return room >= 0 and any(message["role"] == "assistant" for message in text)

    def _is_known(self, text: Text | None) -> bool:
        return (
            self._known_text is not None
            and isinstance(text, str)
            and self._known_text.fullmatch(text) is not None
            and not self._ambiguous_text.search(text)
        )

    def _differ(self, chosen: str, rejected: str, room: int, mode: str) -> bool:
        """Whether two completions surely differ in the `room` tokens that are left of them."""
        # A space before the text may be lost.
        if room < 1 or chosen.strip() == rejected.strip():
            return False
        window = slice(room) if mode == "keep_start" else slice(-room, None)
        if mode == "keep_start" and chosen[window] == rejected[window]:
            return self._max_tokens(commonprefix([chosen, rejected])) < room
        return (
            chosen[window] != rejected[window]
            and chosen.strip()[window] != rejected.strip()[window]
        )

    def _max_tokens(self, text: str) -> int:
        """The most tokens that a text can have: one a character, and one for each known word."""
        return len(text) - sum((len(word) - 1) * text.count(word) for word in self._words)


def _contents(messages: list[Message]) -> list[Text | None]:
    return [message["content"] for message in messages]


def _only_content(messages: Text | None) -> Text | None:
    """The content of the only message of a completion; None where it has several."""
    return messages[0]["content"] if isinstance(messages, list) and len(messages) == 1 else None


def _known_words(tokenizer: PreTrainedTokenizerBase) -> list[str] | None:
    """The words that are tokens beside single characters, or None for a tokenizer of which nothing
    can be said.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not (
        _is_lossless(backend.normalizer) and _is_lossless(backend.pre_tokenizer)
    ):
        return None
    model = backend.model
    kind = type(model).__name__
    if kind == "Unigram":
        return []
    if kind == "BPE":
        altered = model.dropout or model.continuing_subword_prefix or model.end_of_word_suffix
        return None if altered else []
    split = _state_of(backend.pre_tokenizer)
    if kind != "WordLevel" or split.get("type") != "Split":
        return None
    pattern = WORDS_OR_CHARACTERS.fullmatch(str(split.get("pattern", {}).get("Regex")))
    return [word for word in pattern[1].split("|") if word] if pattern else None


def _state_of(step: Any) -> dict[str, Any]:
    return {} if step is None else json.loads(step.__getstate__())


def _is_lossless(step: Any) -> bool:
    """Whether a normalizer or pre-tokenizer loses and adds nothing in ASCII text, apart from a mark
    instead of a space.
    """
    return step is None or _is_lossless_state(_state_of(step))


def _is_lossless_state(state: dict[str, Any]) -> bool:
    if state["type"] == "Sequence":
        return all(
            _is_lossless_state(step)
            for name in ("normalizers", "pretokenizers")
            for step in state.get(name, [])
        )
    if state["type"] == "Replace":
        return state["pattern"] == {"String": " "} and state["content"] == "▁"
    splits = state["type"] in ("Split", "Punctuation") and state["behavior"] != "Removed"
    return state["type"] in LOSSLESS_STEPS or splits
