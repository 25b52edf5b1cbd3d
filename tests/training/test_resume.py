"""What a run goes on from: it ends what a kill left, and refuses knobs and data that are not those
it began with.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from peft import PeftModel
from safetensors.torch import load_file
from support.tiny import save
from transformers import AutoModelForCausalLM

from lab.cli import main
from lab.config.methods import make_config
from lab.errors import LabError
from lab.experiments.arms import trained_run
from lab.models import adapter_files
from lab.models.sources import EMBEDDED
from lab.runs import folder as runs
from lab.runs.folder import RunFolder, create
from lab.serving.load import load_run
from lab.storage import checksums, jsonl
from lab.training.driver import drive
from lab.training.resume import IDENTITY_FILE, load_checkpoint

TINY = {
    "steps": 4,
    "batch_size": 4,
    "eval_prompts": 4,
    "eval_every": 0,
    "checkpoint_every": 2,
    "max_completion_tokens": 8,
    "device": "cpu",
}
ROWS = [{"prompt": f"1+{i}=", "chosen": str(1 + i), "rejected": str(2 + i)} for i in range(5)]


def wait(condition, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "It did not happen in time."
        time.sleep(0.02)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def new(tmp_path, method="dpo", **knobs):
    return create(
        tmp_path / "run",
        make_config(method, TINY | ({} if method == "grpo" else {"pairs": 40}) | knobs),
    )


def steps_of(folder):
    return [(row["step"], row["metrics"]) for row in folder.history() if row["type"] == "step"]


class Killed(BaseException):
    """Ends a run as a kill does: nothing more is written."""


def killed(folder, monkeypatch, at):
    """Drive the run until its files are about to change for the `at`-th time of the last save;
    returns whether it came so far.
    """
    real, left = jsonl.replace_file, [at]

    def counted(path, data, durable=True):
        if folder.status()["step"] == 4 or any(row.get("step") == 4 for row in folder.read()[0]):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
        real(path, data, durable)

    with monkeypatch.context() as patch:
        for module in (checksums, runs):
            patch.setattr(module, "replace_file", counted)
        patch.setattr("lab.training.resume.replace_file", counted)
        try:
            drive(folder)
        except Killed:
            return True
    return False


def test_a_run_that_was_killed_anywhere_in_its_last_save_is_ended_by_a_resume(
    tmp_path, monkeypatch
):
    whole = drive(new(tmp_path)).model
    expected = RunFolder(tmp_path / "run")
    weights = load_file(expected.path / "adapter" / adapter_files.ADAPTER_WEIGHTS)
    assert whole is not None
    for at in range(100):
        (folder := create(tmp_path / f"killed-{at}", expected.config))
        if not killed(folder, monkeypatch, at):
            break
        drive(folder)
        assert folder.state == "finished" and steps_of(folder) == steps_of(expected)
        found = load_file(folder.path / "adapter" / adapter_files.ADAPTER_WEIGHTS)
        assert all((found[name] == weights[name]).all() for name in weights)
        adapter_files.require_adapter(folder.path / "adapter")
        with pytest.raises(LabError, match="has done all its 4 updates"):
            drive(folder)
    assert 10 < at < 100  # Checkpoint, checksums, adapter and status were all cut short once.


def test_the_adapter_of_an_extended_run_is_a_good_one_at_every_moment(tmp_path, monkeypatch):
    folder, real, seen = new(tmp_path), jsonl.replace_file, []
    drive(folder)
    first = load_file(folder.path / "adapter" / adapter_files.ADAPTER_WEIGHTS)

    def watched(path, data, durable=True):
        real(path, data, durable)
        adapter_files.require_adapter(folder.path / "adapter")
        seen.append(load_file(folder.path / "adapter" / adapter_files.ADAPTER_WEIGHTS))

    monkeypatch.setattr(checksums, "replace_file", watched)
    drive(folder, steps=6)
    kinds = {next(iter(weights.values())).sum().item() for weights in seen}
    assert len(kinds) == 2 and next(iter(first.values())).sum().item() in kinds
    lines = (folder.path / "adapter" / "SHA256SUMS").read_text().splitlines()
    assert sorted(line.split("  ")[1] for line in lines) == sorted(
        p.name for p in (folder.path / "adapter").iterdir() if p.name != "SHA256SUMS"
    )
    assert (
        subprocess.run(
            ["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder.path / "adapter"
        ).returncode
        == 0
    )


def test_an_adapter_that_is_lost_is_written_again_from_the_checkpoint(tmp_path):
    folder = new(tmp_path)
    drive(folder)
    before = (folder.path / "adapter" / adapter_files.ADAPTER_WEIGHTS).read_bytes()
    shutil.rmtree(folder.path / "adapter")
    drive(folder)
    assert (folder.path / "adapter" / adapter_files.ADAPTER_WEIGHTS).read_bytes() == before
    (folder.path / "adapter" / adapter_files.ADAPTER_WEIGHTS).write_bytes(before[:-1])
    drive(folder)
    assert (
        folder.path / "adapter" / adapter_files.ADAPTER_WEIGHTS
    ).read_bytes() == before and folder.state == "finished"


def test_fewer_updates_than_are_done_are_refused_and_the_config_s_own_number_counts_after_a_kill(
    tmp_path,
):
    folder = new(tmp_path)
    drive(folder)
    with pytest.raises(LabError, match="steps is 3, but .* has done 4 updates already"):
        drive(folder, steps=3)
    edit(folder, steps=5)  # As a kill leaves it right after --steps 5, before the next checkpoint.
    assert drive(folder).step == 5


def edit(folder, **knobs):
    path = folder.path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | knobs))


def test_an_edit_that_a_resume_would_ignore_is_refused_with_the_knob_and_live_changes_are_none(
    tmp_path,
):
    folder = new(tmp_path, steps=6)
    drive(folder, until=lambda run: run.step == 3)
    edit(folder, seed=7, learning_rate=0.001)
    with pytest.raises(
        LabError,
        match=(
            r"config.json was edited after the start \(seed is 7 there, and was 0, learning_rate is"
            r" 0.001 there, and was 0.0005\)"
        ),
    ):
        drive(folder)
    assert folder.state == "stopped"
    edit(folder, seed=0, learning_rate=0.0005)
    drive(folder)
    assert folder.state == "finished"


def test_a_live_change_is_no_edit_also_where_an_older_lab_wrote_the_checkpoint(
    tmp_path, monkeypatch
):
    import torch

    from lab.runs.control import new_command

    folder = new(tmp_path, steps=6)
    sent = []
    drive(
        folder,
        report=lambda record, run: (
            sent.append(folder.send(new_command("set", "beta", 0.3))) if not sent else None
        ),
        until=lambda run: run.step == 3,
    )
    assert load_checkpoint(folder)["config"]["beta"] == 0.3 and folder.config.beta == 0.1
    state = folder.path / "checkpoint" / "state.pt"
    old = torch.load(state, weights_only=True)
    del old["started"]
    torch.save(old, state)
    (folder.path / "checkpoint" / "SHA256SUMS").unlink()
    edit(folder, beta=0.2)
    with pytest.raises(LabError, match="beta is 0.2 there, and was 0.1"):
        drive(folder)
    edit(folder, beta=0.1)
    assert drive(folder).config.beta == 0.3


def test_a_checkpoint_that_does_not_fit_the_model_is_one_line(tmp_path):
    prompts = write(tmp_path / "p.jsonl", [{"prompt": p, "answer": p} for p in "abc"])
    folder = new(
        tmp_path,
        "grpo",
        model=save(tmp_path / "model", template=None),
        task=str(prompts),
        group_size=2,
    )
    drive(folder)
    save(tmp_path / "model", template=None, hidden_size=32)
    (folder.path / IDENTITY_FILE).unlink()  # Otherwise the changed weights are noticed first.
    with pytest.raises(LabError, match="The checkpoint does not fit"):
        drive(folder, steps=6)


@pytest.mark.parametrize("knob", ["data", "task"])
def test_other_data_than_a_run_began_with_is_refused_and_named(tmp_path, knob):
    rows = (
        ROWS if knob == "data" else [{"prompt": f"1+{i}=", "answer": str(1 + i)} for i in range(5)]
    )
    path = write(tmp_path / "rows.jsonl", rows)
    folder = new(
        tmp_path,
        "dpo" if knob == "data" else "grpo",
        **{knob: str(path)},
        **({} if knob == "data" else {"group_size": 2}),
    )
    drive(folder)
    assert (
        json.loads((folder.path / IDENTITY_FILE).read_text())[knob]["bytes"] == path.stat().st_size
    )
    swapped = [
        row
        | (
            {"chosen": row["rejected"], "rejected": row["chosen"]}
            if knob == "data"
            else {"answer": "9"}
        )
        for row in rows
    ]
    write(path, swapped)
    with pytest.raises(
        LabError,
        match=(
            rf"The content of {path} \({knob}\) has changed since .*SHA-256 \w+…, \d+ bytes"
            r" then.*Put it back, or start a new run"
        ),
    ):
        drive(folder, steps=8)
    assert folder.state == "finished" and len(steps_of(folder)) == 5
    write(path, rows)
    drive(folder, steps=6)
    write(path, swapped)
    (folder.path / IDENTITY_FILE).unlink()  # A run of an older lab has none, and goes on.
    drive(folder, steps=7)
    write(path, rows)
    with pytest.raises(LabError, match="has changed"):
        drive(folder, steps=8)


def test_data_of_the_hub_is_known_by_its_fingerprint_and_other_weights_of_a_reward_model_are_noticed(
    tmp_path, monkeypatch
):
    import datasets

    monkeypatch.setattr(
        "datasets.load_dataset", lambda name, split: datasets.Dataset.from_list(ROWS)
    )
    folder = new(tmp_path, data="owner/name:train")
    drive(folder)
    assert json.loads((folder.path / IDENTITY_FILE).read_text())["data"].keys() == {
        "source",
        "fingerprint",
    }
    drive(folder, steps=5)
    monkeypatch.setattr(
        "datasets.load_dataset", lambda name, split: datasets.Dataset.from_list(ROWS[::-1])
    )
    with pytest.raises(LabError, match=r"owner/name:train \(data\) has changed .*fingerprint"):
        drive(folder, steps=6)

    rm = create(tmp_path / "rm", make_config("reward_model", TINY | {"pairs": 40}))
    drive(rm)
    other = create(tmp_path / "ppo", make_config("ppo", TINY | {"reward_from": str(rm.path)}))
    drive(other)
    drive(rm, steps=6)
    with pytest.raises(LabError, match=r"adapter_model.safetensors \(reward_from\) has changed"):
        drive(other, steps=6)


def test_other_weights_of_a_local_base_than_a_run_began_with_are_refused_and_named(tmp_path):
    model = save(tmp_path / "model", template=None)
    prompts = write(
        tmp_path / "rows.jsonl", [{"prompt": f"1+{i}=", "answer": str(1 + i)} for i in range(5)]
    )
    folder = new(tmp_path, "grpo", model=model, task=str(prompts), group_size=2)
    drive(folder)
    weights = tmp_path / "model" / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))  # The same shapes, another value.
    with pytest.raises(
        LabError,
        match=rf"The content of {tmp_path / 'model'} \(model\) has changed since .*fingerprint",
    ):
        drive(folder, steps=6)
    weights.write_bytes(before)
    drive(folder, steps=6)
    assert len(steps_of(folder)) == 7


def test_what_a_run_names_by_relative_paths_means_the_same_from_everywhere(tmp_path, monkeypatch):
    for name in ("A", "B"):
        (tmp_path / name).mkdir()
    save(tmp_path / "A" / "model")
    write(
        tmp_path / "A" / "pairs.jsonl",
        [{"prompt": f"ask {i}", "chosen": "good", "rejected": "bad"} for i in range(4)],
    )
    write(
        tmp_path / "A" / "prompts.jsonl",
        [{"prompt": f"ask {i}", "answer": "good"} for i in range(4)],
    )
    monkeypatch.chdir(tmp_path / "A")
    main.main(
        [
            "train",
            "dpo",
            "--model",
            "./model",
            "--data",
            "../A/pairs.jsonl",
            "--task",
            "prompts.jsonl",
            "--steps",
            "1",
            "--batch-size",
            "2",
            "--eval-prompts",
            "2",
            "--max-completion-tokens",
            "4",
            "--device",
            "cpu",
            "--out",
            str(tmp_path / "run"),
        ]
    )
    config = RunFolder(tmp_path / "run").config
    assert (config.model, config.data, config.task) == tuple(
        str(tmp_path / "A" / name) for name in ("model", "pairs.jsonl", "prompts.jsonl")
    )
    shape = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    assert shape["base_model_name_or_path"] == str(tmp_path / "A" / "model")
    create(tmp_path / "A" / "rm", make_config("reward_model"))
    assert create(
        tmp_path / "ppo", make_config("ppo", {"reward_from": "rm"})
    ).config.reward_from == str(tmp_path / "A" / "rm")
    assert (
        trained_run(
            tmp_path / "arm",
            make_config("dpo", {**TINY, "steps": 1, "model": "model", "data": "pairs.jsonl"}),
            lambda run: False,
        ).step
        == 1
    )
    assert (
        trained_run(
            tmp_path / "arm",
            make_config("dpo", {**TINY, "steps": 1, "model": "model", "data": "pairs.jsonl"}),
            lambda run: False,
        ).step
        == 1
    )
    monkeypatch.chdir(tmp_path / "B")
    load_run(RunFolder(tmp_path / "run"), "cpu")
    main.main(["train", "--resume", "--steps", "2", "--out", str(tmp_path / "run")])
    for name in ("embedded", "chain", "gold"):
        (tmp_path / "B" / name).mkdir()
    plain = create(tmp_path / "plain", make_config("ppo")).config
    assert (plain.model, plain.task, plain.reward_from) == ("embedded", "chain", "gold")


def test_an_experiment_ends_a_run_that_was_killed_before_its_adapter(tmp_path):
    config = make_config("dpo", TINY | {"pairs": 40})
    trained_run(tmp_path / "arm", config, lambda run: run.step == 2)
    folder = RunFolder(tmp_path / "arm")
    shutil.rmtree(folder.path / "adapter")
    folder.write_status("running", 2)
    edit_status(folder, pid=0)
    assert trained_run(tmp_path / "arm", config, lambda run: run.step == 2).step == 2
    assert (
        folder.path / "adapter" / adapter_files.ADAPTER_WEIGHTS
    ).is_file() and folder.state == "stopped"


def edit_status(folder, **facts):
    path = folder.path / "status.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def test_twelve_resumes_at_the_same_moment_are_one(tmp_path):
    folder = new(tmp_path)
    code = f"""
import sys, time
from pathlib import Path
from lab.training.driver import drive
from lab.errors import LabError
from lab.runs.folder import RunFolder
folder = RunFolder(Path({str(folder.path)!r}))
pids = []
import os
for _ in range(12):
    pid = os.fork()
    if not pid:
        while not Path({str(tmp_path / "go")!r}).exists():
            pass
        try:
            drive(folder)
        except LabError as error:
            os._exit(3 if "is being trained by" in str(error) or "has done all" in str(error) else 4)
        os._exit(0)
    pids.append(pid)
Path({str(tmp_path / "go")!r}).touch()
print(sorted(os.waitpid(pid, 0)[1] >> 8 for pid in pids))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=250
    )
    assert done.stdout.strip() == str([0] + [3] * 11), done.stdout + done.stderr
    assert [row["step"] for row in folder.read()[0] if row["type"] == "step"] == [0, 1, 2, 3, 4]


def test_a_claim_is_refused_while_another_process_has_the_folder_whatever_the_status_says(tmp_path):
    folder = new(tmp_path)
    code = f"""
import pathlib, time
from lab.runs.folder import RunFolder
with RunFolder(pathlib.Path({str(folder.path)!r})).alone():
    print(1, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"1\n"
        with pytest.raises(LabError, match="is being trained by another process"):
            folder.claim()
        other.kill()
        other.wait()
    folder.claim()
    assert folder.state == "running"


def train(tmp_path, *more, **options):
    words = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "lab",
        "train",
        "grpo",
        "--steps",
        "4000",
        "--group-size",
        "4",
        "--batch-size",
        "8",
        "--eval-prompts",
        "4",
        "--eval-every",
        "0",
        "--max-completion-tokens",
        "8",
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "run"),
        *more,
    ]
    return subprocess.Popen(words, stderr=subprocess.STDOUT, cwd=tmp_path, **options)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP here")
def test_a_closed_terminal_stops_a_run_as_a_polite_kill_does_and_several_are_one(tmp_path):
    inherited = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it, for children too
    with train(tmp_path, stdout=subprocess.DEVNULL) as process:
        signal.signal(signal.SIGHUP, inherited)
        folder = RunFolder(tmp_path / "run")
        wait(lambda: folder.status()["step"] >= 2 or process.poll() is not None)
        for _ in range(3):
            os.kill(process.pid, signal.SIGHUP)
        assert process.wait(200) == 0
    assert (
        folder.state == "stopped"
        and (folder.path / "adapter" / adapter_files.ADAPTER_CONFIG).is_file()
    )


def test_a_reader_that_goes_away_ends_the_printing_and_not_the_training(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def reward(completions, **columns):\n    print('scored', flush=True)\n    return [len(c)"
        " for c in completions]\n"
    )
    with train(tmp_path, "--reward", "mine:reward", stdout=subprocess.PIPE) as process:
        folder = RunFolder(tmp_path / "run")
        assert process.stdout.readline()
        process.stdout.close()  # As `| head -1` does.
        now = folder.status()["step"]
        wait(
            lambda: folder.status()["step"] >= now + 60 or process.poll() is not None
        )  # Every twentieth update is printed.
        assert folder.state == "running"
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(200) == 0
    assert folder.state == "stopped"


def test_a_list_into_a_closed_pipe_ends_without_a_word(tmp_path):
    for i in range(3):
        create(tmp_path / f"run-{i}", make_config("dpo"))
    done = subprocess.run(
        f"{sys.executable} -m lab runs --root {tmp_path} | true; echo ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "0" and done.stderr == ""


def test_what_ended_processes_left_over_is_swept_and_what_lives_is_not(tmp_path):
    folder = new(tmp_path)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    drive(folder, until=lambda run: run.step == 2)
    left = [
        folder.path / f".status.json.{ended.pid}",
        folder.path / "checkpoint" / f".state.pt.{ended.pid}",
        folder.path / "adapter" / f".x.{ended.pid}",
    ]
    for path in left:
        path.write_bytes(b"half")
    (folder.path / f".adapter.{ended.pid}").mkdir()
    (folder.path / f".adapter.{ended.pid}" / "half").write_bytes(b"half")
    theirs, again, own = (
        folder.path / f".status.json.{os.getppid()}",
        folder.path / f".log.txt.{os.getppid()}",
        folder.path / ".notes",
    )
    for path in (theirs, again, own):
        path.write_bytes(b"mine")
    os.utime(
        again, (0, psutil.Process(os.getppid()).create_time() - 1000)
    )  # The number was another process's then.
    drive(folder)
    assert (
        not [path for path in left if path.exists()]
        and not (folder.path / f".adapter.{ended.pid}").exists()
    )
    assert theirs.exists() and own.exists() and not again.exists()


def test_what_a_killed_start_left_is_swept_when_the_name_is_used_again(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for name in ("run", "other"):
        (tmp_path / f".{name}.{ended.pid}").mkdir()
    new(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f".other.{ended.pid}", "run"]


def test_runs_and_queue_look_where_the_environment_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "elsewhere"))
    create(tmp_path / "elsewhere" / "there", make_config("dpo"))
    create(tmp_path / "runs" / "here", make_config("dpo"))
    main.main(["runs"])
    assert "there" in (out := capsys.readouterr().out) and "here " not in out.replace("there", "")
    main.main(["runs", "--root", "runs"])
    assert "here" in capsys.readouterr().out
    asked = []
    monkeypatch.setattr("lab.runs.queue.run_queue", asked.append)
    main.main(["queue"])
    main.main(["queue", "--root", "runs"])
    assert asked == [tmp_path / "elsewhere", Path("runs")]


def test_the_adapter_stays_one_that_plain_peft_loads(tmp_path):
    folder = new(tmp_path)
    drive(folder)
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(EMBEDDED), folder.path / "adapter"
    )
    assert any(
        weight.abs().sum() > 0 for name, weight in model.named_parameters() if "lora_B" in name
    )


def test_a_run_without_a_checkpoint_says_that_it_starts_again(tmp_path):
    folder = create(
        tmp_path / "run",
        make_config(
            "dpo", {"steps": 3, "eval_every": 0, "eval_prompts": 2, "pairs": 32, "device": "cpu"}
        ),
    )
    drive(folder, until=lambda run: run.step == 2)
    shutil.rmtree(folder.path / "checkpoint")
    drive(folder)
    said = [
        row["detail"]["message"]
        for row in folder.history()
        if row["type"] == "event" and row["kind"] == "noted"
    ]
    assert any(
        "has no checkpoint, so it starts again from its base. Records of its 2 updates" in text
        for text in said
    )
