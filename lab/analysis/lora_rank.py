"""The results of LoRA against full fine-tuning in words, for the page, the report and the documentation."""

from collections.abc import Mapping
from typing import Any

from lab.analysis.comparison_words import recorded_text
from lab.analysis.statistics import SHARE, Interval

Table = Mapping[str, Any]


def rank_title(rank: int) -> str:
    """Return the title of a rank: "rank 8", or "full" for 0."""
    return f"rank {rank}" if rank else "full"


def row_of(table: Table, rank: int) -> Mapping[str, Any]:
    """Return the row of a rank."""
    return next(row for row in table["rows"] if row["rank"] == rank)


def comparison_text(table: Table, rank: int) -> str:
    """Return the accuracy of a rank minus that of full fine-tuning, with its word; empty for rank 0."""
    found = [one for one in table["comparisons"] if one["rank"] == rank]
    return recorded_text(found[0]) if found else ""


def rank_sentence(table: Table, rank: int) -> str:
    """Return what one rank trains and reaches, in numbers."""
    row, full = row_of(table, rank), row_of(table, 0)
    share = row["trained_weights"] / full["trained_weights"]
    accuracy = Interval(**row["gold/accuracy"]).text(2, SHARE)
    return (
        f"Rank {rank} trains {row['trained_weights']:,} weights, {100 * share:.1f} % as many as full fine-tuning"
        f" ({full['trained_weights']:,}). At its learning rate of {row['learning_rate']:g} the gold"
        f" accuracy is {accuracy}. Its difference to full fine-tuning at {full['learning_rate']:g} is"
        f" {comparison_text(table, rank)}."
    )


def summary_sentence(table: Table) -> str:
    """Return how many ranks have each word beside full fine-tuning, and the ratio of learning rates."""
    words: dict[str, list[str]] = {}
    for one in table["comparisons"]:
        words.setdefault(one["word"], []).append(str(one["rank"]))
    listed = "; ".join(f"{word}: rank {', '.join(ranks)}" for word, ranks in words.items())
    full = row_of(table, 0)["learning_rate"]
    ratios = [row["learning_rate"] / full for row in table["rows"] if row["rank"]]
    return (
        f"Compared with full fine-tuning: {listed}. The best learning rates of LoRA are"
        f" {min(ratios):g} to {max(ratios):g} times that of full fine-tuning."
    )
