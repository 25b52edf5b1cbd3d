"""Reports on a data file before anything trains on it: counts, lengths, balance, and each problem
with its lines.
"""

from math import ceil
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from lab.data.column_statistics import column_statistics, pair_statistics, summarise_lengths
from lab.data.examples import Example, FullText, Pair, Text, UnpairedExample, prompt_or_text
from lab.data.gc_pause import gc_paused
from lab.data.near_duplicates import comparable_text
from lab.data.parsing import PARSERS, parse_pair
from lab.data.problems import CUT, EQUAL, OMITTED_PREFIX, Problems, without_location
from lab.data.readers import read_rows_lenient
from lab.data.row_fields import format_of, learners_of
from lab.data.rows import RowsOrErrors, row_location
from lab.data.token_lengths import NumberedExamples, token_lengths
from lab.errors import LabError
from lab.models.tokenizer import load_tokenizer

KTO_RATIO_RANGE = (1.0, 4 / 3)
"""λ_D n_D / (λ_U n_U) is to lie in this range, says KTO's paper, arXiv 2402.01306."""
PAIRWISE_METHODS = "dpo, ipo, kto, reward_model and sft"
QUICK_CHARACTERS = 2**18
"""Characters of all texts together that a quick report measures."""


@gc_paused()
def data_report(
    source: str | Path,
    model: str,
    max_length: int,
    *,
    mode: str = "keep_start",
    template_options: str = "",
    quick: bool = False,
) -> dict[str, Any]:
    """Returns what a data source holds for training a model, as a plain dict.

    `format` is one of `lab.data.row_fields.FORMATS`, `learners` the methods that take it. `columns`
    are those of `column_statistics`, with the lengths in `tokens` before truncation of prompts and of
    each kind of completion. `prompts` are the different ones, `near_duplicates` those of them that
    differ from an earlier one only in case, spaces or punctuation. `truncation` counts, of the
    `measured` rows, those that max_length cuts or leaves out. `pairs` are the `pair_statistics`, `kto`
    counts desirable and undesirable completions and says within which λ the paper's rule holds.
    `problems` lists what is wrong, each with its lines and whether training `refused` it.

    Args:
        source: a data file or a hub id.
        model: its tokenizer measures the texts.
        max_length: tokens of a row that training keeps.
        mode: whether training keeps the start or the end of a longer row.
        template_options: options of the chat template, as a run names them.
        quick: measures only some rows in tokens, about `QUICK_CHARACTERS` in all.
    """
    rows, tokenizer = read_rows_lenient(source), load_tokenizer(model, template_options)
    problems = Problems()
    name = next(
        (name for _, row in rows if not isinstance(row, LabError) and (name := format_of(row))), ""
    )
    examples = _parse_examples(rows, name, source, problems)
    conversations = sum(not isinstance(prompt_or_text(e), str) for _, e in examples)
    examples = _of_one_kind(examples, conversations, problems)
    measured = _sample_rows(examples) if quick else examples
    lengths = _measure(measured, tokenizer, max_length, mode, problems)
    columns = column_statistics(rows, examples)
    for side, counts in lengths.items():
        columns[side]["tokens"] = summarise_lengths(counts)
    _note_repetitions(examples, problems)
    near_duplicates = _note_near_duplicates(examples, name, problems)
    num_prompts = len({_text_key(prompt_or_text(e)) for _, e in examples})
    if num_prompts == 1:
        _note_single_prompt(examples, name, problems)
    report = {
        "source": str(source),
        "model": model,
        "max_length": max_length,
        "truncation_mode": mode,
        "template_options": template_options,
        "rows": len(rows),
        "format": name,
        "conversations": conversations > 0,
        "learners": learners_of(name) or (PAIRWISE_METHODS if name else ""),
        "prompts": num_prompts,
        "near_duplicates": near_duplicates,
        "columns": columns,
        "truncation": _truncation(len(measured), problems),
    }
    if "chosen" in lengths:
        report["pairs"] = pair_statistics(lengths, len(problems.lines(EQUAL)))
    if len(measured) < len(examples):
        report["measured"] = len(measured)
    if balance := _balance_of(examples):
        report["kto"] = balance
    return report | {"problems": problems.rows()}


def _measure(
    examples: NumberedExamples,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    mode: str,
    problems: Problems,
) -> dict[str, list[int]]:
    """The lengths of the examples in tokens, by side; empty where none can be measured."""
    if not examples:
        return {}
    lengths = token_lengths(examples, tokenizer, max_length, mode, problems)
    if lengths and len(problems.lines(OMITTED_PREFIX)) == len(examples):
        problems.note(
            f"no row is left to train on at max_length {max_length}. Raise it, or shorten the rows.",
            examples[0][0],
        )
    return lengths


def _parse_examples(
    rows: RowsOrErrors, name: str, source: str | Path, problems: Problems
) -> NumberedExamples:
    """The examples of the rows that have the format `name`; the others are noted as problems."""
    parse = PARSERS.get(name, parse_pair)
    examples: NumberedExamples = []
    for number, row in rows:
        where = row_location(source, number)
        try:
            if isinstance(row, LabError):
                raise row
            examples.append((number, parse(row, where)))
        except LabError as error:
            problems.note(without_location(error, where), number)
    return examples


def _of_one_kind(
    examples: NumberedExamples, conversations: int, problems: Problems
) -> NumberedExamples:
    """The conversations, where there are some; rows of plain text among them are problems."""
    if conversations in (0, len(examples)):
        return examples
    for number, example in examples:
        if isinstance(prompt_or_text(example), str):
            problems.note(
                "is plain text, but other rows are conversations. Use one of them throughout.",
                number,
            )
    return [(n, e) for n, e in examples if not isinstance(prompt_or_text(e), str)]


def _sample_rows(examples: NumberedExamples) -> NumberedExamples:
    """Rows from all over the file, of about `QUICK_CHARACTERS` characters together; all rows where
    they have no more.
    """
    characters = sum(_num_characters(example) for _, example in examples)
    return examples[:: max(1, ceil(characters / QUICK_CHARACTERS))]


def _num_characters(example: Example) -> int:
    return sum(
        len(value if isinstance(value, str) else str(value)) for value in vars(example).values()
    )


def _text_key(text: Text | bool) -> str | bool:
    """A hashable value that is equal for equal texts."""
    return text if isinstance(text, str | bool) else repr(text)


def _example_key(example: Example) -> tuple[str | bool, ...]:
    """A hashable value that is equal for equal examples."""
    return tuple(map(_text_key, vars(example).values()))


def _note_repetitions(examples: NumberedExamples, problems: Problems) -> None:
    """Notes rows that repeat an earlier row, or that prefer the opposite."""
    first_line: dict[tuple[str | bool, ...], int] = {}
    for number, example in examples:
        if (earlier := first_line.setdefault(_example_key(example), number)) != number:
            problems.note(f"says the same as an earlier row ({earlier}).", number, refused=False)
        elif isinstance(example, Pair | UnpairedExample):
            opposite = first_line.get(_example_key(example.flipped()))
            if opposite:
                problems.note(
                    f"says the opposite of an earlier row ({opposite}).", number, refused=False
                )


def _note_near_duplicates(examples: NumberedExamples, name: str, problems: Problems) -> int:
    """Notes prompts that differ from an earlier one only in case, spaces or punctuation; returns
    their number.
    """
    first_line: dict[str | bool, int] = {}
    for number, example in examples:
        first_line.setdefault(_text_key(prompt_or_text(example)), number)
    first_lines = {*first_line.values()}
    kind = "text" if examples and isinstance(examples[0][1], FullText) else "prompt"
    advice = "" if name == "prompt-only" else " --eval-share keeps both on one side of the split."
    similar: dict[str, int] = {}
    count = 0
    for number, example in examples:
        if number not in first_lines:
            continue
        key = comparable_text(prompt_or_text(example))
        if (earlier := similar.setdefault(key, number)) != number:
            count += 1
            problems.note(
                f"has the {kind} of an earlier row ({earlier}) but for case, spaces or punctuation."
                + advice,
                number,
                refused=False,
            )
    return count


def _truncation(measured: int, problems: Problems) -> dict[str, int]:
    """How many of the `measured` rows max_length cuts or leaves out, without those that training
    refuses; and how many rows of the file it refuses.
    """
    refused, left_out = problems.refused(), problems.lines(OMITTED_PREFIX)
    return {
        "measured": measured,
        "cut": len(problems.lines(CUT) - left_out - refused),
        "left_out": len(left_out - refused),
        "refused": len(refused),
    }


def _note_single_prompt(examples: NumberedExamples, name: str, problems: Problems) -> None:
    """Notes that KTO cannot train on completions of one prompt."""
    first_line, first_example = examples[0]
    if name == "unpaired preference":
        problems.note(
            "all rows share one prompt, but KTO's reference point takes at least two. Add data.",
            first_line,
        )
    elif isinstance(first_example, Pair) and len(examples) > 1 and not problems.refused():
        problems.note(
            "all rows share one prompt: kto refuses them, since its reference point takes at least two prompts.",
            first_line,
            refused=False,
        )


def _balance_of(examples: NumberedExamples) -> dict[str, Any]:
    """KTO's balance of unpaired examples, or of pairs taken apart; empty for other examples."""
    labels = [e.desirable for _, e in examples if isinstance(e, UnpairedExample)]
    labels = labels or [True, False] * sum(isinstance(e, Pair) for _, e in examples)
    return kto_balance(sum(labels), len(labels) - sum(labels)) if labels else {}


def kto_balance(desirable: int, undesirable: int) -> dict[str, Any]:
    """Returns KTO's rule for the weights of n_D desirable and n_U undesirable completions:
    1 ≤ λ_D n_D / (λ_U n_U) ≤ 4/3.

    With 100 and 400, λ_D is to lie from 4 to 5.33 at λ_U = 1, or λ_U from 0.19 to 0.25 at λ_D = 1.
    """
    counts = {"desirable": desirable, "undesirable": undesirable}
    if not desirable or not undesirable:
        return counts
    ratio = desirable / undesirable
    return counts | {
        "ratio": ratio,
        "holds": KTO_RATIO_RANGE[0] <= ratio <= KTO_RATIO_RANGE[1],
        "desirable_weight": [r / ratio for r in KTO_RATIO_RANGE],
        "undesirable_weight": [ratio / r for r in reversed(KTO_RATIO_RANGE)],
    }
