"""Runs that wait for a free core. The queue is the run folders whose state is `queued`, so it
outlives the page, the server and a restart.

Whoever calls `advance` starts the runs that fit now; `work` calls it until none waits. A lock on a
file lets only one process at a time decide, so no run is started twice.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lab.config.methods import make_config
from lab.config.user_code import require_offered
from lab.errors import LabError
from lab.runs.folder import RunFolder, create, is_alive, run_paths, start
from lab.runs.trash import aside
from lab.storage.paths import require_space
from lab.tasks.registry import check

MOST_WAITING = 128  # runs
PAUSE = 0.5  # seconds between two looks at the queue
PATIENCE = 3.0  # seconds that a second worker waits for the first to end
SCHEDULER_LOCK, WORKER_LOCK = ".queue.lock", ".queue-worker.lock"


def cores() -> int:
    """How many runs train at a time: a small model trains in one thread."""
    return os.cpu_count() or 1


@contextmanager
def locked(path: Path, patience: float | None = None) -> Iterator[bool]:
    """Hold the lock on a file; it is freed when this process ends, however that happens. False when
    it was not to be had in time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=-1 if patience is None else patience)
    try:
        lock.acquire(poll_interval=0.02)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _statuses(root: Path) -> list[tuple[RunFolder, dict[str, Any]]]:
    return [
        (RunFolder(path), RunFolder(path).status())
        for path in run_paths(root)
        if os.path.isfile(path / "status.json")
    ]


def _due(status: Mapping[str, Any]) -> bool:
    """Whether a run waits for its start; also when whoever was about to start it is gone."""
    return (
        status["state"] == "queued"
        or status["state"] == "starting"
        and not is_alive(status["pid"], status["process_started"])
    )


def waiting(root: Path) -> list[RunFolder]:
    """The runs that wait, the next to start first."""
    due = [
        (s["state"] == "queued", s["heartbeat"], folder)
        for folder, s in _statuses(root)
        if _due(s) and os.access(folder.path, os.W_OK)
    ]
    return [folder for *_, folder in sorted(due, key=lambda one: one[:2])]


def busy(root: Path) -> int:
    """How many runs take a core now."""
    return sum(
        s["state"] in ("running", "starting") and is_alive(s["pid"], s["process_started"])
        for _, s in _statuses(root)
    )


def free(root: Path) -> int:
    """How many more runs fit now."""
    return max(0, cores() - busy(root))


def enqueue(method: str, settings: Sequence[Mapping[str, Any]], root: Path) -> list[str]:
    """Make a waiting run METHOD-1, METHOD-2, … of each dict of knobs and start as many as fit;
    unfit knobs raise `LabError` before any is made.
    """
    require_space(root)
    if (line := len(waiting(root))) + len(settings) > MOST_WAITING:
        raise LabError(
            f"{line} runs wait already, and the queue takes at most {MOST_WAITING}; {len(settings)}"
            " more do not fit. Let some finish, or take some out of the queue."
        )
    configs = [make_config(method, dict(knobs)) for knobs in settings]
    for config in configs:
        require_offered(config)
        check(config)
    names, number = [], 0
    with locked(root / SCHEDULER_LOCK):
        for config in configs:
            number += 1
            while (root / f"{method}-{number}").exists():
                number += 1
            names.append(create(root / f"{method}-{number}", config, "queued").name)
    if start_ready_runs(root):
        spawn_worker(root)
    return names


def start_ready_runs(root: Path) -> bool:
    """Start the runs that fit now; whether others still wait."""
    with locked(root / SCHEDULER_LOCK):
        line = waiting(root)
        fit = free(root)
        for folder in line[:fit]:
            folder.write_status("starting", 0)
            try:
                start(folder)
            except LabError:  # The run's status says why; the others have their turn.
                continue
        return len(line) > fit


def cancel(root: Path, names: Sequence[str]) -> list[str]:
    """Move runs from the queue into the trash; those that have started meanwhile stay. Returns
    their places there, which `trash.restore` takes.
    """
    with locked(root / SCHEDULER_LOCK):
        return [aside(root, folder.name) for folder in waiting(root) if folder.name in names]


def work(root: Path) -> None:
    """Start waiting runs as cores become free, until none waits; end at once while another process
    does so.
    """
    with locked(root / WORKER_LOCK, PATIENCE) as mine:
        while mine and (
            start_ready_runs(root) or any(s["state"] == "starting" for _, s in _statuses(root))
        ):
            time.sleep(
                PAUSE
            )  # A run that this process has just started is looked after until it drives itself.


def spawn_worker(root: Path) -> None:
    """Start a process that works on the queue and outlives this one."""
    with (root / ".queue.log").open("ab") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "lab", "queue", "--root", str(root)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    threading.Thread(target=worker.wait, daemon=True).start()  # Collects the process when it ends.


def ensure_worker(root: Path) -> None:
    """After a restart of the machine: hire a worker when runs wait and none works."""
    if waiting(root):
        with locked(root / WORKER_LOCK, 0) as free:
            pass
        if free:
            spawn_worker(root)
