"""Blocks on the comparison of methods at defaults and tuned."""

from docs_blocks.markdown import markdown_table, told, with_source
from lab.analysis.recorded_results import load_result
from lab.experiments.tuned_report import (
    comparison_matrix,
    completions_text,
    trials_table,
    view_table,
)

RECORD = "tuned"


def view(name: str) -> str:
    """Return the methods of a view, and the words for every two of them."""
    table = load_result(RECORD)
    first, end = table["plan"]["test_prompts"]
    text = (
        f"{view_table(table, name)}\n{comparison_matrix(table, name)}\n{end - first} test prompts,"
        f" {completions_text(table['plan'])}. Before training: {told(table['base']['gold/accuracy'], 3)}."
    )
    return with_source(text, table, RECORD)


def trials() -> str:
    """Return the trials of tuning and the settings that were chosen."""
    table = load_result(RECORD)
    return with_source(trials_table(table), table, RECORD)


def results_at_a_glance() -> str:
    """Return gold accuracy, KL and tokens of every method, tuned at equal tokens, the best first."""
    table = load_result(RECORD)
    found = [row for row in table["rows"] if row["view"] == "tokens"]
    found.sort(key=lambda row: -row["gold/accuracy"]["mean"])
    rows = [
        [
            row["title"],
            told(row["gold/accuracy"]),
            told(row["kl"], 1),
            *(f"{row[name]['mean'] / 1000:.0f} k" for name in ("trained", "sampled")),
        ]
        for row in found
    ]
    heads = ["method", "gold accuracy", "KL, nats", "tokens trained on", "tokens sampled"]
    return (
        f"{markdown_table(heads, rows)}\nBefore training: {told(table['base']['gold/accuracy'])}."
        f" `{table['command']}`: {found[0]['seeds']} seeds,"
        f" {table['device']}, torch {table['torch']} (`lab/assets/results/{RECORD}.json`)."
    )


BLOCKS = {
    "results-at-a-glance": results_at_a_glance,
    "tuned-trials": trials,
    "tuned-tokens": lambda: view("tokens"),
    "tuned-kl": lambda: view("kl"),
}
