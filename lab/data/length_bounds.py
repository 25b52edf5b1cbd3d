"""Which rows surely fit: seen from their characters, where tokenising all of a large file would
take longer than the training.

Only plain ASCII is judged, and only for tokenizers that neither drop nor add characters, so that a
text has at most one token a character and two texts that differ have different ids. Of everything
else nothing is said, and it is tokenised.
"""

import json
import re
import string
from os.path import commonprefix
from typing import Any

from transformers import PreTrainedTokenizerBase

# Tokens beside those of the characters: a space before the text, the end token, and some to spare.
SPARE_TOKENS = 4
LOSSLESS_STEPS = {
    "NFC",
    "NFD",
    "NFKC",
    "NFKD",
    "Prepend",
    "ByteLevel",
    "Metaspace",
    "Digits",
}  # Parts of a tokenizer that lose nothing of ASCII text.
PIECES_OR_CHARACTERS = re.compile(
    r"((?:[\w<>/]+\|)*)\[\\s\\S\]"
)  # A split into these pieces and, elsewhere, single characters.


class CharacterBounds:
    """Judges texts by their characters, without the tokens that `tokenizer` makes of them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._extra, self._known, self._words = SPARE_TOKENS, None, []
        pieces = _pieces(tokenizer)
        if pieces is not None:
            self._extra += tokenizer.num_special_tokens_to_add()
            unknown = tokenizer.unk_token_id
            found = tokenizer([*string.printable, *pieces], add_special_tokens=False)["input_ids"]
            good = [
                re.escape(text)
                for text, ids in zip([*string.printable, *pieces], found)
                if ids and (unknown is None or unknown not in ids)
            ]
            letters = "".join(text for text in good if len(text.removeprefix("\\")) == 1)
            self._words = [piece for piece in pieces if re.escape(piece) in good]
            self._known = (
                re.compile(f"(?:{'|'.join([*map(re.escape, self._words), f'[{letters}]++'])})++")
                if letters
                else None
            )
            taking = [
                token.content
                for token in tokenizer.added_tokens_decoder.values()
                if token.lstrip or token.rstrip
            ]
            self._odd = re.compile(
                "|".join(map(re.escape, [tokenizer.eos_token, *taking]))
            )  # Other texts with these may have the same ids.

    def fit(self, prompt: Any, completions: list[Any], max_length: int, mode: str) -> bool:
        """Whether a row surely is in the vocabulary and neither left out for its length nor, if it
        is a pair, equal after truncation.
        """
        if self._known is None or not all(
            isinstance(text, str) and self._known.fullmatch(text) and not self._odd.search(text)
            for text in (prompt, *completions)
            if text is not None
        ):
            return False
        if completions == [None]:
            return bool(prompt)  # A whole text: its second token or its end is trained on.
        room = max_length - self._extra - (self._most(prompt) if mode == "keep_start" else 0)
        if len(completions) == 1:
            return room > 0 or mode == "keep_end"
        kept = slice(room) if mode == "keep_start" else slice(-room, None)
        one, other = completions
        if room < 1 or one.strip() == other.strip():  # A space before the text may be lost.
            return False
        if mode == "keep_start" and one[kept] == other[kept]:
            return self._most(commonprefix(completions)) < room
        return one[kept] != other[kept] and one.strip()[kept] != other.strip()[kept]

    def _most(self, text: str) -> int:
        """At most how many tokens a text has: one a character, and one for each known word."""
        return len(text) - sum((len(word) - 1) * text.count(word) for word in self._words)


def _pieces(tokenizer: PreTrainedTokenizerBase) -> list[str] | None:
    """The words that are known beside single characters, or None for a tokenizer of which nothing
    can be said.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not (_keeps(backend.normalizer) and _keeps(backend.pre_tokenizer)):
        return None
    model = backend.model
    kind = type(model).__name__
    if (
        kind == "BPE"
        and not (model.dropout or model.continuing_subword_prefix or model.end_of_word_suffix)
        or kind == "Unigram"
    ):
        return []
    split = _state(backend.pre_tokenizer)
    pattern = (
        PIECES_OR_CHARACTERS.fullmatch(str(split.get("pattern", {}).get("Regex")))
        if kind == "WordLevel" and split.get("type") == "Split"
        else None
    )
    return [piece for piece in pattern[1].split("|") if piece] if pattern else None


def _state(part: Any) -> dict[str, Any]:
    return {} if part is None else json.loads(part.__getstate__())


def _keeps(part: Any) -> bool:
    """Whether a normalizer or pre-tokenizer loses and adds nothing in ASCII text, but for a mark
    instead of a space.
    """
    return part is None or _lossless(_state(part))


def _lossless(state: dict[str, Any]) -> bool:
    if state["type"] == "Sequence":
        return all(
            _lossless(part)
            for name in ("normalizers", "pretokenizers")
            for part in state.get(name, [])
        )
    if state["type"] == "Replace":
        return state["pattern"] == {"String": " "} and state["content"] == "▁"
    return (
        state["type"] in LOSSLESS_STEPS
        or state["type"] in ("Split", "Punctuation")
        and state["behavior"] != "Removed"
    )
