"""Measures the texts of a data file in tokens, and notes what does not fit the model."""

import copy
from collections.abc import Sequence
from dataclasses import fields, replace

from transformers import PreTrainedTokenizerBase

from lab.data.corpus import align_prompts
from lab.data.encoding import prompt_ids
from lab.data.examples import Example, FullText, Pair, Prompt, Text, prompt_or_text
from lab.data.problems import CUT, OMITTED_PREFIX, Problems, without_location
from lab.data.token_rows import (
    RowIds,
    TextPair,
    departure_note,
    omission_reason,
    refusal_reason,
    template_notes,
    tokenize_rows,
    truncate,
)
from lab.errors import LabError

MAX_MEASURED_CHARACTERS = 2**19
"""Characters of a text that are measured; no max_length takes more."""
ROWS_AT_ONCE = 2000
"""Rows whose token ids are in memory together."""
NumberedExamples = list[tuple[int, Example]]
"""Examples, each with the number of its line."""


def token_lengths(
    examples: NumberedExamples,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    mode: str,
    problems: Problems,
) -> dict[str, list[int]]:
    """Returns the lengths in tokens of all texts, by kind of text; of long texts the beginning counts.

    `problems` notes the texts that do not fit the chat template, the vocabulary or `max_length`. Ids are
    held for `ROWS_AT_ONCE` rows only.
    """
    lengths: dict[str, list[int]] = {}
    for start in range(0, len(examples), ROWS_AT_ONCE):
        part = [
            (number, shorten_example(example, number, problems))
            for number, example in examples[start : start + ROWS_AT_ONCE]
        ]
        for side, counts in _lengths(part, tokenizer, max_length, mode, problems).items():
            lengths.setdefault(side, []).extend(counts)
    return lengths


def _lengths(
    examples: NumberedExamples,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    mode: str,
    problems: Problems,
) -> dict[str, list[int]]:
    try:
        ids_by_side = _ids_by_side(tokenizer, [example for _, example in examples])
    except LabError:
        rendered = [(n, e) for n, e in examples if _renders(tokenizer, e, n, problems)]
        return _lengths(rendered, tokenizer, max_length, mode, problems) if rendered else {}
    if "text" in ids_by_side:
        lengths = {"text": [len(row.ids) for row in ids_by_side["text"]]}
    else:
        lengths = {"prompt": [len(row.start) for row in next(iter(ids_by_side.values()))]}
    for side, ids in ids_by_side.items():
        for (number, example), row in zip(examples, ids):
            for remark, refused in _remarks(tokenizer, example, side, row, max_length, mode):
                problems.note(remark, number, refused)
        if side not in lengths:
            lengths[side] = [len(row.rest) for row in ids]
    _note_omissions(examples, list(zip(*ids_by_side.values())), max_length, mode, problems)
    return lengths


def shorten_example(example: Example, number: int, problems: Problems) -> Example:
    """Returns the example with the first `MAX_MEASURED_CHARACTERS` characters of longer texts, and
    notes that it was shortened.
    """
    shortened = {
        field.name: _shorten(value)
        for field in fields(example)
        if isinstance(value := getattr(example, field.name), str | list)
    }
    changed = {name: value for name, value in shortened.items() if value != getattr(example, name)}
    if not changed:
        return example
    problems.note(
        f"is so long that only the first {MAX_MEASURED_CHARACTERS} characters of"
        f" {' and '.join(changed)} are counted in tokens.",
        number,
        refused=False,
    )
    return replace(example, **changed)  # type: ignore[arg-type]  # Texts for fields that hold texts.


def _shorten(text: Text) -> Text:
    if isinstance(text, str):
        return text[:MAX_MEASURED_CHARACTERS]
    if not any(
        isinstance(value, str) and len(value) > MAX_MEASURED_CHARACTERS
        for message in text
        for value in message.values()
    ):
        return text
    shortened = copy.copy(text)
    shortened[:] = [
        {
            name: value[:MAX_MEASURED_CHARACTERS] if isinstance(value, str) else value
            for name, value in message.items()
        }
        for message in text
    ]
    return shortened


def _completions(example: Example) -> dict[str, Text]:
    """The completions of an example by the name of their column."""
    if isinstance(example, Pair):
        return {"chosen": example.chosen, "rejected": example.rejected}
    return {} if isinstance(example, Prompt | FullText) else {"completion": example.completion}


def _ids_by_side(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]
) -> dict[str, list[RowIds]]:
    """The ids of prompt and completion, before truncation, by kind of completion.

    The key is "text" for full texts and "prompt" for prompts alone. Errors name the position in
    `examples` as row.
    """
    if isinstance(examples[0], FullText):
        texts: list[TextPair] = [(prompt_or_text(e), None) for e in examples]
        return {"text": tokenize_rows(tokenizer, texts, "row")}
    if isinstance(examples[0], Prompt):
        prompts = [prompt_or_text(e) for e in examples]
        return {"prompt": [RowIds(ids, []) for ids in prompt_ids(tokenizer, prompts, "row")]}
    return {
        side: tokenize_rows(
            tokenizer, [(prompt_or_text(e), _completions(e)[side]) for e in examples], "row"
        )
        for side in _completions(examples[0])
    }


def _note_omissions(
    examples: NumberedExamples,
    ids: list[tuple[RowIds, ...]],
    max_length: int,
    mode: str,
    problems: Problems,
) -> None:
    """Notes the rows that training leaves out, of those that it does not refuse."""
    refused = problems.refused()
    for (number, example), sides in zip(examples, ids):
        if isinstance(example, Prompt) or number in refused:
            continue
        if reason := omission_reason(align_prompts(sides), max_length, mode):
            problems.note(f"{OMITTED_PREFIX}: {reason}", number, refused=False)


def _remarks(
    tokenizer: PreTrainedTokenizerBase,
    example: Example,
    side: str,
    row: RowIds,
    max_length: int,
    mode: str,
) -> list[tuple[str, bool]]:
    """Remarks on an example, each with whether training stops at it."""
    is_full_text = isinstance(example, FullText)
    completion = None if is_full_text else _completions(example).get(side, "")
    remarks = []
    if reason := refusal_reason(tokenizer, (prompt_or_text(example), completion), row):
        remarks.append((reason, True))
    elif len(row.ids) > max_length and truncate(row, max_length, mode).trained > 0:
        lost = "beginning" if mode == "keep_end" else "end"
        remarks.append((f"{side} {CUT} {lost} at max_length {max_length}.", False))
    if row.departure:
        remarks.append((departure_note(row.departure), False))
    notes = template_notes(tokenizer, prompt_or_text(example), is_full_text)
    return remarks + [(note, False) for note in notes]


def _renders(
    tokenizer: PreTrainedTokenizerBase, example: Example, number: int, problems: Problems
) -> bool:
    """Whether the chat template takes an example; a refusal is noted."""
    try:
        return bool(_ids_by_side(tokenizer, [example]))
    except LabError as error:
        problems.note(without_location(error, "row 1"), number)
        return False
