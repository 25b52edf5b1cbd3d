"""The report of the length of answers as Markdown."""

from collections.abc import Mapping
from typing import Any

from lab.analysis.statistics import NOT_NEGATIVE, SHARE, Interval

REDUCTIONS = {
    "sequence_mean": "mean over each completion (GRPO)",
    "token_mean": "mean over all tokens (DAPO)",
    "fixed_length": "sum over a constant (Dr. GRPO)",
}
"""The reductions with their words."""
KINDS = ("right", "wrong")


def render_report(table: Mapping[str, Any]) -> str:
    """Return lengths at the end and their comparisons as Markdown."""
    plan = table["plan"]
    task = plan["settings"].get("task", "chains")
    if plan["operations"]:
        task = f"chains of {plan['operations'][0]} to {plan['operations'][1]} operations"
    intro = (
        f"`{table['command']}` on {table['device']}; {table['seeds']} seeds, ± half the 95 % interval;"
        f" {task}, completions of up to {plan['max_tokens']} tokens; last"
        f" {plan['window'] * plan['bin']} of {plan['updates']} updates."
    )
    parts = ["# Length of right and wrong answers", intro, length_table(table)]
    return "\n\n".join([*parts, comparison_table(table)])


def unit(table: Mapping[str, Any]) -> str:
    """Return the unit in which lengths are compared."""
    return "tokens / full scratchpad" if table["plan"]["operations"] else "tokens"


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
    for one in table["comparisons"]:
        compared = (
            f"{REDUCTIONS[one['grows']]}: end − middle of training"
            if "grows" in one
            else f"{REDUCTIONS[one['first']]} − {REDUCTIONS[one['second']]}"
        )
        difference = Interval(one["mean"], one["half"]).signed(3)
        lines.append(f"| {one['kind']} | {compared} | {difference}, {one['word']} |")
    return "\n".join(lines) + "\n"
