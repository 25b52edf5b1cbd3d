"""The report of pass@k as Markdown: curves, words for the differences from the base, crossings, and
diversity.
"""

from collections.abc import Mapping
from typing import Any

from lab.analysis.pass_at_k import (
    BASE,
    CURVES,
    SET_TITLES,
    crossing,
    point_text,
    rows_of,
    set_title,
)
from lab.analysis.statistics import SHARE, Interval

SHOWN_KS = (1, 4, 16, 64, 256)


def curve_table(table: Mapping[str, Any], name: str, curve: str) -> str:
    """Return pass@k of every arm at some k, with the word for its difference from the base, and where
    the curves cross.
    """
    ks = table["plan"]["ks"]
    shown = [k for k in SHOWN_KS if k in ks]
    heads = ["policy", *(f"pass@{k}" for k in shown), "falls below the base at"]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for row in rows_of(table, name):
        cells = []
        for k in shown:
            cell = point_text(row[curve], ks.index(k))
            if row["arm"] != BASE:
                cell += f", {row[f'{curve}_differences'][ks.index(k)]['word']}"
            cells.append(cell)
        crossed = "" if row["arm"] == BASE else crossing(row[f"{curve}_differences"]).text(max(ks))
        lines.append(f"| {row['title']} | {' | '.join(cells)} | {crossed} |")
    return "\n".join(lines) + "\n"


def diversity_table(table: Mapping[str, Any], name: str) -> str:
    """Return diversity, entropy, KL and length of every arm."""
    heads = (
        "policy",
        "distinct completions",
        "distinct among right scratchpads",
        "entropy, nats a token",
        "KL, nats",
        "length, tokens",
    )
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for row in rows_of(table, name):
        cells = [
            Interval(**row[measure]).text(digits, possible)
            for measure, digits, possible in (
                ("distinct", 3, SHARE),
                ("distinct_thinking", 3, SHARE),
                ("entropy", 3, (0.0, float("inf"))),
                ("kl", 2, (0.0, float("inf"))),
                ("length", 1, (0.0, float("inf"))),
            )
        ]
        lines.append(f"| {row['title']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def render_report(table: Mapping[str, Any]) -> str:
    """Return curves and diversity on both sets of chains as Markdown."""
    plan = table["plan"]
    parts = [
        "# pass@k of the base and of every method",
        (
            f"`{table['command']}` on {table['device']}; {table['seeds']} seeds,"
            f" {plan['prompts']} chains of each set, {plan['samples']} completions of each; ± half the"
            " 95 % interval over seeds and chains. The words compare with the base; all methods and k"
            " of one table are one family."
        ),
    ]
    for name in SET_TITLES:
        for curve, words in CURVES.items():
            parts += [f"## {set_title(table, name)}: {words}", curve_table(table, name, curve)]
        parts += [f"## {set_title(table, name)}: diversity", diversity_table(table, name)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"
