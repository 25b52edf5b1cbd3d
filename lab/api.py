"""Training from Python: what `from lab import train` gives. docs/python-api.md is its manual."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.config.methods import make_config
from lab.profiling.out_of_memory import expected_memory
from lab.runs import catalogue
from lab.runs.folder import RunFolder, create
from lab.runs.records import Event, StepRecord
from lab.tasks.registry import check_task
from lab.training.driver import drive
from lab.training.state import TrainState

Callback = Callable[[StepRecord], bool | None]


def train(
    method: str, *, out: str | Path = "", callback: Callback | None = None, **settings: Any
) -> RunFolder:
    """Train a LoRA adapter with `method` and return the folder of the run; its adapter in PEFT's format
    is `run.path / "adapter"`.

    `settings` are those of `alab train METHOD`, with their defaults, such as `steps=60`, `beta=0.1`,
    `model="./my-model"` or `reward="my_module:my_reward"`. `out` is the new folder of the run; left
    out, a new name below the environment variable LAB_RUNS, or below `runs` in the working directory.

    `callback` is called after every update, and once before the first with the evaluation of the
    untrained policy (`step` 0). Its `StepRecord` has `metrics` (name → float: log-probabilities and KL
    in nats, rewards as the task gives them), `seconds` of training and `tokens` trained on since the
    run began, and `samples`. When it returns True the run stops after that update, keeps everything
    and can go on: `alab train --resume --out FOLDER`. An error that it raises ends the run as failed.

    Raises `LabError` for an unknown method or setting, a value out of range, an `out` that exists or
    cannot be written, and a run that cannot continue, such as at a loss that is not finite.
    """
    config = make_config(method, settings)
    check_task(config)
    folder = create(Path(out) if out else catalogue.new_path(method), config)
    stops = False

    def report(record: StepRecord | Event, run: TrainState) -> None:
        nonlocal stops
        if callback is not None and isinstance(record, StepRecord):
            stops = bool(callback(record)) or stops

    drive(folder, report=report, until=lambda run: stops, expected_memory=expected_memory)
    return folder
