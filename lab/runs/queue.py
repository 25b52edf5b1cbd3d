"""The queue of runs that wait for a free core.

The queue is the run folders whose state is `queued`, so it outlives the page, the server and a
restart. `start_ready_runs` starts the runs for which a core is free; `run_queue` calls it until no
run waits. A lock on a file lets only one process at a time start runs, so no run is started twice.
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
from lab.runs.catalogue import run_paths
from lab.runs.folder import LOCK_FILE, RunFolder, RunStatus, create
from lab.runs.fork import CHECKPOINT_FILE, fork, twin
from lab.runs.launch import start_training
from lab.runs.process_identity import is_alive
from lab.runs.run_names import run_path
from lab.runs.states import ACTIVE_STATES, RESUMABLE_STATES, WAITING_STATES, RunState
from lab.runs.trash import move_to_trash
from lab.storage.paths import require_space
from lab.tasks.registry import check_task

MAX_WAITING_RUNS = 128
QUEUE_POLL_SECONDS = 0.5
WORKER_HANDOVER_SECONDS = 3.0  # A second worker waits so long for the first one to end.
SCHEDULER_LOCK, WORKER_LOCK = ".queue.lock", ".queue-worker.lock"


def max_running() -> int:
    """Return how many runs may train at a time: one for each core, since a small model trains in
    one thread.
    """
    return os.cpu_count() or 1


@contextmanager
def hold_lock(path: Path, timeout: float | None = None) -> Iterator[bool]:
    """Hold the lock on a file within it; gives False when `timeout` seconds were not enough to get
    it.

    The lock is released when this process ends, however it ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=-1 if timeout is None else timeout)
    try:
        lock.acquire(poll_interval=0.02)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _statuses(root: Path) -> list[tuple[RunFolder, RunStatus]]:
    return [
        (RunFolder(path), RunFolder(path).status())
        for path in run_paths(root)
        if os.path.isfile(path / "status.json")
    ]


def _is_due(status: RunStatus) -> bool:
    """Whether a run waits for its start, or the process that was about to start it is gone."""
    return status["state"] == RunState.QUEUED or (
        status["state"] == RunState.STARTING
        and not is_alive(status["pid"], status["process_started"])
    )


def waiting_runs(root: Path) -> list[RunFolder]:
    """Return the runs that wait, the next one to start first."""
    due = [
        (status["state"] == RunState.QUEUED, status["heartbeat"], folder)
        for folder, status in _statuses(root)
        if _is_due(status) and os.access(folder.path, os.W_OK)
    ]
    return [folder for *_, folder in sorted(due, key=lambda entry: entry[:2])]


def count_running(root: Path) -> int:
    """Return how many runs use a core now."""
    return sum(
        status["state"] in (RunState.RUNNING, RunState.STARTING)
        and is_alive(status["pid"], status["process_started"])
        for _, status in _statuses(root)
    )


def free_slots(root: Path) -> int:
    """Return how many more runs may start now."""
    return max(0, max_running() - count_running(root))


def _require_room(root: Path, count: int) -> None:
    """Raise `LabError` unless the disk and the queue have room for `count` more runs."""
    require_space(root)
    if (num_waiting := len(waiting_runs(root))) + count > MAX_WAITING_RUNS:
        raise LabError(
            f"{num_waiting} runs wait already, and the queue takes at most {MAX_WAITING_RUNS};"
            f" {count} more do not fit. Let some finish, or take some out of the queue."
        )


def enqueue(
    method: str, settings: Sequence[Mapping[str, Any]], root: Path, prefix: str = ""
) -> list[str]:
    """Create a queued run METHOD-1, METHOD-2, … for each dict of settings, start as many as cores
    are free, and return their names, which begin with `prefix`.

    Raises `LabError` for settings that do not fit before any run is created.
    """
    _require_room(root, len(settings))
    configs = [make_config(method, dict(knobs)) for knobs in settings]
    for config in configs:
        require_offered(config)
        check_task(config)
    names, number = [], 0
    with hold_lock(root / SCHEDULER_LOCK):
        for config in configs:
            number += 1
            while (path := root / f"{prefix}{method}-{number}").exists():
                number += 1
            names.append(create(path, config, RunState.QUEUED).name)
    if start_ready_runs(root):
        spawn_worker(root)
    return names


def enqueue_fork(
    recording: Path, step: int, changes: Mapping[str, Any], root: Path, updates: int
) -> str:
    """Create the run play-METHOD-1, -2, … that continues a recording after update `step` for `updates`
    updates with the settings `changes`; start it if a core is free, and return its name.

    Raises `LabError` as `lab.runs.fork.fork` does, and when the disk or the queue is full.
    """
    _require_room(root, 1)
    number = 1
    with hold_lock(root / SCHEDULER_LOCK):
        while (path := root / f"play-{recording.name}-{number}").exists():
            number += 1
        name = fork(recording, step, changes, path, updates).name
    if start_ready_runs(root):
        spawn_worker(root)
    return name


def enqueue_twin(recording: Path, run: RunFolder, before: int) -> str:
    """Create the run NAME-before-STEP, which repeats the fork `run` of a recording without its changes
    from update `before` on; start it with low priority if a core is free, and return its name.

    A twin that exists already is returned.
    """
    root, path = run.path.parent, run.path.with_name(f"{run.name}-before-{before}")
    require_space(root)
    with hold_lock(root / SCHEDULER_LOCK):
        if not path.exists():
            twin(recording, run, before, path)
    if start_ready_runs(root):
        spawn_worker(root)
    return path.name


def can_resume(folder: RunFolder) -> bool:
    """Whether a run has ended before its last update and has a checkpoint from which it can go on."""
    return folder.state in RESUMABLE_STATES and _has_checkpoint(folder)


def requeue(root: Path, name: str) -> None:
    """Put a run that was stopped or interrupted, or has failed, into the queue again; start it if a
    core is free. It goes on from its checkpoint as the same run.

    Raises `LabError` for a run in another state, and for one without a checkpoint.
    """
    folder = RunFolder(run_path(root, name))
    with hold_lock(root / SCHEDULER_LOCK):
        if not can_resume(folder):
            raise LabError(
                f"{name} is {folder.state}{'' if _has_checkpoint(folder) else ' and has no checkpoint'},"
                " so it cannot be continued. A run that was stopped and has a checkpoint can."
            )
        folder.write_status(RunState.QUEUED, folder.status()["step"])
    if start_ready_runs(root):
        spawn_worker(root)


def _has_checkpoint(folder: RunFolder) -> bool:
    return (folder.path / "checkpoint" / CHECKPOINT_FILE).is_file()


def _has_trained(folder: RunFolder) -> bool:
    """Whether a waiting run has trained before: then it has a log, which a fork does not have yet."""
    return _has_checkpoint(folder) and (folder.path / "log.txt").is_file()


def _is_held(folder: RunFolder) -> bool:
    """Whether the process that trained the run before still writes what a run leaves at its end."""
    with hold_lock(folder.path / LOCK_FILE, timeout=0) as is_free:
        return not is_free


def start_ready_runs(root: Path) -> bool:
    """Start the runs for which a core is free; return whether others still wait."""
    with hold_lock(root / SCHEDULER_LOCK):
        waiting = waiting_runs(root)
        slots = free_slots(root)
        ready = [f for f in waiting if not (_waits_for_reward_model(f) or _is_held(f))]
        for folder in ready[:slots]:
            folder.write_status(RunState.STARTING, folder.status()["step"])
            try:
                start_training(folder)
            except LabError:  # The run's status says why.
                continue
        return len(waiting) > min(slots, len(ready))


def _waits_for_reward_model(folder: RunFolder) -> bool:
    """Whether the reward model that a run learns from is itself waiting or in training."""
    try:
        source = getattr(folder.config, "reward_from", "gold")
    except LabError:  # The training process will say what is wrong with it.
        return False
    if source in ("gold", "") or not (Path(source) / "status.json").is_file():
        return False
    return RunFolder(Path(source)).state in ACTIVE_STATES + WAITING_STATES


def cancel(root: Path, names: Sequence[str]) -> list[str]:
    """Move runs from the queue into the trash, unless they have started meanwhile. A run that has
    trained before is not moved: it is stopped again.

    Returns the names in the trash, which `trash.restore` takes.
    """
    in_trash = []
    with hold_lock(root / SCHEDULER_LOCK):
        for folder in waiting_runs(root):
            if folder.name in names and _has_trained(folder):
                folder.write_status(RunState.STOPPED, folder.status()["step"])
            elif folder.name in names:
                in_trash.append(move_to_trash(root, folder.name))
    return in_trash


def withdraw(root: Path, name: str) -> None:
    """Move a run that waits, or whose process does not drive it yet, into the trash; that process then
    ends. A run that trains is left alone.
    """
    with hold_lock(root / SCHEDULER_LOCK):
        if RunFolder(root / name).state in WAITING_STATES:
            move_to_trash(root, name)


def run_queue(root: Path) -> None:
    """Start waiting runs as cores become free, until no run waits.

    Returns at once while another process does so. A run that this process has just started is
    watched until its own process drives it.
    """
    with hold_lock(root / WORKER_LOCK, WORKER_HANDOVER_SECONDS) as is_worker:
        while is_worker and (
            start_ready_runs(root)
            or any(status["state"] == RunState.STARTING for _, status in _statuses(root))
        ):
            time.sleep(QUEUE_POLL_SECONDS)


def spawn_worker(root: Path) -> None:
    """Start a process that calls `run_queue` and outlives this one."""
    with (root / ".queue.log").open("ab") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "lab", "queue", "--root", str(root)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    # Waiting for the process keeps it from lingering as a zombie when it ends.
    threading.Thread(target=worker.wait, daemon=True).start()


def ensure_worker(root: Path) -> None:
    """Start a worker when runs wait and no worker lives, as after a restart of the machine."""
    if waiting_runs(root):
        with hold_lock(root / WORKER_LOCK, 0) as is_free:
            pass
        if is_free:
            spawn_worker(root)
