"""The report of LoRA against full fine-tuning as Markdown."""

from typing import Any

from lab.analysis.lora_rank import comparison_text, summary_sentence
from lab.analysis.statistics import NOT_NEGATIVE, SHARE, Interval


def render_report(table: dict[str, Any]) -> str:
    """Return the results of every rank, its comparison with full fine-tuning and its trials as Markdown."""
    intro = f"`{table['command']}` on {table['device']}; {table['seeds']} seeds, ± half the 95 % interval."
    parts = ["# LoRA against full fine-tuning", intro, summary_sentence(table)]
    return "\n\n".join([*parts, rank_table(table), trial_table(table)]) + "\n"


def rank_table(table: dict[str, Any]) -> str:
    """Return one line for each rank: weights, learning rate, accuracy, difference, KL, loss, seconds."""
    heads = [
        "rank",
        "trained weights",
        "learning rate",
        "gold accuracy",
        "minus full",
        "KL, nats",
        "training loss",
        "seconds",
    ]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for row in table["rows"]:
        cells = [
            row["title"].removeprefix("rank "),
            f"{row['trained_weights']:,}",
            f"{row['learning_rate']:g}{', at the edge of its trials' * row['at_edge']}",
            Interval(**row["gold/accuracy"]).text(3, SHARE),
            comparison_text(table, row["rank"]),
            Interval(**row["kl"]).text(2, NOT_NEGATIVE),
            Interval(**row["loss"]).text(3, NOT_NEGATIVE),
            Interval(**row["seconds"]).text(1, NOT_NEGATIVE),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def trial_table(table: dict[str, Any]) -> str:
    """Return the accuracy on the tuning prompts of every learning rate that a rank tried."""
    lines = ["| rank | learning rate: accuracy on the tuning prompts |", "| --- | --- |"]
    for row in table["rows"]:
        tried = ", ".join(
            f"{trial['learning_rate']:g}: {trial['gold/accuracy']:.3f}{' (failed)' * bool(trial['failed'])}"
            for trial in row["trials"]
        )
        lines.append(f"| {row['title'].removeprefix('rank ')} | {tried} |")
    return "\n".join(lines)
