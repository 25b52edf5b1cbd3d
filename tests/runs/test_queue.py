"""Runs that wait: who starts when, that nobody starts twice, and what survives. Training is
replaced by a process that only claims the run.
"""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

import lab
from lab.config.methods import make_config
from lab.errors import LabError
from lab.runs import queue
from lab.runs.folder import RunFolder, create
from lab.runs.states import RunState

SHORT = {
    "steps": 3,
    "batch_size": 4,
    "group_size": 2,
    "eval_prompts": 4,
    "eval_every": 0,
    "max_completion_tokens": 8,
}
RECORDING = Path(lab.__file__).parent / "assets" / "playground" / "dpo"


@pytest.fixture
def started(monkeypatch):
    """Names in the order in which they were started; a started run counts as running in this
    process.
    """
    names = []

    def start(folder):
        names.append(folder.name)
        folder.write_status("running", 0)

    monkeypatch.setattr(queue, "start_training", start)
    monkeypatch.setattr(queue, "max_running", lambda: 2)
    monkeypatch.setattr(queue, "spawn_worker", lambda root: names.append("worker"))
    return names


def wait(condition, seconds=60):
    for _ in range(seconds * 20):
        if condition():
            return
        time.sleep(0.05)
    raise TimeoutError("It did not happen in time.")


def states(root):
    return {
        path.name: RunFolder(path).state
        for path in sorted(root.iterdir())
        if not path.name.startswith(".")
    }


def test_what_fits_starts_now_and_the_rest_waits_in_the_order_of_asking(tmp_path, started):
    names = queue.enqueue("grpo", [SHORT | {"seed": seed} for seed in range(4)], tmp_path)
    assert names == ["grpo-1", "grpo-2", "grpo-3", "grpo-4"] and started == [
        "grpo-1",
        "grpo-2",
        "worker",
    ]
    assert states(tmp_path) == {
        "grpo-1": "running",
        "grpo-2": "running",
        "grpo-3": "queued",
        "grpo-4": "queued",
    }
    assert [run.name for run in queue.waiting_runs(tmp_path)] == ["grpo-3", "grpo-4"] and RunFolder(
        tmp_path / "grpo-4"
    ).config.seed == 3


def test_a_run_that_ends_or_is_paused_makes_room_for_the_next(tmp_path, started):
    queue.enqueue("grpo", [SHORT] * 4, tmp_path)
    assert queue.start_ready_runs(tmp_path) and started[-1] == "worker"
    RunFolder(tmp_path / "grpo-1").write_status("finished", 3)
    assert queue.start_ready_runs(tmp_path) and started[-1] == "grpo-3"
    RunFolder(tmp_path / "grpo-2").write_status("paused", 1)
    assert not queue.start_ready_runs(tmp_path) and started[-1] == "grpo-4"


def test_names_that_are_taken_are_passed_over(tmp_path, started):
    create(tmp_path / "dpo-2", make_config("dpo"))
    assert queue.enqueue("dpo", [{}, {}], tmp_path) == ["dpo-1", "dpo-3"]


def test_unfit_knobs_make_no_run_at_all(tmp_path, started):
    with pytest.raises(LabError, match="beta is -1"):
        queue.enqueue("dpo", [{}, {"beta": -1}], tmp_path)
    assert states(tmp_path) == {} and started == []


def test_a_cancelled_run_is_gone_and_one_that_has_started_stays(tmp_path, started):
    queue.enqueue("grpo", [SHORT] * 4, tmp_path)
    assert queue.cancel(tmp_path, ["grpo-1", "grpo-3", "../grpo-4"]) == ["grpo-3"]
    assert states(tmp_path) == {"grpo-1": "running", "grpo-2": "running", "grpo-4": "queued"}


def stopped(root, name, step=2):
    """A run that was stopped after an update; its files stand for those of a training process."""
    folder = create(root / name, make_config("grpo", SHORT))
    (folder.path / "checkpoint").mkdir()
    (folder.path / "checkpoint" / "state.pt").write_bytes(b"weights")
    (folder.path / "log.txt").write_text("step 2: stopped")
    folder.write_status("stopped", step)
    return folder


def test_a_stopped_run_goes_on_as_the_same_run_when_a_core_is_free(tmp_path, started):
    stopped(tmp_path, "a")
    queue.requeue(tmp_path, "a")
    assert started == ["a"] and states(tmp_path) == {"a": "running"}
    queue.enqueue("grpo", [SHORT], tmp_path)
    folder = stopped(tmp_path, "b")
    queue.requeue(tmp_path, "b")
    assert folder.state == "queued" and folder.status()["step"] == 2
    assert started == ["a", "grpo-1", "worker"]


def test_a_resumed_run_that_is_taken_out_of_the_queue_is_stopped_and_not_in_the_trash(
    tmp_path, started
):
    queue.enqueue("grpo", [SHORT] * 3, tmp_path)
    folder = stopped(tmp_path, "a")
    queue.requeue(tmp_path, "a")
    assert queue.cancel(tmp_path, ["a", "grpo-3"]) == ["grpo-3"]
    assert (folder.state, folder.status()["step"]) == ("stopped", 2)


@pytest.mark.parametrize("state", ["running", "paused", "queued", "finished"])
def test_a_run_that_trains_waits_or_is_finished_is_not_continued(tmp_path, started, state):
    stopped(tmp_path, "a").write_status(state, 2)
    with pytest.raises(LabError, match=f"a is {state}, so it cannot be continued"):
        queue.requeue(tmp_path, "a")
    assert started == []


def test_a_run_without_a_checkpoint_and_a_name_outside_are_not_continued(tmp_path, started):
    create(tmp_path / "runs" / "young", make_config("dpo")).write_status("stopped", 0)
    with pytest.raises(LabError, match="is stopped and has no checkpoint"):
        queue.requeue(tmp_path / "runs", "young")
    stopped(tmp_path, "outside")
    with pytest.raises(LabError):
        queue.requeue(tmp_path / "runs", "../outside")
    assert started == []


def test_a_start_that_its_starter_did_not_live_to_see_is_made_up_for(tmp_path, started):
    queue.enqueue("grpo", [SHORT] * 3, tmp_path)
    status = json.loads((tmp_path / "grpo-1" / "status.json").read_text())
    (tmp_path / "grpo-1" / "status.json").write_text(
        json.dumps(status | {"state": "starting", "pid": 999_999_999})
    )
    queue.start_ready_runs(tmp_path)
    assert started.count("grpo-1") == 2 and started.count("grpo-3") == 0


def test_many_deciding_at_once_start_every_run_once_and_never_more_than_there_are_cores(
    tmp_path, started, monkeypatch
):
    queue.enqueue("grpo", [SHORT] * 6, tmp_path)
    most = []

    def decide():
        for _ in range(30):
            most.append(queue.count_running(tmp_path))
            queue.start_ready_runs(tmp_path)
            for name, state in states(tmp_path).items():
                if state == "running":
                    RunFolder(tmp_path / name).write_status("finished", 3)

    threads = [threading.Thread(target=decide) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (
        sorted(name for name in started if name != "worker") == [f"grpo-{i}" for i in range(1, 7)]
        and max(most) <= 2
    )


def test_a_fork_gets_the_next_free_name_and_starts_if_a_core_is_free(tmp_path, started):
    create(tmp_path / "play-dpo-2", make_config("dpo", {}), RunState.FINISHED)
    names = [queue.enqueue_fork(RECORDING, 0, {"beta": 0.2}, tmp_path, 3) for _ in range(3)]
    assert names == ["play-dpo-1", "play-dpo-3", "play-dpo-4"]
    assert started == ["play-dpo-1", "play-dpo-3", "worker"]
    assert states(tmp_path)["play-dpo-4"] == "queued"
    assert RunFolder(tmp_path / "play-dpo-3").config.beta == 0.2


def test_a_full_queue_takes_no_run_and_no_fork(tmp_path, started, monkeypatch):
    monkeypatch.setattr(queue, "MAX_WAITING_RUNS", 2)
    queue.enqueue("grpo", [SHORT] * 2, tmp_path)
    queue.enqueue("grpo", [SHORT] * 2, tmp_path)
    before = states(tmp_path)
    for ask in (
        lambda: queue.enqueue("grpo", [SHORT], tmp_path),
        lambda: queue.enqueue_fork(RECORDING, 0, {}, tmp_path, 3),
    ):
        with pytest.raises(LabError, match="2 runs wait already.* at most 2; 1 more do not fit"):
            ask()
    assert states(tmp_path) == before and len(before) == 4


def test_a_full_disk_takes_no_run_no_fork_and_no_twin(tmp_path, started, monkeypatch):
    name = queue.enqueue_fork(RECORDING, 0, {}, tmp_path, 3)

    def full(root):
        raise LabError("The disk is full.")

    monkeypatch.setattr(queue, "require_space", full)
    for ask in (
        lambda: queue.enqueue("grpo", [SHORT], tmp_path),
        lambda: queue.enqueue_fork(RECORDING, 0, {}, tmp_path, 3),
        lambda: queue.enqueue_twin(RECORDING, RunFolder(tmp_path / name), 1),
    ):
        with pytest.raises(LabError, match="The disk is full"):
            ask()
    assert list(states(tmp_path)) == [name]


def test_a_lock_is_held_until_the_block_ends(tmp_path):
    with queue.hold_lock(tmp_path / "lock") as outer:
        with queue.hold_lock(tmp_path / "lock", timeout=0) as inner:
            assert outer and not inner
    with queue.hold_lock(tmp_path / "lock", timeout=0) as again:
        assert again


def test_the_lock_of_a_killed_process_is_free_again(tmp_path):
    code = f"""
import pathlib, time
from lab.runs.queue import hold_lock
with hold_lock(pathlib.Path({str(tmp_path / "l")!r})):
    print("held", flush=True)
    time.sleep(60)
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    with other:
        assert other.stdout.readline() == b"held\n"
        with queue.hold_lock(tmp_path / "l", 0) as mine:
            assert not mine
        other.kill()
        other.wait()
    with queue.hold_lock(tmp_path / "l", 1) as mine:
        assert mine


def test_a_continued_run_waits_until_its_first_process_has_let_go(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(queue, "start_training", started.append)
    folder = create(tmp_path / "a", make_config("dpo"), "queued")
    code = f"""
import pathlib, sys
from lab.runs.folder import RunFolder
with RunFolder(pathlib.Path({str(folder.path)!r})).alone():
    print("held", flush=True)
    sys.stdin.read()
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as other:
        assert other.stdout.readline() == b"held\n"
        assert queue.start_ready_runs(tmp_path)  # it still waits
        assert folder.state == "queued" and started == []
    assert not queue.start_ready_runs(tmp_path)
    assert [run.path for run in started] == [folder.path]


def test_a_training_process_that_ends_at_once_leaves_a_failed_run_with_its_log(tmp_path):
    folder = create(tmp_path / "a", make_config("dpo"), "queued")
    (folder.path / "config.json").write_text('{"method": "alchemy"}')
    queue.start_ready_runs(tmp_path)
    wait(lambda: folder.state == "failed")
    assert (
        "ended at once with exit code 2" in folder.status()["message"]
        and "alchemy" in folder.status()["message"]
    )


@pytest.mark.timeout(600)
def test_the_queue_is_worked_off_by_a_process_that_outlives_its_page(tmp_path):
    page = subprocess.run(
        [
            sys.executable,
            "-c",
            f"""
import pathlib
from lab.runs import queue
queue.max_running = lambda: 0
print(queue.enqueue("grpo", [{SHORT!r}, {SHORT!r}, {SHORT!r}], pathlib.Path({str(tmp_path)!r})))
""",
        ],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    assert page.stdout.strip() == "['grpo-1', 'grpo-2', 'grpo-3']", page.stderr
    wait(lambda: set(states(tmp_path).values()) == {"finished"}, 150)
    logs = [(tmp_path / name / "log.txt").read_text() for name in states(tmp_path)]
    assert [log.count("step 0 of 3") for log in logs] == [1, 1, 1]
    wait(
        lambda: (
            not [
                p
                for p in psutil.process_iter(["cmdline"])
                if str(tmp_path) in (p.info["cmdline"] or [])
            ]
        )
    )


@pytest.mark.parametrize("ending", ["finished", "failed"])
def test_a_run_waits_until_its_reward_model_has_ended(tmp_path, started, monkeypatch, ending):
    monkeypatch.setattr(queue, "max_running", lambda: 4)
    (model,) = queue.enqueue("reward_model", [{"steps": 3}], tmp_path, "taste-")
    settings = {"steps": 1, "reward_from": str(tmp_path / model)}
    (waits,) = queue.enqueue("ppo", [settings], tmp_path, "taste-")
    assert (model, waits) == ("taste-reward_model-1", "taste-ppo-1")
    assert started == [model, "worker"] and states(tmp_path)[waits] == "queued"
    queue.enqueue("dpo", [{"steps": 3}], tmp_path)  # Another run does not wait behind it.
    assert started[2] == "dpo-1"
    RunFolder(tmp_path / model).write_status(RunState(ending), 3)
    assert not queue.start_ready_runs(tmp_path) and started[-1] == waits
