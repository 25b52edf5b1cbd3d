"""The command line, typed as a user would."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from lab.cli.main import main
from lab.config.json_format import to_dict
from lab.config.methods import METHODS, make_config
from lab.models.sources import EMBEDDED
from lab.runs.folder import RunFolder, create

QUICK = [
    "--batch-size",
    "8",
    "--eval-prompts",
    "8",
    "--eval-every",
    "0",
    "--max-completion-tokens",
    "24",
]


def run(capsys, *words):
    """Exit code, stdout and stderr of one command."""
    try:
        main([str(w) for w in words])
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    out = capsys.readouterr()
    return code, out.out, out.err


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAB_RUNS", "runs")


def test_help_names_every_command_and_starts_without_torch():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "lab", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(
        word in done.stdout
        for word in ("train", "eval", "runs", "control", "build-base", "build-pairs")
    )
    assert "| torch\n" not in done.stderr and "transformers" not in done.stderr


@pytest.mark.parametrize("method", METHODS)
def test_the_help_of_a_method_explains_each_of_its_knobs(capsys, monkeypatch, method):
    monkeypatch.setenv("COLUMNS", "1000")
    code, out, _ = run(capsys, "train", method, "--help")
    assert code == 0
    for name in to_dict(make_config(method)):
        if name != "method":
            assert re.search(rf"--{name.replace('_', '-')}[ ,]", out)


def test_a_trained_run_is_listed_measured_extended_and_loads_in_plain_peft(capsys):
    code, out, err = run(
        capsys,
        "train",
        "dpo",
        "--steps",
        2,
        "--beta",
        0.2,
        "--out",
        "runs/a",
        "--device",
        "cpu",
        *QUICK,
    )
    assert code == 0 and "step 2/2" in out and "runs/a is finished after 2 updates" in out, err
    assert RunFolder(Path("runs/a")).config.beta == 0.2
    assert "a " in run(capsys, "runs")[1] and "step 2/2" in run(capsys, "runs")[1]

    code, out, _ = run(capsys, "eval", "a", "--json", "--prompts", 16, "--samples", 2, "--seed", 3)
    result = json.loads(out)
    assert {
        "gold/accuracy",
        "gold/accuracy_ci",
        "scratchpad_share",
        "completions/mean_length",
        "kl",
        "prompts",
        "seed",
    } <= set(result)
    assert (result["prompts"], result["seed"]) == (16, 3) and result["gold/accuracy_ci"][
        0
    ] < result["gold/accuracy"] < result["gold/accuracy_ci"][1]
    assert result["kl"] > 0 and set(result["pass_at_k"]) == {"1", "2"}

    code, _, err = run(capsys, "train", "dpo", "--resume", "--out", "runs/a")
    assert code == 2 and "has done all its 2 updates" in err
    code, out, _ = run(capsys, "train", "--resume", "--out", "a", "--steps", 3)
    assert code == 0 and "step 2: resumed" in out and "after 3 updates" in out
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(EMBEDDED), "runs/a/adapter"
    )
    assert any(w.abs().sum() > 0 for name, w in model.named_parameters() if "lora_B" in name)


def test_ctrl_c_stops_after_the_present_update_and_keeps_everything(tmp_path):
    words = [
        sys.executable,
        "-m",
        "lab",
        "train",
        "grpo",
        "--steps",
        "500",
        "--group-size",
        "4",
        "--out",
        "runs/a",
        *QUICK,
    ]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    folder = RunFolder(tmp_path / "runs" / "a")
    while folder.status()["step"] < 2:
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    out = process.communicate(timeout=60)[0]
    assert process.returncode == 0 and "stopped" in out and "is stopped after" in out
    assert folder.state == "stopped" and (folder.path / "adapter" / "adapter_config.json").is_file()


def test_a_run_that_is_refused_at_its_start_leaves_no_folder(capsys):
    words = ("train", "dpo", *QUICK, "--steps", "1", "--pairs", "8", "--out", "runs/a")
    code, _, err = run(capsys, *words, "--lora-targets", "nowhere")
    assert code == 2 and "lora_targets names 'nowhere'" in err and not os.listdir("runs")
    code, _, err = run(capsys, *words)
    assert code == 0 and RunFolder(Path("runs/a")).state == "finished", err


def test_a_run_that_fails_later_keeps_its_records(capsys):
    Path("fails.py").write_text(
        "calls = []\n"
        "def second(completions, **rest):\n"
        "    calls.append(1)\n"
        "    return [1.0] * (len(completions) if len(calls) < 2 else 0)\n"
    )
    words = ("train", "grpo", *QUICK, "--steps", "3", "--group-size", "4", "--out", "runs/a")
    code, _, err = run(capsys, *words, "--reward", "fails:second")
    folder = RunFolder(Path("runs/a"))
    assert code == 2 and "returned 0 values" in err, err
    assert folder.state == "failed" and folder.status()["message"] in err
    assert [row["step"] for row in folder.history() if row["type"] == "step"] == [0]


@pytest.mark.parametrize(
    "words, says",
    [
        (["trian"], "Unknown command 'trian'. Did you mean 'train'?"),
        (["train", "grop"], "Unknown method 'grop'. Did you mean 'grpo'?"),
        (
            ["train", "dpo", "--betta", "0.1"],
            "Unknown setting of dpo 'betta'. Did you mean 'beta'?",
        ),
        (["train", "dpo", "--group-size", "4"], "Unknown setting of dpo 'group_size'"),
        (["train", "dpo", "--beta", "-1"], "beta is -1.0, but takes a number from 0.0001 to 100"),
        (
            ["train", "grpo", "--group-size", "1"],
            "group_size is 1, but takes a whole number from 2",
        ),
        (
            ["train", "grpo", "--batch-size", "10", "--group-size", "4"],
            "batch_size 10 is not divisible by group_size 4",
        ),
        (
            ["train", "dpo", "--resume", "--beta", "0.2", "--out", "a"],
            "beta cannot be given again when a run resumes",
        ),
        (["train", "--resume", "--out", "nowhere"], "There is no run 'nowhere'"),
        (["eval", "nowhere"], "There is no run 'nowhere'"),
        (["control", "nowhere", "stop"], "There is no run 'nowhere'"),
        (
            ["train", "dpo", "--device", "tpu"],
            "device is 'tpu', but takes auto, cpu, cuda or cuda:N",
        ),
    ],
)
def test_a_slip_on_the_command_line_is_one_message_and_exit_code_two(capsys, words, says):
    code, _, err = run(capsys, *words)
    assert code == 2 and err.startswith("error: ") and says in err and "Traceback" not in err


def test_orders_to_a_run_are_checked_before_they_are_sent(capsys, tmp_path):
    create(tmp_path / "runs" / "a", make_config("grpo"))
    assert "Unknown order 'halt'" in run(capsys, "control", "a", "halt")[2]
    assert (
        "Unknown setting of grpo 'gruop_size'. Did you mean 'group_size'?"
        in run(capsys, "control", "a", "gruop_size=4")[2]
    )
    assert "beta is 'much', but takes a number" in run(capsys, "control", "a", "beta=much")[2]
    assert "no process reads its commands" in run(capsys, "control", "a", "beta=0.1")[2]
    assert "Did you mean 'a'" in run(capsys, "control", "ab", "stop")[2]


def test_a_run_without_an_adapter_and_a_reward_model_cannot_be_measured(capsys, tmp_path):
    create(tmp_path / "runs" / "a", make_config("grpo"))
    create(tmp_path / "runs" / "rm", make_config("reward_model"))
    assert "has no adapter yet: it is interrupted" in run(capsys, "eval", "a")[2]
    assert "is a reward model" in run(capsys, "eval", "rm")[2]


def test_a_resumed_run_is_not_another_method(capsys, tmp_path):
    create(tmp_path / "runs" / "a", make_config("grpo"))
    assert "is a run of grpo, not dpo" in run(capsys, "train", "dpo", "--resume", "--out", "a")[2]
