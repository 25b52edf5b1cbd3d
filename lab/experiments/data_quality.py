"""What wrong and few pairs do to DPO and IPO: gold accuracy on the way, with swapped labels and with
small data sets.
"""

from pathlib import Path
from typing import Any

import torch

from lab.analysis.comparison_words import against_constant
from lab.analysis.data_quality import judged_changes
from lab.analysis.statistics import SHARE, interval
from lab.config.run_config import SHIPPED_PAIRS
from lab.experiments.arms import (
    EVALUATION_PROMPTS,
    EVALUATION_SAMPLES,
    Arm,
    command_line,
    device_name,
    record_plan,
    run_arms,
)
from lab.experiments.process_pool import mean_over_seeds, round_significant, write_table
from lab.experiments.protocol import Log
from lab.figures.palette import METHOD_NAMES
from lab.runs.folder import RunFolder

METHODS = ("dpo", "ipo")
DATA_SETS: dict[str, dict[str, Any]] = {
    "clean": {},
    "swapped 10 %": {"label_noise": 0.1},
    "swapped 30 %": {"label_noise": 0.3},
    "256 pairs": {"pairs": 256},
    "64 pairs": {"pairs": 64},
}
"""For each data set the settings that differ from the defaults."""
UPDATES, LOOK_EVERY, EARLY_LOOK = 200, 25, 50
HELD_OUT_PROMPTS = 256


def arms() -> dict[tuple[str, str], Arm]:
    """Return the arm of each method and data set."""
    common = {"steps": UPDATES, "eval_every": LOOK_EVERY, "eval_prompts": HELD_OUT_PROMPTS}
    return {
        (method, data): Arm(
            f"{method}-{data.replace(' %', '').replace(' ', '-')}", method, common | settings
        )
        for method in METHODS
        for data, settings in DATA_SETS.items()
    }


def gold_curve(folder: Path) -> dict[int, float]:
    """Return gold accuracy on held-out prompts by update, as the run evaluated it on the way."""
    return {
        row["step"]: row["metrics"]["gold/accuracy"]
        for row in RunFolder(folder).history()
        if row["type"] == "step" and "gold/accuracy" in row["metrics"]
    }


def run_experiment(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Train both methods on every data set with every seed (`ExperimentCode`)."""
    interval([0.0] * seeds)
    record_plan(out, {"experiment": "data_quality", "device": device})
    planned = arms()
    runs = run_arms(out, list(planned.values()), seeds, device, jobs, say)
    rows = []
    for (method, data), arm in planned.items():
        curves = [gold_curve(out / f"{arm.name}-{seed}") for seed in range(seeds)]
        looks = sorted(curves[0])
        rows.append(
            {
                "method": method,
                "data": data,
                "pairs": arm.knobs.get("pairs", SHIPPED_PAIRS),
                "steps": looks,
                "gold/accuracy": mean_over_seeds(
                    [[curve[look] for look in looks] for curve in curves]
                ),
                "early": [curve[EARLY_LOOK] for curve in curves],
                "late": [curve[UPDATES] for curve in curves],
                "final": [run["gold/accuracy"] for run in runs[arm.name]],
                "kl": [run["kl"] for run in runs[arm.name]],
            }
        )
    table = {
        "command": command_line("data_quality", seeds, device),
        "device": device_name(device),
        "torch": torch.__version__.partition("+")[0],
        "seeds": seeds,
        "evaluation": (
            f"{EVALUATION_PROMPTS} held-out prompts x {EVALUATION_SAMPLES} completions;"
            f" on the way {HELD_OUT_PROMPTS} x 1"
        ),
        "early_look": EARLY_LOOK,
        "updates": UPDATES,
        "rows": round_significant(rows),
    }
    write_table(out, table, render_report(table))
    return table


def render_report(table: dict[str, Any]) -> str:
    """Return gold accuracy of every data set, and both differences, as Markdown."""
    changes = judged_changes(table)
    lines = [
        "# Wrong labels and few pairs",
        "",
        (
            f"`{table['command']}` on {table['device']}; {table['seeds']} seeds, ± half the 95 %"
            f" interval; {table['updates']} updates; {table['evaluation']}."
        ),
        "",
        "| method | data | gold accuracy at the end | minus clean data | update"
        f" {table['updates']} minus update {table['early_look']} |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in table["rows"]:
        words = changes[row["method"], row["data"]]
        end = against_constant(row["final"], 0.0).interval.text(2, SHARE)
        data = words["data"].text() if "data" in words else ""
        lines.append(
            f"| {METHOD_NAMES[row['method']]} | {row['data']} | {end} | {data} |"
            f" {words['longer'].text()} |"
        )
    lines += ["", f"The words hold for all {len(changes) * 2 - len(METHODS)} differences together."]
    return "\n".join(lines) + "\n"
