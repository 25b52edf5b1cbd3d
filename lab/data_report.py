"""What is in a data file before anything trains on it: counts, lengths, balance, and each problem with its lines."""

import re
from math import ceil
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from lab.chat import prompt_text
from lab.data import left_out, tokenised, unfit
from lab.errors import LabError
from lab.formats import attempted, place, unit
from lab.models import load_tokenizer
from lab.pairs import LEARNERS, MAKERS, Labelled, Pair, Prompt, format_of, pair

RATIO = (1.0, 4 / 3)  # λ_D n_D / (λ_U n_U) is to lie in this, says KTO's paper, arXiv 2402.01306.
PAIRWISE = "dpo, ipo, kto, reward_model and sft"
LEFT_OUT = "is left out"
SHOWN = 10  # Lines of a problem, and problems, that are printed.
Numbers = list[tuple[int, Any]]


class Problems:
    """What is wrong, each with the lines where it is; the same problem may differ in what stands in brackets."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, bool, set[int]]] = {}

    def note(self, text: str, line: int, refused: bool = True) -> None:
        """Add a line to a problem; `refused` says that training stops at it."""
        self._found.setdefault(re.sub(r" \(.*?\)", "", text), (text, refused, set()))[2].add(line)

    def rows(self) -> list[dict[str, Any]]:
        """The problems that training refuses first, then by line."""
        rows = [{"problem": text, "refused": refused, "lines": sorted(lines)} for text, refused, lines in self._found.values()]
        return sorted(rows, key=lambda row: (not row["refused"], row["lines"]))


def report(source: str | Path, model: str, max_length: int, mode: str = "keep_start") -> dict[str, Any]:
    """What `source` holds for training `model` at `max_length` tokens, of which `mode` keeps start or end, as a plain dict.

    `format` is one of `lab.pairs.FORMATS`, `learners` the methods that take it; `lengths` gives median, 95 % and max in tokens of prompts and of
    each kind of completion, whole; `problems` lists what is wrong, each with its lines and whether training `refused` it. `kto` counts
    desirable and undesirable completions, and says within which λ the paper's rule holds.
    """
    found, tokenizer, problems, good = attempted(source), load_tokenizer(model), Problems(), []
    kind = next((name for _, row in found if not isinstance(row, LabError) and (name := format_of(row))), "")
    for number, row in found:
        where = place(source, number)
        try:
            if isinstance(row, LabError):
                raise row
            good.append((number, MAKERS.get(kind, pair)(row, where)))
        except LabError as error:
            problems.note(_bare(error, where), number)
    talks = sum(not isinstance(e.prompt, str) for _, e in good)
    for number, _ in [(n, e) for n, e in good if 0 < talks < len(good) and isinstance(e.prompt, str)]:
        problems.note("is plain text, but other rows are conversations. Use one of them throughout.", number)
    good = [(n, e) for n, e in good if not talks or not isinstance(e.prompt, str)]
    lengths = _lengths(good, tokenizer, max_length, mode, problems) if good else {}
    _repeated(good, problems)
    if kind == "unpaired preference" and good and len({repr(e.prompt) for _, e in good}) == 1:
        problems.note("all rows share one prompt, but KTO's reference point takes at least two. Add data.", good[0][0])
    facts = {"source": str(source), "model": model, "max_length": max_length, "rows": len(found), "format": kind, "conversations": talks > 0,
             "learners": LEARNERS.get(kind, PAIRWISE if kind else ""), "prompts": len({repr(e.prompt) for _, e in good}), "lengths": lengths}
    labels = [e.desirable for _, e in good if isinstance(e, Labelled)] or [True, False] * sum(isinstance(e, Pair) for _, e in good)
    return facts | ({"kto": balance(sum(labels), len(labels) - sum(labels))} if labels else {}) | {"problems": problems.rows()}


def balance(desirable: int, undesirable: int) -> dict[str, Any]:
    """KTO's rule for the weights of n_D desirable and n_U undesirable completions: 1 ≤ λ_D n_D / (λ_U n_U) ≤ 4/3.

    With 100 and 400, λ_D is to lie from 4 to 5.33 at λ_U = 1, or λ_U from 0.19 to 0.25 at λ_D = 1.
    """
    counts = {"desirable": desirable, "undesirable": undesirable}
    if not desirable or not undesirable:
        return counts
    ratio = desirable / undesirable
    return counts | {"ratio": ratio, "holds": RATIO[0] <= ratio <= RATIO[1], "desirable_weight": [r / ratio for r in RATIO],
                     "undesirable_weight": [ratio / r for r in reversed(RATIO)]}


def _bare(error: LabError, where: str) -> str:
    """What an error says without the place at which it was."""
    return str(error).removeprefix(where).lstrip(": ")


def _completions(example: Any) -> dict[str, Any]:
    if isinstance(example, Pair):
        return {"chosen": example.chosen, "rejected": example.rejected}
    return {} if isinstance(example, Prompt) else {"completion": example.completion}


def _ids(tokenizer: PreTrainedTokenizerBase, examples: list[Any]) -> dict[str, list[tuple[list[int], list[int]]]]:
    """For each kind of completion the ids of prompt and completion, whole; for prompts alone their ids. Errors name the place in `examples` as row."""
    if isinstance(examples[0], Prompt):
        texts = [prompt_text(tokenizer, e.prompt, f"row {i}") for i, e in enumerate(examples, 1)]
        return {"prompt": [(ids, []) for ids in tokenizer(texts)["input_ids"]]}
    return {side: tokenised(tokenizer, [(e.prompt, _completions(e)[side]) for e in examples], "row") for side in _completions(examples[0])}


def _lengths(good: Numbers, tokenizer: PreTrainedTokenizerBase, max_length: int, mode: str, problems: Problems) -> dict[str, Any]:
    """Lengths in tokens; notes what does not fit the chat template, the vocabulary or the length."""
    try:
        found = _ids(tokenizer, [e for _, e in good])
    except LabError:
        rest = [(number, e) for number, e in good if _renders(tokenizer, e, number, problems)]
        return _lengths(rest, tokenizer, max_length, mode, problems) if rest else {}
    lengths = {"prompt": [len(start) for start, _ in next(iter(found.values()))]}
    for side, ids in found.items():
        for (number, e), (start, rest) in zip(good, ids):
            if reason := unfit(tokenizer, (e.prompt, _completions(e).get(side, "")), start, rest):
                problems.note(reason, number)
            elif len(start) < max_length < len(start) + len(rest) or mode == "keep_end" and len(start) + len(rest) > max_length:
                problems.note(f"{side} loses its {'end' if mode == 'keep_start' else 'beginning'} at max_length {max_length}.", number, refused=False)
        if side != "prompt":
            lengths[side] = [len(rest) for _, rest in ids]
    for (number, _), *sides in zip(good, *found.values()):
        if all(start for start, _ in sides) and (reason := left_out(sides, max_length, mode)):
            problems.note(f"{LEFT_OUT}: {reason}", number, refused=False)
    return {name: {"median": _share(values, 0.5), "95 %": _share(values, 0.95), "max": max(values)} for name, values in lengths.items()}


def _renders(tokenizer: PreTrainedTokenizerBase, example: Any, number: int, problems: Problems) -> bool:
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
        elif isinstance(example, (Pair, Labelled)) and (earlier := first.get(repr(example.flipped()))):
            problems.note(f"says the opposite of an earlier row ({earlier}).", number, refused=False)


def text(found: dict[str, Any]) -> str:
    """A report for reading."""
    lines = [f"{found['source']}: {found['rows']} rows, {found['prompts']} prompts, {found['format'] or 'no known format'}"
             + (", conversations" if found["conversations"] else "") + (f": for {found['learners']}" if found["learners"] else "")]
    lines += [f"{name:12} {s['median']:6} tokens in the median, {s['95 %']} at 95 %, at most {s['max']}" for name, s in found["lengths"].items()]
    if kto := found.get("kto"):
        lines.append(f"{'for kto':12} {kto['desirable']} desirable, {kto['undesirable']} undesirable" + _advice(kto))
    for row in found["problems"][:SHOWN]:
        numbers = ", ".join(map(str, row["lines"][:SHOWN])) + (f" and {len(row['lines']) - SHOWN} more" if len(row["lines"]) > SHOWN else "")
        lines.append(f"{'refused' if row['refused'] else 'note':12} {row['problem']} {unit(found['source']).capitalize()} {numbers}.")
    hidden = len(found["problems"]) - SHOWN
    lines += [f"and {hidden} more problems; --json lists them all"] if hidden > 0 else []
    refused = {line for row in found["problems"] if row["refused"] for line in row["lines"]}
    left = {line for row in found["problems"] if row["problem"].startswith(LEFT_OUT) for line in row["lines"]}
    return "\n".join([*lines, f"Training would refuse {len(refused)} rows. Remove or correct them." if refused else
                      f"Training would take it{f' without {len(left)} rows' if left else ''}: "
                      f"--data {found['source']} --model {found['model']} --max-length {found['max_length']}"])


def _advice(kto: dict[str, Any]) -> str:
    """Which λ the paper's rule asks for."""
    if "ratio" not in kto:
        return "; the paper's rule for λ needs both"
    if kto["holds"]:
        return f": n_D/n_U is {kto['ratio']:.2f}, so λ_D = λ_U = 1 satisfies 1 ≤ λ_D n_D / (λ_U n_U) ≤ 4/3"
    knob = "desirable_weight" if kto["ratio"] < 1 else "undesirable_weight"
    low, high = kto[knob]
    return f": for 1 ≤ λ_D n_D / (λ_U n_U) ≤ 4/3 give --{knob.replace('_', '-')} from {low:.3g} to {high:.3g}"
