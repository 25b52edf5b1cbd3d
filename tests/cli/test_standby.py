"""The process that waits for a run: it trains the run that it gets, and ends with the one that started
it.
"""

import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest
from support.browser import wait_for

from lab.config.methods import make_config
from lab.runs import launch
from lab.runs import standby as standby_module
from lab.runs.folder import create
from lab.runs.standby import STANDBY_COMMAND, Standby
from lab.runs.states import RunState

TINY = {"steps": 1, "batch_size": 4, "pairs": 8, "eval_prompts": 2, "device": "cpu"}


@pytest.fixture
def standby():
    ready = Standby()
    yield ready
    if ready._process is not None:
        ready._process.stdin.close()
        ready._process.wait()


def test_a_run_is_trained_by_the_process_that_waited_and_its_log_is_in_the_folder(
    tmp_path, standby, monkeypatch
):
    monkeypatch.setattr(launch, "STANDBY", standby)
    standby.warm()
    waiting = standby._process
    standby.warm()
    assert standby._process is waiting
    folder = create(tmp_path / "run", make_config("dpo", TINY), RunState.QUEUED)
    assert launch.start_training(folder) is waiting
    wait_for(lambda: folder.state not in ("queued", "running"))
    assert folder.status()["state"] == "finished" and folder.status()["pid"] == waiting.pid
    assert "finished" in (folder.path / "log.txt").read_text()
    assert standby.take(folder.path) is None


def test_a_process_is_started_later_and_once(monkeypatch):
    starts = []

    def popen(command, **options):
        starts.append(command)
        return subprocess.Popen(command, **options)

    monkeypatch.setattr(
        standby_module, "subprocess", SimpleNamespace(**vars(subprocess) | {"Popen": popen})
    )
    later = Standby((sys.executable, "-c", "input()"))
    later.warm_later(3600)
    waiting = later._timer
    later.warm_later(0)
    assert later._timer is waiting and starts == []
    waiting.cancel()
    waiting.join()
    for _ in range(3):
        later.warm_later(0)
        later._timer.join()
    assert len(starts) == 1
    later._process.stdin.close()
    later._process.wait()


def test_the_process_ends_when_nobody_can_give_it_a_run_any_more():
    script = f"import subprocess; print(subprocess.Popen({STANDBY_COMMAND!r}, stdin=subprocess.PIPE).pid)"
    pid = int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout)
    wait_for(
        lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    )


def test_a_waiting_process_that_has_ended_gets_no_run(tmp_path):
    ended = Standby((sys.executable, "-c", "pass"))
    ended.warm()
    ended._process.wait()
    assert ended.take(tmp_path) is None and ended._process is None


def test_a_run_that_the_process_cannot_train_says_why_in_its_state(tmp_path, standby, monkeypatch):
    monkeypatch.setattr(launch, "STANDBY", standby)
    standby.warm()
    folder = create(tmp_path / "run", make_config("dpo", TINY), RunState.QUEUED)
    (folder.path / "metrics.jsonl").mkdir()
    launch.start_training(folder)
    wait_for(lambda: folder.status()["state"] == "failed")
    assert folder.status()["message"]
