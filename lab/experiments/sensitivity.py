"""How much the outcome depends on a method's knobs: each knob alone is divided and multiplied by an
equal factor.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lab.analysis.statistics import SHARE, Interval, interval
from lab.config.methods import make_config
from lab.experiments.arms import (
    EVALUATION_PROMPTS,
    EVALUATION_SAMPLES,
    Arm,
    command_line,
    record_plan,
    run_arms,
)
from lab.experiments.protocol import Log
from lab.experiments.run_log import record_origin
from lab.figures.palette import METHOD_NAMES
from lab.storage.jsonl import replace_file

FACTOR = 4.0
CENTRES: dict[str, dict[str, float]] = {"grpo": {"beta": 0.04}}
"""The central knobs of a method where they are not its defaults: for GRPO the β of its paper, because
its default of 0 cannot be multiplied.
"""
MOVED_KNOBS = {
    "ppo": ("learning_rate", "critic_learning_rate", "epsilon", "beta"),
    "grpo": ("learning_rate", "beta"),
    "online_dpo": ("learning_rate", "beta"),
    "sft": ("learning_rate",),
    "dpo": ("learning_rate", "beta"),
    "ipo": ("learning_rate", "beta"),
    "kto": ("learning_rate", "beta"),
}


def arms() -> list[Arm]:
    """Returns for each method its central arm, then arms with one knob a quarter or four times as
    large.

    The task's rule scores the online methods, so that the errors of a reward model do not count as
    theirs.
    """
    result = []
    for method, knobs in MOVED_KNOBS.items():
        centre = CENTRES.get(method, {})
        result.append(Arm(f"{method}-centre", method, dict(centre)))
        for knob in knobs:
            value = centre.get(knob, getattr(make_config(method), knob))
            for word, factor in (("low", 1 / FACTOR), ("high", FACTOR)):
                result.append(
                    Arm(f"{method}-{knob}-{word}", method, centre | {knob: value * factor})
                )
    return result


def run_experiment(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Trains every arm with every seed (`ExperimentCode`)."""
    interval([0.0] * seeds)
    record_plan(out, {"experiment": "sensitivity", "device": device})
    runs = run_arms(out, arms(), seeds, device, jobs, say)
    gold = {name: [r["gold/accuracy"] for r in results] for name, results in runs.items()}
    rows = []
    for method, knobs in MOVED_KNOBS.items():
        for knob in knobs:
            cells = {
                word: asdict(interval(gold[name]))
                for word, name in (
                    ("low", f"{method}-{knob}-low"),
                    ("centre", f"{method}-centre"),
                    ("high", f"{method}-{knob}-high"),
                )
            }
            means = [cell["mean"] for cell in cells.values()]
            rows.append(
                {"method": method, "knob": knob, **cells, "spread": max(means) - min(means)}
            )
    table = {
        **record_origin(command_line("sensitivity", seeds, device), device),
        "factor": FACTOR,
        "evaluation": f"{EVALUATION_PROMPTS} held-out prompts x {EVALUATION_SAMPLES} completions",
        "seeds": seeds,
        "rows": rows,
        "runs": runs,
    }
    replace_file(out / "table.json", (json.dumps(table, indent=1) + "\n").encode())
    replace_file(out / "report.md", render_report(table).encode())
    return table


def render_report(table: dict[str, Any]) -> str:
    """Returns the table as Markdown; spread is the largest mean of a row minus the smallest."""
    lines = [
        "# How much the outcome depends on the settings",
        "",
        (
            f"`{table['command']}` on {table['device']}; gold accuracy, {table['seeds']} seeds, ±"
            f" half the 95 % interval; {table['evaluation']}. Each setting alone is divided and"
            f" multiplied by {table['factor']:g}."
        ),
        "",
        f"| method | setting | ÷ {table['factor']:g} | centre | × {table['factor']:g} | spread |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in table["rows"]:
        cells = " | ".join(Interval(**row[c]).text(2, SHARE) for c in ("low", "centre", "high"))
        lines.append(
            f"| {METHOD_NAMES[row['method']]} | {row['knob']} | {cells} | {row['spread']:.2f} |"
        )
    return "\n".join(lines) + "\n"
