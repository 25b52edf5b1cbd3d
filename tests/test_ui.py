"""The Train page without a browser: every control, and what must not happen. The training process is replaced by a stub."""

import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from lab.config import CONFIGS, make_config, to_dict
from lab.errors import LabError
from lab.jsonl import append
from lab.metrics import Event, StepRecord
from lab.presets import PRESETS
from lab.runs import RunFolder, create
from lab.ui import setup
from lab.ui.knobs import divisors, ladder

APP = Path(__file__).parents[1] / "app.py"


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path))
    monkeypatch.setattr("lab.ui.live._element", lambda **data: None)  # AppTest knows no browser elements
    return tmp_path


@pytest.fixture
def launched(root, monkeypatch):
    calls = []

    def launch(method, knobs, out, where):
        calls.append((method, knobs))
        return create(where / out, make_config(method, knobs))

    monkeypatch.setattr(setup, "launch", launch)
    monkeypatch.setattr(setup.os, "cpu_count", lambda: 4)
    return calls


def open_page(**query):
    app = AppTest.from_file(str(APP), default_timeout=60)
    for name, value in query.items():
        app.query_params[name] = value
    return healthy(app.run())


def healthy(app):
    assert not app.exception, app.exception
    return app


def finished(root, name, method="dpo", steps=4, state="finished", **knobs):
    folder = create(root / name, make_config(method, {"steps": steps, **knobs}))
    rows = [StepRecord(0, {"gold/accuracy": 0.46, "gold/scratchpad_share": 0.2}, 0.0, 0).row()]
    rows += [StepRecord(i, {"loss": 0.7 - i / 100, "grad_norm": 1.0, "gold/accuracy": 0.46 + i / 10}, i * 0.5, i * 100).row() for i in range(1, steps + 1)]
    append(folder.path / "metrics.jsonl", [*rows, Event(steps, state).row()])
    folder.write_status(state, steps)
    return folder


def texts(app):
    return " ".join(e.value for kind in ("markdown", "caption", "text", "warning", "error") for e in app.get(kind))


def test_the_first_page_offers_a_form_and_says_what_start_does(root):
    app = open_page()
    assert app.title[0].value == "What does training do to the policy?"
    assert "Press **Start**" in texts(app) and app.button(key="start")


@pytest.mark.parametrize("method", CONFIGS)
def test_start_launches_the_defaults_of_the_picked_method(launched, method):
    app = open_page()
    app.segmented_control(key="method").set_value(method).run()
    healthy(app.button(key="start").click().run())
    assert launched[0][0] == method and make_config(*launched[0]) == make_config(method)
    assert app.query_params["run"] in (f"{method}-1", [f"{method}-1"])


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_a_preset_fills_the_form_and_says_what_to_look_for(launched, preset):
    app = open_page()
    app.selectbox(key="preset").set_value(preset).run()
    assert preset.shows in texts(app)
    healthy(app.button(key="start").click().run())
    assert make_config(*launched[0]) == make_config(preset.method, preset.knobs)


def test_another_method_takes_the_words_of_the_preset_away(root):
    app = open_page()
    app.selectbox(key="preset").set_value(PRESETS[0]).run()
    app.segmented_control(key="method").set_value("kto").run()
    assert app.selectbox(key="preset").value is None and PRESETS[0].shows not in texts(healthy(app))


@pytest.mark.parametrize("method", CONFIGS)
def test_every_knob_of_a_method_is_on_the_form(root, method):
    app = open_page()
    app.segmented_control(key="method").set_value(method).run()
    healthy(app.toggle(key="more").set_value(True).run())
    shown = {e.key for kind in ("number_input", "selectbox", "text_input", "select_slider") for e in app.get(kind)}
    assert {f"{method}.{name}" for name in to_dict(make_config(method)) if name != "method"} <= shown


def test_group_sizes_on_offer_divide_the_batch():
    assert divisors(12) == [2, 3, 4, 6, 12]
    assert ladder(0, 0.001) == [0.0, 0.0001, 0.0002, 0.0005, 0.001] and 0.3 in ladder(0.1, 1, 0.3)


def test_several_seeds_start_several_runs_as_far_as_there_are_cores(launched):
    app = open_page()
    app.number_input(key="seeds").set_value(8).run()
    healthy(app.button(key="start").click().run())
    assert [knobs["seed"] for _, knobs in launched] == [0, 1, 2, 3]
    assert "Started 4 of 8 seeds" in texts(app)


def test_a_batch_that_the_group_size_does_not_divide_moves_the_group_size(launched):
    app = open_page()
    app.toggle(key="more").set_value(True).run()
    app.number_input(key="grpo.batch_size").set_value(12).run()
    assert 12 % healthy(app.run()).select_slider(key="grpo.group_size").value == 0
    app.button(key="start").click().run()
    assert make_config(*launched[0]).batch_size == 12


def test_a_launch_that_fails_says_why_on_the_page(launched, monkeypatch):
    def launch(*args):
        raise LabError("no room left")

    monkeypatch.setattr(setup, "launch", launch)
    app = open_page()
    assert "no room left" in texts(healthy(app.button(key="start").click().run()))


def test_finished_runs_are_overlaid_with_a_caption_in_numbers(root):
    finished(root, "a", seed=1)
    finished(root, "b", seed=2)
    app = open_page(run="a,b")
    assert "Step 4: gold accuracy 0.46 → 0.86" in texts(app)
    assert app.segmented_control(key="focus").options and not [b for b in app.button if b.label == "Stop"]


@pytest.mark.parametrize("name", ["../a", "/etc", "a/../../b", "..", "no-such-run", "<script>alert(1)</script>"])
def test_a_name_in_the_address_cannot_leave_the_runs_folder(root, name):
    finished(root, "a")
    app = open_page(run=name)
    assert app.multiselect(key="run").value == [] and "alert" not in texts(app)


def test_a_run_whose_process_is_gone_is_shown_as_interrupted(root):
    folder = finished(root, "a", steps=4)
    status = json.loads((folder.path / "status.json").read_text())
    (folder.path / "status.json").write_text(json.dumps(status | {"state": "running", "pid": 999_999_999}))
    assert "interrupted, step 4 of 4" in texts(open_page(run="a"))


def test_live_sliders_send_commands_and_show_the_answer(root):
    folder = finished(root, "live", method="grpo", state="running")
    app = open_page(run="live")
    healthy(app.select_slider(key="live.live.beta").set_value(0.1).run())
    sent = [json.loads(line) for line in (folder.path / "control.jsonl").read_text().splitlines()]
    assert [(row["action"], row["knob"], row["value"]) for row in sent] == [("set", "beta", 0.1)]
    assert "Sent: β = 0.1" in texts(app)
    append(folder.path / "metrics.jsonl", [Event(4, "changed", {"knob": "beta", "from": 0.0, "to": 0.1}, sent[0]["id"]).row()])
    app.run()
    assert "The trainer answered: β 0 → 0.1 from step 5 on." in texts(app)
    healthy(app.button(key="live.stop").click().run())
    assert RunFolder(folder.path).read() and "stop" in (folder.path / "control.jsonl").read_text()


def test_text_of_a_sample_is_shown_as_text(root):
    folder = finished(root, "a")
    append(folder.path / "samples.jsonl", [
        {"step": 4, "index": 0, "prompt": "1+1=", "completion": "<img src=x>", "gold": 0.0, "answer": "2", "held_out": True}])
    app = open_page(run="a")
    assert "<img src=x>" in app.dataframe[0].value["completion"].tolist() and "<img" not in texts(app)
