"""The Train page without a browser: every control, and what must not happen. The training process
is replaced by a stub.
"""

import base64
import gzip
import hashlib
import json
import re
import subprocess
from functools import partial

import pytest
from support.elements import healthy, opened, texts

from lab.config.data_files import ENDINGS
from lab.config.json_format import to_dict
from lab.config.methods import METHODS, make_config
from lab.config.presets import RUN_PRESETS
from lab.dashboard.components.config_widgets import divisors, ladder
from lab.dashboard.components.sample_table import answer_cell, completion_cell
from lab.dashboard.pages.train import details, upload
from lab.dashboard.state import run_cache, visitor_processes
from lab.dashboard.state.shipped_runs import SHIPPED_RUNS_FOLDER
from lab.data.parsing import load_pairs
from lab.errors import LabError
from lab.models.tokenizer import load_tokenizer
from lab.runs import queue
from lab.runs.folder import RunFolder, create
from lab.runs.records import Event, StepRecord
from lab.storage.jsonl import append_rows


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path))
    monkeypatch.setattr(
        "lab.dashboard.components.live_chart.live_chart_element", lambda **data: None
    )  # AppTest knows no browser elements
    return tmp_path


@pytest.fixture
def launched(root, monkeypatch):
    """(method, knobs that differ from the defaults) of every run that was started; the training
    process is this test.
    """
    calls = []

    def start(folder):
        calls.append(made(folder))
        folder.write_status("running", 0)

    monkeypatch.setattr(queue, "start_training", start)
    monkeypatch.setattr(queue, "max_running", lambda: 4)
    monkeypatch.setattr(queue, "spawn_worker", lambda root: None)
    return calls


def made(folder):
    config = to_dict(folder.config)
    default = to_dict(make_config(config["method"]))
    return config["method"], {
        name: value for name, value in config.items() if value != default[name]
    }


open_page = partial(opened, "train")


def finished(root, name, method="dpo", steps=4, state="finished", **knobs):
    folder = create(root / name, make_config(method, {"steps": steps, **knobs}))
    rows = [StepRecord(0, {"gold/accuracy": 0.46, "gold/scratchpad_share": 0.2}, 0.0, 0).row()]
    rows += [
        StepRecord(
            i,
            {"loss": 0.7 - i / 100, "grad_norm": 1.0, "gold/accuracy": 0.46 + i / 10},
            i * 0.5,
            i * 100,
        ).row()
        for i in range(1, steps + 1)
    ]
    append_rows(folder.path / "metrics.jsonl", [*rows, Event(steps, state).row()])
    folder.write_status(state, steps)
    return folder


def test_the_page_offers_a_form_and_says_what_start_does(root):
    app = open_page()
    assert app.title[0].value == "How does training change the policy?"
    assert "Press **Start**" in texts(app) and app.button(key="start")


@pytest.mark.parametrize("method", METHODS)
def test_start_launches_the_defaults_of_the_picked_method(launched, method):
    app = open_page()
    app.segmented_control(key="method").set_value(method).run()
    healthy(app.button(key="start").click().run())
    assert launched == [(method, {})]
    assert (
        app.query_params["run"] in (f"{method}-1", [f"{method}-1"])
        and "method" not in app.query_params
    )


@pytest.mark.parametrize("preset", RUN_PRESETS, ids=lambda preset: preset.name)
def test_a_card_fills_the_form_and_a_second_press_starts_the_experiment(launched, preset):
    app = open_page()
    healthy(app.button(key=f"preset.{preset.name}").click().run())
    assert launched == [] and preset.shows in texts(app)
    assert app.segmented_control(key="method").value == preset.method
    healthy(app.button(key="start").click().run())
    assert launched == [(preset.method, preset.knobs)]
    assert f"**{preset.title}.** {preset.shows}" in texts(app) and app.query_params["run"] in (
        f"{preset.method}-1",
        [f"{preset.method}-1"],
    )


def test_a_card_says_without_a_tooltip_what_is_done_and_shows_the_recorded_accuracy(root):
    app = open_page()
    pictures = [e.proto.body for e in app.get("html") if 'class="lab-spark"' in e.proto.body]
    captions = [e.value for e in app.caption]
    assert len(pictures) == len(RUN_PRESETS)
    for preset, picture in zip(RUN_PRESETS, pictures):
        rows = RunFolder(SHIPPED_RUNS_FOLDER / preset.run_name).history()
        gold = [
            row["metrics"]["gold/accuracy"]
            for row in rows
            if row["type"] == "step" and "gold/accuracy" in row["metrics"]
        ]
        assert f"gold accuracy {gold[0]:.2f} → {gold[-1]:.2f} in" in picture
        drawn = base64.b64decode(picture.partition("base64,")[2].partition('"')[0]).decode()
        assert len(drawn.partition('points="')[2].partition('"')[0].split()) == len(gold)
        assert preset.sentence in captions and preset.shows.startswith(preset.sentence[:-1])
        assert not app.button(key=f"preset.{preset.name}").help


def test_an_address_with_an_earlier_name_of_a_recorded_run_shows_that_run(root):
    app = open_page(run="recorded:coin-flips,recorded:grpo")
    assert app.multiselect(key="run").value == ["recorded:rewards-at-random", "recorded:grpo"]


def test_defaults_sets_every_knob_back(launched):
    app = open_page(method="dpo", beta="0.5", steps="7")
    app.button(key="defaults").click().run()
    healthy(app.button(key="start").click().run())
    assert launched == [("dpo", {})]


@pytest.mark.parametrize("method", METHODS)
def test_every_knob_of_a_method_is_on_the_form(root, method):
    app = open_page()
    app.segmented_control(key="method").set_value(method).run()
    healthy(app.toggle(key="all-knobs").set_value(True).run())
    shown = {
        e.key
        for kind in ("number_input", "selectbox", "text_input", "select_slider", "toggle")
        for e in app.get(kind)
    }
    assert {
        f"{method}.{name}" for name in to_dict(make_config(method)) if name != "method"
    } <= shown


def test_group_sizes_on_offer_divide_the_batch():
    assert divisors(12) == [2, 3, 4, 6, 12]
    assert ladder(0, 0.001) == [0.0, 0.0001, 0.0002, 0.0005, 0.001] and 0.3 in ladder(0.1, 1, 0.3)


def test_a_slider_reaches_a_decade_and_a_half_around_its_default_and_with_the_toggle_all_values(
    launched,
):
    app = open_page(method="dpo")
    slider = app.select_slider(key="dpo.learning_rate")
    low, high = (float(slider.options[place]) for place in (0, -1))
    assert 5e-4 / 10**1.5 <= low <= 2e-5 and 0.012 < high <= 5e-4 * 10**1.5
    assert slider.value == 5e-4 and "0.0005 (default)" in slider.options
    middle = slider.options[len(slider.options) // 2]  # Half of the track stays near the default.
    assert 1e-4 < float(middle.removesuffix(" (default)")) < 2e-3
    marks = [e.proto.body for e in app.get("html") if "lab-default-mark" in e.proto.body]
    assert sum("default 0.0005" in mark for mark in marks) == 1
    healthy(app.toggle(key="full-range").set_value(True).run())
    assert app.select_slider(key="dpo.learning_rate").options[-1] == "1"
    far = open_page(method="dpo", learning_rate="1").select_slider(key="dpo.learning_rate")
    assert far.value == 1.0 and far.options[-1] == "1"


def test_the_live_slider_lies_around_the_value_with_which_the_run_began(root):
    finished(root, "a", method="grpo", state="running", learning_rate=1e-5)
    app = open_page(run="a")
    options = app.select_slider(key="a.live.learning_rate.0").options
    assert options[-1] == "0.0003" and "1e-5 (default)" in options
    healthy(app.toggle(key="a.full-range").set_value(True).run())
    assert app.select_slider(key="a.live.learning_rate.0").options[-1] == "1"


def test_several_seeds_start_as_far_as_there_are_cores_and_the_others_wait(launched, root):
    app = open_page()
    app.number_input(key="seeds").set_value(6).run()
    assert "6 runs: 4 start now, 2 wait for a free CPU core." in texts(app)
    healthy(app.button(key="start").click().run())
    assert [knobs.get("seed", 0) for _, knobs in launched] == [0, 1, 2, 3]
    assert "**2 runs wait** for a free CPU core: `grpo-5`, `grpo-6`. Training now: 4." in texts(app)
    healthy(app.button(key="cancel-all").click().run())
    assert (
        not (root / "grpo-5").exists()
        and (root / "grpo-4").exists()
        and "runs wait" not in texts(app)
    )
    healthy(app.button(key="undo-cancel").click().run())
    assert "**2 runs wait** for a free CPU core: `grpo-5`, `grpo-6`. Training now: 4." in texts(
        app
    ) and "undo-cancel" not in [b.key for b in app.button]


def test_a_sweep_makes_a_run_of_every_value_and_seed_and_shows_the_first_eight(launched, root):
    app = open_page(method="dpo", sweep="beta", values="0.05, 0.1, 0.5", seeds="3")
    assert "9 runs: 4 start now, 5 wait" in texts(app)
    healthy(app.button(key="start").click().run())
    assert [knobs.get("beta", 0.1) for _, knobs in launched] == [0.05, 0.1, 0.5, 0.05]
    assert len(queue.waiting_runs(root)) == 5 and len(app.multiselect(key="run").value) == 8
    assert "9 runs start or wait" in " ".join(e.value for e in app.info)


def test_the_chips_of_a_sweep_say_its_values_and_focus_goes_to_a_run_that_trains(launched, root):
    app = open_page(method="dpo", sweep="beta", values="0.05, 0.1, 0.2, 0.5, 1")
    healthy(app.button(key="start").click().run())  # four train, the fifth waits
    focus = app.segmented_control(key="focus")
    assert focus.options == ["β 0.05", "β 0.1", "β 0.2", "β 0.5", "β 1"]
    assert focus.value == "dpo-4" and "focus" not in app.query_params
    assert app.multiselect(key="run").value == [f"dpo-{i}" for i in range(1, 6)]
    assert {"β 0.05", "β 1"} <= set(app.multiselect(key="run").options)
    assert "The curves appear here in a few seconds" in texts(app)
    assert any("lab-skeleton" in e.proto.body for e in app.get("html"))
    RunFolder(root / "dpo-4").write_status("finished", 100)
    RunFolder(root / "dpo-3").write_status("finished", 100)
    assert healthy(app.run()).segmented_control(key="focus").value == "dpo-2"
    healthy(app.segmented_control(key="focus").set_value("dpo-1").run())
    RunFolder(root / "dpo-1").write_status("finished", 100)
    assert app.run().segmented_control(key="focus").value == "dpo-1"  # The visitor's own choice.
    assert app.query_params["focus"] in ("dpo-1", ["dpo-1"])


def test_the_curves_of_a_sweep_have_its_colours_and_labels_at_their_ends(root, monkeypatch):
    sent = []
    monkeypatch.setattr(
        "lab.dashboard.components.live_chart.live_chart_element",
        lambda **data: sent.append(data["data"]),
    )
    for name, beta in (("a", 0.5), ("b", 0.05)):
        finished(root, name, beta=beta)
    app = open_page(run="a,b")
    assert [(run["label"], run["colour"], run["dash"]) for run in sent[-1]["runs"]] == [
        ("β 0.5 (a)", "#A87400", "solid"),
        ("β 0.05 (b)", "#3B6CE0", "solid"),
    ]
    ends = {label["name"]: label for label in sent[-1]["labels"] if label.get("yshift")}
    assert "β 0.05" in ends["b"]["text"] and ends["b"]["x"] == 4
    assert "`β 0.5 · a` Step 4" in texts(app)


@pytest.mark.parametrize(
    "values, says",
    [
        ("0.1, much", "'much' is no value"),
        ("", "No value of beta"),
        ("-1", "takes a number from 0.0001"),
    ],
)
def test_values_that_cannot_be_swept_are_told_and_nothing_starts(launched, values, says):
    app = open_page(method="dpo", sweep="beta")
    healthy(app.text_input(key="values of beta").set_value(values).run())
    assert says in app.error[0].value.replace("\\", "") and not [
        b for b in app.button if b.key == "start"
    ]


def test_a_waiting_run_can_be_taken_out_of_the_queue(launched, root):
    app = open_page()
    app.number_input(key="seeds").set_value(5).run()
    app.button(key="start").click().run()
    app.segmented_control(key="focus").set_value("grpo-5").run()
    assert "waiting for a free CPU core" in texts(app)
    healthy(app.button(key="cancel").click().run())
    assert not (root / "grpo-5").exists() and "grpo-5" not in app.multiselect(key="run").value
    healthy(app.button(key="undo-cancel").click().run())
    assert RunFolder(root / "grpo-5").state == "queued"


@pytest.mark.parametrize(
    "query, knobs",
    [
        ({"method": "dpo", "beta": "0.5"}, ("dpo", {"beta": 0.5})),
        (
            {"method": "grpo", "group_size": "16", "reward": "length", "steps": "7"},
            ("grpo", {"group_size": 16, "reward": "length", "steps": 7}),
        ),
        ({"method": "grpo", "batch_size": "96"}, ("grpo", {"batch_size": 96})),
        (
            {"method": "dpo", "beta": "nan", "steps": "0", "learning_rate": "1e999", "seed": "-1"},
            ("dpo", {}),
        ),
        (
            {
                "method": "dpo",
                "model": "someone/something",
                "data": "/etc/passwd",
                "device": "cuda:99",
                "reward_from": "../x",
            },
            ("dpo", {}),
        ),
        ({"method": "../../etc", "beta": "0.5"}, ("grpo", {})),
        (
            {
                "method": "grpo",
                "reward": "os.system",
                "group_size": "9" * 5000,
                "sweep": "model",
                "seeds": "99",
            },
            ("grpo", {}),
        ),
    ],
)
def test_the_address_fills_the_form_as_far_as_it_makes_sense(launched, query, knobs):
    app = open_page(**query)
    healthy(app.button(key="start").click().run())
    assert launched == [knobs]


def test_what_is_set_on_the_form_stands_in_the_address_and_gives_the_same_form_in_another_browser(
    launched,
):
    app = open_page()
    app.segmented_control(key="method").set_value("ipo").run()
    app.select_slider(key="ipo.beta").set_value(0.5).run()
    app.number_input(key="seeds").set_value(2).run()
    query = {
        name: value[0] if isinstance(value, list) else value
        for name, value in app.query_params.items()
    }
    assert query == {"method": "ipo", "beta": "0.5", "seeds": "2"}
    other = open_page(**query)
    assert (
        other.segmented_control(key="method").value == "ipo"
        and other.select_slider(key="ipo.beta").value == 0.5
    )
    assert other.number_input(key="seeds").value == 2


def test_a_batch_that_the_group_size_does_not_divide_moves_the_group_size(launched):
    app = open_page()
    app.toggle(key="all-knobs").set_value(True).run()
    app.number_input(key="grpo.batch_size").set_value(12).run()
    assert 12 % healthy(app.run()).select_slider(key="grpo.group_size").value == 0
    app.button(key="start").click().run()
    assert launched[0][1]["batch_size"] == 12


def test_a_run_that_could_not_be_made_says_why_on_the_page(launched, monkeypatch):
    def create(*args):
        raise LabError("no room left")

    monkeypatch.setattr(queue, "create", create)
    app = open_page()
    assert "no room left" in texts(healthy(app.button(key="start").click().run()))


def test_a_run_that_failed_says_why_and_its_words_are_shown_as_they_are(root):
    folder = finished(root, "a", state="failed")
    folder.write_status("failed", 4, "![x](http://example.org/x.png) <b>$a$</b>")
    message = open_page(run="a").error[0].value
    assert (
        "![" not in message
        and "\\!\\[x\\]" in message
        and "\\<b\\>" in message
        and "\\$a" in message
    )


def test_curves_are_drawn_against_tokens_and_smoothed_as_the_address_says(root, monkeypatch):
    sent = []
    monkeypatch.setattr(
        "lab.dashboard.components.live_chart.live_chart_element",
        lambda **data: sent.append(data["data"]),
    )
    finished(root, "a", steps=4)
    app = open_page(run="a", x="tokens", smoothing="0.5")
    traces = [json.loads(run["traces"]) for run in sent[-1]["runs"]][0]
    loss = [t for t in traces if t["y"] and abs(t["y"][0] - 0.69) < 1e-9]
    assert [t["x"] for t in loss] == [[100, 200, 300, 400]] * 2 and loss[0]["opacity"] < loss[
        1
    ].get("opacity", 1)
    assert loss[1]["y"] == pytest.approx(
        [0.69, 0.68333, 0.67571, 0.66733], abs=1e-5
    )  # weights 1/2, 1/4, … over their sum
    app.segmented_control(key="x").set_value("seconds").run()
    assert json.loads(sent[-1]["runs"][0]["traces"])[0]["x"] == [0, 0.5, 1.0, 1.5, 2.0]
    assert sent[-1]["layouts"][1]["xaxis"]["title"]["text"] in ("seconds of training", "")


@pytest.mark.parametrize(
    "query",
    [{"x": "moon"}, {"smoothing": "7"}, {"smoothing": "<b>"}, {"focus": "../x"}, {"guess": "?"}],
)
def test_a_state_of_the_figure_that_does_not_exist_is_ignored(root, query):
    finished(root, "a")
    assert "Step 4: gold accuracy" in texts(open_page(run="a", **query))


def test_a_prediction_is_held_against_the_run(root):
    folder = finished(root, "a")
    append_rows(
        folder.path / "metrics.jsonl",
        [
            StepRecord(i, {"gold/mean_length": length}, 1.0, 1).row()
            for i, length in ((5, 9.0), (6, 35.0))
        ],
    )
    assert "guess" not in [widget.key for widget in open_page(run="a").segmented_control]
    folder.write_status("running", 6)
    app = open_page(run="a")
    app.segmented_control(key="guess").set_value("shorter").run()
    assert "You said shorter. So far: 9 → 35 tokens by step 6." in texts(healthy(app))
    folder.write_status("finished", 6)
    app.run()
    assert "You said shorter, but the completions became longer: 9 → 35 tokens by step 6." in texts(
        healthy(app)
    )
    assert "Right: 9 → 35" in texts(app.segmented_control(key="guess").set_value("longer").run())


def test_finished_runs_are_overlaid_with_a_caption_in_numbers(root):
    finished(root, "a", seed=1)
    finished(root, "b", seed=2)
    app = open_page(run="a,b")
    assert "Step 4: gold accuracy 0.46 → 0.86" in texts(app)
    assert app.segmented_control(key="focus").options and not [
        b for b in app.button if b.label == "Stop"
    ]


@pytest.mark.parametrize(
    "name", ["../a", "/etc", "a/../../b", "..", "no-such-run", "<script>alert(1)</script>"]
)
def test_a_name_in_the_address_cannot_leave_the_runs_folder(root, name):
    finished(root, "a")
    app = open_page(run=name)
    assert app.multiselect(key="run").value == [] and "alert" not in texts(app)


def test_a_run_whose_process_is_gone_is_shown_as_interrupted(root):
    folder = finished(root, "a", steps=4)
    status = json.loads((folder.path / "status.json").read_text())
    (folder.path / "status.json").write_text(
        json.dumps(status | {"state": "running", "pid": 999_999_999})
    )
    assert "interrupted, step 4 of 4" in texts(open_page(run="a"))


def test_live_sliders_send_commands_and_show_the_answer(root):
    folder = finished(root, "live", method="grpo", state="running")
    app = open_page(run="live")
    healthy(app.select_slider(key="live.live.beta.0").set_value(0.1).run())
    sent = [json.loads(line) for line in (folder.path / "control.jsonl").read_text().splitlines()]
    assert [(row["action"], row["knob"], row["value"]) for row in sent] == [("set", "beta", 0.1)]
    assert "Sent: β = 0.1" in texts(app)
    append_rows(
        folder.path / "metrics.jsonl",
        [Event(4, "changed", {"knob": "beta", "from": 0.0, "to": 0.1}, sent[0]["id"]).row()],
    )
    app.run()
    assert "The run answered: β 0 → 0.1 from step 5 on." in texts(app)
    assert app.select_slider(key="live.live.beta.0").value == 0.1
    healthy(app.button(key="live.stop").click().run())
    assert RunFolder(folder.path).read() and "stop" in (folder.path / "control.jsonl").read_text()


def test_a_stopped_run_is_continued_on_the_page_as_the_same_run(launched, root):
    folder = finished(root, "a", method="grpo", state="stopped")
    assert "a.resume" not in [button.key for button in open_page(run="a").button]
    (folder.path / "checkpoint").mkdir()
    (folder.path / "checkpoint" / "state.pt").write_bytes(b"weights")
    app = open_page(run="a")
    assert app.button(key="a.resume").label == "Continue from step 4"
    app.session_state["answers"] = {"a": Event(4, "stopped").row()}
    healthy(app.button(key="a.resume").click().run())
    assert launched == [("grpo", {"steps": 4})] and folder.state == "running"
    assert [path.name for path in root.iterdir() if not path.name.startswith(".")] == ["a"]
    assert app.button(key="a.stop") and ":gray-badge[live] training" in texts(app)
    assert "The run answered" not in texts(app)


def test_a_value_is_sent_once_and_only_if_it_is_not_the_one_that_the_run_uses_or_will_use(root):
    """Two sessions on one run, whose trainer has not read what the first one sent."""
    folder = finished(root, "live", method="grpo", state="running")
    first, second = open_page(run="live"), open_page(run="live")
    for app, value in ((first, 0.1), (second, 0.1), (first, 0.0), (second, 0.0), (first, 0.1)):
        healthy(app.select_slider(key="live.live.beta.0").set_value(value).run())
    rows = [json.loads(line) for line in (folder.path / "control.jsonl").read_text().splitlines()]
    assert [(row["knob"], row["value"]) for row in rows] == [
        ("beta", 0.1),
        ("beta", 0.0),
        ("beta", 0.1),
    ]
    for app in (first, second):
        healthy(app.button(key="live.pause").click().run())
    assert [
        json.loads(line)["action"]
        for line in (folder.path / "control.jsonl").read_text().splitlines()
    ][3:] == ["pause"]


def test_a_change_to_the_same_value_in_an_old_record_is_not_drawn(root, monkeypatch):
    sent = []
    monkeypatch.setattr(
        "lab.dashboard.components.live_chart.live_chart_element",
        lambda **data: sent.append(data["data"]),
    )
    folder = finished(root, "a")
    append_rows(
        folder.path / "metrics.jsonl",
        [
            Event(3, "changed", {"knob": "beta", "from": 0.1, "to": to}, str(to)).row()
            for to in (0.1, 0.2)
        ],
    )
    assert "Last event: β 0.1 → 0.2" in texts(open_page(run="a")) and {
        label["text"] for label in sent[-1]["labels"]
    } == {"β 0.2"}


def test_looking_at_a_run_sends_it_nothing_and_a_change_from_elsewhere_is_shown(root):
    folder = finished(root, "live", method="grpo", state="running")
    app = open_page(run="live")
    for to in (0.5, 0.02):
        append_rows(
            folder.path / "metrics.jsonl",
            [Event(4, "changed", {"knob": "beta", "from": 0.0, "to": to}, "elsewhere").row()],
        )
        app.run()
        (shown,) = [s for s in app.select_slider if s.key.startswith("live.live.beta")]
        assert shown.value == to and shown.proto.default[0] == list(shown.proto.options).index(
            f"{to:g}"
        )
    assert not (folder.path / "control.jsonl").exists()


def sample_tables(app):
    """The tables of completions on a page: heading, and by column its cells."""
    tables = (
        json.loads(e.proto.json)[0]
        for e in app.get("bidi_component")
        if e.proto.component_name == "lab_sample_table"
    )
    return [
        {"heading": table["heading"], **dict(zip(table["columns"], zip_lists(table["rows"])))}
        for table in tables
    ]


def zip_lists(rows):
    return [list(cells) for cells in zip(*rows)]


def test_text_of_a_sample_is_shown_as_text(root):
    folder = finished(root, "a")
    append_rows(
        folder.path / "samples.jsonl",
        [
            {
                "step": 4,
                "index": 0,
                "prompt": "1+1=",
                "completion": "<img src=x>",
                "gold": 0.0,
                "answer": "2",
                "held_out": True,
            }
        ],
    )
    app = open_page(run="a")
    (table,) = sample_tables(app)
    assert [cell["text"] for cell in table["completion"]] == ["<img src=x>"]
    assert table["answer"] == [{"text": "<img src=x>", "right": False, "note": "2"}]
    assert "<img" not in texts(app)


def test_a_group_is_sorted_by_reward_with_its_mean_and_its_advantages(root):
    folder = finished(root, "a", method="grpo")
    rows = [
        {"step": 4, "index": i, "prompt": "1+1=", "completion": str(i), "reward": r, "advantage": a}
        for i, (r, a) in enumerate([(0.0, -0.5), (1.0, 1.5), (0.0, -0.5), (0.0, -0.5)])
    ]
    append_rows(folder.path / "samples.jsonl", rows)
    app = open_page(run="a")
    (shown,) = sample_tables(app)
    assert [cell["text"] for cell in shown["completion"]] == ["1", "0", "2", "3"]
    assert [cell["text"] for cell in shown["advantage A"]] == ["+1.50", "−0.50", "−0.50", "−0.50"]
    assert "one prompt with G = 4 completions:   1+1=,   mean reward 0.25" in shown["heading"]


def test_a_completion_is_cut_into_the_tokens_of_the_model_and_its_answer_stands_first():
    texts_of_run = [row["completion"] for row in RunFolder(SHIPPED_RUNS_FOLDER / "grpo").samples()]
    tokenizer = load_tokenizer("embedded", "")
    for text in texts_of_run[:40]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert completion_cell(text, True)["tokens"] == [tokenizer.decode([i]) for i in ids]
    row = {"completion": "<think>7+5=12;12*8=96</think>96", "gold": 0.0, "answer": "28"}
    assert answer_cell(row, True) == {"text": "96", "right": False, "note": "28"}
    assert answer_cell(row | {"gold": 1.0}, True)["note"] == ""
    assert answer_cell({"completion": "so 96", "gold": None}, False)["right"] is None
    assert completion_cell("so 96", False)["tokens"] == []
    unfinished = row | {"completion": "<think>7+5=12;12*8=9"}
    assert answer_cell(unfinished, True) == {"text": "no answer", "right": False, "note": "28"}
    assert answer_cell({"completion": "5</think>28", "gold": 1.0}, True)["text"] == "28"
    assert answer_cell({"completion": "<think>5</think>", "gold": 0.0}, True)["text"] == "no answer"


def test_the_table_of_a_run_is_thinned_but_keeps_its_end(root):
    finished(root, "a", steps=500)
    snapshot = run_cache.run_record(str(root / "a")).snapshot()
    table = details.curves_table(snapshot, ["gold/accuracy", "loss"])
    assert (
        len(table) <= 200
        and table.index[-1] == 500
        and table["loss"].iloc[-1] == pytest.approx(0.7 - 5)
    )


GOOD = b'{"prompt": "1+2*3=", "chosen": "9", "rejected": "7"}\n'


def test_an_uploaded_file_is_kept_under_a_name_made_from_its_content(root):
    path, count = upload.store_upload(root, GOOD * 2, "../../../evil.jsonl", "dpo")
    assert (
        count == 2
        and path.parent == root / ".uploads"
        and path.read_bytes() == GOOD * 2
        and "evil" not in path.name
    )
    assert (
        upload.store_upload(root, GOOD * 2, "again.jsonl", "dpo")[0] == path
        and queue.waiting_runs(root) == []
    )


@pytest.mark.parametrize(
    "data, says",
    [
        (GOOD + b"{not json", "x.jsonl, line 2 is not JSON"),
        (b"", "is empty"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"import os\n", "line 1 is not JSON"),
        (b'{"prompt": "1", "chosen": "2"}', "line 1 has no 'rejected'"),
        (b"[" * 100_000, "not JSON that can be read"),
    ],
)
def test_a_file_that_holds_no_pairs_is_refused_with_its_line(root, data, says):
    with pytest.raises(LabError, match=says):
        upload.store_upload(root, data, "x.jsonl", "dpo")
    assert not (root / ".uploads").exists()


def test_an_uploaded_array_or_packed_file_keeps_the_ending_that_says_how_to_read_it(root):
    array = b"[" + GOOD.strip() + b",\n" + GOOD.strip() + b"]"
    for name, data, kept in (
        ("a.JSON", array, ".json"),
        ("a.b.json.gz", gzip.compress(array), ".json.gz"),
        ("a.ndjson.GZ", gzip.compress(GOOD * 2), ".ndjson.gz"),
    ):
        path, count = upload.store_upload(root, data, name, "dpo")
        assert (
            count == 2
            and path.name == hashlib.sha256(data).hexdigest()[:16] + kept
            and path.read_bytes() == data
        )
        assert len(load_pairs(path)) == 2
    assert {kind.rpartition(".")[2] for kind in ENDINGS} == set(upload.DIALOG_ENDINGS)


def test_a_small_upload_that_unpacks_to_a_large_file_is_refused_in_words(root, monkeypatch):
    monkeypatch.setattr(upload, "MAX_UNPACKED_UPLOAD_BYTES", 2**20)
    bomb = gzip.compress(GOOD * 50_000)
    with pytest.raises(LabError, match="x.jsonl.gz holds more than 1 MiB"):
        upload.store_upload(root, bomb, "x.jsonl.gz", "dpo")
    assert (
        "x.jsonl.gz holds more than 1 MiB"
        in upload.file_report(bomb, "x.jsonl.gz", "embedded", 128)
        and not (root / ".uploads").exists()
    )


def test_an_upload_becomes_the_data_of_the_form_and_a_bad_one_is_told(launched, root, monkeypatch):
    monkeypatch.setattr(upload, "file_report", lambda *arguments: "")
    app = open_page(method="dpo")
    app.toggle(key="all-knobs").set_value(True).run()
    app.file_uploader(key="dpo.upload").set_value(
        ("![x](y).jsonl", GOOD + b"oops", "application/jsonl")
    ).run()
    assert (
        "line 2 is not JSON" in app.error[0].value.replace("\\", "")
        and "![" not in app.error[0].value
    )
    app.file_uploader(key="dpo.upload").set_value(("a.jsonl", GOOD, "application/jsonl")).run()
    healthy(app.button(key="start").click().run())
    assert launched[0][1]["pairs"] == 0 and launched[0][1]["data"].startswith(
        str(root / ".uploads")
    )


def test_an_upload_shows_what_the_command_data_says_of_it(launched):
    app = open_page(method="dpo")
    app.toggle(key="all-knobs").set_value(True).run()
    rows = (
        GOOD + b"oops\n" + GOOD + b'{"prompt": "1+2=", "chosen": "__import__", "rejected": "7"}\n'
    )
    app.file_uploader(key="dpo.upload").set_value(("<b>mine.jsonl", rows, "application/jsonl")).run(
        timeout=120
    )
    (said,) = (code.value for code in app.code if "mine.jsonl" in code.value)
    assert said.startswith("<b>mine.jsonl: 4 rows, 2 prompts, preference: for dpo") and re.search(
        r"^prompt +3 +0 +2 +4 / 6 / 6 / 6 +4 / 6 / 6 / 6$", said, re.MULTILINE
    )
    assert (
        "refused      is not JSON" in said
        and "Line 2." in said
        and "says the same as an earlier row" in said
        and "Line 3." in said
    )
    assert "Line 4." in said and said.endswith(
        "Training would refuse 2 rows. Remove or correct them."
    )


def test_a_report_that_takes_too_long_or_fails_says_so(monkeypatch):
    visitor_processes.clear_cached_results()
    monkeypatch.setattr(upload, "REPORT_TIMEOUT_SECONDS", 0.1)
    assert "took more than 0.1 s" in upload.file_report(GOOD, "a.jsonl", "embedded", 128)
    monkeypatch.setattr(
        visitor_processes,
        "_run_watched",
        lambda words, *rest: subprocess.CompletedProcess(words, 2, "", "error: no such model\n"),
    )
    assert upload.file_report(GOOD, "b.jsonl", "--help", 128) == "error: no such model"
    visitor_processes.clear_cached_results()


def test_before_there_is_a_run_of_ones_own_the_page_shows_a_recorded_one_that_nobody_can_steer(
    root,
):
    app = open_page()
    assert ":gray-badge[recorded] finished, step 40 of 40" in texts(
        app
    ) and "Until then, the page shows a recorded run." in texts(app)
    assert (
        not [b for b in app.button if b.label in ("Stop", "Pause")]
        and "run" not in app.query_params
    )
    assert not list(root.iterdir())


def test_only_a_run_that_trains_is_badged_live_and_recorded_ones_are_offered_beside_it(root):
    folder = finished(root, "grpo")
    app = open_page(run="grpo,recorded:grpo")
    assert app.multiselect(key="run").value == ["grpo", "recorded:grpo"]
    assert {"grpo", "grpo (recorded)"} <= set(app.multiselect(key="run").options)
    app.segmented_control(key="focus").set_value("grpo").run()
    assert ":gray-badge[own] finished" in texts(app) and "[live]" not in texts(app)
    folder.write_status("running", 4)
    assert ":gray-badge[live] training" in texts(healthy(app.run()))


def test_a_loss_stands_once_on_the_page_and_with_the_run_when_the_form_is_closed(root):
    formulas = [element.value for element in open_page().latex]
    assert formulas and len(set(formulas)) == len(formulas)
    closed = [element.value for element in open_page(run="recorded:grpo").latex]
    assert closed == formulas


def test_the_form_offers_the_rewards_of_the_task_that_is_chosen_and_no_code(launched):
    app = open_page()
    app.toggle(key="all-knobs").set_value(True).run()
    assert app.selectbox(key="grpo.reward").options == [
        "answer",
        "format",
        "length",
        "graded",
        "constant",
        "random",
    ]
    app.selectbox(key="grpo.reward").set_value("length").run()
    app.selectbox(key="grpo.task").set_value("sentiment").run()
    assert app.selectbox(key="grpo.task").options == ["chain", "sentiment"]
    assert (
        app.selectbox(key="grpo.reward").options == ["answer", "positive_penalised"]
        and app.selectbox(key="grpo.reward").value == "answer"
    )
    app.button(key="start").click().run()
    assert "embedded model knows the 20 tokens" in texts(app, "error") and launched == []
    app.text_input(key="grpo.model").set_value("some/model").run()
    app.selectbox(key="grpo.reward").set_value("positive_penalised").run()
    app.button(key="start").click().run()
    assert launched == [
        ("grpo", {"task": "sentiment", "model": "some/model", "reward": "positive_penalised"})
    ]
