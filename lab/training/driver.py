"""Trains a run folder in this process, from its start or from its checkpoint, and writes every
record as it comes.
"""

import errno
import os
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import Any

import torch
import transformers

from lab.config.adapter_settings import trained_folder
from lab.config.run_config import RunConfig
from lab.config.user_code import names_code, require_code
from lab.distributed import collectives
from lab.errors import LabError
from lab.models.loading import fitting_threads
from lab.runs.folder import RunFolder
from lab.runs.fork import origin_of
from lab.runs.records import Event, StepRecord
from lab.runs.states import EventKind, RunState
from lab.storage import jsonl
from lab.training.best_adapter import BestAdapter
from lab.training.checkpoints import make_checkpoint
from lab.training.commands import CommandSource, InterruptHandler, handle_signals
from lab.training.loop import prepare, train
from lab.training.machine_record import note_machine, note_peak_memory
from lab.training.out_of_memory import is_out_of_memory, out_of_memory_message
from lab.training.own_functions import (
    OwnFunctions,
    function_name,
    note_functions,
    require_hooks,
    require_start,
)
from lab.training.resume import missing_records, open_for_training, save_checkpoint
from lab.training.state import TrainState
from lab.training.trackers import Trackers
from lab.training.trained_model import save_adapter

STATE_AFTER = {
    EventKind.PAUSED: RunState.PAUSED,
    EventKind.CONTINUED: RunState.RUNNING,
    EventKind.STOPPED: RunState.STOPPED,
    EventKind.FINISHED: RunState.FINISHED,
}
Report = Callable[[StepRecord | Event, TrainState], None]
DrivenRecords = Generator[tuple[StepRecord | Event, TrainState], None, TrainState]
ExpectedMemory = Callable[[TrainState], str]


def drive(
    folder: RunFolder,
    steps: int | None = None,
    report: Report = lambda record, run: None,
    until: Callable[[TrainState], bool] | None = None,
    own: OwnFunctions | None = None,
    expected_memory: ExpectedMemory = lambda run: "",
) -> TrainState:
    """Train the run of `folder` as `drive_records` does, hand every record to `report`, and return the
    last state. An error of `report` ends the run as failed.
    """
    records = drive_records(folder, steps, until, own, expected_memory)
    while True:
        try:
            record, run = next(records)
        except StopIteration as end:
            return end.value
        try:
            report(record, run)
        except BaseException as error:
            records.throw(error)
            raise


def drive_records(
    folder: RunFolder,
    steps: int | None = None,
    until: Callable[[TrainState], bool] | None = None,
    own: OwnFunctions | None = None,
    expected_memory: ExpectedMemory = lambda run: "",
) -> DrivenRecords:
    """Train the run of `folder` until it ends or is stopped, or `until` is true after an update;
    write every record, samples, status and checkpoints. Yield each record when it is written, with
    the state of the run; return the last state.

    A run with a checkpoint continues from it along the same trajectory, live changes included;
    `steps` extends it to that many updates in all. `own` holds functions of the caller that replace
    the lab's, by the names of the method's hooks; such a run is not resumed, since they are not
    stored. `expected_memory` returns a sentence for the message when memory runs out. In a
    distributed run rank 0 calls `drive`; the other ranks call `follow_rank_zero`.

    Raises `LabError` when another process trains the run, no update is left to do, the checkpoint
    names other code as the reward than config.json, or training fails. After a failure the run's
    state is failed, with the message, and all finished records stay.
    """
    with folder.alone():
        config, saved = open_for_training(folder, steps)
        own = own or {}
        require_hooks(config, own)
        require_start(folder, own, has_begun=saved is not None)
        reward = getattr(folder.config, "reward", "") if names_code(folder.config) else ""
        require_code(config, reward)
        if config.steps != folder.config.steps:
            folder.write_config(replace(folder.config, steps=config.steps))
        control = folder.path / "control.jsonl"
        source = CommandSource(folder, control.stat().st_size if control.is_file() else 0, until)
        folder.claim()
        if own:
            note_functions(folder, own)
        return (yield from _train_folder(folder, config, saved, source, own, expected_memory))


def _train_folder(
    folder: RunFolder,
    config: RunConfig,
    saved: dict[str, Any] | None,
    source: CommandSource,
    own: OwnFunctions,
    expected_memory: ExpectedMemory,
) -> DrivenRecords:
    """Load the model and train; an error becomes the run's state."""
    run = None
    try:
        with handle_signals(source), collectives.process_group():
            collectives.broadcast_object(lambda: (config, saved))
            run = prepare(config, saved, folder.path)
            if run.config.steps != folder.config.steps:
                folder.write_config(replace(folder.config, steps=run.config.steps))
            run.own = own
            run.notes += [
                f"{place} is {function_name(function)}, a function of the notebook, in place of the"
                " lab's."
                for place, function in own.items()
            ]
            source.replay(run)
            if run.changed_at is None and (origin := origin_of(folder.path)):
                run.changed_at = origin.step
            if saved is None:
                _note_restart(folder, run)
            _log(
                folder,
                f"step {run.step} of {run.config.steps} on {run.device}, process {os.getpid()} of"
                f" {collectives.world_size()}, torch {torch.__version__}, transformers"
                f" {transformers.__version__}",
            )
            with fitting_threads(run.model):
                yield from _train(folder, run, source)
    except KeyboardInterrupt:
        folder.write_status(
            RunState.INTERRUPTED,
            run.step if run else 0,
            "Ctrl-C twice: the last checkpoint is intact",
        )
        raise
    except Exception as error:
        expected = expected_memory(run) if run and is_out_of_memory(error) else ""
        message = _message(error, folder, run.config if run else config, expected)
        _fail(folder, run.step if run else 0, message)
        if isinstance(error, OSError) or message.startswith("Out of memory"):
            raise LabError(message) from error
        raise
    return run


def _note_restart(folder: RunFolder, run: TrainState) -> None:
    """Note that a run without a checkpoint starts again, if it has records of updates already."""
    steps = (row["step"] for row in folder.history() if row["type"] == "step")
    if last_step := max(steps, default=0):
        run.notes.append(
            "The run has no checkpoint, so it starts again from its base. Records of its"
            f" {last_step} updates so far stay until they are written anew."
        )


def follow_rank_zero() -> None:
    """Train this process's share of a distributed run together with rank 0, which writes the files.

    The first signal to stop is left to rank 0; a second one ends this process.
    """
    with handle_signals(InterruptHandler()), collectives.process_group():
        config, saved = collectives.broadcast_object(_received_from_rank_zero)
        run = prepare(config, saved)
        with fitting_threads(run.model):
            for record in train(run):
                if _is_checkpoint_due(record, run):
                    make_checkpoint(run)


def _received_from_rank_zero() -> tuple[RunConfig, dict[str, Any] | None]:
    """Stand in for the config and checkpoint that rank 0 broadcasts."""
    raise LabError("This process has rank 0, so it has to call `drive` and not follow another.")


def _is_checkpoint_due(record: StepRecord | Event, run: TrainState) -> bool:
    """Whether the run is saved after this record; every rank takes part, because each of them holds
    a share of the rollout.
    """
    if isinstance(record, StepRecord):
        return bool(record.step) and record.step % run.config.checkpoint_every == 0
    return record.kind in (EventKind.STOPPED, EventKind.FINISHED)


def _message(error: BaseException, folder: RunFolder, config: RunConfig, expected: str) -> str:
    """The message of a failed run for status.json."""
    if isinstance(error, LabError):
        return str(error)
    if is_out_of_memory(error):
        return out_of_memory_message(error, config, expected)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"There is no disk space left for {folder.path}. Free some and go on: python -m lab"
            f" train --resume --out {folder.path}"
        )
    return f"{type(error).__name__}: {error}"


def _train(
    folder: RunFolder, run: TrainState, source: CommandSource
) -> Iterator[tuple[StepRecord | Event, TrainState]]:
    """Train to the end; yield every record when it is in the folder."""
    started_with = folder.config
    note_machine(folder.path, run)
    trackers, best = Trackers(folder, run), BestAdapter(folder, run.config)
    try:
        for record in train(run, source):
            if isinstance(record, StepRecord):
                _write_step(folder, run, record, started_with)
                best.see(record, run)
                source.stops_early = best.is_exhausted
            else:
                record = _write_event(folder, run, record, started_with)
            trackers.log(record, run)
            yield record, run
        if note := best.finish(run):
            noted = Event(run.step, EventKind.NOTED, {"message": note})
            yield _write_event(folder, run, noted, started_with), run
    finally:
        note_peak_memory(folder.path, run)
        for failure in (*run.notes, *trackers.close()):
            _log(folder, failure)


def _write_step(
    folder: RunFolder, run: TrainState, record: StepRecord, started_with: RunConfig
) -> None:
    if record.samples:
        rows = (
            {"step": record.step, "index": i} | sample for i, sample in enumerate(record.samples)
        )
        jsonl.append_rows(folder.path / "samples.jsonl", rows)
    jsonl.append_rows(folder.path / "metrics.jsonl", [record.row()])
    if _is_checkpoint_due(record, run):
        save_checkpoint(folder, make_checkpoint(run), started_with)
    folder.write_status(RunState.RUNNING, record.step)


def _write_event(
    folder: RunFolder, run: TrainState, event: Event, started_with: RunConfig
) -> Event:
    """Write an event and return it, after a resume with the records that are missing as its
    message.
    """
    if _is_checkpoint_due(event, run):
        save_checkpoint(folder, make_checkpoint(run), started_with)
        save_adapter(run, folder.path / trained_folder(run.config))
    if event.kind == EventKind.RESUMED and (missing := missing_records(folder, event.step)):
        event = replace(event, detail={"message": missing})
    jsonl.append_rows(folder.path / "metrics.jsonl", [event.row()])
    detail = event.detail.get("message") or event.detail or ""
    _log(folder, f"step {event.step}: {event.kind} {detail}".rstrip())
    if event.kind in STATE_AFTER:
        folder.write_status(STATE_AFTER[event.kind], event.step)
    return event


def _log(folder: RunFolder, text: str) -> None:
    with (folder.path / "log.txt").open("a", encoding="utf-8") as log:
        log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")


def _fail(folder: RunFolder, step: int, message: str) -> None:
    """Write into status and record that the run failed, as far as the disk still allows."""
    try:
        folder.write_status(RunState.FAILED, step, message)
        jsonl.append_rows(
            folder.path / "metrics.jsonl",
            [Event(step, EventKind.FAILED, {"message": message}).row()],
        )
        _log(folder, traceback.format_exc())
    except OSError:
        os.write(2, f"The failure could not be written to {folder.path}.\n".encode())
