"""The reports of a comparison: CSV, Markdown tables and a chart."""

import csv
import io
from typing import Any

from lab.analysis.recorded_results import family_note, judged_differences
from lab.analysis.statistics import Interval, possible_range
from lab.profiling.memory_tracker import MEMORY_KINDS
from lab.runs.metrics import METRICS

FIRST_MEASURES, LAST_MEASURES = (
    ("gold/accuracy",),
    ("completions/mean_length", "kl", "proxy", "updates", "tokens", "seconds"),
)
"""The measures of every comparison; the measures of its task stand between them."""
TABLE_DIGITS = {"gold/accuracy": 2, "completions/mean_length": 0, "kl": 1, "proxy": 1, "seconds": 0}
"""The measures that the Markdown table gives with their intervals, and their decimals."""


def task_measures(base: dict[str, Any]) -> list[str]:
    """Returns the names of the measures that only this task has, in its order."""
    return [name for name in base if name not in (*FIRST_MEASURES, *LAST_MEASURES, "gold/format")]


def comparison_measures(base: dict[str, Any]) -> list[str]:
    """Returns the names of all measures; `base` is the measurement of the base model."""
    return [*FIRST_MEASURES, *task_measures(base), *LAST_MEASURES]


def comparison_csv(table: dict[str, Any]) -> str:
    """Returns one line for each method: mean and half the interval of every measure, then the cost of
    an update with memory in bytes.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    kinds = [f"memory/{kind}" for kind in MEMORY_KINDS]
    names = comparison_measures(table["base"])
    writer.writerow(
        [
            "method",
            *(f"{name}{part}" for name in names for part in ("", " ±")),
            "models",
            "copies",
            *kinds,
            "flops",
        ]
    )
    for row in table["methods"]:
        writer.writerow(
            [
                row["method"],
                *(f"{row[name][part]:.6g}" for name in names for part in ("mean", "half")),
                len(row["cost"]["models"]),
                f"{row['cost']['copies']:.6g}",
                *(row["cost"]["memory"][kind] for kind in MEMORY_KINDS),
                row["cost"]["flops"],
            ]
        )
    return text.getvalue()


def comparison_table(table: dict[str, Any]) -> str:
    """Returns the measures as a Markdown table; ± is half the 95 % interval over seeds."""
    base = table["base"]
    own = task_measures(base)
    heads = "".join(f" {METRICS[f'gold/{name}'].label} |" for name in own)
    lines = [
        (
            f"| method | gold accuracy, before → after |{heads} length, tokens | KL, nats | proxy"
            " reward | updates | tokens | seconds |"
        ),
        f"| --- | --- |{' --- |' * len(own)} --- | --- | --- | --- | --- | --- |",
    ]
    for row in table["methods"]:
        gold, length, kl, proxy, seconds = (
            Interval(**row[name]).text(digits, possible_range(name))
            for name, digits in TABLE_DIGITS.items()
        )
        line = (
            f"| {row['title']} | {base['gold/accuracy']:.2f} → {gold} | "
            + "".join(
                f"{base[name]:{form}} → {row[name]['mean']:{form}} | "
                for name in own
                for form in [".0%" if METRICS[f"gold/{name}"].unit == "share" else ".2f"]
            )
            + f"{base['completions/mean_length']:.0f} → {length} | {kl} | {proxy} |"
            f" {row['updates']['mean']:.0f} | {row['tokens']['mean'] / 1000:.0f} k | {seconds} |"
        )
        lines.append(line.replace("%", " %"))
    return "\n".join(lines) + "\n"


def update_cost_table(table: dict[str, Any]) -> str:
    """Returns the cost of one update of each method as a Markdown table."""
    lines = [
        (
            "| method | models in the algorithm | copies of the weights | peak memory, MiB | of it"
            " activations | key-value cache, MiB | tokens forward only | tokens forward and"
            " backward | GFLOP |"
        ),
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in table["methods"]:
        cost = row["cost"]
        total = sum(cost["memory"].values())
        lines.append(
            f"| {row['title']} | {len(cost['models'])}: {', '.join(cost['models'])} |"
            f" {cost['copies']:.2f} | {total / 2**20:.0f} |"
            f" {cost['memory']['activations'] / total:.0%} | {cost['largest_cache'] / 2**20:.1f} |"
            f" {cost['tokens'].get('forward', 0):,} | {cost['tokens']['backward']:,} |"
            f" {cost['flops'] / 1e9:.1f} |".replace("%", " %")
        )
    return "\n".join(lines) + "\n"


def accuracy_chart(table: dict[str, Any]) -> str:
    """Returns gold accuracy of every method as a Mermaid chart, which Markdown viewers draw."""
    names = ", ".join(f'"{row["title"].replace(", ", " · ")}"' for row in table["methods"])
    values = ", ".join(f"{row['gold/accuracy']['mean']:.3f}" for row in table["methods"])
    return (
        '```mermaid\nxychart-beta\n  title "Gold accuracy after training (share of held-out'
        f' completions)"\n  x-axis [{names}]\n  y-axis "gold accuracy" 0 --> 1\n  bar'
        f" [{values}]\n```\n"
    )


def comparison_report(table: dict[str, Any]) -> str:
    """Returns the Markdown report of a comparison."""
    titles = {row["method"]: row["title"] for row in table["methods"]}
    lines = [
        f"# {' · '.join(titles.values())}",
        "",
        (
            f"`{table['command']}` on {table['device']}, torch {table['torch']}, transformers"
            f" {table['transformers']}. {table['plan']['seeds']} seeds; ± is half the 95 % interval"
            f" of the mean over seeds (Student's t); {table['evaluation']}. Proxy reward is the"
            " mean score of a reward model that was trained on the same pairs."
        ),
        "",
        comparison_table(table),
        accuracy_chart(table),
        "One update of each, measured on its own batch, its real tokens counted:",
        "",
        update_cost_table(table),
        "Differences in gold accuracy:",
        "",
        "| first − second | difference | the first is |",
        "| --- | --- | --- |",
    ]
    judged = judged_differences(table["runs"])
    lines += [
        f"| {titles[first]} − {titles[second]} | {judgement.difference.interval.signed(3)} |"
        f" {judgement.word} |"
        for first, second, judgement in judged
    ]
    return "\n".join([*lines, "", family_note(len(judged))]) + "\n"
