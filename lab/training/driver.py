"""Trains a run folder in this process: from nothing or from its checkpoint, every record written as
it comes.
"""

import errno
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import transformers

from lab.config.run_config import RunConfig
from lab.config.user_code import names_code, require_code
from lab.distributed import collectives
from lab.errors import LabError
from lab.models.loading import fitting_threads
from lab.runs.control import Command, command
from lab.runs.folder import RunFolder
from lab.runs.metrics import Event, StepRecord
from lab.storage import jsonl
from lab.tasks.registry import Task
from lab.training.loop import checkpoint, prepare, save_adapter, train
from lab.training.out_of_memory import out_of_memory_message
from lab.training.resume import gaps, opened, save_checkpoint
from lab.training.state import TrainState

STATE_AFTER = {
    "paused": "paused",
    "continued": "running",
    "stopped": "stopped",
    "finished": "finished",
}
Report = Callable[[StepRecord | Event, TrainState], None]
ExpectedMemory = Callable[[TrainState], str]


class InterruptHandler:
    """How often this process was asked to end: after the first time it goes on to the end of its
    update, at the second it ends at once.
    """

    def __init__(self) -> None:
        self.count = 0

    def interrupt(self, *_: Any) -> None:
        """Signal handler."""
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt

    def hang_up(self, *_: Any) -> None:
        """Signal handler for a terminal that is gone, which kernel and shell may each report."""
        self.count = max(1, self.count)


class CommandSource(InterruptHandler):
    """What the loop has to obey: changes that the checkpoint does not hold yet, signals, a budget,
    control.jsonl from byte `offset` on.
    """

    def __init__(
        self, folder: RunFolder, offset: int, until: Callable[[TrainState], bool] | None
    ) -> None:
        super().__init__()
        self._folder, self._offset, self._until, self._replay = folder, offset, until, []

    def replay(self, run: TrainState) -> None:
        """Take up the live changes that an earlier process made after the checkpoint at `run.step`."""
        self._run = run
        self._replay = [
            row
            for row in self._folder.history()
            if row["type"] == "event" and row["kind"] == "changed" and row["step"] >= run.step
        ]

    def poll(self) -> list[Command]:
        """The commands that are due now."""
        due = [row for row in self._replay if row["step"] <= self._run.step]
        self._replay = self._replay[len(due) :]
        rows, self._offset = jsonl.read_rows(self._folder.path / "control.jsonl", self._offset)
        return (
            [Command(row["id"], "set", row["detail"]["knob"], row["detail"]["to"]) for row in due]
            + [command("stop")] * bool(self.count or (self._until and self._until(self._run)))
            + [
                Command(
                    str(row.get("id", "")),
                    str(row.get("action", "")),
                    str(row.get("knob", "")),
                    row.get("value"),
                )
                for row in rows
            ]
        )


@contextmanager
def _signals(orders: InterruptHandler) -> Iterator[None]:
    """Ctrl-C, a polite kill and a closed terminal stop the run after the present update; Python
    lets only the main thread ask for this.
    """
    handlers = {signal.SIGINT: orders.interrupt, signal.SIGTERM: orders.interrupt}
    if (
        hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
    ):  # nohup asks to be left alone.
        handlers[signal.SIGHUP] = orders.hang_up
    try:
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    except ValueError:
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def drive(
    folder: RunFolder,
    steps: int | None = None,
    report: Report = lambda record, run: None,
    until: Callable[[TrainState], bool] | None = None,
    task: Task | None = None,
    expected_memory: ExpectedMemory = lambda run: "",
) -> TrainState:
    """Train the run of `folder` until it ends or is stopped, or `until` is true after an update,
    writing every record, samples, status and checkpoints.

    A run with a checkpoint goes on from there along the same trajectory, live changes included;
    `steps` extends it to that many updates in all. `task` stands in for the config's own, with a
    reward that was written elsewhere. `expected_memory` gives a sentence for the message when
    memory runs out. Raises `LabError` when another process trains it, nothing is left to do, the
    checkpoint names other code as the reward than config.json, or training fails: then the state is
    failed, with the message, and every finished record stays. Of several processes that were
    launched together this is what process 0 does, while the others `follow`.
    """
    with folder.alone():
        config, held = opened(folder, steps)
        require_code(config, folder.config.reward if names_code(folder.config) else "")
        if config.steps != folder.config.steps:
            folder.write_config(replace(folder.config, steps=config.steps))
        control = folder.path / "control.jsonl"
        orders = CommandSource(folder, control.stat().st_size if control.is_file() else 0, until)
        folder.claim()
        return _driven(folder, config, held, orders, report, task, expected_memory)


def _driven(
    folder: RunFolder,
    config: RunConfig,
    held: dict[str, Any] | None,
    orders: CommandSource,
    report: Report,
    task: Task | None,
    expected_memory: ExpectedMemory,
) -> TrainState:
    """Load the model and train; whatever goes wrong is the run's state."""
    run = None
    try:
        with _signals(orders), collectives.process_group():
            collectives.broadcast_object(lambda: (config, held))
            run = prepare(config, held)
            run.task = task or run.task
            orders.replay(run)
            if held is None and (
                done := max(
                    (row["step"] for row in folder.history() if row["type"] == "step"), default=0
                )
            ):
                run.notes.append(
                    "The run has no checkpoint, so it starts again from its base. Records of its"
                    f" {done} updates so far stand until they are written anew."
                )
            _log(
                folder,
                f"step {run.step} of {config.steps} on {run.device}, process {os.getpid()} of"
                f" {collectives.world_size()}, torch {torch.__version__}, transformers"
                f" {transformers.__version__}",
            )
            with fitting_threads(run.model):
                _train(folder, run, orders, report)
    except KeyboardInterrupt:
        folder.write_status(
            "interrupted", run.step if run else 0, "Ctrl-C twice: the last checkpoint stands"
        )
        raise
    except Exception as error:
        message = _message(
            error,
            folder,
            run.config if run else config,
            lambda: expected_memory(run) if run else "",
        )
        _fail(folder, run.step if run else 0, message)
        if isinstance(error, OSError) or message.startswith("Out of memory"):
            raise LabError(message) from error
        raise
    return run


def follow() -> None:
    """What every process but the first does in a run on several devices: train its share along with
    process 0, and leave writing to it.

    A signal to stop is process 0's to obey; a second one ends this process.
    """
    with _signals(InterruptHandler()), collectives.process_group():
        config, held = collectives.broadcast_object(lambda: (None, None))
        run = prepare(config, held)
        with fitting_threads(run.model):
            for record in train(run):
                if _kept(record, run):
                    checkpoint(run)


def _kept(record: StepRecord | Event, run: TrainState) -> bool:
    """Whether the run is saved after this record; every process takes part, because each holds a
    share of the rollout.
    """
    if isinstance(record, StepRecord):
        return bool(record.step) and record.step % run.config.checkpoint_every == 0
    return record.kind in ("stopped", "finished")


def _message(
    error: BaseException, folder: RunFolder, config: RunConfig, expected: Callable[[], str]
) -> str:
    if isinstance(error, LabError):
        return str(error)
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(
        error
    ):  # The second is what the CPU says.
        return out_of_memory_message(error, config, expected())
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"There is no disk space left for {folder.path}. Free some and go on: python -m lab"
            f" train --resume --out {folder.path}"
        )
    return f"{type(error).__name__}: {error}"


def _train(folder: RunFolder, run: TrainState, orders: CommandSource, report: Report) -> None:
    began = folder.config
    for record in train(run, orders):
        if isinstance(record, StepRecord):
            if record.samples:
                jsonl.append(
                    folder.path / "samples.jsonl",
                    (
                        {"step": record.step, "index": i} | sample
                        for i, sample in enumerate(record.samples)
                    ),
                )
            jsonl.append(folder.path / "metrics.jsonl", [record.row()])
            if _kept(record, run):
                save_checkpoint(folder, checkpoint(run), began)
            folder.write_status("running", record.step)
        else:
            if _kept(record, run):
                save_checkpoint(folder, checkpoint(run), began)
                save_adapter(run, folder.path / "adapter")
            if record.kind == "resumed" and (lacking := gaps(folder, record.step)):
                record = replace(record, detail={"message": lacking})
            jsonl.append(folder.path / "metrics.jsonl", [record.row()])
            _log(
                folder,
                f"step {record.step}: {record.kind}"
                f" {record.detail.get('message') or record.detail or ''}".rstrip(),
            )
            if record.kind in STATE_AFTER:
                folder.write_status(STATE_AFTER[record.kind], record.step)
        report(record, run)


def _log(folder: RunFolder, text: str) -> None:
    with (folder.path / "log.txt").open("a", encoding="utf-8") as log:
        log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")


def _fail(folder: RunFolder, step: int, message: str) -> None:
    """Say in the status and the record that the run failed, as far as the disk still allows."""
    try:
        folder.write_status("failed", step, message)
        jsonl.append(
            folder.path / "metrics.jsonl", [Event(step, "failed", {"message": message}).row()]
        )
        _log(folder, traceback.format_exc())
    except OSError:
        os.write(2, f"The failure could not be written to {folder.path}.\n".encode())
