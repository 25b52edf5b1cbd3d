"""The runs that the lab ships: whole, small, of nobody's machine, and shown by the Train page as what they are."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from elements import opened

from lab.config import CONFIGS, make_config
from lab.experiments import frontier
from lab.experiments.recorded import plan
from lab.runs import list_runs
from lab.ui.recorded import FOLDER
from lab.ui.train import MARK

APP = Path(__file__).parents[1] / "app.py"
RUNS = list_runs(FOLDER)


def size(folder):
    return sum(path.stat().st_size for path in folder.iterdir())


def test_every_method_s_defaults_and_every_preset_are_recorded_and_runs_of_a_language_model():
    embedded = [run for run in RUNS if run.config.model == "embedded"]
    assert {run.name for run in embedded} == set(plan())
    assert {run.name for run in RUNS} - set(plan()) == {*(f"smollm2-{method}-01" for method in frontier.PLAN.rates), "smollm2-grpo-answer-8-128",
                                                        "smollm2-grpo-random-8-128"}
    for run in embedded:
        method, knobs, _, _ = plan()[run.name]
        assert replace(run.config, device="auto") == make_config(method, {"seed": 0} | knobs)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_recorded_run_is_finished_and_says_where_it_comes_from(run):
    steps = [row["step"] for row in run.history() if row["type"] == "step"]
    assert run.state == "finished" and run.status()["pid"] == 0 and steps == list(range(run.config.steps + 1))
    facts = json.loads((run.path / "recorded.json").read_text("utf-8"))
    assert facts["command"].startswith("python -m lab experiment ")
    assert all(facts[name] for name in ("title", "device", "torch", "transformers", "seconds"))


def test_recorded_runs_are_small():
    sizes = {run.name: size(run.path) for run in RUNS}
    assert max(sizes.values()) < 250_000 and sum(sizes.values()) < 2_800_000, sizes


@pytest.mark.parametrize("name", CONFIGS)
def test_the_train_page_shows_a_recorded_run_and_offers_no_control(name, tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path))
    monkeypatch.setattr("lab.ui.live._element", lambda **data: None)  # AppTest knows no browser elements
    app = opened(APP, run=f"{MARK}{name}")
    assert app.multiselect(key="run").value == [f"{MARK}{name}"]
    said = " ".join(e.value for e in app.markdown)
    assert f"`{name}` :gray-badge[recorded] finished" in said and "interrupted" not in said and "→" in said
    assert not [b for b in app.button if b.label in ("Stop", "Pause")] and not [s for s in app.select_slider if ".live." in (s.key or "")]
    assert list(tmp_path.iterdir()) == []
