"""Starts the training of a run in a process of its own, which outlives the caller."""

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from lab.config.methods import make_config
from lab.config.user_code import names_code
from lab.errors import LabError
from lab.runs.folder import STATUS_POLL_SECONDS, RunFolder, create
from lab.runs.fork import origin_of
from lab.runs.run_names import run_path
from lab.runs.standby import STANDBY
from lab.runs.states import RunState
from lab.storage.paths import runs_root


def start_training(folder: RunFolder) -> subprocess.Popen:
    """Start a process that trains the run of `folder` and outlives this one, or give the run to the
    process that waits for one; return the process at once.

    When the process ends before it has driven the run, the run's state becomes `failed`, with the end
    of its log. Raises `LabError` for a run whose reward is code of the user's own: only the command
    line starts or continues it.
    """
    if _calls_code(folder):
        folder.write_status(
            RunState.FAILED,
            0,
            "Its reward is code of your own. Train it on the command line: python -m lab train"
            f" --resume --out {folder.path} --reward {getattr(folder.config, 'reward', '')}",
        )
        raise LabError(folder.status()["message"])
    before = folder.status()
    child = STANDBY.take(folder.path) or _new_process(folder)
    if (origin := origin_of(folder.path)) and origin.is_twin:
        _lower_priority(child)
    threading.Thread(target=_collect, args=(folder, child, before), daemon=True).start()
    return child


def _new_process(folder: RunFolder) -> subprocess.Popen:
    command = [sys.executable, "-m", "lab", "train", "--resume", "--out", str(folder.path)]
    try:
        with (folder.path / "log.txt").open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
    except OSError as error:
        folder.write_status(
            RunState.FAILED, 0, f"No training process could be started: {error.strerror}."
        )
        raise LabError(folder.status()["message"]) from error


def _lower_priority(child: subprocess.Popen) -> None:
    """Let every other process come before this one."""
    try:
        # Windows has classes of priority, other systems numbers up to 19.
        psutil.Process(child.pid).nice(getattr(psutil, "IDLE_PRIORITY_CLASS", 19))
    except psutil.Error:  # It has ended, and its status will say why.
        return


def _calls_code(folder: RunFolder) -> bool:
    try:
        return names_code(folder.config)
    except LabError:  # The training process will say what is wrong with it.
        return False


def _collect(folder: RunFolder, child: subprocess.Popen, before: dict[str, Any]) -> None:
    """Wait for a training process, so that it does not linger as a zombie; write into the status when
    it never drove the run: then the status is as it was `before`. A run that was stopped and continued
    may have another process by now.
    """
    child.wait()
    if folder.path.is_dir() and folder.status() == before:
        log = folder.path / "log.txt"  # A standby process may end before it writes one.
        tail = log.read_text("utf-8", "replace")[-2000:].strip() if log.is_file() else ""
        folder.write_status(
            RunState.FAILED,
            0,
            f"The training process ended at once with exit code {child.returncode}. Its log ends:"
            f" {tail}",
        )


def launch(method: str, knobs: dict[str, Any], out: str, root: Path | None = None) -> RunFolder:
    """Create the run `out` in `root` and start a process that trains it and outlives this one.

    Returns once the new process drives the run. Raises `LabError` for bad settings, and with the end
    of its log when the process ends before. Later errors (a model that does not exist, bad data) are
    in the run's state `failed` and its message.
    """
    folder = create(
        run_path(runs_root() if root is None else root, out), make_config(method, knobs)
    )
    child = start_training(folder)
    while (now := folder.status())["pid"] != child.pid:
        if now["state"] == RunState.FAILED:
            raise LabError(f"{folder.path}: {now['message']}")
        time.sleep(STATUS_POLL_SECONDS)
    return folder
