"""Markdown that the blocks share: tables, intervals, and the line that says where numbers come from."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lab.analysis.statistics import ANY_NUMBER, Interval, Range

LONGEST_INLINE_COMMAND = 110


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def told(measure: Mapping[str, float], digits: int = 2, possible: Range = ANY_NUMBER) -> str:
    """Return a mean with half its interval, such as "0.91 ± 0.01"; with both ends where the interval is
    cut at the possible range.
    """
    return Interval(measure["mean"], measure["half"]).text(digits, possible)


def percent(share: float, digits: int = 0) -> str:
    """Return a share such as 0.32 as "32 %"."""
    return f"{100 * share:.{digits}f} %"


def signed(value: float, digits: int) -> str:
    """Return a number with its sign, such as "+0.17" or "−6.5"; what rounds to zero has none."""
    text = f"{value:+.{digits}f}".replace("-", "−")
    return text if text.strip("+−0.") else text[1:]


def tables_of(report: str) -> str:
    """Return only the tables of a Markdown report, one after another."""
    paragraphs = report.split("\n\n")
    return "\n\n".join(text.strip("\n") for text in paragraphs if text.lstrip().startswith("|"))


def command_text(command: str) -> str:
    """Return a command as inline code, or as a code block with one option a line if it is long."""
    if len(command) <= LONGEST_INLINE_COMMAND:
        return f"Command: `{command}`"
    return "Command:\n\n```sh\n" + command.replace(" --", " \\\n    --") + "\n```"


def source(table: Mapping[str, Any], record: str) -> str:
    """Return the command of a record, then seeds, device, versions and the name of its file."""
    seeds = table.get("seeds") or table.get("plan", {}).get("seeds")
    facts = [
        f"Seeds: {seeds}" if seeds else "",
        f"device: {table['device']}",
        f"torch {table['torch']}" if "torch" in table else "",
        f"transformers {table['transformers']}" if "transformers" in table else "",
        f"commit {table['commit']}" if table.get("commit") else "commit not recorded",
        table.get("peer") or "",
        f"record: `{record}.json`",
    ]
    line = "; ".join(fact for fact in facts if fact)
    return f"{command_text(table['command'])}\n\n{line[0].upper()}{line[1:]}.\n"


def with_source(text: str, table: Mapping[str, Any], record: str) -> str:
    """Return Markdown with the source of its numbers under it."""
    return f"{text.rstrip()}\n\n{source(table, record)}"
