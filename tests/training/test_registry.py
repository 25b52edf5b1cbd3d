"""A method is one file and one line: the file of docs/add-a-method.md is registered, trains, and
stands on the command line, on the Train page and in figures.
"""

import io
import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from support.elements import healthy, opened

import lab.config.methods
from lab.cli.main import main
from lab.config.json_format import from_dict, to_dict
from lab.config.methods import METHOD_MODULES, METHODS, MethodSpec, make_config, register
from lab.data.row_fields import FORMATS
from lab.figures.drift import drift_figure
from lab.figures.palette import METHOD_COLOURS, METHOD_NAMES
from lab.figures.run_curves import RunCurves
from lab.figures.training_curves import training_curves
from lab.runs.folder import RunFolder, create
from lab.storage.checksums import write_with_checksums
from lab.training.driver import drive
from lab.training.resume import CHECKPOINT_FILE

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "add-a-method.md").read_text("utf-8")
QUICK = {
    "steps": 3,
    "batch_size": 8,
    "pairs": 32,
    "eval_every": 0,
    "eval_prompts": 8,
    "max_completion_tokens": 16,
    "learning_rate": 1e-3,
    "device": "cpu",
}


def file_of_the_page():
    """The one file that docs/add-a-method.md shows."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    return code


@pytest.fixture
def slic(tmp_path, monkeypatch):
    """The method of the page, registered from a file of its own."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "slic.py").write_text(file_of_the_page(), "utf-8")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(lab.config.methods, "METHOD_MODULES", list(METHOD_MODULES))
    register("slic")
    yield METHODS["slic"]
    sys.modules.pop("slic")


def test_the_page_is_short_and_names_the_one_line():
    assert len(PAGE.splitlines()) <= 80
    assert '`"lab.training.methods.slic",`' in PAGE and "METHOD_MODULES" in PAGE


def test_a_method_in_one_file_trains_and_its_run_opens_again(slic, tmp_path):
    folder = create(tmp_path / "run", make_config("slic", QUICK | {"delta": 2.0}))
    run = drive(folder)
    rows = [row for row in folder.history() if row["type"] == "step"]
    assert run.step == 3 and folder.state == "finished" and len(rows) == 4
    assert all(row["metrics"]["loss"] > 0 for row in rows[1:])
    assert {"rewards/accuracies", "grad_norm"} <= set(rows[1]["metrics"])
    written = json.loads((folder.path / "config.json").read_text("utf-8"))
    assert written["method"] == "slic" and written["delta"] == 2.0
    assert from_dict(written) == folder.config and to_dict(folder.config)["delta"] == 2.0


def test_a_method_in_one_file_stands_in_the_help_of_the_command_line(slic, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for words, text in (
        (["train", "--help"], "slic "),
        (["train", "slic", "--help"], "--delta FLOAT"),
        (["resources", "--help"], "Sequence Likelihood Calibration"),
    ):
        with pytest.raises(SystemExit):
            main(words)
        assert text in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["train", "slic", "--dleta", "1"])
    assert "Did you mean 'delta'?" in capsys.readouterr().err


def test_a_method_in_one_file_has_a_form_on_the_train_page(slic, tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(
        "lab.dashboard.components.live_chart.live_chart_element", lambda **data: None
    )
    app = opened(ROOT / "app.py", method="slic", delta="2.5")
    assert any("SLiC" in option for option in app.segmented_control(key="method").options)
    assert app.segmented_control(key="method").value == "slic"
    healthy(app.toggle(key="all-knobs").set_value(True).run())
    assert app.number_input(key="slic.delta").value == 2.5
    assert any(r"\underbrace{2.5}_{\delta}" in formula.value for formula in app.latex)
    assert any("by a fixed difference" in caption.value for caption in app.caption)


def test_a_method_in_one_file_has_its_name_and_colour_in_figures(slic):
    row = {"method": "slic", "step": [0, 1]} | {
        name: [0.1, 0.2]
        for side in ("logps/chosen", "logps/rejected")
        for name in (side, f"{side} ±")
    }
    traces = drift_figure([row], ["slic"], "logps", "light").data
    curves = [trace for trace in traces if trace.showlegend is False]
    assert [t.name.partition(", ")[0] for t in curves] == ["SLiC", "SLiC"]
    assert {t.line.color for t in curves} == {"#F0E442"}
    curves = RunCurves("a", "slic", "a", {"loss": ([0, 1], [1.0, 0.5])}, (), 0, 1)
    assert training_curves([curves], theme="light").data[0].line.color == "#F0E442"


def test_the_registry_forgets_nothing_and_no_two_methods_share_a_name():
    assert "slic" not in METHODS
    assert len(METHODS) == len(set(METHODS)) == 8
    for name, spec in METHODS.items():
        assert spec.name == name and spec.title == METHOD_NAMES[name]
        assert spec.colour == METHOD_COLOURS[name] and re.fullmatch("#[0-9A-F]{6}", spec.colour)
        assert set(spec.formats) <= set(FORMATS) and spec.online != spec.offline
        assert spec.formula(to_dict(make_config(name))), name
    assert {f.name for f in fields(MethodSpec)} >= {"models", "batches", "loss"}


def test_the_registry_is_read_without_a_model_library():
    script = (
        "import sys; from lab.config.methods import METHODS; list(METHODS.values());"
        " print(sorted({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_a_run_of_an_earlier_format_resumes(tmp_path):
    whole = drive(create(tmp_path / "whole", make_config("ipo", QUICK | {"steps": 4})))
    folder = create(tmp_path / "run", make_config("ipo", QUICK | {"steps": 2}))
    drive(folder)
    earlier = {"form": "sequence", "shard": "off", "quantization": "none"}
    dropped = {"format", "ipo_variant"}

    def as_before(config):
        return {k: v for k, v in config.items() if k not in dropped} | earlier

    config = json.loads((folder.path / "config.json").read_text("utf-8"))
    (folder.path / "config.json").write_text(json.dumps(as_before(config) | {"format": 2}))
    state = torch.load(folder.path / "checkpoint" / CHECKPOINT_FILE, weights_only=True)
    before = {name: as_before(state[name]) for name in ("config", "started")}
    data = io.BytesIO()
    torch.save(state | before, data)
    write_with_checksums(folder.path / "checkpoint", {CHECKPOINT_FILE: data.getvalue()})
    run = drive(RunFolder(folder.path), 4)
    assert run.step == 4 and run.config.ipo_variant == "sequence" and run.config.shard is False
    ends = [run.trainable_parameters()["learning_rate"].values() for run in (whole, run)]
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))
