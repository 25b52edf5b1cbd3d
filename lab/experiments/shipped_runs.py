"""The runs that the lab ships, so that a page has something true to show before anybody has
trained: defaults and presets, one seed each.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
import transformers

from lab.config.json_format import to_dict
from lab.config.methods import METHODS, make_config
from lab.config.presets import RUN_PRESETS
from lab.errors import LabError
from lab.experiments.arms import Log, command_line, device_name, keep_plan, trained_run
from lab.experiments.process_pool import map_cached, rounded, write_table
from lab.runs.folder import RunFolder
from lab.runs.metrics import columns_of
from lab.storage.jsonl import append, encode, replace

STEPS: dict[
    str, int
] = {}  # Per method the updates of its run where they are not the default's; a test makes them few.
DIGITS = 5


def plan() -> dict[str, tuple[str, dict[str, Any], str, str]]:
    """Per run its method, its knobs, its title and what it shows. A preset that is a method's
    defaults lends them its words.
    """
    found = {method: (method, {}, "defaults", "") for method in METHODS}
    for preset in RUN_PRESETS:
        name = (
            re.sub("[^a-z0-9]+", "-", preset.name.lower().replace("β", "beta")).strip("-")
            if preset.knobs
            else preset.method
        )
        found[name] = (preset.method, dict(preset.knobs), preset.name, preset.shows)
    return found


def record(out: Path, name: str, device: str) -> dict[str, Any]:
    """Train one run in `out`/runs and write the part that is shipped to `out`/recorded; returns
    where gold accuracy began, was best and ended.
    """
    method, knobs, title, shows = plan()[name]
    steps = {"steps": STEPS[method]} if method in STEPS else {}
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
        "seconds": rounded(run.seconds),
    }
    export(RunFolder(out / "runs" / name), out / "recorded" / name, facts)
    columns = columns_of(RunFolder(out / "recorded" / name).history())
    gold = columns.get("gold/accuracy", columns.get("gold/reward_accuracy"))[1]
    return {
        "method": method,
        "name": name,
        "title": title,
        "steps": run.step,
        "gold": {"first": gold[0], "best": max(gold), "last": gold[-1]},
        "seconds": rounded(run.seconds),
    }


def export(run: RunFolder, to: Path, facts: dict[str, Any]) -> None:
    """Write a small copy of a finished run: numbers of five digits, samples of the evaluated steps,
    no process, log, checkpoint or adapter.
    """
    to.mkdir(parents=True, exist_ok=True)
    rows = run.history()
    looked = {
        row["step"]
        for row in rows
        if row["type"] == "step" and any(name.startswith("gold/") for name in row["metrics"])
    }
    for name, kept in (
        ("metrics.jsonl", rows),
        ("samples.jsonl", [row for row in run.samples() if row["step"] in looked]),
    ):
        (to / name).unlink(missing_ok=True)
        append(to / name, (rounded(row, DIGITS) for row in kept))
    replace(to / "config.json", (json.dumps(to_dict(run.config), indent=1) + "\n").encode())
    status = run.status()
    replace(
        to / "status.json",
        encode(
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
    replace(to / "recorded.json", (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode())


def recorded(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Train every run of the plan and write the folders of `out`/recorded, table.json and
    report.md; an interrupted call goes on where it stopped.
    """
    if seeds != 1:
        raise LabError(
            "recorded keeps one run of each kind, so it takes one seed. Leave --seeds out."
        )
    keep_plan(out, {"experiment": "recorded", "device": device})
    found = map_cached(out, record, {name: (out, name, device) for name in plan()}, jobs, say)
    table = {
        "command": command_line("recorded", None, device),
        "device": device_name(device),
        "torch": torch.__version__.partition("+")[0],
        "seeds": 1,
        "rows": list(found.values()),
    }
    write_table(out, table, report(table))
    return table


def report(table: dict[str, Any]) -> str:
    """Where every run went as Markdown."""
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
