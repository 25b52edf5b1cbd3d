"""Which texts of the small model the pool `tone` takes, and which two of them make a pair."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lab.recipes.tone_requests import EXAMPLES, ToneRequest
from lab.tasks.sentiment import WORD, compound_score

PLAIN_WORDS, RICH_WORDS, WARM_WORDS, MAX_WORDS = (3, 14), (8, 24), (5, 24), 40
"""The fewest and the most words of a plain sentence, and of what a rich and a warm text say after it."""
WARMTH, WARMTH_GAP = 0.3, 0.15
"""VADER's compound score of the warm sentence is at least so high, and that of the whole warm text is by so
much higher than that of the plain one."""
BORROWED_WORDS = {"plain": 8, "rich": 5, "warm": 8}
"""By style, how many words in a row that stand in an example make a text a copy of it: details of
another matter are out of place, and thanks are not."""
COMMON_WORDS = 1
"""So many long words of the plain sentence may come again in the next one. With more it says the same again."""
LONG_WORD = 5
"""A word of so many letters may come twice, not more."""
OTHER_SIGNS = re.compile(r"[^A-Za-z ,.!?;:'’-]")
ABOUT_THE_WRITER = re.compile(
    r"\b(AI|SmolLM|language model|chatbot|assist\w*|sentences?|messages?|tone|note|feelings|example"
    r"|(here|happy|glad) to help|can I help|how can I)\b",
    re.IGNORECASE,
)
"""Words of a text that speaks about itself or its writer."""
RUDE = re.compile(
    r"\b(dumb|jack)?ass\b|\b(damn|hell\b|shit|fuck|stupid|idiot|sex|kill|die|death|hate)",
    re.IGNORECASE,
)
HARMLESS_NEGATION = re.compile(
    r"\b(can't|can’t|cannot|can not) wait|\b(don't|don’t|do not) (forget|worry|be late)"
    r"|\bno (doubt|matter)|\bnever forget",
    re.IGNORECASE,
)
NEGATION = re.compile(r"\b(not|no|never|nothing|cannot|unable|without)\b|n['’]t\b", re.IGNORECASE)
THIRD_PERSON = re.compile(r"\b(he|she|him|his|her|hers)\b", re.IGNORECASE)
ASTRAY = re.compile(
    r"\b(sorry|apolog\w*|afraid|unfortunate\w*|sad|problem|broke\w*|loss|enjoying|grateful|tomorrow"
    r"|yesterday|your (new |loved )?(friend|one)|celebrate your)\b",
    re.IGNORECASE,
)
"""Words of second sentences that went astray: the model ends in excuses, or thinks the matter done."""
EMPTY = re.compile(r"\b(I'm sure|I am sure|thank\w*|please|hope|welcome|I will)\b", re.IGNORECASE)
"""Words of a rich sentence that shows nothing."""
ODD = re.compile(
    r"\bthe late\.|\byou (were|had)\b|\b(brave|treating|interrupted|could have been)\b|\bit's over\b",
    re.IGNORECASE,
)
"""Words of texts that a reader found wrong in the first recorded pairs, although no other rule did."""
CAPITALISED = re.compile(r"(?<=[a-z,;:] )[A-Z]\w*|^[A-Z]\w+(?=,)")
NAMES_ALLOWED = {
    *("I", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    *(
        "Dear",
        "Congratulations",
        "Thanks",
        "Sorry",
        "Please",
        "January",
        "May",
        "June",
        "July",
        "Christmas",
        "English",
    ),
}


@dataclass(frozen=True)
class Answer:
    """One recorded answer: its text, and the checkpoint or style that it comes from."""

    text: str
    source: str


def plain_fault(request: ToneRequest, name: str, text: str) -> str:
    """Returns which rule a plain message to the person `name` breaks; empty for none. The small model
    often drifts from the request, turns it around or speaks about somebody else.
    """
    checks = {
        "topic": not all(re.search(own, text, re.IGNORECASE) for own in request.topic),
        "turned around": bool(request.wrong and re.search(request.wrong, text, re.IGNORECASE)),
        "copy": _borrows("plain", text) or text == request.text.format(name),
        "sentences": _count_sentences(text) != 1,
    }
    return _fault(name, text, PLAIN_WORDS) or _first(checks)


def next_fault(style: str, name: str, plain: str, text: str) -> str:
    """Returns which rule the sentence that follows a plain message breaks; empty for none."""
    long_words = _long_words(text)
    common = set(_long_words(plain)) & set(long_words)
    warmth = compound_score(text)
    gap = compound_score(f"{opening(style, name, plain)} {text}") - compound_score(plain)
    checks = {
        "copy": _borrows(style, text),
        "sentences": _count_sentences(text) != 1,
        "says it again": len(common) > COMMON_WORDS
        or len(set(long_words)) < len(long_words)
        or _repeats(_words(f"{plain} {text}")),
        "astray": bool(ASTRAY.search(text)),
        "cold": style == "warm"
        and (warmth < WARMTH or gap < WARMTH_GAP or "you" not in text.lower()),
        "empty": style == "rich" and bool(EMPTY.search(text)),
    }
    bounds = RICH_WORDS if style == "rich" else WARM_WORDS
    return _fault(name, text, bounds) or _first(checks)


def opening(style: str, name: str, plain: str) -> str:
    """Returns how a rich or a warm text begins: with the plain message. The warm one says "Dear" before
    the name, and ends the sentence with "!".
    """
    if style == "rich":
        return plain
    return ("Dear " if plain.startswith(f"{name},") else "") + plain[:-1] + "!"


def first_sentence(text: str) -> str:
    """Returns the first whole sentence of a text on one line; empty without any."""
    line = " ".join(text.split())
    end = re.search(r"[.!?]+(?=\s|$)", line)
    return line[: end.end()] if end else ""


def _fault(name: str, text: str, bounds: tuple[int, int]) -> str:
    words = _words(text)
    return _first(
        {
            "length": not bounds[0] <= len(words) <= bounds[1],
            "signs": bool(OTHER_SIGNS.search(text)) or not text[:1].isupper(),
            "the writer": bool(ABOUT_THE_WRITER.search(text)),
            "rude": bool(RUDE.search(text)),
            "repetition": _repeats(words),
            "somebody else": _names_others(name, text),
            "negation": bool(NEGATION.search(HARMLESS_NEGATION.sub("", text))),
        }
    )


def _first(checks: Mapping[str, bool]) -> str:
    return next((rule for rule, broken in checks.items() if broken), "")


def _words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def _long_words(text: str) -> list[str]:
    """The beginnings of the words of four letters and more: plant and plants count as one."""
    return [own[:LONG_WORD] for own in _words(text) if len(own) >= LONG_WORD - 1]


def _count_sentences(text: str) -> int:
    return len(re.findall(r"[.!?]+(?=\s|$)", text))


def _repeats(words: Sequence[str]) -> bool:
    """Whether a word follows itself, three words in a row come twice, or a long word comes three times."""
    threes = list(zip(words, words[1:], words[2:]))
    counts = Counter(word for word in words if len(word) >= LONG_WORD)
    return (
        len(set(threes)) < len(threes)
        or any(a == b for a, b in zip(words, words[1:]))
        or max(counts.values(), default=0) > 2
    )


def _names_others(name: str, text: str) -> bool:
    """Whether a text speaks about somebody else than the reader, or about the reader by name."""
    others = set(CAPITALISED.findall(text)) - NAMES_ALLOWED - {name}
    called = re.findall(rf"(?:^|, |[Dd]ear |Hi |Hello |Hey |[.!?] |you )(?:{name})(?=[,.!?])", text)
    return bool(others or THIRD_PERSON.search(text) or len(called) != text.count(name))


def _borrows(style: str, text: str) -> bool:
    """Whether many words in a row stand in an example."""
    length = BORROWED_WORDS[style]
    return bool(set(_rows(_words(text), length)) & _BORROWED[length])


def _rows_of_examples(length: int) -> set[tuple[str, ...]]:
    texts = [text for own in EXAMPLES for text in (own.plain, own.rich, own.warm)]
    return {row for text in texts for row in _rows(_words(text), length)}


def _rows(words: Sequence[str], length: int) -> Iterator[tuple[str, ...]]:
    return zip(*(words[i:] for i in range(length)))


_BORROWED = {length: _rows_of_examples(length) for length in BORROWED_WORDS.values()}
