"""Blocks on the comparison of methods at defaults and tuned."""

from typing import Any

from docs_blocks.markdown import markdown_table, told, with_source
from lab.analysis.claims.records import TunedResults
from lab.analysis.recorded_results import load_result
from lab.experiments.tuned_report import (
    comparison_matrix,
    completions_text,
    trials_table,
    view_table,
)

RECORD, LANGUAGE_RECORD = "tuned", "tuned_sentiment"


def view(name: str, record: str = RECORD) -> str:
    """Return the methods of a view, the words for every two of them, and the verdict."""
    table = load_result(record)
    first, end = table["plan"]["test_prompts"]
    text = (
        f"{view_table(table, name)}\n{comparison_matrix(table, name)}\n{end - first} test prompts,"
        f" {completions_text(table['plan'])}. Before training: {told(table['base']['gold/accuracy'], 3)}."
        f"\n\n**Verdict:** {verdict(table, name)}"
    )
    return with_source(text, table, record)


def verdict(table: dict[str, Any], name: str) -> str:
    """Return the arm with the highest mean, GRPO and PPO beside DPO, and rule beside reward model."""
    tuned = TunedResults(table)
    arms = tuned.arms(name)
    parts = [tuned.order_text(name)]
    parts += [
        f"{tuned.against_text(first, others, name)}."
        for first, others in (
            ("grpo", ("dpo", "ipo", "kto")),
            ("ppo", ("dpo", "ipo", "kto", "grpo")),
            ("ipo", ("dpo",)),
        )
        if {first, *others} <= set(arms)
    ]
    judges = [arm for arm in ("ppo", "online_dpo") if {arm, f"{arm}.model"} <= set(arms)]
    if judges:
        said = "; ".join(tuned.against_text(arm, (f"{arm}.model",), name) for arm in judges)
        parts.append(f"The rule beside a reward model: {said}.")
    return " ".join(parts)


def trials(record: str = RECORD) -> str:
    """Return the trials of tuning and the settings that were chosen."""
    table = load_result(record)
    return with_source(trials_table(table), table, record)


def results_at_a_glance() -> str:
    """Return gold accuracy, KL and tokens of every method, tuned at equal tokens, the best first; without
    the arms with a reward model.
    """
    table = load_result(RECORD)
    found = [row for row in table["rows"] if row["view"] == "tokens" and "." not in row["arm"]]
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
    "tuned-defaults": lambda: view("defaults"),
    "tuned-tokens": lambda: view("tokens"),
    "tuned-kl": lambda: view("kl"),
    "smollm2-tuned-trials": lambda: trials(LANGUAGE_RECORD),
    "smollm2-tuned-defaults": lambda: view("defaults", LANGUAGE_RECORD),
    "smollm2-tuned-tokens": lambda: view("tokens", LANGUAGE_RECORD),
    "smollm2-tuned-kl": lambda: view("kl", LANGUAGE_RECORD),
}
