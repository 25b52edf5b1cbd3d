"""Writes the report on a data file as text for reading."""

from typing import Any

from lab.data.problems import OMITTED_PREFIX
from lab.data.rows import row_unit

MAX_PRINTED = 10
"""Lines of a problem, and problems, that are printed."""


def report_text(report: dict[str, Any]) -> str:
    """Returns the text of a report that `lab.data.report.data_report` made."""
    lines = [_headline(report)]
    lines += [
        f"{name:12} {s['median']:6} tokens in the median, {s['95 %']} at 95 %, at most {s['max']}"
        for name, s in report["lengths"].items()
    ]
    if "measured" in report:
        lines.append(
            f"{'':12} lengths and vocabulary of {report['measured']} rows; python -m lab data"
            " counts them all"
        )
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
        f"{report['source']}: {report['rows']} rows, {report['prompts']} prompts,"
        f" {report['format'] or 'no known format'}"
        + (", conversations" if report["conversations"] else "")
        + (f": for {report['learners']}" if report["learners"] else "")
    )


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
