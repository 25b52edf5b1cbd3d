"""The run folder: what a run leaves on disk, how to read it while it is written, and how to steer
the process that writes it.

A folder holds config.json and status.json (replaced in one piece), metrics.jsonl, samples.jsonl and
control.jsonl (only ever appended to), log.txt, data.json (what identifies the data),
checkpoint/state.pt and adapter/, both with checksums. Whatever moment a process is killed at, every
finished line stays readable.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from lab.config.json_format import from_dict, to_dict, CONFIG_FORMAT
from lab.config.methods import make_config
from lab.config.run_config import RunConfig
from lab.config.user_code import names_code
from lab.errors import LabError
from lab.runs.control import Command
from lab.runs.row_schemas import metrics_row, sample_row
from lab.storage.jsonl import append, encode, read_rows, replace, sweep
from lab.storage.paths import RUN_FILES, anchored, find_run, runs_root

ACTIVE = ("running", "paused")
WAITING = ("queued", "starting")
STATES = (*ACTIVE, *WAITING, "finished", "stopped", "failed", "interrupted")
POLL_SECONDS = 0.05
# status.json is padded to this size, so that it can still be overwritten in place when the disk is
# full.
STATUS_BYTES = 2048
LOCK = ".lock"  # of the process that drives the run
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def safe_name(name: str) -> str:
    """`name` if it can be a run's name; raise `LabError` for anything that could lead out of the
    runs' folder.
    """
    if not _NAME.fullmatch(name):
        raise LabError(
            f"'{name}' cannot be the name of a run. A name has up to 100 letters, digits, dots,"
            " dashes and underscores, and starts with a letter or a digit."
        )
    return name


def resolve(root: Path, name: str) -> Path:
    """The folder of the run `name` in `root`, whether it exists or not."""
    return Path(root) / safe_name(name)


def own_process() -> dict[str, Any]:
    """What tells this process from any other, also from a later one with the same number."""
    return {"pid": os.getpid(), "process_started": psutil.Process().create_time()}


def is_alive(pid: int, started: float) -> bool:
    """Whether the process `pid` that began at `started` (seconds since 1970) still runs; the clock
    may have been set by 2 s since.
    """
    try:
        process = psutil.Process(pid or -1)
        return (
            abs(process.create_time() - started) < 2.0 and process.status() != psutil.STATUS_ZOMBIE
        )
    except (psutil.Error, ValueError, OverflowError):
        return False


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
        """The config that the run was started with; live changes are events in the metrics."""
        try:
            return from_dict(json.loads((self.path / "config.json").read_text("utf-8")))
        except (FileNotFoundError, NotADirectoryError):
            raise LabError(
                f"There is no run in {self.path}: it has no config.json. `python -m lab runs` lists"
                " the runs."
            ) from None
        except (LabError, ValueError, RecursionError) as error:
            raise LabError(
                f"{self.path / 'config.json'} cannot be read: {str(error)[:300]}"
            ) from error
        except OSError as error:
            raise LabError(
                f"{self.path / 'config.json'} cannot be read: {error.strerror}."
            ) from error

    def status(self) -> dict[str, Any]:
        """What the training process wrote last: state, pid, process_started, heartbeat (seconds
        since 1970), step, message.
        """
        blank = {
            "state": "interrupted",
            "pid": 0,
            "process_started": 0.0,
            "heartbeat": 0.0,
            "step": 0,
            "message": "",
        }
        try:
            said = json.loads((self.path / "status.json").read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            return blank
        if not isinstance(said, dict) or said.get("state") not in STATES:
            return blank
        return blank | {
            name: said[name]
            for name, value in blank.items()
            if isinstance(said.get(name), int | float if type(value) is float else type(value))
        }

    @property
    def state(self) -> str:
        """running, paused, finished, stopped, failed; or interrupted, when the process is gone
        without having said so.
        """
        now = self.status()
        return (
            "interrupted"
            if now["state"] in ACTIVE and not is_alive(now["pid"], now["process_started"])
            else now["state"]
        )

    def write_config(self, config: RunConfig) -> None:
        """Replace config.json."""
        replace(
            self.path / "config.json",
            (json.dumps({"format": CONFIG_FORMAT} | to_dict(config), indent=1) + "\n").encode(),
        )

    def write_status(self, state: str, step: int, message: str = "") -> None:
        """Replace status.json, with this process as the run's; on a full disk overwrite it where it
        stands.
        """
        row = {
            "state": state,
            **own_process(),
            "heartbeat": time.time(),
            "step": step,
            "message": message,
        }
        data = encode(row).ljust(STATUS_BYTES)
        path = self.path / "status.json"
        try:
            replace(path, data, durable=False)
        except OSError:
            with path.open("r+b", buffering=0) as file:
                file.write(data)
                file.truncate(len(data))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within it no other process may drive the run, nor begin to; raise `LabError` while one
        does. Nested in one process it counts once.
        """
        if not self.path.is_dir():
            raise LabError(f"There is no run in {self.path}. `python -m lab runs` lists the runs.")
        lock = FileLock(self.path / LOCK, blocking=False, thread_local=False, is_singleton=True)
        try:
            lock.acquire()
        except Timeout:
            raise self._is_trained(self.status()["pid"]) from None
        except OSError as error:
            raise LabError(f"Cannot write in {self.path}: {error.strerror}.") from error
        try:
            now = self.status()
            if (
                now["state"] in ACTIVE
                and now["pid"] != os.getpid()
                and is_alive(now["pid"], now["process_started"])
            ):
                raise self._is_trained(now["pid"])
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
        """Make this process the one that drives the run, as far as its status says; raise
        `LabError` while another does. `alone` keeps it so.
        """
        with self.alone():
            try:
                self.write_status("running", self.status()["step"], "loading the model")
            except OSError as error:
                raise LabError(f"Cannot write in {self.path}: {error.strerror}.") from error

    def read(self, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
        """Rows of metrics.jsonl (steps and events, in the order of writing) from `offset` on, and
        the offset for the next call.
        """
        return read_rows(self.path / "metrics.jsonl", offset, metrics_row)

    def history(self) -> list[dict[str, Any]]:
        """Rows of metrics.jsonl ordered by step; of a step or an answered command that a resumed
        run wrote again, the last.
        """
        last: dict[Any, dict[str, Any]] = {}
        for i, row in enumerate(self.read()[0]):
            key = row["step"] if row["type"] == "step" else row["id"] or ("event", i)
            last.pop(key, None)
            last[key] = row
        return sorted(last.values(), key=lambda row: row["step"])

    def samples(self) -> list[dict[str, Any]]:
        """Rows of samples.jsonl ordered by step; `index` counts within a step, and of a step that
        was written again the last counts.
        """
        steps: dict[int, list[dict[str, Any]]] = {}
        for row in read_rows(self.path / "samples.jsonl", shape=sample_row)[0]:
            if row["index"] == 0:
                steps[row["step"]] = []
            steps.setdefault(row["step"], []).append(row)
        return [row for step in sorted(steps) for row in steps[step]]

    def send(self, command: Command) -> str:
        """Append a command for the training process, which echoes it as an event with the same id;
        returns the id.
        """
        try:
            append(self.path / "control.jsonl", [command.row()])
        except OSError as error:
            raise LabError(f"Cannot write in {self.path}: {error.strerror}.") from error
        return command.id

    def ask(self, command: Command) -> dict[str, Any]:
        """Send a command and wait for the event that answers it. Raise `LabError` when the run does
        not train, or ends before it answers.
        """
        if self.state not in ACTIVE:
            raise LabError(
                f"{self.path} is {self.state}, so nobody would obey. Only a running or paused run"
                f" can be controlled; `python -m lab train --resume --out {self.path}` continues"
                " one that has not finished."
            )
        _, offset = self.read()
        self.send(command)
        while True:
            state = self.state
            rows, offset = self.read(offset)
            for row in rows:
                if row["type"] == "event" and row["id"] == command.id:
                    return row
            if state not in ACTIVE:
                raise LabError(f"{self.path} is {state}; it ended before it read the command.")
            time.sleep(POLL_SECONDS)


def require_free(path: Path) -> None:
    """Raise `LabError` when `path` cannot become a new run."""
    safe_name(path.name)
    if path.exists():
        raise LabError(
            f"{path} exists. Choose another --out, or continue that run: python -m lab train"
            f" --resume --out {path}"
        )


def create(path: Path, config: RunConfig, state: str = "running") -> RunFolder:
    """Make the folder of a new run, with its config and a status that nobody drives yet. It appears
    in one piece or not at all.
    """
    path = Path(path)
    require_free(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    config = anchored(config)
    sweep(path.parent, path.name)
    try:
        partial.mkdir(parents=True)
        RunFolder(partial).write_config(config)
        status = {
            "state": state,
            "pid": 0,
            "process_started": 0.0,
            "heartbeat": time.time(),
            "step": 0,
            "message": "not started",
        }
        replace(partial / "status.json", encode(status).ljust(STATUS_BYTES))
        os.rename(partial, path)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        require_free(path)
        raise LabError(f"Cannot make the run folder {path}: {error.strerror}.") from error
    return RunFolder(path)


def list_runs(root: Path | None = None) -> list[RunFolder]:
    """Every run in `root` whose config can be read, by name; `lab.runs.damage` knows the others."""
    runs = []
    for path in run_paths(root):
        try:
            RunFolder(path).config  # noqa: B018  # A folder of another program or version is no run of this lab.
        except LabError:
            continue
        runs.append(RunFolder(path))
    return runs


def newest_first(runs: list[RunFolder]) -> list[RunFolder]:
    """The runs, the one that was made last first."""

    def made(run: RunFolder) -> float:
        try:
            return (run.path / "config.json").stat().st_mtime
        except OSError:  # It was deleted a moment ago.
            return 0.0

    return sorted(runs, key=made, reverse=True)


def run_paths(root: Path | None = None) -> list[Path]:
    """Every folder in `root` that may be a run, by name."""
    root = runs_root() if root is None else Path(root)
    try:
        names = sorted(os.listdir(root))
    except OSError:
        return []
    return [root / name for name in names if _NAME.fullmatch(name) and _may_be_run(root / name)]


def _may_be_run(path: Path) -> bool:
    """Whether a folder holds a run's files, or lets nobody see what it holds."""
    try:
        return not {*RUN_FILES}.isdisjoint(os.listdir(path))
    except NotADirectoryError:
        return False
    except OSError:
        return True


def find(run: str) -> RunFolder:
    """The run that `run` means: a folder, or the name of a run in `runs_root`."""
    return RunFolder(find_run(run))


def new_path(method: str, root: Path | None = None) -> Path:
    """A folder for a new run that does not exist: METHOD-MONTHDAY-TIME in `root`."""
    path = first = (
        runs_root() if root is None else Path(root)
    ) / f"{method}-{time.strftime('%m%d-%H%M%S')}"
    for number in range(2, 1000):
        if not path.exists():
            break
        path = first.with_name(f"{first.name}-{number}")
    return path


def start(folder: RunFolder) -> subprocess.Popen:
    """Train the run of `folder` in a process of its own, which outlives this one; return at once.

    When that process ends before it has driven the run, the run's state becomes `failed`, with the
    end of its log. A run that calls code of the user's own is refused: only the command line starts
    or continues it.
    """
    if _calls_code(folder):
        folder.write_status(
            "failed",
            0,
            "Its reward is code of your own. Train it on the command line: python -m lab train"
            f" --resume --out {folder.path} --reward {folder.config.reward}",
        )
        raise LabError(folder.status()["message"])
    command = [sys.executable, "-m", "lab", "train", "--resume", "--out", str(folder.path)]
    try:
        with (folder.path / "log.txt").open("ab") as log:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
    except OSError as error:
        folder.write_status("failed", 0, f"No training process could be started: {error.strerror}.")
        raise LabError(folder.status()["message"]) from error
    threading.Thread(target=_collect, args=(folder, child), daemon=True).start()
    return child


def _calls_code(folder: RunFolder) -> bool:
    try:
        return names_code(folder.config)
    except LabError:  # The training process will say what is wrong with it.
        return False


def _collect(folder: RunFolder, child: subprocess.Popen) -> None:
    """Wait for a training process, so that it does not linger as a zombie, and say so in the status
    when it never drove the run.
    """
    child.wait()
    if folder.path.is_dir() and folder.status()["pid"] != child.pid and folder.state not in ACTIVE:
        tail = (folder.path / "log.txt").read_text("utf-8", "replace")[-2000:].strip()
        folder.write_status(
            "failed",
            0,
            f"The training process ended at once with exit code {child.returncode}. Its log ends:"
            f" {tail}",
        )


def launch(method: str, knobs: dict[str, Any], out: str, root: Path | None = None) -> RunFolder:
    """Create the run `out` in `root` and train it in a process of its own, which outlives this one.

    Bad knobs raise `LabError` here. Returns once the new process drives the run; if it dies before,
    raises `LabError` with the end of its log. What goes wrong later (a model that does not exist,
    bad data) is the run's state `failed` and message.
    """
    folder = create(resolve(runs_root() if root is None else root, out), make_config(method, knobs))
    child = start(folder)
    while (now := folder.status())["pid"] != child.pid:
        if now["state"] == "failed":
            raise LabError(f"{folder.path}: {now['message']}")
        time.sleep(POLL_SECONDS)
    return folder
