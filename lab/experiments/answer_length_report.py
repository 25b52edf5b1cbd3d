"""The report of the length of answers as Markdown."""

from collections.abc import Mapping
from typing import Any

from lab.analysis.answer_length import KINDS, REDUCTIONS, compared, task_text, unit
from lab.analysis.comparison_words import recorded_text
from lab.analysis.statistics import NOT_NEGATIVE, SHARE, Interval


def render_report(table: Mapping[str, Any]) -> str:
    """Return lengths at the end and their comparisons as Markdown."""
    plan = table["plan"]
    intro = (
        f"`{table['command']}` on {table['device']}; {table['seeds']} seeds, ± half the 95 % interval;"
        f" {task_text(table)}, completions of up to {plan['max_tokens']} tokens; last"
        f" {plan['window'] * plan['bin']} of {plan['updates']} updates."
    )
    parts = ["# Length of right and wrong answers", intro, length_table(table)]
    return "\n\n".join([*parts, comparison_table(table)])


def length_table(table: Mapping[str, Any]) -> str:
    """Return accuracy, lengths, share of scratchpads and completions that were cut off at the end, by
    reduction. Scratchpads are those of chains.
    """
    columns = [("accuracy", "accuracy", 2, SHARE)]
    for kind in KINDS:
        columns.append((f"{kind}_tokens", f"{kind}: tokens", 1, NOT_NEGATIVE))
        if table["plan"]["operations"]:
            columns += [
                (f"{kind}_thinking", f"{kind}: scratchpads", 2, SHARE),
                (f"{kind}_relative", f"{kind}: {unit(table)}", 2, NOT_NEGATIVE),
            ]
    columns.append(("truncated", "cut off", 3, SHARE))
    heads = ["reduction", *(title for _, title, _, _ in columns)]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for row in table["rows"]:
        cells = [
            Interval(**row["end"][name]).text(digits, among) for name, _, digits, among in columns
        ]
        lines.append(f"| {REDUCTIONS[row['reduction']]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def comparison_table(table: Mapping[str, Any]) -> str:
    """Return the comparisons of length: reductions at the end, and the end minus the middle."""
    lines = [f"| completions | comparison | {unit(table)} |", "| --- | --- | --- |"]
    lines += [
        f"| {one['kind']} | {compared(one)} | {recorded_text(one)} |"
        for one in table["comparisons"]
    ]
    return "\n".join(lines) + "\n"
