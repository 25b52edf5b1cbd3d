"""Run folders: what is written, what survives, what is refused."""

import json
import os
import random
import subprocess
import sys
import time

import psutil
import pytest

from lab.config.methods import make_config
from lab.errors import LabError
from lab.runs import run_names
from lab.runs.catalogue import list_runs
from lab.runs.control import Control, new_command
from lab.runs.folder import create
from lab.runs.launch import launch
from lab.runs.records import Event, StepRecord
from lab.storage import jsonl
from lab.training.loop import prepare, train

QUICK = {
    "steps": 6,
    "batch_size": 8,
    "group_size": 4,
    "eval_prompts": 8,
    "eval_every": 3,
    "checkpoint_every": 2,
    "max_completion_tokens": 24,
}


def step(i, **metrics):
    return StepRecord(i, {"loss": float(i), **metrics}, 0.1 * i, 10 * i).row()


def new(tmp_path, name="a", method="grpo", **knobs):
    return create(tmp_path / name, make_config(method, knobs))


def wait(condition, seconds=60):
    for _ in range(seconds * 50):
        if condition():
            return
        time.sleep(0.02)
    raise TimeoutError("It did not happen in time.")


def test_rows_come_back_as_they_were_written_and_numbers_that_are_not_finite_are_named(tmp_path):
    path = tmp_path / "x.jsonl"
    jsonl.append_rows(
        path, [{"a": 1, "text": 'β\n"…"'}, {"metrics": {"loss": float("nan"), "kl": 1.0}}]
    )
    rows, offset = jsonl.read_jsonl(path)
    assert rows == [
        {"a": 1, "text": 'β\n"…"'},
        {"metrics": {"loss": None, "kl": 1.0}, "not_finite": {"metrics.loss": "nan"}},
    ]
    assert offset == path.stat().st_size and jsonl.read_jsonl(path, offset) == ([], offset)
    assert all(
        json.loads(line, parse_constant=lambda word: pytest.fail(word))
        for line in path.read_text("utf-8").splitlines()
    )


def test_whatever_byte_a_write_is_cut_at_no_finished_row_is_lost_and_later_rows_are_read(tmp_path):
    path, dice = tmp_path / "x.jsonl", random.Random(0)
    whole = b"".join(jsonl.encode_row({"i": i, "text": "é" * (i % 7)}) for i in range(20))
    for cut in [0, 1, len(whole) - 1, len(whole)] + [
        dice.randrange(len(whole)) for _ in range(200)
    ]:
        path.write_bytes(whole[:cut])
        finished = whole[:cut].count(b"\n")
        rows, offset = jsonl.read_jsonl(path)
        assert [row["i"] for row in rows] == list(range(finished))
        jsonl.append_rows(path, [{"i": "next"}])
        more, _ = jsonl.read_jsonl(path, offset)
        assert [row["i"] for row in more][-1] == "next" and len(
            more
        ) <= 2  # A row that lacked only its newline counts as finished now.


def test_a_reader_that_looks_while_a_line_is_half_written_gets_it_once_when_it_is_whole(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"i": 0}\n{"i"')
    rows, offset = jsonl.read_jsonl(path)
    assert [r["i"] for r in rows] == [0]
    with path.open("ab") as file:
        file.write(b": 1}\n")
    assert jsonl.read_jsonl(path, offset)[0] == [{"i": 1}]


def test_a_replaced_file_is_never_seen_half_written(tmp_path):
    path = tmp_path / "status.json"
    code = f"""
import pathlib
from lab.storage.jsonl import replace_file
while True:
    for letter in (b"a", b"b"):
        replace_file(pathlib.Path({str(path)!r}), letter * 200_000, durable=False)
"""
    writer = subprocess.Popen([sys.executable, "-c", code])
    try:
        wait(path.exists)
        for _ in range(300):
            assert (
                set(path.read_bytes()) in ({ord("a")}, {ord("b")})
                and path.stat().st_size == 200_000
            )
    finally:
        writer.kill()
        writer.wait()


def test_the_config_and_the_records_of_a_run_are_read_back(tmp_path):
    folder = new(tmp_path, beta=0.2, group_size=4)
    assert folder.config == make_config("grpo", {"beta": 0.2, "group_size": 4})
    jsonl.append_rows(folder.path / "metrics.jsonl", [Event(0, "started").row(), step(0), step(1)])
    assert [r["step"] for r in folder.history() if r["type"] == "step"] == [0, 1]


def test_of_a_step_that_a_resumed_run_wrote_again_the_last_counts(tmp_path):
    folder = new(tmp_path)
    jsonl.append_rows(
        folder.path / "metrics.jsonl",
        [step(1), step(2, kl=1.0), Event(1, "resumed").row(), step(2, kl=5.0), step(3)],
    )
    rows = [r for r in folder.history() if r["type"] == "step"]
    assert [(r["step"], r["metrics"].get("kl")) for r in rows] == [(1, None), (2, 5.0), (3, None)]


def test_states_a_run_goes_through(tmp_path):
    folder = new(tmp_path)
    assert folder.state == "interrupted"  # Nobody trains it yet.
    folder.write_status("running", 1)
    assert folder.state == "running"
    row = json.loads((folder.path / "status.json").read_text())
    (folder.path / "status.json").write_text(
        json.dumps(row | {"process_started": row["process_started"] - 100})
    )
    assert folder.state == "interrupted"  # The same process id belongs to a later process.
    for state in ("finished", "stopped", "failed"):
        folder.write_status(state, 2)
        assert folder.state == state
    (folder.path / "status.json").write_text("{ torn")
    assert folder.state == "interrupted"


def test_a_status_still_changes_when_no_new_file_can_be_made(tmp_path, monkeypatch):
    folder = new(tmp_path)
    monkeypatch.setattr(
        jsonl,
        "replace_file",
        lambda *a, **k: (_ for _ in ()).throw(OSError(28, "No space left on device")),
    )
    folder.write_status("failed", 3, "no disk")
    assert folder.state == "failed" and folder.status()["message"] == "no disk"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/abs", "-x", "x" * 101, "a\x00b", "a b"]
)
def test_names_that_could_leave_the_folder_are_refused(tmp_path, name):
    with pytest.raises(LabError, match="cannot be the name of a run"):
        run_names.run_path(tmp_path, name)


def test_a_run_is_never_written_over(tmp_path):
    new(tmp_path)
    with pytest.raises(LabError, match=r"exists\. Choose another --out, or continue that run"):
        new(tmp_path)


def test_the_list_leaves_out_what_is_no_run_of_this_lab(tmp_path):
    new(tmp_path, "b")
    new(tmp_path, "a")
    (tmp_path / "notes").mkdir()
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "config.json").write_text('{"method": "alchemy"}')
    assert [run.name for run in list_runs(tmp_path)] == ["a", "b"]


def test_nobody_obeys_a_command_to_a_run_that_does_not_train(tmp_path):
    folder = new(tmp_path)
    with pytest.raises(LabError, match="is interrupted, so no process reads its commands"):
        folder.ask(new_command("stop"))


def test_two_processes_cannot_train_one_run(tmp_path):
    folder = new(tmp_path)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        row = {
            "state": "running",
            "pid": other.pid,
            "process_started": psutil.Process(other.pid).create_time(),
            "step": 3,
        }
        (folder.path / "status.json").write_text(json.dumps(row))
        with pytest.raises(LabError, match=f"is being trained by process {other.pid}"):
            folder.claim()
    finally:
        other.kill()
        other.wait()


@pytest.mark.timeout(600)
def test_a_launched_run_outlives_its_starter_obeys_commands_and_leaves_everything(tmp_path):
    folder = launch("grpo", QUICK | {"steps": 400}, "live", tmp_path)
    assert folder.state == "running" and folder.status()["pid"] != os.getpid()
    wait(lambda: folder.status()["step"] >= 1)
    changed = folder.ask(new_command("set", "group_size", 2))
    assert (changed["kind"], changed["detail"]) == (
        "changed",
        {"knob": "group_size", "from": 4, "to": 2},
    )
    assert folder.ask(new_command("set", "group_size", 1))["kind"] == "rejected"
    assert folder.ask(new_command("pause"))["kind"] == "paused"
    wait(lambda: folder.state == "paused")
    held = folder.status()["step"]
    time.sleep(0.5)
    assert folder.status()["step"] == held
    assert folder.ask(new_command("continue"))["kind"] == "continued"
    wait(lambda: folder.status()["step"] > held)
    assert folder.ask(new_command("stop"))["kind"] == "stopped"
    wait(lambda: folder.state == "stopped")
    sizes = {row["step"]: row for row in folder.samples() if not row.get("held_out")}
    assert (
        sizes
        and (folder.path / "adapter" / "adapter_model.safetensors").is_file()
        and (folder.path / "checkpoint" / "state.pt").is_file()
    )
    assert "torch" in (folder.path / "log.txt").read_text()


def uninterrupted(config, changed):
    """Step rows of the same run in this process, with the same change after the same step."""
    control, rows = Control(), []
    for record in train(prepare(config), control):
        if isinstance(record, StepRecord):
            rows.append((record.step, record.metrics))
            if record.step == changed["step"]:
                control.set(changed["detail"]["knob"], changed["detail"]["to"])
    return rows


@pytest.mark.timeout(600)
def test_a_run_killed_twice_is_readable_interrupted_and_resumes_as_if_nothing_had_happened(
    tmp_path,
):
    folder = launch("grpo", QUICK | {"steps": 40, "eval_every": 20}, "killed", tmp_path)
    changed = folder.ask(new_command("set", "beta", 0.5))
    resumed: list[subprocess.Popen] = []
    for after in (3, 11):
        wait(lambda after=after: folder.status()["step"] >= after)
        psutil.Process(folder.status()["pid"]).kill()
        wait(lambda: folder.state == "interrupted")
        finished = [r["step"] for r in folder.history() if r["type"] == "step"]
        assert finished == list(range(finished[-1] + 1)) and finished[-1] >= after
        resumed.append(
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "lab",
                    "train",
                    "grpo",
                    "--resume",
                    "--out",
                    str(folder.path),
                ],
                stdout=subprocess.DEVNULL,
            )
        )
        wait(lambda: folder.status()["pid"] == resumed[-1].pid)
    assert [process.wait() for process in resumed] == [-9, 0] and folder.state == "finished"
    assert [
        (r["step"], r["metrics"]) for r in folder.history() if r["type"] == "step"
    ] == uninterrupted(folder.config, changed)
