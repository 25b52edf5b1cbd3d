"""`train --config run.yaml`: the file of a run repeats it, and options on the command line win."""

import json
from pathlib import Path

import pytest

from lab.cli.config_file import with_config_file
from lab.cli.main import main
from lab.config.config_file import read_config_file, to_yaml
from lab.config.json_format import to_dict
from lab.config.methods import METHODS, make_config
from lab.errors import LabError
from lab.runs.folder import RunFolder, create


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAB_RUNS", "runs")


def file_of(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text, "utf-8")
    return path


def refusal(arguments, capsys):
    with pytest.raises(SystemExit):
        main([str(word) for word in arguments])
    error = capsys.readouterr().err
    assert error.startswith("error: ") and len(error.splitlines()) == 1
    return error


def trained(name):
    rows = (Path(name) / "metrics.jsonl").read_text().splitlines()
    return [row["metrics"] for row in map(json.loads, rows) if row["type"] == "step"]


@pytest.mark.parametrize("method", METHODS)
def test_the_yaml_of_a_config_is_read_as_the_same_config(tmp_path, method):
    config = make_config(method, {"learning_rate": 1e-5, "device": "cpu", "shard": True})
    named, settings = read_config_file(file_of(tmp_path, to_yaml(config)))
    assert named == method and make_config(named, settings) == config


def test_a_run_is_repeated_to_the_last_bit_by_its_own_run_yaml(tmp_path, capsys):
    quick = ["--batch-size", "4", "--eval-prompts", "4", "--steps", "2", "--lora-rank", "2"]
    main(["train", "dpo", *quick, "--beta", "0.3", "--out", "runs/first"])
    main(["train", "--config", "runs/first/run.yaml", "--out", "runs/second"])
    assert trained("runs/first") == trained("runs/second") != []
    assert RunFolder(Path("runs/first")).config == RunFolder(Path("runs/second")).config


def test_options_override_the_file(tmp_path):
    path = file_of(
        tmp_path,
        "method: grpo\nlearning_rate: 1e-5\ngroup-size: 4\nshard: on\nseed: 7\n"
        "lora_targets: [q_proj, v_proj]\nquantization: 4bit\n",
    )
    words = with_config_file(["train", f"--config={path}", "--no-shard", "--seed", "9"])
    assert words == [
        "train",
        "grpo",
        "--learning-rate=1e-05",
        "--group-size=4",
        "--lora-targets=q_proj,v_proj",
        "--quantization=4bit",
        "--no-shard",
        "--seed",
        "9",
    ]


def test_the_file_may_leave_the_method_to_the_command_line_and_name_the_folder(tmp_path):
    path = file_of(tmp_path, "beta: 0.25\nout: runs/here\n")
    assert with_config_file(["train", "ipo", "--config", str(path)]) == [
        "train",
        "ipo",
        "--beta=0.25",
        "--out=runs/here",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method: dpo\nbetta: 0.1\n", "Did you mean 'beta'?"),
        ("method: dpoo\n", "Did you mean 'dpo'?"),
        ("method: dpo\nbeta: high\n", "beta is 'high', but takes a number."),
        ("method: dpo\nsteps: 0\n", "steps is 0, but takes a whole number from 1 to 1e+06."),
        ("method: dpo\nsteps: 2.5\n", "steps is 2.5, but takes a whole number"),
        ("method: dpo\nbeta: 0.1\nbeta: 0.2\n", "has the key beta more than once"),
        ("method: dpo\nbatch-size: 8\nbatch_size: 4\n", "has the key batch_size twice"),
        ("method: dpo\nbeta: [0.1\n", "is no YAML that can be read"),
        ("- dpo\n", "holds list, but takes lines of SETTING: VALUE"),
        ("", "holds NoneType, but takes lines of SETTING: VALUE"),
        ("beta: 0.1\n", "names no method"),
        ("method: grpo\nreward: mine:short\n", "name it again: --reward mine:short"),
        ("method: dpo\nmodel: {name: a}\n", "model is {'name': 'a'}, but takes text"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_line_with_its_name(tmp_path, capsys, text, message):
    path = file_of(tmp_path, text)
    error = refusal(["train", "--config", path], capsys)
    assert message in error and "mine.yaml" in error
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "none.yaml"], "No such file"),
        (["--config"], "config takes the path of one YAML file"),
        (["kto", "--config", "mine.yaml"], "is for the method dpo, but kto is given"),
        (["--resume", "--config", "mine.yaml"], "config cannot be given when a run resumes"),
    ],
)
def test_a_config_that_cannot_serve_is_refused_in_words(tmp_path, capsys, words, message):
    file_of(tmp_path, "method: dpo\n")
    assert message in refusal(["train", *words], capsys)


def test_the_folder_of_a_run_holds_its_settings_as_yaml(tmp_path):
    folder = create(tmp_path / "run", make_config("kto", {"beta": 0.4}))
    method, settings = read_config_file(folder.path / "run.yaml")
    assert {"method": method} | settings == to_dict(folder.config)
    with pytest.raises(LabError, match="cannot be read: Is a directory"):
        read_config_file(folder.path)
