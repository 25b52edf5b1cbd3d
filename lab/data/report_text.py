"""Writes the report on a data file as text for reading."""

from typing import Any

from lab.data.problems import OMITTED_PREFIX
from lab.data.rows import row_unit

MAX_PRINTED = 10
"""Lines of a problem, and problems, that are printed."""
MAX_NAME = 20
"""Characters of a column's name that are printed."""


def report_text(report: dict[str, Any]) -> str:
    """Returns the text of a report that `lab.data.report.data_report` made."""
    lines = [_headline(report), *_column_table(report["columns"])]
    if "measured" in report:
        lines.append(
            f"{'':12} tokens and vocabulary of {report['measured']} rows; python -m lab data"
            " counts them all"
        )
    lines += _truncation_lines(report)
    if pairs := report.get("pairs"):
        lines += _pair_lines(pairs)
    if kto := report.get("kto"):
        lines.append(
            f"{'for kto':12} {kto['desirable']} desirable, {kto['undesirable']} undesirable"
            + _kto_advice(kto)
        )
    problems = report["problems"]
    unit = row_unit(report["source"]).capitalize()
    lines += [_problem_line(problem, unit) for problem in problems[:MAX_PRINTED]]
    if (hidden := len(problems) - MAX_PRINTED) > 0:
        lines.append(f"and {hidden} more problems; --json lists them all")
    return "\n".join([*lines, _verdict(report)])


def _headline(report: dict[str, Any]) -> str:
    return (
        f"{report['source']}: {report['rows']} rows, {report['prompts']} prompts"
        + (f" ({report['near_duplicates']} nearly repeated)" if report["near_duplicates"] else "")
        + f", {report['format'] or 'no known format'}"
        + (", conversations" if report["conversations"] else "")
        + (f": for {report['learners']}" if report["learners"] else "")
    )


def _column_table(columns: dict[str, dict[str, Any]]) -> list[str]:
    """One line for each column, under a line that says what the numbers are."""
    if not columns:
        return []
    cells: list[tuple[str, ...]] = [("column", "rows", "empty", "distinct", "characters", "tokens")]
    for name, column in columns.items():
        counts = (str(column[key]) for key in ("rows", "empty", "distinct"))
        lengths = (_four_numbers(column.get(kind)) for kind in ("characters", "tokens"))
        cells.append((_short_name(name), *counts, *lengths))
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = [
        "  ".join(
            text.ljust(width) if place in (0, 4, 5) else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in cells
    ]
    return [*lines, "Lengths are the shortest / the median / 95 % / the longest."]


def _short_name(name: str) -> str:
    name = name if name.isprintable() else ascii(name)
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"


def _four_numbers(lengths: dict[str, int] | None) -> str:
    return " / ".join(map(str, lengths.values())) if lengths else "-"


def _share(count: int, total: int) -> str:
    return f"{count} of {total} ({count / total:.1%})".replace("%", " %")


def _truncation_lines(report: dict[str, Any]) -> list[str]:
    """How many rows training cuts, leaves out and refuses."""
    rows = report["truncation"]
    lines = []
    if rows["measured"]:
        lines.append(
            f"{'max_length':12} {report['max_length']} cuts {_share(rows['cut'], rows['measured'])}"
            f" rows and leaves out {_share(rows['left_out'], rows['measured'])}"
        )
    if rows["refused"]:
        lines.append(f"{'refused':12} {_share(rows['refused'], report['rows'])} rows")
    return lines


def _pair_lines(pairs: dict[str, Any]) -> list[str]:
    """Which of chosen and rejected is longer, and what the length alone says."""
    total = pairs["pairs"]
    lines = [
        f"{'longer':12} chosen in {_share(pairs['chosen_longer'], total)} pairs, rejected in"
        f" {_share(pairs['rejected_longer'], total)}, the same in {pairs['same_length']};"
        f" chosen minus rejected is {pairs['mean_difference']:+.1f} tokens in the mean,"
        f" {pairs['median_difference']:+.1f} in the median",
        f"{'length bias':12} a rule that always prefers the longer completion agrees with"
        f" {pairs['longer_is_chosen']:.1%} of the pairs; without a bias it would be near 50 %".replace(
            "%", " %", 1
        ),
    ]
    if pairs["equal"]:
        lines.append(f"{'equal':12} chosen is rejected in {pairs['equal']} rows")
    return lines


def _problem_line(problem: dict[str, Any], unit: str) -> str:
    numbers = problem["lines"]
    listed = ", ".join(map(str, numbers[:MAX_PRINTED]))
    if len(numbers) > MAX_PRINTED:
        listed += f" and {len(numbers) - MAX_PRINTED} more"
    effect = "refused" if problem["refused"] else "note"
    return f"{effect:12} {problem['problem']} {unit} {listed}."


def _verdict(report: dict[str, Any]) -> str:
    """Whether training takes the file, and with which options."""
    problems = report["problems"]
    refused = {line for p in problems if p["refused"] for line in p["lines"]}
    if refused:
        return f"Training would refuse {len(refused)} rows. Remove or correct them."
    omitted = {
        line for p in problems if p["problem"].startswith(OMITTED_PREFIX) for line in p["lines"]
    }
    without = f" without {len(omitted)} rows" if omitted else ""
    return f"Training would take it{without}: {_training_options(report)}"


def _training_options(report: dict[str, Any]) -> str:
    """The options with which training takes the file."""
    if report["format"] == "prompt-only":
        return f"--task {report['source']} --model {report['model']}"
    options = [
        f"--data {report['source']} --model {report['model']} --max-length {report['max_length']}"
    ]
    if report["truncation_mode"] != "keep_start":
        options.append(f"--truncation-mode {report['truncation_mode']}")
    if report["template_options"]:
        options.append(f"--template-options '{report['template_options']}'")
    return " ".join(options)


def _kto_advice(kto: dict[str, Any]) -> str:
    """The λ that the paper's rule asks for."""
    if "ratio" not in kto:
        return "; the paper's rule for λ needs both"
    if kto["holds"]:
        return (
            f": n_D/n_U is {kto['ratio']:.2f}, so λ_D = λ_U = 1 satisfies 1 ≤ λ_D n_D / (λ_U n_U)"
            " ≤ 4/3"
        )
    setting = "desirable_weight" if kto["ratio"] < 1 else "undesirable_weight"
    low, high = kto[setting]
    return (
        f": for 1 ≤ λ_D n_D / (λ_U n_U) ≤ 4/3 give --{setting.replace('_', '-')} from {low:.3g} to"
        f" {high:.3g}"
    )
