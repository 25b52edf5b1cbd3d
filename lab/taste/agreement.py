"""How well labels agree: two people's, one person's with themselves, and a person's with a rule."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lab.analysis.statistics import Z_975
from lab.data.examples import Pair, UnpairedExample, plain_text
from lab.data.parsing import parse_examples, parse_pair, parse_unpaired
from lab.data.readers import read_rows_lenient
from lab.data.row_fields import format_of
from lab.data.rows import RowsOrErrors, row_unit
from lab.errors import LabError
from lab.taste.labels import LabelSet, chosen_answer, lines_text
from lab.taste.pools import preferred_by

Judgements = dict[tuple[str, ...], str]
"""By item, the category that a person put it into. The item of a pair is its prompt and both answers in
the order of length and alphabet, and its categories are `shorter` and `longer`, the answer that was
preferred; the item of a single answer is its prompt and text, with the categories `up` and `down`."""


@dataclass(frozen=True)
class Kappa:
    """Cohen's κ of two people on the `count` items that both judged.

    `observed` is the share of equal judgements, `expected` the share that two people would reach who
    judged by chance with the same frequencies. `half` is half the width of the 95 % interval of κ; it is
    NaN where all judgements or none are equal, since the formula then has no spread to see.
    """

    count: int
    observed: float
    expected: float
    kappa: float
    half: float

    def text(self) -> str:
        """Returns text such as "κ = 0.40 ± 0.25 on 50 common items: equal on 70%, by chance 50%"."""
        shares = (
            f"on {self.count} common item{'s' * (self.count != 1)}: equal on {self.observed:.0%}, by chance"
            f" {self.expected:.0%}"
        )
        if math.isnan(self.kappa):
            return f"κ is not defined {shares}, because both always judged alike"
        if math.isnan(self.half):
            few = "none" if self.observed == 0 else "all"
            why = (
                "there is only one item"
                if self.count == 1
                else f"{few} of the judgements are equal"
            )
            return f"κ = {self.kappa:.2f} {shares}; no interval, because {why}".replace("-", "−")
        return f"κ = {self.kappa:.2f} ± {self.half:.2f} {shares}".replace("-", "−")


def cohen_kappa(first: Sequence[Any], second: Sequence[Any]) -> Kappa:
    """Returns Cohen's κ of two lists of categories, item by item.

    κ = (p_o − p_e) / (1 − p_e); p_o is the share of equal items, p_e the sum over categories of the
    product of both shares (Cohen 1960, "A coefficient of agreement for nominal scales", Educational
    and Psychological Measurement 20, 37-46; the standard error √(p_o(1 − p_o) / (n(1 − p_e)²)) is
    there, too). κ is NaN where p_e is 1, and has no interval where p_o is 0 or 1.

    Raises `LabError` for lists without items or of different lengths. Anchor: of 50 items 20 yes-yes, 5
    yes-no, 10 no-yes and 15 no-no give p_o 0.7, p_e 0.5·0.6 + 0.5·0.4 = 0.5, κ 0.4.
    """
    if len(first) != len(second) or not first:
        raise LabError(
            f"κ compares two people on the same items, but there are {len(first)} and {len(second)}"
            " judgements. Label some of the same pairs."
        )
    count = len(first)
    observed = sum(a == b for a, b in zip(first, second)) / count
    shares = [Counter(first), Counter(second)]
    expected = sum(shares[0][own] * shares[1][own] for own in shares[0]) / count**2
    if expected >= 1:
        return Kappa(count, observed, expected, math.nan, math.nan)
    spread = observed * (1 - observed) or math.nan
    error = math.sqrt(spread / (count * (1 - expected) ** 2))
    kappa = (observed - expected) / (1 - expected)
    return Kappa(count, observed, expected, kappa, Z_975 * error)


def agreement_of(first: Judgements, second: Judgements) -> Kappa:
    """Returns Cohen's κ on the items that both people judged.

    Raises `LabError` where they have no item in common.
    """
    common = sorted(first.keys() & second.keys())
    if not common:
        raise LabError(
            "The two files have no labelled pair in common, so their agreement cannot be measured."
            " Label the same pool, or the same label set name."
        )
    return cohen_kappa([first[item] for item in common], [second[item] for item in common])


class LabelFile(NamedTuple):
    """The rows of a file of labels, the judgements in them, and the numbers of the lines that were
    skipped because they cannot be read. `unit` is the word for a line: "line", or "row" of a table.
    """

    rows: list[dict[str, Any]]
    judgements: Judgements
    skipped: tuple[int, ...] = ()
    unit: str = "line"

    def skipped_text(self, name: str | Path) -> str:
        """Returns which lines of the file `name` were skipped, in words; "" where none was."""
        if not self.skipped:
            return ""
        return f"{name}: {lines_text(self.skipped, self.unit)} skipped, because no label can be read there."


def read_label_file(path: Path) -> LabelFile:
    """Returns what a file of labels holds, in TRL's preference or unpaired preference format. Of an item
    that is judged twice the first judgement counts. A line that is no JSON object, such as one that was
    cut short, is skipped and counted.

    Raises `LabError`, which names the line, for a file without a line that can be read, and for a row
    that is no label.
    """
    return parse_label_rows(read_rows_lenient(path), path)


def parse_label_rows(found: RowsOrErrors, source: str | Path) -> LabelFile:
    """Returns what `read_label_file` does for rows or their errors; errors call their file `source`."""
    rows = [(number, row) for number, row in found if not isinstance(row, LabError)]
    skipped = [(number, row) for number, row in found if isinstance(row, LabError)]
    if not rows:
        raise skipped[0][1]
    unpaired = format_of(rows[0][1]) == "unpaired preference"
    examples: Sequence[Pair | UnpairedExample] = (
        parse_examples(rows, source, parse_unpaired)
        if unpaired
        else parse_examples(rows, source, parse_pair)
    )
    numbers = tuple(number for number, _ in skipped)
    return LabelFile([row for _, row in rows], judgements(examples), numbers, row_unit(source))


def judgements(examples: Iterable[Pair | UnpairedExample]) -> Judgements:
    """Returns the judgements in labelled pairs or single answers."""
    judged: Judgements = {}
    item: tuple[str, ...]
    for example in examples:
        prompt = plain_text(example.prompt)
        if isinstance(example, Pair):
            chosen, rejected = plain_text(example.chosen), plain_text(example.rejected)
            shorter, longer = sorted((chosen, rejected), key=lambda text: (len(text), text))
            item, category = (prompt, shorter, longer), "shorter" if chosen == shorter else "longer"
        else:
            item = (prompt, plain_text(example.completion))
            category = "up" if example.desirable else "down"
        judged.setdefault(item, category)
    return judged


def merged_rows(files: Sequence[Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns the rows of several files of labels, each with its file as `labeller`, and for every file
    with skipped lines which they are, in words.

    Where two people contradict each other, both rows stay: each counts once. Raises `LabError` where one
    file holds pairs and another single answers.
    """
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    formats: dict[str, Path] = {}
    for number, path in enumerate(files):
        own = read_label_file(path)
        formats.setdefault(format_of(own.rows[0]), path)
        rows += [row | {"labeller": f"{number + 1}: {path.stem}"} for row in own.rows]
        notes += filter(None, [own.skipped_text(path)])
    if len(formats) > 1:
        (one, first), (other, second) = list(formats.items())[:2]
        raise LabError(
            f"{first} is {one} data and {second} is {other} data. Merge files of one format."
        )
    return rows, notes


def as_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Returns rows as lines of JSON."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


@dataclass(frozen=True)
class Share:
    """`hits` of `count` comparisons that agree."""

    hits: int
    count: int

    @property
    def value(self) -> float:
        """The share; NaN where nothing was compared."""
        return self.hits / self.count if self.count else math.nan


def self_agreement(labels: LabelSet) -> Share:
    """Returns on how many repeated pairs, shown with swapped sides, the person chose the same answer."""
    pool, before = labels.known_pairs(), dict[str, int]()
    hits = count = 0
    for row in labels.pairs():
        chosen = chosen_answer(row, pool[row["pair"]])
        if row.get("repeat"):
            count += 1
            hits += before.get(row["pair"]) == chosen
        before.setdefault(row["pair"], chosen)
    return Share(hits, count)


def rule_agreement(labels: LabelSet, rule: str) -> Share:
    """Returns on how many labelled pairs, each counted once, the person chose as a rule does. Pairs that
    the rule does not order are left out.
    """
    pool = labels.known_pairs()
    first = {row["pair"]: row for row in reversed(labels.pairs())}
    verdicts = [
        chosen_answer(row, pool[own]) == preferred
        for own, row in first.items()
        if (preferred := preferred_by(rule, pool[own])) is not None
    ]
    return Share(sum(verdicts), len(verdicts))
