"""Preference pairs, judged completions, demonstrations and prompts from a data file, in TRL's dataset formats; nothing here needs a model library.

A text is plain, or a conversation: a list of messages {"role": …, "content": …}, which the model's chat template renders later (`lab.chat`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lab.errors import LabError
from lab.formats import Numbered, Row, numbered, parse, place

Text = str | list[dict[str, str]]
FORMAT = 'one JSON object a line: {"prompt": "…", "chosen": "…", "rejected": "…"}, each a text or a list of messages {"role": "…", "content": "…"}'
COMPLETED = 'in every row the columns that the first one has, each a text or a list of messages {"role": "…", "content": "…"}'
FORMATS = {  # Name → its columns; a row has the first format of which it has them all.
    "preference": ("prompt", "chosen", "rejected"),
    "preference with implicit prompt": ("chosen", "rejected"),
    "unpaired preference": ("prompt", "completion", "label"),
    "prompt-completion": ("prompt", "completion"),
    "prompt-only": ("prompt",),
}
LEARNERS = {"unpaired preference": "kto", "prompt-completion": "sft", "prompt-only": "an online method"}
LABELS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}


@dataclass(frozen=True)
class Pair:
    """Two completions of a prompt, one preferred."""

    prompt: Text
    chosen: Text
    rejected: Text

    def flipped(self) -> "Pair":
        """The same completions, the other one preferred."""
        return Pair(self.prompt, self.rejected, self.chosen)


@dataclass(frozen=True)
class Labelled:
    """One completion with a thumb up or down."""

    prompt: Text
    completion: Text
    desirable: bool

    def flipped(self) -> "Labelled":
        """The same completion, judged the other way."""
        return Labelled(self.prompt, self.completion, not self.desirable)


@dataclass(frozen=True)
class Demonstration:
    """A completion to imitate."""

    prompt: Text
    completion: Text


@dataclass(frozen=True)
class Prompt:
    """What a policy is to answer."""

    prompt: Text


T = TypeVar("T", Pair, Labelled, Demonstration, Prompt)


def format_of(row: Row) -> str:
    """Which of `FORMATS` a row has; empty for none."""
    return next((name for name, columns in FORMATS.items() if row.keys() >= set(columns)), "")


def load_pairs(source: str | Path) -> list[Pair]:
    """Read preference pairs; every error names the file and the line. Where the prompt is implicit, it is what both begin with, as TRL extracts it."""
    return read_examples(numbered(source), source)


def load_examples(source: str | Path, method: str) -> list[Pair] | list[Labelled] | list[Demonstration]:
    """Read what an offline method learns from: preference pairs, or if the first row says so, judged completions for kto, demonstrations for sft."""
    return read_examples(numbered(source), source, method)


def read_examples(found: Numbered, source: str | Path, method: str = "") -> list[Pair] | list[Labelled] | list[Demonstration]:
    """The examples in numbered rows; `source` is what errors call the file."""
    own = format_of(found[0][1])
    return _read(found, source, MAKERS[own] if LEARNERS.get(own) == method else pair)


def load_prompts(source: str | Path) -> list[Text]:
    """Read prompts, whatever other columns the rows have; every error names the file and the line."""
    return [e.prompt for e in _read(numbered(source), source, prompt_only)]


def parse_pairs(data: bytes, name: str) -> list[Pair]:
    """The pairs in the bytes of a file; the ending of `name` says how to read it, and errors call the file so."""
    return read_examples(parse(data, name), name)


def _read(found: Numbered, source: str | Path, make: Callable[[Row, str], T]) -> list[T]:
    """An example of every row; all are plain text or all are conversations, because completions are compared across prompts."""
    examples = [make(row, place(source, number)) for number, row in found]
    kinds = [isinstance(e.prompt, str) for e in examples]
    if odd := [number for (number, _), kind in zip(found, kinds) if kind != kinds[0]]:
        words = ("plain text", "a conversation")
        raise LabError(f"{place(source, odd[0])} is {words[kinds[0]]}, but {place(source, found[0][0])} is {words[not kinds[0]]}. Use one of them throughout.")
    return examples


def pair(row: Row, where: str) -> Pair:
    """The preference pair of a row; `LabError` when it is none, an empty completion, or chosen equal to rejected."""
    chosen, rejected = _text(row, "chosen", where), _text(row, "rejected", where)
    _not_empty(where, chosen, rejected)
    if chosen == rejected:
        raise LabError(f"{where}: chosen equals rejected, so the pair prefers nothing. Remove the line or correct it.")
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise LabError(f"{where}: of chosen and rejected one is text and the other a conversation. Use one of them for both.")
    prompt = _text(row, "prompt", where) if "prompt" in row else None
    if prompt is None or (isinstance(prompt, str) and isinstance(chosen, list)):  # Some data sets repeat an implicit prompt as plain text.
        return _extracted(chosen, rejected, where)
    _same_kind(where, prompt, "chosen", chosen)
    return Pair(prompt, chosen, rejected)


def _extracted(chosen: Text, rejected: Text, where: str) -> Pair:
    """Both without what both begin with, which is the prompt; a space at its end belongs to the completions, and none is left empty (TRL: extract_prompt)."""
    longest = min(len(chosen), len(rejected)) - 1
    cut = next((i for i in range(longest + 1) if chosen[i] != rejected[i]), longest)
    if cut and chosen[cut] != rejected[cut] and chosen[cut - 1] == " ":
        cut -= 1
    if not cut:
        raise LabError(f"{where}: there is no prompt, neither as a column nor as a beginning that chosen and rejected share. Expected {FORMAT}.")
    return Pair(chosen[:cut], chosen[cut:], rejected[cut:])


def labelled(row: Row, where: str) -> Labelled:
    """The judged completion of a row; `LabError` when it is none, or the label is no yes or no."""
    prompt, completion, label = _text(row, "prompt", where), _text(row, "completion", where), row.get("label")
    _not_empty(where, completion)
    _same_kind(where, prompt, "completion", completion)
    desirable = LABELS.get(str(label).strip().lower())
    if desirable is None:
        raise LabError(f"{where}: 'label' is {label!r}, but takes true for a desirable completion and false for an undesirable one.")
    return Labelled(prompt, completion, desirable)


def demonstration(row: Row, where: str) -> Demonstration:
    """The completion to imitate of a row."""
    prompt, completion = _text(row, "prompt", where), _text(row, "completion", where)
    _not_empty(where, completion)
    _same_kind(where, prompt, "completion", completion)
    return Demonstration(prompt, completion)


def prompt_only(row: Row, where: str) -> Prompt:
    """The prompt of a row."""
    return Prompt(_text(row, "prompt", where))


MAKERS = {"unpaired preference": labelled, "prompt-completion": demonstration, "prompt-only": prompt_only}


def _not_empty(where: str, *completions: Text) -> None:
    if not all(text if isinstance(text, str) else any(message["content"] for message in text) for text in completions):
        raise LabError(f"{where}: a completion is empty. Remove the line or fill it in.")


def _same_kind(where: str, prompt: Text, name: str, text: Text) -> None:
    if isinstance(prompt, str) != isinstance(text, str):
        raise LabError(f"{where}: of prompt and {name} one is text and the other a conversation. Use one of them for both.")


def _text(row: Row, field: str, where: str) -> Text:
    """A field's plain text, or its messages with role and content."""
    if field not in row:
        hint = f"It is {format_of(row)} data, which {LEARNERS[format_of(row)]} learns from. " if format_of(row) in LEARNERS else ""
        expected = COMPLETED if field == "completion" else FORMAT
        raise LabError(f"{where} has no '{field}' (it has: {', '.join(map(str, row)) or 'nothing'}). {hint}Expected {expected}.")
    value = row[field]
    if isinstance(value, list):
        for message in value:
            if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
                raise LabError(f"{where}: '{field}' is a list, but not of messages whose role and content are text. Expected {FORMAT}.")
        value = [{key: part for key, part in message.items() if part is not None} for message in value]  # Parquet fills missing keys with null.
    elif not isinstance(value, str):
        raise LabError(f"{where}: '{field}' is {type(value).__name__}, neither text nor a list of messages. Expected {FORMAT}.")
    for text in [value] if isinstance(value, str) else [message["content"] for message in value]:
        if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
            raise LabError(f"{where}: '{field}' holds half of a surrogate pair, which is no character. Correct the line.")
    return value


def plain(text: Text) -> str:
    """What a text says, without roles: for errors and counts."""
    return text if isinstance(text, str) else "\n".join(message["content"] for message in text)
