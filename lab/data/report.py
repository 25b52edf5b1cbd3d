"""What is in a data file before anything trains on it: counts, lengths, balance, and each problem
with its lines.
"""

import copy
import re
from dataclasses import fields, replace
from math import ceil
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from lab.data.batching import RowIds, departs, left_out, remarks, tokenised, truncated, unfit
from lab.data.corpus import aligned
from lab.data.encoding import prompt_ids
from lab.data.examples import (
    PARSERS,
    Pair,
    Prompt,
    UnpairedExample,
    Whole,
    beginning,
    format_of,
    learners_of,
    pair,
)
from lab.data.readers import place, read_rows_lenient, unit
from lab.errors import LabError
from lab.models.tokenizer import load_tokenizer

RATIO = (1.0, 4 / 3)  # λ_D n_D / (λ_U n_U) is to lie in this, says KTO's paper, arXiv 2402.01306.
PAIRWISE = "dpo, ipo, kto, reward_model and sft"
LONGEST = 2**19  # Characters of a text that are measured; no max_length takes more.
SAMPLE = 2**18  # Characters of all texts that a quick report measures.
LEFT_OUT = "is left out"
SHOWN = 10  # Lines of a problem, and problems, that are printed.
Numbers = list[tuple[int, Any]]


class Problems:
    """What is wrong, each with the lines where it is; the same problem may differ in what stands in
    brackets.
    """

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, bool, set[int]]] = {}

    def note(self, text: str, line: int, refused: bool = True) -> None:
        """Add a line to a problem; `refused` says that training stops at it."""
        self._found.setdefault(re.sub(r" \(.*?\)", "", text), (text, refused, set()))[2].add(line)

    def lines(self, start: str) -> set[int]:
        """The lines of the problems whose text starts so."""
        return {
            line
            for text, _, lines in self._found.values()
            if text.startswith(start)
            for line in lines
        }

    def refused(self) -> set[int]:
        """The lines at which training stops."""
        return {line for _, refused, lines in self._found.values() if refused for line in lines}

    def rows(self) -> list[dict[str, Any]]:
        """The problems that training refuses first, then by line."""
        rows = [
            {"problem": text, "refused": refused, "lines": sorted(lines)}
            for text, refused, lines in self._found.values()
        ]
        return sorted(rows, key=lambda row: (not row["refused"], row["lines"]))


def report(
    source: str | Path,
    model: str,
    max_length: int,
    *,
    mode: str = "keep_start",
    template_options: str = "",
    quick: bool = False,
) -> dict[str, Any]:
    """What `source` holds for training `model` at `max_length` tokens, of which `mode` keeps start
    or end, with `template_options`, as a plain dict.

    `format` is one of `lab.data.examples.FORMATS`, `learners` the methods that take it; `lengths`
    gives median, 95 % and max in tokens of prompts and of each kind of completion, whole;
    `problems` lists what is wrong, each with its lines and whether training `refused` it. `kto`
    counts desirable and undesirable completions, and says within which λ the paper's rule holds.
    """
    found, tokenizer, problems, good = (
        read_rows_lenient(source),
        load_tokenizer(model, template_options),
        Problems(),
        [],
    )
    kind = next(
        (name for _, row in found if not isinstance(row, LabError) and (name := format_of(row))), ""
    )
    for number, row in found:
        where = place(source, number)
        try:
            if isinstance(row, LabError):
                raise row
            good.append((number, PARSERS.get(kind, pair)(row, where)))
        except LabError as error:
            problems.note(_bare(error, where), number)
    talks = sum(not isinstance(beginning(e), str) for _, e in good)
    for number, _ in [
        (n, e) for n, e in good if 0 < talks < len(good) and isinstance(beginning(e), str)
    ]:
        problems.note(
            "is plain text, but other rows are conversations. Use one of them throughout.", number
        )
    good = [(n, e) for n, e in good if not talks or not isinstance(beginning(e), str)]
    measured = _sample(good) if quick else good
    lengths = (
        _lengths(
            [(n, _shortened(e, n, problems)) for n, e in measured],
            tokenizer,
            max_length,
            mode,
            problems,
        )
        if good
        else {}
    )
    if lengths and len(problems.lines(LEFT_OUT)) == len(measured):
        problems.note(
            f"no row is left to train on at max_length {max_length}. Raise it, or shorten the"
            " rows.",
            measured[0][0],
        )
    _repeated(good, problems)
    if kind == "unpaired preference" and good and len({repr(e.prompt) for _, e in good}) == 1:
        problems.note(
            "all rows share one prompt, but KTO's reference point takes at least two. Add data.",
            good[0][0],
        )
    if (
        len(good) > 1
        and not problems.refused()
        and isinstance(good[0][1], Pair)
        and len({repr(e.prompt) for _, e in good}) == 1
    ):
        problems.note(
            "all rows share one prompt: kto refuses them, since its reference point takes at least"
            " two prompts.",
            good[0][0],
            refused=False,
        )
    facts = {
        "source": str(source),
        "model": model,
        "max_length": max_length,
        "truncation_mode": mode,
        "template_options": template_options,
        "rows": len(found),
        "format": kind,
        "conversations": talks > 0,
        "learners": learners_of(kind) or (PAIRWISE if kind else ""),
        "prompts": len({repr(beginning(e)) for _, e in good}),
        "lengths": lengths,
    }
    facts |= {"measured": len(measured)} if len(measured) < len(good) else {}
    labels = [e.desirable for _, e in good if isinstance(e, UnpairedExample)] or [
        True,
        False,
    ] * sum(isinstance(e, Pair) for _, e in good)
    return (
        facts
        | ({"kto": balance(sum(labels), len(labels) - sum(labels))} if labels else {})
        | {"problems": problems.rows()}
    )


def balance(desirable: int, undesirable: int) -> dict[str, Any]:
    """KTO's rule for the weights of n_D desirable and n_U undesirable completions: 1 ≤ λ_D n_D /
    (λ_U n_U) ≤ 4/3.

    With 100 and 400, λ_D is to lie from 4 to 5.33 at λ_U = 1, or λ_U from 0.19 to 0.25 at λ_D = 1.
    """
    counts = {"desirable": desirable, "undesirable": undesirable}
    if not desirable or not undesirable:
        return counts
    ratio = desirable / undesirable
    return counts | {
        "ratio": ratio,
        "holds": RATIO[0] <= ratio <= RATIO[1],
        "desirable_weight": [r / ratio for r in RATIO],
        "undesirable_weight": [ratio / r for r in reversed(RATIO)],
    }


def _bare(error: LabError, where: str) -> str:
    """What an error says without the place at which it was."""
    return str(error).removeprefix(where).lstrip(": ")


def _characters(example: Any) -> int:
    return sum(
        len(value if isinstance(value, str) else str(value)) for value in vars(example).values()
    )


def _sample(good: Numbers) -> Numbers:
    """Rows from all over the file, of about `SAMPLE` characters together; all rows where there are
    no more.
    """
    return good[:: max(1, ceil(sum(_characters(e) for _, e in good) / SAMPLE))]


def _shortened(example: Any, number: int, problems: Problems) -> Any:
    """The example with the first `LONGEST` characters of texts that have more, which is noted."""
    cut = {
        field.name: _cut(value)
        for field in fields(example)
        if isinstance(value := getattr(example, field.name), str | list)
    }
    if not (
        changed := {name: value for name, value in cut.items() if value != getattr(example, name)}
    ):
        return example
    problems.note(
        f"is so long that only the first {LONGEST} characters of {' and '.join(changed)} are"
        " counted in tokens.",
        number,
        refused=False,
    )
    return replace(example, **changed)


def _cut(text: Any) -> Any:
    if isinstance(text, str):
        return text[:LONGEST]
    if not any(
        isinstance(value, str) and len(value) > LONGEST
        for message in text
        for value in message.values()
    ):
        return text
    short = copy.copy(text)
    short[:] = [
        {
            name: value[:LONGEST] if isinstance(value, str) else value
            for name, value in message.items()
        }
        for message in text
    ]
    return short


def _completions(example: Any) -> dict[str, Any]:
    if isinstance(example, Pair):
        return {"chosen": example.chosen, "rejected": example.rejected}
    return {} if isinstance(example, Prompt | Whole) else {"completion": example.completion}


def _ids(tokenizer: PreTrainedTokenizerBase, examples: list[Any]) -> dict[str, list[RowIds]]:
    """For each kind of completion the ids of prompt and completion, whole; of prompts, and of whole
    texts, those alone. Errors name the place in `examples` as row.
    """
    if isinstance(examples[0], Whole):
        return {"text": tokenised(tokenizer, [(e.text, None) for e in examples], "row")}
    if isinstance(examples[0], Prompt):
        return {
            "prompt": [
                RowIds(ids, [])
                for ids in prompt_ids(tokenizer, [e.prompt for e in examples], "row")
            ]
        }
    return {
        side: tokenised(tokenizer, [(e.prompt, _completions(e)[side]) for e in examples], "row")
        for side in _completions(examples[0])
    }


def _lengths(
    good: Numbers,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    mode: str,
    problems: Problems,
) -> dict[str, Any]:
    """Lengths in tokens; notes what does not fit the chat template, the vocabulary or the length."""
    try:
        found = _ids(tokenizer, [e for _, e in good])
    except LabError:
        rest = [(number, e) for number, e in good if _renders(tokenizer, e, number, problems)]
        return _lengths(rest, tokenizer, max_length, mode, problems) if rest else {}
    lengths = {
        "text" if "text" in found else "prompt": [
            len(row.ids if "text" in found else row.start) for row in next(iter(found.values()))
        ]
    }
    for side, ids in found.items():
        for (number, e), row in zip(good, ids):
            for said, refused in _judged(tokenizer, e, side, row, max_length, mode):
                problems.note(said, number, refused)
        if side not in lengths:
            lengths[side] = [len(row.rest) for row in ids]
    refused = problems.refused()
    for (number, e), *sides in zip(good, *found.values()):
        if (
            not isinstance(e, Prompt)
            and number not in refused
            and (reason := left_out(aligned(sides), max_length, mode))
        ):
            problems.note(f"{LEFT_OUT}: {reason}", number, refused=False)
    return {
        name: {"median": _share(values, 0.5), "95 %": _share(values, 0.95), "max": max(values)}
        for name, values in lengths.items()
    }


def _judged(
    tokenizer: PreTrainedTokenizerBase,
    example: Any,
    side: str,
    row: RowIds,
    max_length: int,
    mode: str,
) -> list[tuple[str, bool]]:
    """Remarks on an example, each with whether training stops at it."""
    text = (
        (example.text, None)
        if isinstance(example, Whole)
        else (example.prompt, _completions(example).get(side, ""))
    )
    said = [(reason, True)] if (reason := unfit(tokenizer, text, row)) else []
    if not said and len(row.ids) > max_length and truncated(row, max_length, mode).trained > 0:
        said.append(
            (
                (
                    f"{side} loses its {'beginning' if mode == 'keep_end' else 'end'} at max_length"
                    f" {max_length}."
                ),
                False,
            )
        )
    said += [(departs(row.departure), False)] if row.departure else []
    return said + [
        (remark, False)
        for remark in remarks(tokenizer, beginning(example), isinstance(example, Whole))
    ]


def _renders(
    tokenizer: PreTrainedTokenizerBase, example: Any, number: int, problems: Problems
) -> bool:
    try:
        return bool(_ids(tokenizer, [example]))
    except LabError as error:
        problems.note(_bare(error, "row 1"), number)
        return False


def _share(values: list[int], share: float) -> int:
    """The smallest value that at least this share of all does not exceed."""
    return sorted(values)[ceil(share * len(values)) - 1]


def _repeated(good: Numbers, problems: Problems) -> None:
    """Notes rows that an earlier one has already said, or said the other way round."""
    first: dict[str, int] = {}
    for number, example in good:
        if (earlier := first.setdefault(repr(example), number)) != number:
            problems.note(f"says the same as an earlier row ({earlier}).", number, refused=False)
        elif isinstance(example, (Pair, UnpairedExample)) and (
            earlier := first.get(repr(example.flipped()))
        ):
            problems.note(
                f"says the opposite of an earlier row ({earlier}).", number, refused=False
            )


def text(found: dict[str, Any]) -> str:
    """A report for reading."""
    lines = [
        f"{found['source']}: {found['rows']} rows, {found['prompts']} prompts,"
        f" {found['format'] or 'no known format'}"
        + (", conversations" if found["conversations"] else "")
        + (f": for {found['learners']}" if found["learners"] else "")
    ]
    lines += [
        f"{name:12} {s['median']:6} tokens in the median, {s['95 %']} at 95 %, at most {s['max']}"
        for name, s in found["lengths"].items()
    ]
    if "measured" in found:
        lines.append(
            f"{'':12} lengths and vocabulary of {found['measured']} rows; python -m lab data counts"
            " them all"
        )
    if kto := found.get("kto"):
        lines.append(
            f"{'for kto':12} {kto['desirable']} desirable, {kto['undesirable']} undesirable"
            + _advice(kto)
        )
    for row in found["problems"][:SHOWN]:
        numbers = ", ".join(map(str, row["lines"][:SHOWN])) + (
            f" and {len(row['lines']) - SHOWN} more" if len(row["lines"]) > SHOWN else ""
        )
        lines.append(
            f"{'refused' if row['refused'] else 'note':12} {row['problem']}"
            f" {unit(found['source']).capitalize()} {numbers}."
        )
    hidden = len(found["problems"]) - SHOWN
    lines += [f"and {hidden} more problems; --json lists them all"] if hidden > 0 else []
    refused = {line for row in found["problems"] if row["refused"] for line in row["lines"]}
    left = {
        line
        for row in found["problems"]
        if row["problem"].startswith(LEFT_OUT)
        for line in row["lines"]
    }
    return "\n".join(
        [
            *lines,
            (
                f"Training would refuse {len(refused)} rows. Remove or correct them."
                if refused
                else (
                    f"Training would take it{f' without {len(left)} rows' if left else ''}: "
                    f"{_command(found)}"
                )
            ),
        ]
    )


def _command(found: dict[str, Any]) -> str:
    """The options with which training takes the file."""
    if found["format"] == "prompt-only":
        return f"--task {found['source']} --model {found['model']}"
    options = [
        f"--data {found['source']} --model {found['model']} --max-length {found['max_length']}"
    ]
    options += (
        [f"--truncation-mode {found['truncation_mode']}"]
        if found["truncation_mode"] != "keep_start"
        else []
    )
    options += (
        [f"--template-options '{found['template_options']}'"] if found["template_options"] else []
    )
    return " ".join(options)


def _advice(kto: dict[str, Any]) -> str:
    """Which λ the paper's rule asks for."""
    if "ratio" not in kto:
        return "; the paper's rule for λ needs both"
    if kto["holds"]:
        return (
            f": n_D/n_U is {kto['ratio']:.2f}, so λ_D = λ_U = 1 satisfies 1 ≤ λ_D n_D / (λ_U n_U)"
            " ≤ 4/3"
        )
    knob = "desirable_weight" if kto["ratio"] < 1 else "undesirable_weight"
    low, high = kto[knob]
    return (
        f": for 1 ≤ λ_D n_D / (λ_U n_U) ≤ 4/3 give --{knob.replace('_', '-')} from {low:.3g} to"
        f" {high:.3g}"
    )
