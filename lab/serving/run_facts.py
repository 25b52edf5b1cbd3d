"""The facts in the report of a run, gathered from its folder: how it ended, its measures, its settings, its
cost and the command that repeats it. No folder of the computer is named in it.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.analysis.diagnose import MetricColumn, diagnose
from lab.config.adapter_settings import FULL_RANK, trained_folder
from lab.config.json_format import to_dict
from lab.config.methods import METHODS, make_config
from lab.data.readers import require_source
from lab.errors import LabError
from lab.models.adapter_files import ADAPTER_CONFIG, MODEL_CONFIG
from lab.models.download import MODEL_SOURCES
from lab.runs.folder import RunFolder
from lab.runs.import_run import is_imported
from lab.runs.machine import read_machine
from lab.runs.records import columns_of, is_change
from lab.runs.states import ACTIVE_STATES, WAITING_STATES, EventKind, RunState
from lab.serving.share import exact_text, repeat_command, without_folders
from lab.tasks.registry import TASKS
from lab.training.best_adapter import BEST_FILE, best_folder

MAX_EXAMPLES = 4
"""Held-out prompts whose completions before and after are shown."""
PATH = re.compile(r"(?<![\w/:.])(?:[A-Za-z]:[\\/]|/)[^\s'\"]*[\\/]([^\s'\"\\/]+)")
"""An absolute path within a text; group 1 is its last part."""
Rows = list[tuple[str, str]]


@dataclass(frozen=True)
class Example:
    """A held-out prompt with the completions (`texts`) of the first evaluation and of that of the
    adapter, which may be the same one. `verdicts` are "right", "wrong" or empty.
    """

    prompt: str
    texts: tuple[str, str]
    steps: tuple[int, int]
    verdicts: tuple[str, str]


@dataclass(frozen=True)
class RunFacts:
    """The facts in the report of a run; `base` is the id of its base on the hub and `dataset` that of its
    data, both empty where they are not from there. `is_whole` says that it trains all weights of the
    model, without an adapter. `trained_step` is the update of the weights that it has left, None where
    it has left none.
    """

    name: str
    method: str
    title: str
    model: str
    base: str
    dataset: str
    ending: str
    notes: list[str]
    findings: list[str]
    columns: Mapping[str, MetricColumn]
    examples: list[Example]
    changed: Rows
    settings: Rows
    cost: Rows
    versions: Rows
    command: str
    is_whole: bool
    trained_step: int | None


def run_facts(folder: RunFolder) -> RunFacts:
    """Return what the report of a run says as it is on disk now; raise `LabError` where its config
    cannot be read.
    """
    config, rows = to_dict(folder.config), folder.history()
    columns, method = columns_of(rows), config["method"]
    events = [row for row in rows if row["type"] == "event"]
    own_data = {"data": config["data"]} if config.get("data") else {}
    default = to_dict(make_config(method, own_data)) | {"data": ""}
    settings = [(name, _setting_text(value)) for name, value in config.items() if name != "method"]
    machine = read_machine(folder.path)
    versions = list(machine.versions.items()) if machine else []
    return RunFacts(
        name=folder.path.resolve().name,
        method=method,
        title=METHODS[method].title,
        model=_setting_text(config["model"]),
        base=base_on_hub(config["model"]),
        dataset=_dataset(folder, config),
        ending=_ending(folder, config),
        notes=[
            clean_text(row["detail"]["message"])
            for row in events
            if row["kind"] == EventKind.NOTED and row["detail"].get("message")
        ],
        findings=diagnose(_changed_config(config, events), columns, events),
        columns=columns,
        examples=_examples(folder.samples(), trained_step(folder)),
        changed=_changes(events),
        settings=[
            (name, text)
            for name, text in settings
            if config[name] != default[name] or name in ("seed", "steps")
        ]
        + [
            (name, text)
            for name, text in settings
            if config[name] == default[name] and name not in ("seed", "steps")
        ],
        cost=_cost(folder, rows),
        versions=versions,
        command="" if is_imported(folder.path) else repeat_command(config),
        is_whole=config["lora_rank"] == FULL_RANK,
        trained_step=trained_step(folder),
    )


def clean_text(text: str) -> str:
    """Return a text on one line, with the last parts of absolute paths alone."""
    return PATH.sub(r"\1", " ".join(text.split()))


def base_on_hub(model: str) -> str:
    """Return the hub id of a base model; empty for one that lies on this machine alone."""
    if model in MODEL_SOURCES:
        return MODEL_SOURCES[model].hub
    return "" if model == "embedded" or Path(model).is_dir() or not _is_hub_id(model) else model


def _is_hub_id(text: str) -> bool:
    return re.fullmatch(r"\w[\w.-]*/[\w.-]+", text) is not None


def _dataset(folder: RunFolder, config: Mapping[str, Any]) -> str:
    """The data set of the hub that the run learns from or takes its prompts from."""
    if is_imported(folder.path):
        return ""
    for source in (config.get("data"), config["task"]):
        if source and source not in TASKS and not source.startswith("gym:"):
            with suppress(LabError):
                if match := require_source(source):
                    return match[1]
    return ""


def _setting_text(value: Any) -> str:
    return without_folders(exact_text(value))


def _ending(folder: RunFolder, config: Mapping[str, Any]) -> str:
    """How the run ended, in one or two sentences."""
    status, state, steps = folder.status(), folder.state, config["steps"]
    done = f"{status['step']} of {steps} updates"
    if is_imported(folder.path):
        return f"The records of {done} were imported from another trainer; there are no weights."
    if state == RunState.FINISHED:
        return f"The run is finished: {done} are done."
    if state == RunState.STOPPED:
        return f"The run was stopped after {done}."
    if state == RunState.FAILED:
        return f"The run failed after {done}: {clean_text(status['message'])}"
    if state in ACTIVE_STATES + WAITING_STATES:
        return f"The run was not over when this was written: {done} were done."
    return f"The run was interrupted after {done}: its process ended without saying why."


def _changed_config(config: Mapping[str, Any], events: list[dict[str, Any]]) -> Mapping[str, Any]:
    """The settings with the changes that were made while the run trained."""
    changes = {row["detail"]["knob"]: row["detail"]["to"] for row in events if is_change(row)}
    return {**config, **changes}


def _changes(events: list[dict[str, Any]]) -> Rows:
    return [
        (
            f"update {row['step']}",
            f"{row['detail']['knob']} from {_setting_text(row['detail']['from'])} to"
            f" {_setting_text(row['detail']['to'])}",
        )
        for row in events
        if is_change(row)
    ]


def trained_folders(folder: RunFolder) -> list[Path]:
    """Return the folders of the run with an adapter or, after full fine-tuning, with a whole model."""
    last = folder.path / trained_folder(folder.config)
    config = MODEL_CONFIG if folder.config.lora_rank == FULL_RANK else ADAPTER_CONFIG
    return [path for path in (last, best_folder(last)) if (path / config).is_file()]


def trained_step(folder: RunFolder) -> int | None:
    """Return the update whose weights the run has left; None where it has left none."""
    if not trained_folders(folder):
        return None
    if folder.config.keep == "best":
        with suppress(OSError, ValueError, KeyError, TypeError):
            return int(json.loads((folder.path / BEST_FILE).read_text("utf-8"))["step"])
    return folder.status()["step"]


def _examples(samples: list[dict[str, Any]], adapter: int | None) -> list[Example]:
    """Completions of the same held-out prompts at the first evaluation and at that of update `adapter`,
    or at the last one where that update was not evaluated.
    """
    by_step: dict[int, dict[str, dict[str, Any]]] = {}
    for row in samples:
        if row.get("held_out") and "completion" in row:
            by_step.setdefault(row["step"], {}).setdefault(row["prompt"], row)
    if not by_step:
        return []
    first = min(by_step)
    last = adapter if adapter in by_step else max(by_step)
    examples = []
    for prompt, before in by_step[first].items():
        if after := by_step[last].get(prompt):
            texts = before["completion"], after["completion"]
            examples.append(
                Example(prompt, texts, (first, last), (_verdict(before), _verdict(after)))
            )
    return examples[:MAX_EXAMPLES]


def _verdict(row: Mapping[str, Any]) -> str:
    gold = row.get("gold")
    return "" if gold is None else "right" if gold else "wrong"


def _cost(folder: RunFolder, rows: list[dict[str, Any]]) -> Rows:
    """Time, tokens, memory and device of the run."""
    steps = [row for row in rows if row["type"] == "step"]
    if not steps:
        return []
    last, machine = steps[-1], read_machine(folder.path)
    cost = [("training", _duration(last["seconds"]))]
    if "evaluating" in last["phases"]:
        cost.append(("evaluation", _duration(last["phases"]["evaluating"])))
    if last["tokens"]:
        cost.append(("tokens trained on", f"{last['tokens']:,}"))
        if last["seconds"]:
            cost.append(("tokens a second", f"{last['tokens'] / last['seconds']:,.0f}"))
    if last["generated"]:
        cost.append(("tokens sampled", f"{last['generated']:,}"))
    if machine is None:
        return [*cost, ("device", _setting_text(folder.config.device)), ("memory", "not recorded")]
    several = f", {machine.processes} processes" if machine.processes > 1 else ""
    where = "allocated on the GPU" if machine.device == "cuda" else "of the whole process"
    memory = (
        f"{machine.peak_memory / 2**30:.2f} GiB at most, {where}"
        if machine.peak_memory
        else "not recorded"
    )
    return [
        *cost,
        ("device", f"{machine.device_name} ({machine.device}){several}"),
        ("memory", memory + (", process 0 alone" if several else "")),
    ]


def _duration(seconds: float) -> str:
    """A time in words. Anchor: 75 seconds are "1 min 15 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
