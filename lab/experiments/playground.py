"""The recorded runs of the page Play: four methods at their defaults, each with checkpoints from which a
visitor's run can fork.

Copy `recorded` of the output folder to `lab/assets/playground`. The weights and the metrics depend on
the seed and the device alone.
"""

import io
import shutil
from pathlib import Path
from typing import Any

import torch
import transformers

from lab.config.json_format import to_dict
from lab.config.methods import make_config
from lab.errors import LabError
from lab.experiments.arms import command_line, device_name
from lab.experiments.process_pool import round_significant, write_table
from lab.experiments.protocol import Log
from lab.experiments.shipped_runs import (
    SHIPPED_DIGITS,
    export_run,
    map_cached_runs,
    single_runs_table,
)
from lab.runs.folder import RunFolder, create
from lab.runs.fork import MAX_RECORDED_SAMPLES, fork_points, save_fork_point
from lab.runs.records import Event, StepRecord, columns_of
from lab.storage.jsonl import append_rows
from lab.training.checkpoints import make_checkpoint
from lab.training.driver import drive
from lab.training.state import TrainState

FORK_POINTS = {"dpo": (25, 50, 75), "ipo": (25, 50, 75), "grpo": (10, 20, 30), "ppo": (20, 40)}
"""By method, the updates with a checkpoint. A run can also fork at 0, which needs none. At each of
these updates the last rollout is used up, so that a checkpoint can leave it out."""
SETTINGS: dict[str, dict[str, Any]] = {
    "dpo": {"eval_every": 4, "eval_prompts": 64},
    "ipo": {"eval_every": 4, "eval_prompts": 64},
    "grpo": {"eval_every": 2, "eval_prompts": 64},
    "ppo": {"eval_every": 2, "eval_prompts": 64},
}
"""By method, settings with which a run on one core is evaluated at least once a second."""


def record_run(out: Path, method: str, device: str) -> dict[str, Any]:
    """Trains one run in `out`/runs and writes the part to ship to `out`/recorded. Returns its row of
    the table: method, updates, fork points, seconds, and first and last gold accuracy.
    """
    config = make_config(method, {"seed": 0, "device": device, **SETTINGS[method]})
    target = out / "recorded" / method
    shutil.rmtree(out / "runs" / method, ignore_errors=True)  # of a recording that was broken off
    folder = create(out / "runs" / method, config)

    def keep_fork_point(record: StepRecord | Event, run: TrainState) -> None:
        if isinstance(record, StepRecord) and record.step in FORK_POINTS[method]:
            state = make_checkpoint(run) | {"rollout": None, "started": to_dict(config)}
            state["phases"] = dict.fromkeys(run.timer.phases, 0.0)  # equal bytes in every recording
            data = io.BytesIO()
            torch.save(state, data)
            save_fork_point(target, record.step, data.getvalue())

    run = drive(folder, report=keep_fork_point)
    facts = {
        "command": command_line("playground", None, device),
        "device": device_name(device),
        "torch": torch.__version__.partition("+")[0],
        "transformers": transformers.__version__,
        "seconds": round_significant(run.timer.training_seconds),
    }
    export_run(folder, target, facts)
    _keep_few_samples(RunFolder(target))
    _, gold = columns_of(RunFolder(target).history())["gold/accuracy"]
    return {
        "method": method,
        "steps": run.step,
        "fork_points": fork_points(target),
        "gold": {"first": gold[0], "last": gold[-1]},
        "seconds": facts["seconds"],
    }


def _keep_few_samples(run: RunFolder) -> None:
    """Keep the first `MAX_RECORDED_SAMPLES` held-out samples of every evaluation."""
    rows: list[dict[str, Any]] = []
    for row in run.samples():
        count = sum(other["step"] == row["step"] for other in rows[-MAX_RECORDED_SAMPLES:])
        if row.get("held_out") and count < MAX_RECORDED_SAMPLES:
            rows.append(row | {"index": count})
    (run.path / "samples.jsonl").unlink()
    append_rows(
        run.path / "samples.jsonl", (round_significant(row, SHIPPED_DIGITS) for row in rows)
    )


def run_experiment(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Trains the four runs; writes the folders of `out`/recorded, table.json and report.md
    (`ExperimentCode`).
    """
    if seeds != 1:
        raise LabError(
            "playground keeps one run of each method, so it takes one seed. Leave --seeds out."
        )
    rows = map_cached_runs("playground", record_run, FORK_POINTS, out, device, jobs, say)
    table = single_runs_table("playground", rows, device)
    write_table(out, table, render_report(table))
    return table


def render_report(table: dict[str, Any]) -> str:
    """Returns gold accuracy and fork points of every run as Markdown."""
    lines = [
        "# Recorded runs of the page Play",
        "",
        f"`{table['command']}` on {table['device']}, seed 0.",
        "",
        "| method | updates | forks at | gold, first → last | seconds |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['method']} | {row['steps']} | {', '.join(map(str, row['fork_points']))} |"
        f" {row['gold']['first']:.2f} → {row['gold']['last']:.2f} | {row['seconds']:.0f} |"
        for row in table["rows"]
    ]
    return "\n".join(lines) + "\n"
