"""The run folder piece by piece: status, state, records, locks, names, and how a run is started."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from lab.config import json_format
from lab.config.methods import make_config
from lab.errors import LabError
from lab.runs import catalogue, launch, process_identity, run_names
from lab.runs import folder as runs
from lab.runs.catalogue import list_runs, newest_first, run_paths
from lab.runs.control import new_command
from lab.runs.folder import RunFolder, create
from lab.runs.process_identity import is_alive
from lab.runs.records import Event, StepRecord
from lab.storage.jsonl import append_rows

BLANK = {
    "state": "interrupted",
    "pid": 0,
    "process_started": 0.0,
    "heartbeat": 0.0,
    "step": 0,
    "message": "",
}


def new(root, name="a", **knobs):
    return create(root / name, make_config("dpo", knobs))


def write_status(run, **changes):
    (run.path / "status.json").write_text(json.dumps(run.status() | changes))


@pytest.fixture
def sleeper():
    """Another process that lives for as long as the test."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield psutil.Process(process.pid)
    process.kill()
    process.wait()


# Processes


def test_a_process_is_alive_by_its_number_and_the_second_in_which_it_began(sleeper):
    began = sleeper.create_time()
    assert is_alive(sleeper.pid, began) and is_alive(sleeper.pid, began + 1.9)
    assert not is_alive(sleeper.pid, began + 2.1) and not is_alive(sleeper.pid, began - 2.1)
    assert not is_alive(0, 0.0) and not is_alive(10**30, began) and not is_alive(-5, began)


def test_a_zombie_is_not_alive():
    child = subprocess.Popen([sys.executable, "-c", ""])
    began = psutil.Process(child.pid).create_time()
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.02)
    assert not is_alive(child.pid, began)
    child.wait()


def test_this_process_is_told_from_any_other():
    own = process_identity.process_identity()
    assert own["pid"] == os.getpid() and is_alive(own["pid"], own["process_started"])


# Status and state


def test_a_status_that_cannot_be_read_is_that_of_an_interrupted_run(tmp_path):
    run = new(tmp_path)
    for text in ("{", "[]", '{"state": "dancing"}', "[" * 10_000):
        (run.path / "status.json").write_text(text)
        assert run.status() == BLANK
    (run.path / "status.json").unlink()
    assert run.status() == BLANK and run.state == "interrupted"


def test_fields_of_another_type_are_blank_and_numbers_may_be_whole(tmp_path):
    run = new(tmp_path)
    (run.path / "status.json").write_text(
        '{"state": "finished", "pid": "7", "heartbeat": 3, "step": 2.5, "message": "m"}'
    )
    assert run.status() == BLANK | {"state": "finished", "heartbeat": 3, "message": "m"}


def test_a_new_run_is_driven_by_nobody(tmp_path):
    before = time.time()
    run = new(tmp_path)
    status = run.status()
    assert before <= status.pop("heartbeat") <= time.time()
    assert status == {
        "state": "running",
        "pid": 0,
        "process_started": 0.0,
        "step": 0,
        "message": "not started",
    }
    assert run.state == "interrupted"
    assert create(tmp_path / "b", run.config, "queued").state == "queued"


@pytest.mark.parametrize("state", ["running", "paused"])
def test_an_active_run_whose_process_is_gone_is_interrupted(tmp_path, sleeper, state):
    run = new(tmp_path)
    write_status(run, state=state, pid=sleeper.pid, process_started=sleeper.create_time())
    assert run.state == state
    write_status(run, process_started=sleeper.create_time() - 60)
    assert run.state == "interrupted"
    write_status(run, state="finished")
    assert run.state == "finished"


def test_a_written_status_names_this_process_and_has_its_fixed_size(tmp_path):
    run = new(tmp_path)
    run.write_status("running", 7, "so far")
    status = run.status()
    assert (status["state"], status["step"], status["message"]) == ("running", 7, "so far")
    assert is_alive(status["pid"], status["process_started"]) and status["pid"] == os.getpid()
    assert (run.path / "status.json").stat().st_size == runs.STATUS_BYTES


def test_a_status_written_in_place_leaves_no_rest_of_a_longer_one(tmp_path, monkeypatch):
    run = new(tmp_path)
    run.write_status("failed", 0, "x" * 3000)

    def no_space(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs, "replace_file", no_space)
    run.write_status("finished", 3)
    assert run.status()["state"] == "finished"
    assert (run.path / "status.json").stat().st_size == runs.STATUS_BYTES


# Config


def test_a_config_that_is_missing_or_unreadable_is_named(tmp_path):
    with pytest.raises(LabError, match="There is no run in .*no config.json"):
        _ = RunFolder(tmp_path / "none").config
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match="There is no run in"):
        _ = RunFolder(tmp_path / "file").config
    run = new(tmp_path)
    (run.path / "config.json").write_text("{")
    with pytest.raises(LabError, match=r"config\.json cannot be read"):
        _ = run.config
    (run.path / "config.json").unlink()
    (run.path / "config.json").mkdir()
    with pytest.raises(LabError, match=r"config\.json cannot be read: Is a directory"):
        _ = run.config


def test_a_replaced_config_is_read_back_with_its_format(tmp_path):
    run = new(tmp_path)
    run.write_config(make_config("dpo", {"beta": 0.5}))
    assert run.config.beta == 0.5
    assert json.loads((run.path / "config.json").read_text())["format"] == json_format.CONFIG_FORMAT


# One process at a time


def test_a_run_that_another_process_drives_is_refused_with_its_number(tmp_path, sleeper):
    run = new(tmp_path)
    write_status(run, state="paused", pid=sleeper.pid, process_started=sleeper.create_time())
    with pytest.raises(LabError, match=f"being trained by process {sleeper.pid}.*control .* stop"):
        run.claim()
    write_status(run, process_started=sleeper.create_time() - 60)
    run.claim()
    assert (run.status()["pid"], run.status()["message"]) == (os.getpid(), "loading the model")


def test_a_claimed_run_keeps_its_step_and_its_own_process_may_claim_it_again(tmp_path):
    run = new(tmp_path)
    run.write_status("running", 5)
    with run.alone(), run.alone():
        run.claim()
    assert run.status()["step"] == 5


def test_a_locked_run_is_refused_although_its_status_names_nobody(tmp_path):
    run = new(tmp_path)
    script = (
        "import sys, time; from lab.runs.folder import RunFolder; from pathlib import Path\nwith"
        " RunFolder(Path(sys.argv[1])).alone():\n    print('locked', flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(run.path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(runs.__file__).parents[2],
    ) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(LabError, match="being trained by another process"), run.alone():
            pass
        other.kill()
    with run.alone():
        pass


def test_a_folder_that_is_not_there_cannot_be_locked(tmp_path):
    with pytest.raises(LabError, match="There is no run in"), RunFolder(tmp_path / "no").alone():
        pass


def test_a_run_that_cannot_be_locked_or_claimed_is_named_with_the_reason(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(30, "Read-only file system")

    run = new(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(runs.FileLock, "acquire", refuse)
        with pytest.raises(LabError, match="Cannot write in .*Read-only"), run.alone():
            pass
    monkeypatch.setattr(RunFolder, "write_status", refuse)
    with pytest.raises(LabError, match="Cannot write in .*Read-only"):
        run.claim()


# Records


def step(number, loss):
    return StepRecord(number, {"loss": loss}, 0.1, 10).row()


def event(number, message, name):
    return Event(number, "noted", {"message": message}, id=name).row()


def test_rows_written_again_count_once_and_all_come_by_step(tmp_path):
    run = new(tmp_path)
    rows = [step(0, 0.0), step(1, 1.0), step(2, 2.0), step(1, 1.5), step(2, 2.5)]
    append_rows(run.path / "metrics.jsonl", rows)
    assert [(row["step"], row["metrics"]["loss"]) for row in run.history()] == [
        (0, 0.0),
        (1, 1.5),
        (2, 2.5),
    ]
    found, offset = run.read()
    assert len(found) == 5 and run.read(offset) == ([], offset)


def test_events_without_a_name_all_count_and_an_answer_written_again_counts_once_and_last(tmp_path):
    run = new(tmp_path)
    rows = [event(1, "set", "a"), event(1, "x", ""), event(1, "y", ""), event(1, "set again", "a")]
    append_rows(run.path / "metrics.jsonl", rows)
    messages = [row["detail"]["message"] for row in run.history()]
    assert messages == ["x", "y", "set again"]


def test_samples_of_a_step_written_again_replace_the_earlier_ones(tmp_path):
    run = new(tmp_path)

    def sample(step, index, text):
        return {"step": step, "index": index, "prompt": "p", "completion": text}

    append_rows(
        run.path / "samples.jsonl",
        [sample(2, 0, "late"), sample(1, 0, "old"), sample(1, 1, "old too"), sample(1, 0, "new")],
    )
    assert [(row["step"], row["completion"]) for row in run.samples()] == [(1, "new"), (2, "late")]


# Commands


def test_a_sent_command_stands_in_the_file_with_its_name(tmp_path):
    run = new(tmp_path)
    sent = new_command("set", "beta", 0.2)
    assert run.send(sent) == sent.id
    assert json.loads((run.path / "control.jsonl").read_text()) == sent.row()
    with pytest.raises(LabError, match="Cannot write in"):
        RunFolder(tmp_path / "none" / "deeper").send(sent)


def test_the_answer_to_a_command_is_the_event_with_its_name(tmp_path, monkeypatch):
    run = new(tmp_path)
    run.write_status("running", 0)
    order = new_command("pause")
    looks = []

    def answer_later(seconds):
        looks.append(seconds)
        if len(looks) == 2:
            append_rows(
                run.path / "metrics.jsonl", [event(1, "other", "x"), event(1, "paused", order.id)]
            )

    append_rows(run.path / "metrics.jsonl", [event(1, "before", order.id)])
    monkeypatch.setattr(runs.time, "sleep", answer_later)
    assert (
        run.ask(order)["detail"] == {"message": "paused"}
        and looks == [runs.STATUS_POLL_SECONDS] * 2
    )


def test_a_run_that_does_not_train_is_not_asked(tmp_path):
    run = new(tmp_path)
    run.write_status("finished", 3)
    with pytest.raises(LabError, match="is finished, so no process reads its commands"):
        run.ask(new_command("pause"))
    assert not (run.path / "control.jsonl").exists()


def test_a_run_that_ends_before_it_answers_is_named(tmp_path, monkeypatch):
    run = new(tmp_path)
    run.write_status("running", 0)
    monkeypatch.setattr(runs.time, "sleep", lambda seconds: run.write_status("finished", 3))
    with pytest.raises(LabError, match="is finished; it ended before it read the command"):
        run.ask(new_command("pause"))


# Folders


def test_a_run_appears_in_one_piece_and_leaves_nothing_else(tmp_path):
    run = new(tmp_path, "deep")
    assert sorted(path.name for path in run.path.iterdir()) == [
        "config.json",
        "run.yaml",
        "status.json",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["deep"] and run.name == "deep"


def test_what_a_process_that_ended_left_of_the_same_run_is_swept_away(tmp_path):
    for name in (".a.999999999", ".b.999999999"):
        (tmp_path / name).mkdir()
    new(tmp_path, "a")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.999999999", "a"]


def test_a_run_that_cannot_be_made_leaves_nothing(tmp_path, monkeypatch):
    def refuse(*paths):
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(runs.os, "rename", refuse)
    with pytest.raises(LabError, match="Cannot make the run folder .*Permission denied"):
        new(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_somebody_else_makes_meanwhile_is_said_to_exist(tmp_path, monkeypatch):
    def overtaken(partial, path):
        path.mkdir()
        raise OSError(39, "Directory not empty")

    monkeypatch.setattr(runs.os, "rename", overtaken)
    with pytest.raises(LabError, match="exists. Choose another --out"):
        new(tmp_path)


@pytest.mark.parametrize("name", ["a", "A-1.b_c", "0" * 100])
def test_names_that_a_run_can_have(name, tmp_path):
    assert (
        run_names.safe_name(name) == name and run_names.run_path(tmp_path, name) == tmp_path / name
    )


@pytest.mark.parametrize("name", ["", ".a", "-a", "_a", "a/b", "..", "a b", "0" * 101, "a\n"])
def test_names_that_a_run_cannot_have(name):
    with pytest.raises(LabError, match="cannot be the name of a run"):
        run_names.safe_name(name)


def test_a_folder_whose_name_no_run_can_have_is_not_free(tmp_path):
    with pytest.raises(LabError, match="cannot be the name of a run"):
        runs.require_free(tmp_path / ".a")


def test_runs_are_listed_by_name_and_the_newest_first(tmp_path):
    for i, name in enumerate(("b", "a", "c")):
        run = new(tmp_path, name)
        os.utime(run.path / "config.json", (i, i))
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    broken = new(tmp_path, "broken")
    (broken.path / "config.json").write_text("{")
    assert [path.name for path in run_paths(tmp_path)] == ["a", "b", "broken", "c"]
    found = list_runs(tmp_path)
    assert [run.name for run in found] == ["a", "b", "c"]
    assert [run.name for run in newest_first(found)] == ["c", "a", "b"]
    (tmp_path / "c" / "config.json").unlink()
    assert [run.name for run in newest_first(found)] == ["a", "b", "c"]
    assert run_paths(tmp_path / "none") == []


def test_a_new_folder_is_named_by_method_and_time_and_passes_over_what_exists(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(runs.time, "strftime", lambda form: "0102-030405")
    names = []
    for _ in range(3):
        names.append(catalogue.new_path("dpo", tmp_path).name)
        (tmp_path / names[-1]).mkdir()
    assert names == ["dpo-0102-030405", "dpo-0102-030405-2", "dpo-0102-030405-3"]


# Starting


@pytest.fixture
def commands(monkeypatch):
    """Commands of the processes that were started; each ends at once with exit code 3."""
    started, popen = [], subprocess.Popen

    def start(command, **options):
        started.append((command, options["start_new_session"]))
        return popen([sys.executable, "-c", "print('gone'); raise SystemExit(3)"], **options)

    monkeypatch.setattr(launch.subprocess, "Popen", start)
    return started


def test_a_started_run_resumes_in_a_session_of_its_own_and_its_end_is_recorded(tmp_path, commands):
    run = new(tmp_path)
    child = launch.start_training(run)
    assert commands == [
        ([sys.executable, "-m", "lab", "train", "--resume", "--out", str(run.path)], True)
    ]
    child.wait()
    while run.state != "failed":
        time.sleep(0.02)
    message = run.status()["message"]
    assert "ended at once with exit code 3. Its log ends: gone" in message


def test_a_run_that_is_continued_before_its_first_process_has_ended_is_left_to_the_next(
    tmp_path, monkeypatch
):
    run, popen = new(tmp_path), subprocess.Popen
    code = f"""
import pathlib, time
from lab.runs.folder import RunFolder
from lab.runs.states import RunState
run = RunFolder(pathlib.Path({str(run.path)!r}))
run.claim()
run.write_status(RunState.STOPPED, 1)
while not (run.path / "end").exists():
    time.sleep(0.02)
"""
    monkeypatch.setattr(
        launch.subprocess,
        "Popen",
        lambda _, **options: popen([sys.executable, "-c", code], **options),
    )
    others = set(threading.enumerate())
    launch.start_training(run)
    (collector,) = set(threading.enumerate()) - others
    while run.state != "stopped":
        time.sleep(0.02)
    run.write_status("queued", 1)
    (run.path / "end").touch()
    collector.join()
    assert run.state == "queued" and run.status()["message"] == ""


def test_a_run_whose_reward_is_code_is_not_started_and_says_how(tmp_path, commands):
    run = create(tmp_path / "a", make_config("grpo", {"reward": "own:reward"}))
    with pytest.raises(LabError, match="Its reward is code of your own.*--reward own:reward"):
        launch.start_training(run)
    assert commands == [] and run.state == "failed"


def test_a_run_with_an_unreadable_config_is_left_to_its_process(tmp_path, commands):
    run = new(tmp_path)
    (run.path / "config.json").write_text("{")
    launch.start_training(run).wait()
    assert len(commands) == 1


def test_a_process_that_cannot_be_started_is_said(tmp_path, monkeypatch):
    def refuse(command, **options):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(launch.subprocess, "Popen", refuse)
    run = new(tmp_path)
    with pytest.raises(LabError, match="No training process could be started: Resource"):
        launch.start_training(run)
    assert run.state == "failed"


def test_a_launched_run_that_dies_before_it_drives_is_an_error(tmp_path, commands):
    with pytest.raises(LabError, match="a: The training process ended at once with exit code 3"):
        launch.launch("dpo", {"beta": 0.3}, "a", tmp_path)
    assert RunFolder(tmp_path / "a").config.beta == 0.3
