"""The runs that the lab ships, so that pages have real runs to show before the first training: the
defaults of every method and every preset, with one seed each.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import transformers

from lab.config.json_format import to_dict
from lab.config.methods import METHODS, make_config
from lab.config.presets import RUN_PRESETS
from lab.errors import LabError
from lab.experiments.arms import command_line, device_name, record_plan, trained_run
from lab.experiments.process_pool import map_cached, round_significant, write_table
from lab.experiments.protocol import Log
from lab.runs.folder import RunFolder
from lab.runs.records import columns_of
from lab.storage.jsonl import append_rows, encode_row, replace_file

UPDATES_OF_METHOD: dict[str, int] = {}
"""Updates of a method's runs where they differ from its default; tests set it."""
SHIPPED_DIGITS = 5


def shipped_run_plan() -> dict[str, tuple[str, dict[str, Any], str, str]]:
    """Returns for each run its method, its knobs, its title and a sentence on what it shows. A
    preset without knobs describes its method's default run.
    """
    plan: dict[str, tuple[str, dict[str, Any], str, str]] = {
        method: (method, {}, "defaults", "") for method in METHODS
    }
    for preset in RUN_PRESETS:
        plan[preset.run_name] = (preset.method, dict(preset.knobs), preset.name, preset.shows)
    return plan


def record_run(out: Path, name: str, device: str) -> dict[str, Any]:
    """Trains one run in `out`/runs and writes the part to ship to `out`/recorded. Returns its row
    of the table: method, name, title, updates, seconds, and first, best and last gold accuracy.
    """
    method, knobs, title, shows = shipped_run_plan()[name]
    steps = {"steps": UPDATES_OF_METHOD[method]} if method in UPDATES_OF_METHOD else {}
    (out / "runs").mkdir(parents=True, exist_ok=True)
    run = trained_run(
        out / "runs" / name,
        make_config(method, {"seed": 0, "device": device} | knobs | steps),
        lambda run: False,
    )
    facts = {
        "title": title,
        "shows": shows,
        "command": command_line("recorded", None, device),
        "device": device_name(device),
        "torch": torch.__version__.partition("+")[0],
        "transformers": transformers.__version__,
        "seconds": round_significant(run.timer.training_seconds),
    }
    export_run(RunFolder(out / "runs" / name), out / "recorded" / name, facts)
    columns = columns_of(RunFolder(out / "recorded" / name).history())
    _, gold = columns.get("gold/accuracy") or columns["gold/reward_accuracy"]
    return {
        "method": method,
        "name": name,
        "title": title,
        "steps": run.step,
        "gold": {"first": gold[0], "best": max(gold), "last": gold[-1]},
        "seconds": round_significant(run.timer.training_seconds),
    }


def export_run(run: RunFolder, to: Path, facts: dict[str, Any]) -> None:
    """Writes a small copy of a finished run to the folder `to`: numbers of five digits and samples
    of the evaluated steps, without process, log, checkpoint and adapter.
    """
    to.mkdir(parents=True, exist_ok=True)
    rows = run.history()
    evaluated = {
        row["step"]
        for row in rows
        if row["type"] == "step" and any(name.startswith("gold/") for name in row["metrics"])
    }
    for name, file_rows in (
        ("metrics.jsonl", rows),
        ("samples.jsonl", [row for row in run.samples() if row["step"] in evaluated]),
    ):
        (to / name).unlink(missing_ok=True)
        append_rows(to / name, (round_significant(row, SHIPPED_DIGITS) for row in file_rows))
    replace_file(to / "config.json", (json.dumps(to_dict(run.config), indent=1) + "\n").encode())
    status = run.status()
    replace_file(
        to / "status.json",
        encode_row(
            {
                "state": status["state"],
                "pid": 0,
                "process_started": 0.0,
                "heartbeat": 0.0,
                "step": status["step"],
                "message": "",
            }
        ),
    )
    replace_file(
        to / "recorded.json", (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode()
    )


def run_experiment(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Trains every run of the plan; writes the folders of `out`/recorded, table.json and report.md
    (`ExperimentCode`).
    """
    if seeds != 1:
        raise LabError(
            "recorded keeps one run of each kind, so it takes one seed. Leave --seeds out."
        )
    rows = map_cached_runs("recorded", record_run, shipped_run_plan(), out, device, jobs, say)
    table = single_runs_table("recorded", rows, device)
    write_table(out, table, render_report(table))
    return table


def map_cached_runs(
    experiment: str,
    record: Callable[[Path, str, str], dict[str, Any]],
    names: Iterable[str],
    out: Path,
    device: str,
    jobs: int,
    say: Log,
) -> list[dict[str, Any]]:
    """Calls `record` with `out`, a name and the device for every name, `jobs` at a time, and returns
    the rows; those that `out` holds already are not made again.
    """
    record_plan(out, {"experiment": experiment, "device": device})
    return list(map_cached(out, record, {n: (out, n, device) for n in names}, jobs, say).values())


def single_runs_table(experiment: str, rows: list[dict[str, Any]], device: str) -> dict[str, Any]:
    """Returns the table of an experiment with one run of each kind."""
    return {
        "command": command_line(experiment, None, device),
        "device": device_name(device),
        "torch": torch.__version__.partition("+")[0],
        "seeds": 1,
        "rows": rows,
    }


def render_report(table: dict[str, Any]) -> str:
    """Returns gold accuracy of every run as Markdown."""
    lines = [
        "# Recorded runs",
        "",
        f"`{table['command']}` on {table['device']}, seed 0.",
        "",
        "| run | method | updates | gold, first → best → last | seconds |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['name']} | {row['method']} | {row['steps']} | {row['gold']['first']:.2f} →"
        f" {row['gold']['best']:.2f} → {row['gold']['last']:.2f} | {row['seconds']:.0f} |"
        for row in table["rows"]
    ]
    return "\n".join(lines) + "\n"
