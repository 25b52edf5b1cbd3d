"""Training from Python: `train`, `Training` and `trained_policy` of `lab`. docs/python-api.md is the
manual.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from lab.config.methods import METHODS, make_config
from lab.errors import LabError
from lab.models.tokenizer import load_tokenizer
from lab.profiling.out_of_memory import expected_memory
from lab.runs import catalogue
from lab.runs.folder import RunFolder, create
from lab.runs.records import Event, StepRecord
from lab.serving.load import load_run
from lab.serving.run_report import reported, say_if_unwritten
from lab.tasks.registry import check_task
from lab.training.driver import drive, drive_records
from lab.training.state import TrainState

Callback = Callable[[StepRecord], bool | None]


def train(
    method: str,
    *,
    out: str | Path = "",
    callback: Callback | Sequence[Callback] | None = None,
    on_event: Callable[[Event], None] | None = None,
    **settings: Any,
) -> RunFolder:
    """Train a LoRA adapter with `method` and return the folder of the run; its adapter in PEFT's format
    is `run.path / "adapter"`.

    `settings` are those of `alab train METHOD`, with their defaults, such as `steps=60`, `beta=0.1`,
    `model="./my-model"` or `reward="my_module:my_reward"`. `out` is the new folder of the run; left
    out, a new name below the environment variable LAB_RUNS, or below `runs` in the working directory.

    `callback`, one function or several, is called after every update, and once before the first with
    the evaluation of the untrained policy (`step` 0). Its `StepRecord` has `metrics` (name → float:
    log-probabilities and KL in nats, rewards as the task gives them), `seconds` of training and
    `tokens` trained on since the run began, and `samples`. When one returns True the run stops after
    that update, keeps everything and can go on: `alab train --resume --out FOLDER`. `on_event` gets
    every `Event`, such as a note on the data. An error of either ends the run as failed.

    Raises `LabError` for an unknown method or setting, a value out of range, an `out` that exists or
    cannot be written, and a run that cannot continue, such as at a loss that is not finite.
    """
    folder = _new_run(method, out, settings)
    callbacks = [callback] if callable(callback) else list(callback or ())
    stops = False

    def report(record: StepRecord | Event, run: TrainState) -> None:
        nonlocal stops
        if isinstance(record, Event):
            if on_event is not None:
                on_event(record)
            return
        answers = [function(record) for function in callbacks]
        stops = any(answers) or stops

    with reported(folder):
        drive(folder, report=report, until=lambda run: stops, expected_memory=expected_memory)
    return folder


class Training:
    """A new run, which trains while its records are read: `for record in Training("dpo", steps=60)`.

    The arguments are those of `train`. Each iteration makes one update and yields its `StepRecord`,
    the first one that of the untrained policy. A loop that is left early stops the run and keeps
    everything; another loop goes on from there. `run` is the folder of the run.

    Raises `LabError` as `train` does.
    """

    def __init__(
        self,
        method: str,
        *,
        out: str | Path = "",
        on_event: Callable[[Event], None] | None = None,
        **settings: Any,
    ) -> None:
        self.run = _new_run(method, out, settings)
        self._on_event = on_event

    def __iter__(self) -> Iterator[StepRecord]:
        is_left = False
        records = drive_records(
            self.run, until=lambda run: is_left, expected_memory=expected_memory
        )
        try:
            for record, _ in records:
                if isinstance(record, StepRecord):
                    yield record
                elif self._on_event is not None:
                    self._on_event(record)
        finally:
            is_left = True
            for _ in records:  # Without a further update, up to the event that the run has stopped.
                pass
            say_if_unwritten(self.run)


def trained_policy(
    run: RunFolder, device: str = "auto"
) -> tuple[PeftModel, PreTrainedTokenizerBase]:
    """Return the policy that a run has trained and its tokenizer, for `generate` of transformers;
    within `model.disable_adapter()` it is the reference. A run with lora_rank 0 gives the whole model,
    which has no adapter.

    Raises `LabError` for a run without an adapter, and for a reward model, which writes nothing.
    """
    config, model = load_run(run, device)
    return model, load_tokenizer(config.model, config.template_options)


def _new_run(method: str, out: str | Path, settings: dict[str, Any]) -> RunFolder:
    _refuse_functions(method, settings)
    config = make_config(method, settings)
    check_task(config)
    return create(Path(out) if out else catalogue.new_path(method), config)


def _refuse_functions(method: str, settings: dict[str, Any]) -> None:
    """Raise `LabError` for a function of one's own, or for another value at the place of one."""
    hooks = METHODS[method].hooks if method in METHODS else ()
    for name, value in settings.items():
        if name in {hook.name for hook in hooks} and not isinstance(value, str):
            raise LabError(
                f"{name} can be a function of your own in a notebook only. There, import train from"
                f' lab.course.run_from_notebook, as in train("{method}", {name}=my_{name}).'
            )
