"""The run folder: the files of a run, which can be read while its process writes them.

A folder holds config.json, the same settings in run.yaml, and status.json (replaced in one piece),
metrics.jsonl, samples.jsonl and control.jsonl (only ever appended to), log.txt, data.json (the
identity of the data), checkpoint/state.pt and adapter/ (after full fine-tuning model/), both with
checksums. A process may be killed at any moment: every finished line stays readable.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from filelock import FileLock, Timeout

from lab.config.config_file import RUN_YAML, to_yaml
from lab.config.json_format import CONFIG_FORMAT, from_dict, to_dict
from lab.config.run_config import RunConfig
from lab.errors import LabError
from lab.runs.control import Command
from lab.runs.process_identity import is_alive, process_identity
from lab.runs.row_schemas import metrics_row, sample_row
from lab.runs.run_names import safe_name
from lab.runs.states import ACTIVE_STATES, RunState
from lab.storage.jsonl import (
    append_rows,
    encode_row,
    read_jsonl,
    read_text,
    remove_partial_files,
    replace_file,
)
from lab.storage.paths import with_absolute_paths

STATUS_POLL_SECONDS = 0.05
# status.json is padded to this size, so that it can still be overwritten in place when the disk is
# full.
STATUS_BYTES = 2048
LOCK_FILE = ".lock"  # Locked by the process that drives the run.


class RunStatus(TypedDict):
    """The content of status.json: `pid` is the process that drives the run, `process_started` and
    `heartbeat` (the time of writing) are in seconds since 1970, `step` counts the finished updates.
    """

    state: RunState
    pid: int
    process_started: float
    heartbeat: float
    step: int
    message: str


def _typed(value: Any, kind: Any, default: Any) -> Any:
    """`value` if it is of the type `kind`, otherwise `default`."""
    return value if isinstance(value, kind) else default


@dataclass(frozen=True)
class RunFolder:
    """A run on disk. Nothing is cached: every call reads what is there now."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def config(self) -> RunConfig:
        """The config with which the run was started; live changes are events in the metrics."""
        path = self.path / "config.json"
        try:
            return from_dict(json.loads(read_text(path)))
        except (FileNotFoundError, NotADirectoryError):
            raise LabError(
                f"There is no run in {self.path}: it has no config.json. `python -m lab runs` lists"
                " the runs."
            ) from None
        except (LabError, ValueError, RecursionError) as error:
            raise LabError(f"{path} cannot be read: {str(error)[:300]}") from error
        except OSError as error:
            raise LabError(f"{path} cannot be read: {error.strerror}.") from error

    def status(self) -> RunStatus:
        """Return what the training process wrote last; an interrupted run where nothing can be
        read.
        """
        try:
            row = json.loads(read_text(self.path / "status.json"))
        except (OSError, ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or row.get("state") not in list(RunState):
            row = {"state": RunState.INTERRUPTED}
        return {
            "state": RunState(row["state"]),
            "pid": _typed(row.get("pid"), int, 0),
            "process_started": _typed(row.get("process_started"), int | float, 0.0),
            "heartbeat": _typed(row.get("heartbeat"), int | float, 0.0),
            "step": _typed(row.get("step"), int, 0),
            "message": _typed(row.get("message"), str, ""),
        }

    @property
    def state(self) -> RunState:
        """The state in status.json, but interrupted when that names a process which is gone."""
        status = self.status()
        if status["state"] in ACTIVE_STATES and not is_alive(
            status["pid"], status["process_started"]
        ):
            return RunState.INTERRUPTED
        return status["state"]

    def write_config(self, config: RunConfig) -> None:
        """Replace config.json, and run.yaml, from which `train --config` repeats the run."""
        replace_file(
            self.path / "config.json",
            (json.dumps({"format": CONFIG_FORMAT} | to_dict(config), indent=1) + "\n").encode(),
        )
        replace_file(self.path / RUN_YAML, to_yaml(config).encode())

    def write_status(self, state: RunState, step: int, message: str = "") -> None:
        """Replace status.json, with this process as the one that drives the run.

        On a full disk the old file is overwritten in place.
        """
        row = {
            "state": state,
            **process_identity(),
            "heartbeat": time.time(),
            "step": step,
            "message": message,
        }
        data = encode_row(row).ljust(STATUS_BYTES)
        path = self.path / "status.json"
        try:
            replace_file(path, data, durable=False)
        except OSError:
            with path.open("r+b", buffering=0) as file:
                file.write(data)
                file.truncate(len(data))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within it no other process can drive the run; raise `LabError` while one does.

        One process may nest it.
        """
        if not self.path.is_dir():
            raise LabError(f"There is no run in {self.path}. `python -m lab runs` lists the runs.")
        lock = FileLock(
            self.path / LOCK_FILE, blocking=False, thread_local=False, is_singleton=True
        )
        try:
            lock.acquire()
        except Timeout:
            raise self._is_trained(self.status()["pid"]) from None
        except OSError as error:
            raise LabError(f"Cannot write in {self.path}: {error.strerror}.") from error
        try:
            status = self.status()
            if (
                status["state"] in ACTIVE_STATES
                and status["pid"] != os.getpid()
                and is_alive(status["pid"], status["process_started"])
            ):
                raise self._is_trained(status["pid"])
            yield
        finally:
            lock.release()

    def _is_trained(self, pid: int) -> LabError:
        by = f"process {pid}" if pid else "another process"
        return LabError(
            f"{self.path} is being trained by {by}. `python -m lab control {self.path} stop`"
            " ends it."
        )

    def claim(self) -> None:
        """Write this process into the status as the one that drives the run; raise `LabError` while
        another does. `alone` keeps others away afterwards.
        """
        with self.alone():
            try:
                self.write_status(RunState.RUNNING, self.status()["step"], "loading the model")
            except OSError as error:
                raise LabError(f"Cannot write in {self.path}: {error.strerror}.") from error

    def read(self, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
        """Return the rows of metrics.jsonl (steps and events, in the order of writing) from byte
        `offset` on, and the offset for the next call.
        """
        return read_jsonl(self.path / "metrics.jsonl", offset, metrics_row)

    def history(self) -> list[dict[str, Any]]:
        """Return the rows of metrics.jsonl ordered by step.

        Where a resumed run wrote a step or the answer to a command again, the last row counts.
        """
        last: dict[Any, dict[str, Any]] = {}
        for i, row in enumerate(self.read()[0]):
            key = row["step"] if row["type"] == "step" else row["id"] or ("event", i)
            last.pop(key, None)
            last[key] = row
        return sorted(last.values(), key=lambda row: row["step"])

    def samples(self) -> list[dict[str, Any]]:
        """Return the rows of samples.jsonl ordered by step; `index` counts within a step.

        Where a resumed run wrote a step again, its last samples count.
        """
        steps: dict[int, list[dict[str, Any]]] = {}
        for row in read_jsonl(self.path / "samples.jsonl", check=sample_row)[0]:
            if row["index"] == 0:
                steps[row["step"]] = []
            steps.setdefault(row["step"], []).append(row)
        return [row for step in sorted(steps) for row in steps[step]]

    def send(self, command: Command) -> str:
        """Append a command for the training process, which answers with an event of the same id;
        return the id.
        """
        try:
            append_rows(self.path / "control.jsonl", [command.row()])
        except OSError as error:
            raise LabError(f"Cannot write in {self.path}: {error.strerror}.") from error
        return command.id

    def ask(self, command: Command) -> dict[str, Any]:
        """Send a command and return the event row that answers it; raise `LabError` when the run
        does not train, or ends before it answers.
        """
        if self.state not in ACTIVE_STATES:
            raise LabError(
                f"{self.path} is {self.state}, so no process reads its commands. Only a running or"
                f" paused run can be controlled; `python -m lab train --resume --out {self.path}`"
                " continues one that has not finished."
            )
        _, offset = self.read()
        self.send(command)
        while True:
            state = self.state
            rows, offset = self.read(offset)
            for row in rows:
                if row["type"] == "event" and row["id"] == command.id:
                    return row
            if state not in ACTIVE_STATES:
                raise LabError(f"{self.path} is {state}; it ended before it read the command.")
            time.sleep(STATUS_POLL_SECONDS)


def require_free(path: Path) -> None:
    """Raise `LabError` when `path` cannot become a new run."""
    safe_name(path.name)
    if path.exists():
        raise LabError(
            f"{path} exists. Choose another --out, or continue that run: python -m lab train"
            f" --resume --out {path}"
        )


def create(path: Path, config: RunConfig, state: RunState = RunState.RUNNING) -> RunFolder:
    """Create the folder of a new run, with its config and a status without a process.

    The folder appears in one piece or not at all. Raises `LabError` when the path is taken or
    cannot be written.
    """
    path = Path(path)
    require_free(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    config = with_absolute_paths(config)
    remove_partial_files(path.parent, path.name)
    try:
        partial.mkdir(parents=True)
        RunFolder(partial).write_config(config)
        status: dict[str, Any] = {
            "state": state,
            "pid": 0,
            "process_started": 0.0,
            "heartbeat": time.time(),
            "step": 0,
            "message": "not started",
        }
        replace_file(partial / "status.json", encode_row(status).ljust(STATUS_BYTES))
        os.rename(partial, path)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        require_free(path)
        raise LabError(
            f"Cannot make the run folder {path}: {error.strerror}. Give a folder that you may write:"
            " --out FOLDER, or the environment variable LAB_RUNS for all runs."
        ) from error
    return RunFolder(path)
