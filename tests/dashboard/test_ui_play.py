"""The page Play: what it sends to the browser, and what it does when the browser asks."""

import json
import sys
from pathlib import Path

import pytest
from support.elements import opened

from lab.config.methods import make_config
from lab.config.number_text import number_text
from lab.dashboard.components.config_widgets import fine_ladder
from lab.dashboard.pages.play import data, page
from lab.dashboard.state import actions
from lab.dashboard.state.run_cache import RunRecord, Snapshot, run_record
from lab.runs import launch, queue
from lab.runs.folder import RunFolder, create
from lab.runs.fork import RECORDINGS_FOLDER, fork, twin
from lab.runs.records import Event, StepRecord
from lab.runs.trash import trashed_runs
from lab.storage.jsonl import append_rows

APP = Path(__file__).parents[2] / "app.py"


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "runs"))
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


@pytest.fixture
def started(monkeypatch):
    """The runs that would train; none does."""
    names: list[str] = []
    monkeypatch.setattr(queue, "start_training", lambda folder: names.append(folder.name))
    return names


def element(app, key="playground"):
    """The data of a browser element."""
    return next(
        json.loads(e.proto.json)[0]
        for e in app.get("bidi_component")
        if e.proto.component_name == f"lab_{key.replace('-', '_')}"
    )


def test_the_first_page_holds_four_recorded_runs_with_everything_that_plays_without_the_server():
    app = opened(APP)
    sent = element(app)
    assert list(sent["methods"]) == ["grpo", "dpo", "ipo", "ppo"] and sent["method"] == "grpo"
    for method, run in sent["methods"].items():
        recorded = RunFolder(RECORDINGS_FOLDER / method).history()
        rows = [row for row in recorded if row["type"] == "step"]
        assert run["end"] == rows[-1]["step"] and run["points"][0] == 0
        assert set(run["curves"]) == {"accuracy", "reward", "kl", "length"}
        steps, values = run["curves"]["accuracy"]
        last = rows[-1]["metrics"]["gold/accuracy"]
        assert f"{values[-1]:.4g}" == f"{last:.4g}"  # The page gets four digits.
        assert steps[-1] == rows[-1]["step"]
        assert [len(texts) for _, texts in run["samples"]] == [8] * len(run["samples"])
        assert len(run["prompts"]) == 8
    assert len(json.dumps(sent)) < 200_000


def test_a_slider_ranges_over_a_decade_and_a_half_on_either_side_of_its_default():
    for method, run in data.recordings().items():
        config = RunFolder(RECORDINGS_FOLDER / method).config
        for knob, slider in run["knobs"].items():
            default = getattr(config, knob)
            assert slider["default"] == default and default in slider["near"]
            assert slider["near"] == sorted(slider["near"])
            assert set(slider["near"]) <= set(slider["all"]) | {default}
            assert set(slider["ticks"]) <= set(slider["near"])
            if default:
                assert min(slider["near"]) >= default / 10**1.5
                assert max(slider["near"]) <= default * 10**1.5
            texts_of_values = [number_text(value) for value in slider["near"]]
            assert len(set(texts_of_values)) == len(texts_of_values)
    dpo, grpo = (data.recordings()[method]["knobs"] for method in ("dpo", "grpo"))
    assert dpo["beta"]["ticks"] == [0.05, 0.1, 0.2, 0.5] == grpo["beta"]["ticks"]
    assert "group_size" not in dpo and grpo["group_size"]["near"] == [2, 4, 8, 16, 32, 64, 128]
    assert max(dpo["learning_rate"]["near"]) == 0.015 and 1.0 in dpo["learning_rate"]["all"]


def test_anchor_of_the_fine_ladder():
    assert fine_ladder(1.0, 0.5, 2.0) == [0.5, 0.6, 0.8, 1.0, 1.2, 1.5, 2.0]


def test_a_fork_continues_the_recording_with_the_changed_setting_and_stands_in_the_address(
    root, started
):
    name = actions.fork_run(root, RECORDINGS_FOLDER / "dpo", 50, {"beta": 0.5}, 300)
    assert name == "play-dpo-1" and started == ["play-dpo-1"]
    app = opened("play", live=name)
    feed = element(app, "playground-feed")
    assert element(app)["live"] == name == feed["run"] and feed["method"] == "dpo"
    assert feed["marks"] == [[50, "β 0.1 → 0.5"]] and feed["settings"]["beta"] == 0.5
    assert feed["step"] == 50 and feed["total"] == 350
    recorded = element(app)["methods"]["dpo"]["curves"]["reward"]
    assert feed["curves"]["reward"] == [part[: recorded[0].index(50) + 1] for part in recorded]


def test_a_fork_of_the_start_has_its_change_as_a_mark_at_update_0(root, started):
    name = actions.fork_run(root, RECORDINGS_FOLDER / "grpo", 0, {"group_size": 2}, 120)
    feed = element(opened("play", live=name), "playground-feed")
    assert feed["marks"] == [[0, "G 8 → 2"]] and feed["settings"]["group_size"] == 2


def test_the_margin_is_in_nats_whatever_beta_its_update_had():
    changes = [
        Event(2, "changed", {"knob": "beta", "from": 0.1, "to": 0.5}).row(),
        Event(2, "changed", {"knob": "learning_rate", "from": 0.1, "to": 0.5}).row(),
    ]
    columns = {"rewards/margins": ([1, 2, 3], [0.2, 0.3, 2.0])}
    run = Snapshot({"beta": 0.1}, {"beta": 0.5}, columns, tuple(changes))
    assert data.margin_in_nats(run) == ([1, 2, 3], pytest.approx([2.0, 3.0, 4.0]))


def test_an_address_shows_no_run_that_is_not_of_this_page(root):
    create(root / "grpo-1", make_config("grpo"))
    for name in ("grpo-1", "play-none-1", "../play-x", "play-\0"):
        app = opened("play", live=name)
        assert element(app)["live"] == "" and "live" not in app.query_params


def test_an_address_of_the_page_train_still_leads_there(root):
    create(root / "grpo-1", make_config("grpo"))
    for query in ({"run": "grpo-1"}, {"method": "dpo", "beta": "0.5"}, {"x": "tokens"}):
        app = opened(APP, **query)
        assert app.title[0].value == "How does training change the policy?"
        assert {name: app.query_params[name] for name in query} in (
            query,
            {name: [value] for name, value in query.items()},
        )


def test_a_visitor_of_a_server_that_only_shows_sees_the_play_and_cannot_fork(
    root, monkeypatch, started
):
    monkeypatch.setattr(actions, "listens_on_localhost", lambda: False)
    monkeypatch.setattr(sys, "argv", ["app.py"])
    warmed = []
    monkeypatch.setattr(actions.STANDBY, "warm_later", warmed.append)
    sent = element(opened("play"))
    assert "it is read-only" in sent["refusal"] and sent["methods"]["ppo"]["points"]
    fork_command = {"action": "fork", "method": "dpo", "step": 50, "changes": {"beta": 0.5}}
    assert "it is read-only" in element(commanded(fork_command))["problem"]
    run = fork(RECORDINGS_FOLDER / "dpo", 25, {"beta": 0.5}, root.with_name("away"), 5)
    run.path.rename(root / "play-dpo-1")
    left = commanded({"action": "leave"}, live="play-dpo-1")
    assert element(left)["live"] == "" and element(left)["problem"] == ""
    assert [path.name for path in root.iterdir()] == ["play-dpo-1"]
    assert not (root / "play-dpo-1" / "control.jsonl").exists() and started == [] == warmed


COMMAND = """
import streamlit as st
from lab.dashboard.pages.play import page
st.session_state["playground"] = {{"command": {command!r}}}
page._obey()
st.session_state.pop("playground")
page.page()
"""


def commanded(command, **query):
    return opened(COMMAND.format(command=command), **query)


def test_the_browser_forks_steers_and_leaves_a_run(root, started):
    fork = {
        "action": "fork",
        "method": "ipo",
        "step": 25,
        "changes": {"beta": 1, "learning_rate": 0.001},
    }
    app = commanded(fork)
    assert element(app)["problem"] == "" and started == ["play-ipo-1"]
    run = RunFolder(root / "play-ipo-1")
    assert element(app)["live"] == run.name and element(app)["method"] == "ipo"
    values = {
        row["detail"]["knob"]: row["detail"]["to"]
        for row in run.history()
        if row["type"] == "event" and row["kind"] == "changed"
    }
    assert values == {"beta": 1.0, "learning_rate": 0.001}
    run.write_status("running", 25)  # this process counts as the one that trains it
    commanded({"action": "set", "knob": "beta", "value": 2}, live=run.name)
    commanded({"action": "pause"}, live=run.name)
    left = commanded({"action": "leave"}, live=run.name)
    rows = [json.loads(line) for line in (run.path / "control.jsonl").read_text().splitlines()]
    assert [(row["action"], row["knob"], row["value"]) for row in rows] == [
        ("set", "beta", 2.0), ("pause", "", None), ("stop", "", None),
    ]  # fmt: skip
    assert element(left)["live"] == "" and "live" not in left.query_params


def test_a_later_change_starts_one_twin_and_undo_shows_it_in_place_of_the_run(root, started):
    name = actions.fork_run(root, RECORDINGS_FOLDER / "dpo", 25, {"beta": 0.5}, 300)
    run = RunFolder(root / name)
    assert "twin" not in element(opened("play", live=name), "playground-feed")
    change = Event(30, "changed", {"knob": "beta", "from": 0.5, "to": 0.02}, "b").row()
    append_rows(run.path / "metrics.jsonl", [change])
    run.write_status("running", 30)  # this process counts as the one that trains it
    for _ in range(2):
        feed = element(opened("play", live=name), "playground-feed")
    assert feed["twin"]["run"] == "play-dpo-1-before-30" and feed["twin"]["marks"] == [
        [25, "β 0.1 → 0.5"]
    ]
    assert started == [name, "play-dpo-1-before-30"]
    app = commanded({"action": "undo", "before": 30}, live=name)
    assert element(app)["live"] == "play-dpo-1-before-30"
    assert json.loads((run.path / "control.jsonl").read_text())["action"] == "stop"
    assert element(app, "playground-feed")["settings"]["beta"] == 0.5


def test_on_one_core_the_twin_trains_after_the_run_and_the_page_follows_it(
    root, started, monkeypatch
):
    monkeypatch.setattr(queue, "max_running", lambda: 1)
    monkeypatch.setattr(queue, "spawn_worker", lambda root: None)
    every, fragment = [], page.st.fragment
    monkeypatch.setattr(
        page.st,
        "fragment",
        lambda function, run_every: every.append(run_every) or fragment(function, run_every=None),
    )
    name = actions.fork_run(root, RECORDINGS_FOLDER / "dpo", 25, {"beta": 0.5}, 300)
    run, twin_name = RunFolder(root / name), f"{name}-before-30"
    change = Event(30, "changed", {"knob": "beta", "from": 0.5, "to": 0.02}, "b").row()
    append_rows(run.path / "metrics.jsonl", [change])
    run.write_status("running", 30)  # this process counts as the one that trains it
    feed = element(opened("play", live=name), "playground-feed")
    assert feed["active"] and feed["twin"]["waiting"] and started == [name]
    run.write_status("finished", 325)
    queue.start_ready_runs(root)
    assert started == [name, twin_name]
    RunFolder(root / twin_name).write_status("running", 25)
    app = opened("play", live=name)
    feed = element(app, "playground-feed")
    assert not feed["active"] and feed["twin"]["active"] and feed["twin"]["step"] == 25
    assert len(every) == 2 and all(0.15 <= seconds <= 1 for seconds in every)
    RunFolder(root / twin_name).write_status("finished", 325)
    opened("play", live=name)
    assert every[2:] == [None]


def test_a_run_that_has_not_begun_is_in_the_trash_when_its_visitor_leaves_it(root, started):
    name = actions.fork_run(root, RECORDINGS_FOLDER / "dpo", 25, {"beta": 0.5}, 300)
    twin(RECORDINGS_FOLDER / "dpo", RunFolder(root / name), 30, root / f"{name}-before-30")
    assert RunFolder(root / name).state == "starting"
    commanded({"action": "leave"}, live=name)
    assert {*trashed_runs(root)} == {name, f"{name}-before-30"}


def test_a_twin_trains_with_low_priority(root, monkeypatch):
    lowered = []
    monkeypatch.setattr(launch, "_lower_priority", lambda child: lowered.append(child))
    monkeypatch.setattr(launch, "_new_process", lambda folder: Ended())
    monkeypatch.setattr(launch.STANDBY, "take", lambda path: None)
    run = fork(RECORDINGS_FOLDER / "dpo", 25, {"beta": 0.5}, root / "run", 5)
    other = twin(RECORDINGS_FOLDER / "dpo", run, 25, root / "twin")
    assert lowered == []
    children = [launch.start_training(folder) for folder in (run, other)]
    assert lowered == children[1:]


class Ended:
    """A process that has ended as the one that drove its run."""

    pid, returncode = 0, 0

    def wait(self):
        return 0


@pytest.mark.parametrize(
    "command, words",
    [
        ({"action": "fork", "method": "sft", "step": 0}, "recorded run that does not exist"),
        ({"action": "fork", "method": "dpo", "step": 7}, "can fork at 0, 25, 50, 75"),
        ({"action": "fork", "method": "dpo", "step": 25, "changes": {"seed": 1}}, "Sliders: beta"),
        ({"action": "fork", "method": "dpo", "step": 25, "changes": {"beta": -1}}, "beta"),
        ({"action": "fork", "method": "dpo", "step": 25, "changes": {"beta": "x"}}, "beta"),
        ({"action": "fork", "method": "dpo", "step": 25, "changes": {"group_size": 4}}, "group_size"),
    ],
)  # fmt: skip
def test_a_command_that_no_slider_sends_starts_nothing_and_is_answered(
    root, started, command, words
):
    assert words in element(commanded(command))["problem"]
    assert started == [] and not [path for path in root.iterdir() if path.is_dir()]


def test_commands_of_no_known_form_do_nothing(root, started):
    for command in (None, "fork", [], {"action": "set"}, {"action": "remove"}):
        assert element(commanded(command))["problem"] == ""
    assert started == []


def test_a_change_that_a_resumed_run_repeats_is_one_mark(root):
    folder = create(root / "play-dpo-1", make_config("dpo"))
    change = Event(2, "changed", {"knob": "beta", "from": 0.1, "to": 0.5}, "a").row()
    rows = [StepRecord(i, {"loss": 0.5}, 1.0, 1).row() for i in range(3)]
    append_rows(folder.path / "metrics.jsonl", [*rows, change, Event(2, "resumed").row(), change])
    snapshot = RunRecord(folder).snapshot()
    assert [row["kind"] for row in snapshot.events] == ["resumed", "changed"]


def test_a_failed_run_says_why(root, started):
    name = actions.fork_run(root, RECORDINGS_FOLDER / "dpo", 25, {"beta": 0.5}, 300)
    RunFolder(root / name).write_status("failed", 0, "The disk is full.")
    feed = element(opened("play", live=name), "playground-feed")
    assert feed["state"] == "failed" and feed["problem"] == "The disk is full."
    assert run_record(str(root / name)).state() == "failed"


def test_the_page_looks_at_a_live_run_as_often_as_it_makes_an_update():
    def pace(*ends):
        return data.refresh_seconds(
            Snapshot({}, {}, clock={"tokens": {}, "seconds": dict(enumerate(ends))})
        )

    assert pace() == pace(4.0) == pace(0.0, 0.01, 0.02) == 0.15
    assert pace(0.0, 2.0, 2.3, 2.6) == pytest.approx(2.6 / 3)
    ends = [9.0 * i for i in range(20)]
    assert pace(*ends) == 1.0
    late = [0.0, *(50.0 + 0.4 * i for i in range(11))]  # the first update is not among the last ten
    assert pace(*late) == pytest.approx(0.4)
