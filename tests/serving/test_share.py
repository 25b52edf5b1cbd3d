"""The file that shares a run: its data, its size, and that no text of a run can become markup."""

import json
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.run_folders import EVIL, recorded, sample

from lab.cli.main import main, parse
from lab.config.json_format import to_dict
from lab.config.methods import make_config
from lab.dashboard.state.shipped_runs import SHIPPED_RUNS_FOLDER
from lab.errors import LabError
from lab.runs.catalogue import list_runs
from lab.runs.folder import RunFolder, create
from lab.runs.records import StepRecord
from lab.serving.share import MAX_SAMPLES_BYTES, repeat_command, share_page
from lab.storage.jsonl import append_rows


class Elements(HTMLParser):
    """The elements of a file, as a browser's parser cuts them, and the text of each script."""

    def __init__(self, text):
        super().__init__()
        self.names, self.texts, self.attributes = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.attributes.append(dict(attrs))
        if tag == "script":
            self.texts.append("")

    def handle_data(self, data):
        if self.names and self.names[-1] == "script":
            self.texts[-1] += data


def data_of(text):
    """What the file's script reads."""
    return json.loads(Elements(text).texts[0])


def test_the_file_holds_curves_marks_and_completions_of_the_run(tmp_path):
    samples = [
        sample(0, 0, "1+1=", held_out=True, gold=0.0, answer="2"),
        sample(4, 0, "2+2=", reward=0.0, advantage=-1.0),
        sample(4, 1, "4", reward=1.0, advantage=1.0),
    ]
    data = data_of(share_page(recorded(tmp_path, samples=samples)))
    panels = {panel["title"]: panel for panel in data["panels"]}
    assert panels["gold accuracy"]["points"] == [[0, 1, 2, 3, 4], [0.0, 0.25, 0.5, 0.75, 1.0]]
    assert panels["reward"]["line"] == [[0, 1, 2, 3, 4], [0.0, 0.125, 0.25, 0.375, 0.5]]
    assert data["marks"] == [[2, "β 0.1 → 0.02"]]
    (first, held_out, none), (last, nothing, group) = data["samples"]
    assert (first, last, none, nothing) == (0, 4, [], [])
    assert held_out == [{"prompt": "1+1=", "completion": "1+1=", "answer": "2", "right": False}]
    assert [row["reward"] for row in group] == [1.0, 0.0]
    assert data["notices"] == [] and (data["step"], data["steps"]) == (4, 4)
    assert "--seed 7" in data["command"]


def test_no_text_of_a_run_becomes_markup(tmp_path):
    samples = [sample(0, 0, EVIL, held_out=True, gold=0.0, answer=EVIL)]
    text = share_page(recorded(tmp_path, samples=samples), title=EVIL)
    found = Elements(text)
    assert found.names.count("script") == 2 and "img" not in found.names
    assert not any(name.startswith("on") for row in found.attributes for name in row)
    data = data_of(text)
    assert data["title"] == EVIL and data["samples"][0][1][0]["prompt"] == EVIL
    assert not any({"src", "href"} & row.keys() for row in found.attributes)


def test_no_folder_of_the_computer_is_in_the_file(tmp_path):
    own = tmp_path / "secret-place" / "pairs.jsonl"
    own.parent.mkdir()
    own.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    folder = create(tmp_path / "mine", make_config("dpo", {"data": str(own), "steps": 2}))
    append_rows(folder.path / "metrics.jsonl", [StepRecord(1, {"loss": 0.7}, 1.0, 1).row()])
    folder.write_status("failed", 1, f"{own} is gone")
    assert str(own) in (folder.path / "config.json").read_text()
    text = share_page(folder)
    assert "secret-place" not in text and str(tmp_path) not in text
    assert "--data pairs.jsonl" in data_of(text)["command"]


def test_the_command_of_a_run_is_one_that_the_command_line_takes_with_all_digits():
    settings = {
        "gradient_checkpointing": True,
        "learning_rate": 1.23456789e-05,
        "template_options": "enable_thinking=false",
        "reward_weights": "-1,0.2",
        "reward": "answer,format",
    }
    config = make_config("grpo", settings)
    words = shlex.split(repeat_command(to_dict(config)))
    assert words[:3] == ["alab", "train", "grpo"] and "1.23456789e-05" in words
    command = parse(words[1:])
    (given,) = command.args
    assert {name: getattr(given, name) for name in settings} == settings


def test_a_run_without_completions_says_so(tmp_path):
    assert data_of(share_page(recorded(tmp_path)))["notices"] == [
        "This run recorded no completions."
    ]


def test_many_long_completions_are_thinned_and_the_file_says_so(tmp_path):
    samples = [
        sample(step, index, f"{step} " + "x" * 3000, held_out=True, gold=1.0)
        for step in range(300)
        for index in range(8)
    ]
    text = share_page(recorded(tmp_path, samples=samples, steps=300))
    data = data_of(text)
    assert len(text.encode()) < 3_000_000
    assert len(json.dumps(data["samples"])) <= MAX_SAMPLES_BYTES
    assert len(data["samples"]) < 300 and f"those of {len(data['samples'])}." in data["notices"][0]
    assert data["samples"][0][1][0]["prompt"].endswith("(3002 characters)")


def test_a_run_that_has_measured_nothing_and_a_damaged_one_are_errors(tmp_path, capsys):
    empty = create(tmp_path / "empty", make_config("grpo", {}))
    with pytest.raises(LabError, match="empty has not measured anything yet"):
        share_page(empty)
    damaged = recorded(tmp_path, "damaged")
    (damaged.path / "config.json").write_text("{")
    with pytest.raises(LabError, match="damaged is damaged") as error:
        share_page(damaged)
    assert str(tmp_path) not in str(error.value)
    with pytest.raises(SystemExit):
        main(["share", str(damaged.path), "--out", str(tmp_path / "out.html")])
    assert "damaged" in capsys.readouterr().err and not (tmp_path / "out.html").exists()


def test_torn_and_foreign_lines_of_a_record_are_passed_over(tmp_path):
    folder = recorded(tmp_path, samples=[sample(0, 0, "1+1=", held_out=True, gold=1.0)])
    for name in ("metrics.jsonl", "samples.jsonl"):
        with (folder.path / name).open("ab") as file:
            file.write(b'{"type": "step", "step": "x"}\n\xff\xfe\n{"step": 5, "ind')
    data = data_of(share_page(folder))
    assert data["step"] == 4 and len(data["samples"]) == 1


def test_the_command_writes_the_file(tmp_path, capsys, monkeypatch):
    folder = recorded(tmp_path)
    out = tmp_path / "new" / "run.html"
    main(["share", str(folder.path), "--out", str(out)])
    assert data_of(out.read_text("utf-8"))["title"] == "mine"
    assert f"{out}: {out.stat().st_size:,} bytes" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    main(["share", str(folder.path)])
    assert Path("mine.html").read_bytes() == out.read_bytes()


@pytest.mark.parametrize("run", list_runs(SHIPPED_RUNS_FOLDER), ids=lambda run: run.name)
def test_every_shipped_run_can_be_shared_in_less_than_3_megabytes(run: RunFolder):
    text = share_page(run)
    data = data_of(text)
    assert len(text.encode()) < 3_000_000 and data["panels"] and data["step"] == data["steps"]
