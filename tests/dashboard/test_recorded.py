"""The runs that the lab ships: whole, small, of nobody's machine, and shown by the Train page as
what they are.
"""

import json
from dataclasses import replace

import pytest
from support.elements import opened

from lab.config.methods import METHODS, make_config
from lab.config.presets import RUN_PRESETS
from lab.dashboard.state.run_selection import SHIPPED_PREFIX
from lab.dashboard.state.shipped_runs import SHIPPED_RUNS_FOLDER
from lab.experiments import arithmetic, frontier
from lab.experiments.shipped_runs import shipped_run_plan
from lab.runs.catalogue import list_runs

RUNS = list_runs(SHIPPED_RUNS_FOLDER)


def size(folder):
    return sum(path.stat().st_size for path in folder.iterdir())


def facts(run):
    return json.loads((run.path / "recorded.json").read_text("utf-8"))


def recorded_by(experiment):
    """The shipped runs whose command is that of the experiment."""
    return {
        run.name: run
        for run in RUNS
        if facts(run)["command"].split()[:5] == ["python", "-m", "lab", "experiment", experiment]
    }


def on_a_language_model():
    """Experiment → the name of each run that it ships → the arm that was run."""
    frontiers = [
        frontier.arm_of(method, frontier.PLAN.shown_beta, "runs/frontier/pairs.jsonl")
        for method in frontier.PLAN.rates
    ]
    sums = [
        arm
        for (equal, size), arm in arithmetic.arms().items()
        if size == arithmetic.PLAN.control and equal in ("rollouts", *arithmetic.CONTROL_REWARDS)
    ]
    return {
        name: {f"smollm2-{arm.name}".replace(".", ""): arm for arm in arms}
        for name, arms in (("frontier", frontiers), ("arithmetic", sums))
    }


def test_every_method_s_defaults_and_every_preset_are_recorded():
    runs = recorded_by("recorded")
    assert set(runs) == set(shipped_run_plan())
    for name, run in runs.items():
        method, knobs, _, _ = shipped_run_plan()[name]
        assert replace(run.config, device="auto") == make_config(method, {"seed": 0} | knobs)


@pytest.mark.parametrize(("experiment", "arms"), on_a_language_model().items())
def test_an_experiment_on_a_language_model_ships_the_first_seed_of_all_its_arms_or_of_none(
    experiment, arms
):
    runs = recorded_by(experiment)
    assert set(runs) in (set(), set(arms))
    for name, run in runs.items():
        assert replace(run.config, device="auto") == make_config(
            arms[name].method, arms[name].knobs | {"seed": 0}
        )


def test_nothing_else_is_shipped():
    assert {run.name for run in RUNS} == {
        name
        for experiment in ("recorded", *on_a_language_model())
        for name in recorded_by(experiment)
    }


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_recorded_run_is_finished_and_says_where_it_comes_from(run):
    steps = [row["step"] for row in run.history() if row["type"] == "step"]
    assert (
        run.state == "finished"
        and run.status()["pid"] == 0
        and steps == list(range(run.config.steps + 1))
    )
    assert all(facts(run)[name] for name in ("title", "device", "torch", "transformers", "seconds"))


def test_recorded_runs_are_small():
    sizes = {run.name: size(run.path) for run in RUNS}
    assert max(sizes.values()) < 250_000 and sum(sizes.values()) < 2_800_000, sizes


@pytest.mark.parametrize(
    "name", [*METHODS, *list(recorded_by("frontier"))[:1], *list(recorded_by("arithmetic"))[:1]]
)
def test_the_train_page_shows_a_recorded_run_and_offers_no_control(name, tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path))
    monkeypatch.setattr(
        "lab.dashboard.components.live_chart.live_chart_element", lambda **data: None
    )  # AppTest knows no browser elements
    app = opened("train", run=f"{SHIPPED_PREFIX}{name}")
    assert app.multiselect(key="run").value == [f"{SHIPPED_PREFIX}{name}"]
    said = " ".join(e.value for e in app.markdown)
    assert (
        f"`{name}` :gray-badge[recorded] finished" in said
        and "interrupted" not in said
        and "→" in said
    )
    assert not [b for b in app.button if b.label in ("Stop", "Pause")] and not [
        s for s in app.select_slider if ".live." in (s.key or "")
    ]
    assert list(tmp_path.iterdir()) == []


def test_the_runs_page_lists_and_shows_runs_of_a_language_model_with_their_gold_reward(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path))
    monkeypatch.setattr(
        "lab.dashboard.components.live_chart.live_chart_element", lambda **data: None
    )
    names = [
        f"{SHIPPED_PREFIX}{name}"
        for experiment in on_a_language_model()
        for name in list(recorded_by(experiment))[:1]
    ]
    app = opened("runs", run=names)
    said = " ".join(e.value for e in app.markdown)
    assert app.multiselect(key="run").value == names and said.count("gold reward") >= len(names)
    titles = {preset.run_name: preset.title for preset in RUN_PRESETS if preset.knobs}
    assert {titles.get(run.name, run.name) for run in RUNS} == set(
        app.dataframe(key="table").value["run"]
    )
