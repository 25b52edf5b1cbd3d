"""Makes examples of data rows in TRL's dataset formats.

Every error names the row (`where`), such as "pairs.jsonl, line 3".
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from lab.config.methods import METHODS
from lab.data.examples import (
    Conversation,
    Demonstration,
    FullText,
    OfflineExamples,
    Pair,
    Prompt,
    Text,
    UnpairedExample,
    prompt_or_text,
)
from lab.data.readers import parse_file, read_numbered_rows
from lab.data.row_fields import (
    ROW_FORMAT,
    format_of,
    prompt_field,
    require_completions,
    require_same_kind,
    template_options,
    text_field,
)
from lab.data.rows import DataRow, NumberedRows, row_location
from lab.errors import LabError

LABEL = re.compile(r"(true|1(?:\.0*)?)|false|0(?:\.0*)?", re.IGNORECASE)
"""A label as text; group 1 is that of a desirable completion."""
ParsedExample = TypeVar("ParsedExample", Pair, UnpairedExample, Demonstration, FullText, Prompt)


def load_pairs(source: str | Path) -> list[Pair]:
    """Returns the preference pairs of a data source; every error names the file and the line.

    An implicit prompt is the beginning that both completions share, as TRL extracts it.
    """
    return parse_examples(read_numbered_rows(source), source, parse_pair)


def load_examples(source: str | Path, method: str) -> OfflineExamples:
    """Returns what an offline method learns from, in a data source.

    These are preference pairs; for kto also unpaired completions, and for sft also demonstrations
    or full texts, where the first row has their format.
    """
    return read_examples(read_numbered_rows(source), source, method)


def read_examples(rows: NumberedRows, source: str | Path, method: str) -> OfflineExamples:
    """Returns the examples in numbered rows; `source` is what errors call the file."""
    name = format_of(rows[0][1])
    accepted = METHODS[method].formats if method else ()
    parser = PARSERS.get(name, parse_pair) if name in accepted else parse_pair
    return cast(OfflineExamples, parse_examples(rows, source, cast(Any, parser)))


def parse_pairs(data: bytes, name: str) -> list[Pair]:
    """Returns the pairs in the bytes of a file; the extension of `name` says how to read it, and
    errors call the file so.
    """
    return parse_examples(parse_file(data, name), name, parse_pair)


def parse_examples(
    rows: NumberedRows, source: str | Path, parse: Callable[[DataRow, str], ParsedExample]
) -> list[ParsedExample]:
    """Returns an example of every row. All are plain text or all are conversations, because
    completions are compared across prompts; a mixture raises `LabError`.
    """
    examples = [parse(row, row_location(source, number)) for number, row in rows]
    kinds = [isinstance(prompt_or_text(example), str) for example in examples]
    for (number, _), kind in zip(rows, kinds):
        if kind != kinds[0]:
            words = ("plain text", "a conversation")
            raise LabError(
                f"{row_location(source, number)} is {words[kinds[0]]}, but"
                f" {row_location(source, rows[0][0])} is {words[not kinds[0]]}. Use one of them"
                " throughout."
            )
    return examples


def parse_pair(row: DataRow, where: str) -> Pair:
    """Returns the preference pair of a row.

    Raises `LabError` for a row in another format, an empty completion, or equal completions.
    """
    chosen, rejected = text_field(row, "chosen", where), text_field(row, "rejected", where)
    require_completions(where, chosen, rejected)
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
    prompt = prompt_field(row, where) if "prompt" in row else None
    # Some data sets repeat an implicit prompt as plain text.
    repeated = isinstance(prompt, str) and isinstance(chosen, list)
    if prompt is None or repeated:
        return _extract_prompt(chosen, rejected, template_options(row, chosen, where), where)
    require_same_kind(where, prompt, "chosen", chosen)
    return Pair(prompt, chosen, rejected)


def _extract_prompt(chosen: Text, rejected: Text, template: dict[str, Any], where: str) -> Pair:
    """The pair whose prompt is the beginning that both texts share (TRL: extract_prompt).

    A space at the end of that beginning belongs to the completions, and no completion is left
    empty.
    """
    longest = min(len(chosen), len(rejected)) - 1
    length = next((i for i in range(longest + 1) if chosen[i] != rejected[i]), longest)
    if length and chosen[length] != rejected[length] and chosen[length - 1] == " ":
        length -= 1
    if not length:
        raise LabError(
            f"{where}: there is no prompt, neither as a column nor as a beginning that chosen and"
            f" rejected share. Expected {ROW_FORMAT}."
        )
    beginning = chosen[:length]
    prompt = beginning if isinstance(beginning, str) else Conversation(beginning, template)
    return Pair(prompt, chosen[length:], rejected[length:])


def parse_unpaired(row: DataRow, where: str) -> UnpairedExample:
    """Returns the labelled completion of a row.

    Raises `LabError` for a row in another format, or a label that is neither yes nor no.
    """
    prompt, completion = prompt_field(row, where), text_field(row, "completion", where)
    label = row.get("label")
    require_completions(where, completion)
    require_same_kind(where, prompt, "completion", completion)
    match = LABEL.fullmatch(str(label).strip())
    if match is None:
        raise LabError(
            f"{where}: 'label' is {label!r:.60}, but takes true or 1 for a desirable completion,"
            " false or 0 for an undesirable one."
        )
    return UnpairedExample(prompt, completion, bool(match[1]))


def parse_demonstration(row: DataRow, where: str) -> Demonstration:
    """Returns the completion to imitate of a row."""
    prompt, completion = prompt_field(row, where), text_field(row, "completion", where)
    require_completions(where, completion)
    require_same_kind(where, prompt, "completion", completion)
    return Demonstration(prompt, completion)


def parse_full_text(row: DataRow, where: str) -> FullText:
    """Returns the text or the conversation of a row that is imitated without a prompt."""
    text = prompt_field(row, where, "messages" if "messages" in row else "text")
    require_completions(where, text)
    return FullText(text)


def parse_prompt(row: DataRow, where: str) -> Prompt:
    """Returns the prompt of a row."""
    return Prompt(prompt_field(row, where))


Parser = Callable[[DataRow, str], Pair | UnpairedExample | Demonstration | FullText | Prompt]
PARSERS: dict[str, Parser] = {
    "unpaired preference": parse_unpaired,
    "prompt-completion": parse_demonstration,
    "conversational language modeling": parse_full_text,
    "prompt-only": parse_prompt,
    "language modeling": parse_full_text,
}
"""The parser of each format that is not a preference."""
