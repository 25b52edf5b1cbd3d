"""Reads single columns of a data row in TRL's dataset formats, and checks them.

Every error names the row (`where`), such as "pairs.jsonl, line 3".
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from lab.config.methods import FORMATS_OF_KIND, METHODS, PAIR_FORMATS
from lab.config.template_options import NO_OPTIONS
from lab.data.examples import Conversation, Message, Text
from lab.data.rows import DataRow
from lab.errors import LabError

ROW_FORMAT = (
    'one JSON object a line: {"prompt": "…", "chosen": "…", "rejected": "…"}, each a text or a list'
    ' of messages {"role": "…", "content": "…"}'
)
COMPLETION_ROW_FORMAT = (
    'in every row the columns that the first one has, each a text or a list of messages {"role":'
    ' "…", "content": "…"}'
)
FORMATS = {
    "preference": ("prompt", "chosen", "rejected"),
    "preference with implicit prompt": ("chosen", "rejected"),
    "unpaired preference": ("prompt", "completion", "label"),
    "prompt-completion": ("prompt", "completion"),
    "conversational language modeling": ("messages",),
    "prompt-only": ("prompt",),
    "language modeling": ("text",),
}
"""TRL's name of a format → its columns. A row has the first format of which it has all columns."""
MEDIA_COLUMNS = ("image", "images", "video", "videos", "audio", "audios")
TEMPLATE_COLUMNS = ("tools", "chat_template_kwargs")
_NOT_ONLY_TEXT = frozenset((*MEDIA_COLUMNS, *TEMPLATE_COLUMNS))
_SURROGATE = re.compile("[\ud800-\udfff]")


def format_of(row: DataRow) -> str:
    """Returns the name in `FORMATS` of a row's format; empty where it has none."""
    return next((name for name, columns in FORMATS.items() if row.keys() >= set(columns)), "")


def learners_of(data_format: str) -> str:
    """Returns the methods that learn from a format without pairs, in words; empty for pairs."""
    if data_format in PAIR_FORMATS:
        return ""
    if data_format in FORMATS_OF_KIND["prompts"]:
        return "an online method"
    return " or ".join(name for name, spec in METHODS.items() if data_format in spec.formats)


def prompt_field(row: DataRow, where: str, column: str = "prompt") -> Text:
    """Returns the text of a column; messages come with what else the row gives the chat
    template.
    """
    text = text_field(row, column, where)
    template = template_options(row, text, where)
    return text if isinstance(text, str) else Conversation(text, template)


def text_field(row: DataRow, column: str, where: str) -> Text:
    """Returns a column's plain text, or its messages with role and content.

    An assistant's message that calls tools may have no content. Raises `LabError` where the column
    is missing or holds anything else.
    """
    if column not in row:
        raise _missing_column(row, column, where)
    value = row[column]
    if isinstance(value, str):
        _require_whole_characters(value, column, where)
        return value
    if not isinstance(value, list):
        raise LabError(
            f"{where}: '{column}' is {type(value).__name__}, neither text nor a list of messages."
            f" Expected {ROW_FORMAT}."
        )
    for message in value:
        _require_message(message, column, where)
    messages = [_without_nulls(message) for message in value]
    for message in messages:
        if not _is_ascii(message):
            written = json.dumps(message, ensure_ascii=False, default=str)
            _require_whole_characters(written, column, where)
    return messages


def _is_ascii(message: Message) -> bool:
    """Whether a message is a role and a content in ASCII, and nothing else."""
    content = message["content"]
    return (
        len(message) == 2
        and isinstance(content, str)
        and content.isascii()
        and message["role"].isascii()
    )


def _without_nulls(message: Message) -> Message:
    """A message without the keys that Parquet has filled in with null."""
    if None not in message.values():
        return message
    return {key: part for key, part in message.items() if part is not None or key == "content"}


def _missing_column(row: DataRow, column: str, where: str) -> LabError:
    name = format_of(row)
    hint = (
        f"It is {name} data, which {learners_of(name)} learns from. " if learners_of(name) else ""
    )
    expected = COMPLETION_ROW_FORMAT if column == "completion" else ROW_FORMAT
    return LabError(
        f"{where} has no '{column}' (it has: {', '.join(map(str, row)) or 'nothing'})."
        f" {hint}Expected {expected}."
    )


def template_options(row: DataRow, text: Text, where: str) -> dict[str, Any]:
    """Returns what a row gives the chat template beside messages; `text` is one of its columns.

    Raises `LabError` for values of another type, and for pictures and sound.
    """
    if _NOT_ONLY_TEXT.isdisjoint(row):
        return {}
    if media := next((column for column in MEDIA_COLUMNS if row.get(column)), ""):
        raise LabError(
            f"{where} has '{media}', but the lab trains language models, which read text alone. Use"
            " data without pictures and sound."
        )
    tools, options = (_parsed_column(row, column, where) for column in TEMPLATE_COLUMNS)
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise LabError(
            f"{where}: 'tools' is {tools!r:.60}, but takes a list of JSON schemas, or such a list"
            " as JSON text."
        )
    _require_options(options, where)
    template = ({"tools": tools} if tools else {}) | {
        name: value for name, value in options.items() if value is not None
    }
    if template and isinstance(text, str):
        raise LabError(
            f"{where} has '{'tools' if tools else 'chat_template_kwargs'}', which goes into a chat"
            " template, but plain text. Make the text a list of messages, or remove the column."
        )
    if template:
        _require_whole_characters(
            json.dumps(template, ensure_ascii=False, default=str),
            "tools or chat_template_kwargs",
            where,
        )
    return template


def _require_options(options: Any, where: str) -> None:
    refused = ""
    if not isinstance(options, dict):
        refused = f"{options!r:.60}"
    elif reserved := [name for name in options if name in NO_OPTIONS]:
        refused = reserved[0]
    if refused:
        raise LabError(
            f"{where}: 'chat_template_kwargs' has {refused}, but takes an object of the chat"
            " template's own options, such as enable_thinking."
        )


def _parsed_column(row: DataRow, column: str, where: str) -> Any:
    """The value of a column that may be JSON text; an empty list or object where it has none."""
    value = row.get(column)
    try:
        value = json.loads(value.strip() or "null") if isinstance(value, str) else value
    except ValueError:
        raise LabError(
            f"{where}: '{column}' is text, but no JSON: {value:.60}. Correct the line, or remove"
            " the column."
        ) from None
    return value or ([] if column == "tools" else {})


def require_completions(where: str, *completions: Text) -> None:
    """Raises `LabError` for a completion without words and without tool calls."""
    for text in completions:
        if not (text if isinstance(text, str) else _says_something(text)):
            raise LabError(f"{where}: a completion is empty. Remove the line or fill it in.")


def _says_something(messages: Sequence[Message]) -> bool:
    return any(message.get("content") or message.get("tool_calls") for message in messages)


def require_same_kind(where: str, prompt: Text, name: str, text: Text) -> None:
    """Raises `LabError` unless a prompt and the column `name` are both text or both messages."""
    if isinstance(prompt, str) != isinstance(text, str):
        raise LabError(
            f"{where}: of prompt and {name} one is text and the other a conversation. Use one of"
            " them for both."
        )


def _require_whole_characters(text: str, column: str, where: str) -> None:
    if not text.isascii() and _SURROGATE.search(text):
        raise LabError(
            f"{where}: '{column}' holds half of a surrogate pair, which is no character. Correct"
            " the line."
        )


def _require_message(message: Any, column: str, where: str) -> None:
    """Raises `LabError` for a value that is not a message, and for a message that says nothing."""
    if not isinstance(message, dict):
        raise _not_messages(column, where)
    content, calls = message.get("content"), message.get("tool_calls")
    if isinstance(content, list):
        raise LabError(
            f"{where}: '{column}' has a content that is a list of parts, as models for pictures"
            " take it. Make it one text."
        )
    if calls and not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
        raise LabError(
            f"{where}: '{column}' has 'tool_calls' that are {calls!r:.60}, but take a list of"
            " objects."
        )
    only_calls = bool(calls) and content is None
    if not isinstance(message.get("role"), str) or not (only_calls or isinstance(content, str)):
        raise _not_messages(column, where)


def _not_messages(column: str, where: str) -> LabError:
    return LabError(
        f"{where}: '{column}' is a list, but not of messages whose role and content are text."
        f" Expected {ROW_FORMAT}."
    )
