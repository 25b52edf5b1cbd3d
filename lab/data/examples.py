"""Preference pairs, judged completions, demonstrations and prompts from a data file, in TRL's
dataset formats; nothing here needs a model library.

A text is plain, or a conversation: a list of messages {"role": …, "content": …}, which the model's
chat template renders later (`lab.data.chat_template`).
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lab.config.methods import FORMATS_OF_KIND, METHODS, PAIR_FORMATS
from lab.config.template_options import NO_OPTIONS
from lab.data.readers import NumberedRows, Row, parse, place, read_rows
from lab.errors import LabError

Text = str | list[dict[str, Any]]
FORMAT = (
    'one JSON object a line: {"prompt": "…", "chosen": "…", "rejected": "…"}, each a text or a list'
    ' of messages {"role": "…", "content": "…"}'
)
COMPLETED = (
    'in every row the columns that the first one has, each a text or a list of messages {"role":'
    ' "…", "content": "…"}'
)
FORMATS = {  # Name → its columns; a row has the first format of which it has them all.
    "preference": ("prompt", "chosen", "rejected"),
    "preference with implicit prompt": ("chosen", "rejected"),
    "unpaired preference": ("prompt", "completion", "label"),
    "prompt-completion": ("prompt", "completion"),
    "conversational language modeling": ("messages",),
    "prompt-only": ("prompt",),
    "language modeling": ("text",),
}
SURROGATE = re.compile("[\ud800-\udfff]")
LABEL = re.compile(r"(true|1(?:\.0*)?)|false|0(?:\.0*)?", re.IGNORECASE)
PICTURES = ("image", "images", "video", "videos", "audio", "audios")


class Conversation(list):
    """The messages of a prompt, and in `template` what else its row gives the chat template:
    "tools", and each of its chat_template_kwargs.
    """

    def __init__(
        self, messages: Iterable[dict[str, Any]] = (), template: dict[str, Any] | None = None
    ) -> None:
        super().__init__(messages)
        self.template = template or {}

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) and self.template == template_of(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __repr__(self) -> str:
        return (
            f"Conversation({super().__repr__()}, {self.template!r})"
            if self.template
            else super().__repr__()
        )


def template_columns(prompt: Any) -> dict[str, Any]:
    """The columns of a row that give the chat template what `prompt` gives it."""
    template = dict(template_of(prompt))
    tools = {"tools": template.pop("tools")} if "tools" in template else {}
    return tools | ({"chat_template_kwargs": template} if template else {})


def template_of(prompt: Any) -> dict[str, Any]:
    """What the chat template is given beside the messages of a prompt."""
    return prompt.template if isinstance(prompt, Conversation) else {}


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
class UnpairedExample:
    """One completion with a thumb up or down."""

    prompt: Text
    completion: Text
    desirable: bool

    def flipped(self) -> "UnpairedExample":
        """The same completion, judged the other way."""
        return UnpairedExample(self.prompt, self.completion, not self.desirable)


@dataclass(frozen=True)
class Demonstration:
    """A completion to imitate."""

    prompt: Text
    completion: Text


@dataclass(frozen=True)
class Whole:
    """A text or a conversation to imitate as a whole: of a conversation the assistant's words,
    where the chat template marks them.
    """

    text: Text


@dataclass(frozen=True)
class Prompt:
    """What a policy is to answer."""

    prompt: Text


def beginning(example: Any) -> Text:
    """The prompt of an example, or the whole text where there is no prompt."""
    return example.text if isinstance(example, Whole) else example.prompt


T = TypeVar("T", Pair, UnpairedExample, Demonstration, Whole, Prompt)


def format_of(row: Row) -> str:
    """Which of `FORMATS` a row has; empty for none."""
    return next((name for name, columns in FORMATS.items() if row.keys() >= set(columns)), "")


def learners_of(data_format: str) -> str:
    """Return the methods that learn from a format without pairs, in words; empty for pairs."""
    if data_format in PAIR_FORMATS:
        return ""
    specs = [spec for spec in METHODS.values() if data_format in spec.formats]
    if data_format in FORMATS_OF_KIND["prompts"]:
        return "an online method"
    return " or ".join(spec.name for spec in specs)


def load_pairs(source: str | Path) -> list[Pair]:
    """Read preference pairs; every error names the file and the line. Where the prompt is implicit,
    it is what both begin with, as TRL extracts it.
    """
    return read_examples(read_rows(source), source)


def load_examples(
    source: str | Path, method: str
) -> list[Pair] | list[UnpairedExample] | list[Demonstration] | list[Whole]:
    """Read what an offline method learns from: preference pairs, or if the first row says so,
    judged completions for kto, and for sft demonstrations or whole texts.
    """
    return read_examples(read_rows(source), source, method)


def read_examples(
    found: NumberedRows, source: str | Path, method: str = ""
) -> list[Pair] | list[UnpairedExample] | list[Demonstration] | list[Whole]:
    """The examples in numbered rows; `source` is what errors call the file."""
    own = format_of(found[0][1])
    accepted = METHODS[method].formats if method else ()
    return _read(found, source, PARSERS.get(own, pair) if own in accepted else pair)


def load_prompts(source: str | Path) -> list[Text]:
    """Read prompts, whatever other columns the rows have; every error names the file and the line."""
    return [e.prompt for e in _read(read_rows(source), source, prompt_only)]


def parse_pairs(data: bytes, name: str) -> list[Pair]:
    """The pairs in the bytes of a file; the ending of `name` says how to read it, and errors call
    the file so.
    """
    return read_examples(parse(data, name), name)


def _read(found: NumberedRows, source: str | Path, make: Callable[[Row, str], T]) -> list[T]:
    """An example of every row; all are plain text or all are conversations, because completions are
    compared across prompts.
    """
    examples = [make(row, place(source, number)) for number, row in found]
    kinds = [isinstance(beginning(e), str) for e in examples]
    if odd := [number for (number, _), kind in zip(found, kinds) if kind != kinds[0]]:
        words = ("plain text", "a conversation")
        raise LabError(
            f"{place(source, odd[0])} is {words[kinds[0]]}, but {place(source, found[0][0])} is"
            f" {words[not kinds[0]]}. Use one of them throughout."
        )
    return examples


def pair(row: Row, where: str) -> Pair:
    """The preference pair of a row; `LabError` when it is none, an empty completion, or chosen
    equal to rejected.
    """
    chosen, rejected = _text(row, "chosen", where), _text(row, "rejected", where)
    _not_empty(where, chosen, rejected)
    if chosen == rejected:
        raise LabError(
            f"{where}: chosen equals rejected, so the pair prefers nothing. Remove the line or"
            " correct it."
        )
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise LabError(
            f"{where}: of chosen and rejected one is text and the other a conversation. Use one of"
            " them for both."
        )
    prompt = _prompt(row, where) if "prompt" in row else None
    if prompt is None or (
        isinstance(prompt, str) and isinstance(chosen, list)
    ):  # Some data sets repeat an implicit prompt as plain text.
        return _extracted(chosen, rejected, _template(row, chosen, where), where)
    _same_kind(where, prompt, "chosen", chosen)
    return Pair(prompt, chosen, rejected)


def _extracted(chosen: Text, rejected: Text, template: dict[str, Any], where: str) -> Pair:
    """Both without what both begin with, which is the prompt; a space at its end belongs to the
    completions, and none is left empty (TRL: extract_prompt).
    """
    longest = min(len(chosen), len(rejected)) - 1
    cut = next((i for i in range(longest + 1) if chosen[i] != rejected[i]), longest)
    if cut and chosen[cut] != rejected[cut] and chosen[cut - 1] == " ":
        cut -= 1
    if not cut:
        raise LabError(
            f"{where}: there is no prompt, neither as a column nor as a beginning that chosen and"
            f" rejected share. Expected {FORMAT}."
        )
    return Pair(
        chosen[:cut] if isinstance(chosen, str) else Conversation(chosen[:cut], template),
        chosen[cut:],
        rejected[cut:],
    )


def labelled(row: Row, where: str) -> UnpairedExample:
    """The judged completion of a row; `LabError` when it is none, or the label is no yes or no."""
    prompt, completion, label = (
        _prompt(row, where),
        _text(row, "completion", where),
        row.get("label"),
    )
    _not_empty(where, completion)
    _same_kind(where, prompt, "completion", completion)
    judged = LABEL.fullmatch(str(label).strip())
    if judged is None:
        raise LabError(
            f"{where}: 'label' is {label!r:.60}, but takes true or 1 for a desirable completion,"
            " false or 0 for an undesirable one."
        )
    return UnpairedExample(prompt, completion, bool(judged[1]))


def demonstration(row: Row, where: str) -> Demonstration:
    """The completion to imitate of a row."""
    prompt, completion = _prompt(row, where), _text(row, "completion", where)
    _not_empty(where, completion)
    _same_kind(where, prompt, "completion", completion)
    return Demonstration(prompt, completion)


def whole(row: Row, where: str) -> Whole:
    """The text or the conversation of a row that is imitated as a whole."""
    text = _prompt(row, where, "messages" if "messages" in row else "text")
    _not_empty(where, text)
    return Whole(text)


def prompt_only(row: Row, where: str) -> Prompt:
    """The prompt of a row."""
    return Prompt(_prompt(row, where))


PARSERS = {
    "unpaired preference": labelled,
    "prompt-completion": demonstration,
    "conversational language modeling": whole,
    "prompt-only": prompt_only,
    "language modeling": whole,
}


def _not_empty(where: str, *completions: Text) -> None:
    if not all(
        (
            text
            if isinstance(text, str)
            else any(m.get("content") or m.get("tool_calls") for m in text)
        )
        for text in completions
    ):
        raise LabError(f"{where}: a completion is empty. Remove the line or fill it in.")


def _same_kind(where: str, prompt: Text, name: str, text: Text) -> None:
    if isinstance(prompt, str) != isinstance(text, str):
        raise LabError(
            f"{where}: of prompt and {name} one is text and the other a conversation. Use one of"
            " them for both."
        )


def _prompt(row: Row, where: str, field: str = "prompt") -> Text:
    """The text of a field; messages come with what else the row gives the chat template."""
    text = _text(row, field, where)
    template = _template(row, text, where)
    return text if isinstance(text, str) else Conversation(text, template)


def _template(row: Row, text: Text, where: str) -> dict[str, Any]:
    """What a row, one of whose fields is `text`, gives the chat template beside messages;
    `LabError` for what is not understood, and for pictures and sound.
    """
    if seen := next((column for column in PICTURES if row.get(column)), ""):
        raise LabError(
            f"{where} has '{seen}', but the lab trains language models, which read text alone. Use"
            " data without pictures and sound."
        )
    tools, options = (
        _parsed(row.get(column), column, where) for column in ("tools", "chat_template_kwargs")
    )
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise LabError(
            f"{where}: 'tools' is {tools!r:.60}, but takes a list of JSON schemas, or such a list"
            " as JSON text."
        )
    if not isinstance(options, dict) or (taken := [name for name in options if name in NO_OPTIONS]):
        given = taken[0] if isinstance(options, dict) else f"{options!r:.60}"
        raise LabError(
            f"{where}: 'chat_template_kwargs' has {given}, but takes an object of the chat"
            " template's own options, such as enable_thinking."
        )
    template = ({"tools": tools} if tools else {}) | {
        name: value for name, value in options.items() if value is not None
    }
    if template and isinstance(text, str):
        raise LabError(
            f"{where} has '{'tools' if tools else 'chat_template_kwargs'}', which goes into a chat"
            " template, but plain text. Make the text a list of messages, or remove the column."
        )
    if template:
        _whole_characters(
            json.dumps(template, ensure_ascii=False, default=str),
            "tools or chat_template_kwargs",
            where,
        )
    return template


def _parsed(value: Any, column: str, where: str) -> Any:
    """The value of a column that may be JSON text; an empty list or object where there is none."""
    try:
        value = json.loads(value.strip() or "null") if isinstance(value, str) else value
    except ValueError:
        raise LabError(
            f"{where}: '{column}' is text, but no JSON: {value:.60}. Correct the line, or remove"
            " the column."
        ) from None
    return value or ([] if column == "tools" else {})


def _text(row: Row, field: str, where: str) -> Text:
    """A field's plain text, or its messages with role and content; an assistant's message that
    calls tools may have no content.
    """
    if field not in row:
        learners = learners_of(format_of(row))
        hint = f"It is {format_of(row)} data, which {learners} learns from. " if learners else ""
        expected = COMPLETED if field == "completion" else FORMAT
        raise LabError(
            f"{where} has no '{field}' (it has: {', '.join(map(str, row)) or 'nothing'})."
            f" {hint}Expected {expected}."
        )
    value = row[field]
    if isinstance(value, list):
        for message in value:
            _check_message(message, field, where)
        value = [
            {key: part for key, part in message.items() if part is not None or key == "content"}
            for message in value
        ]  # Parquet fills in null.
    elif not isinstance(value, str):
        raise LabError(
            f"{where}: '{field}' is {type(value).__name__}, neither text nor a list of messages."
            f" Expected {FORMAT}."
        )
    _whole_characters(
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str),
        field,
        where,
    )
    return value


def _whole_characters(text: str, field: str, where: str) -> None:
    if not text.isascii() and SURROGATE.search(text):
        raise LabError(
            f"{where}: '{field}' holds half of a surrogate pair, which is no character. Correct the"
            " line."
        )


def _check_message(message: Any, field: str, where: str) -> None:
    """Raise `LabError` for what is no message, or one that says nothing."""
    calls = message.get("tool_calls") if isinstance(message, dict) else None
    if isinstance(message, dict) and isinstance(message.get("content"), list):
        raise LabError(
            f"{where}: '{field}' has a content that is a list of parts, as models for pictures take"
            " it. Make it one text."
        )
    if calls and not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
        raise LabError(
            f"{where}: '{field}' has 'tool_calls' that are {calls!r:.60}, but take a list of"
            " objects."
        )
    silent = bool(calls) and message.get("content") is None
    if (
        not isinstance(message, dict)
        or not isinstance(message.get("role"), str)
        or not (silent or isinstance(message.get("content"), str))
    ):
        raise LabError(
            f"{where}: '{field}' is a list, but not of messages whose role and content are text."
            f" Expected {FORMAT}."
        )


def plain(text: Text) -> str:
    """What a text says, without roles, and the tools that it calls: for errors and counts."""
    if isinstance(text, str):
        return text
    said = [(message.get("content") or "", message.get("tool_calls")) for message in text]
    return "\n".join(
        words + (json.dumps(calls, ensure_ascii=False, default=str) if calls else "")
        for words, calls in said
    )
