"""The page Runs without a browser: every control, and what must not happen."""

import csv
import io
import json
import zipfile
from functools import partial

import pytest
from support.elements import healthy, opened, texts, unfolded

from lab.config.methods import make_config
from lab.dashboard.pages.runs import downloads, page, run_table
from lab.dashboard.state import run_cache
from lab.runs import summary
from lab.runs.catalogue import list_runs
from lab.runs.folder import RunFolder, create
from lab.runs.records import Event, StepRecord
from lab.runs.trash import TRASH_FOLDER, trashed_runs
from lab.storage.jsonl import append_rows

HOSTILE = [
    "../outside",
    "/etc",
    "a/../../outside",
    "..",
    ".trash",
    "no-such-run",
    "<script>alert(1)</script>",
    "recorded:../../base",
    "a\0",
]


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(page, "SHIPPED_RUNS_FOLDER", tmp_path / "recorded")
    finished(tmp_path, "outside")
    return tmp_path / "runs"


@pytest.fixture
def sent(monkeypatch):
    """What the element of the curves was given, call by call."""
    found = []
    monkeypatch.setattr(
        "lab.dashboard.components.live_chart.live_chart_element", lambda **data: found.append(data)
    )
    return found


def finished(root, name, method="dpo", steps=4, state="finished", gain=0.1, **knobs):
    folder = create(root / name, make_config(method, {"steps": steps, **knobs}))
    rows = [StepRecord(0, {"gold/accuracy": 0.4}, 0.0, 0).row()]
    rows += [
        StepRecord(i, {"loss": 0.7, "gold/accuracy": 0.4 + gain * i}, i * 0.5, i * 100).row()
        for i in range(1, steps + 1)
    ]
    append_rows(folder.path / "metrics.jsonl", [*rows, Event(steps, state).row()])
    append_rows(
        folder.path / "samples.jsonl",
        [
            {
                "step": i,
                "index": 0,
                "prompt": "1+1=",
                "completion": f"<b>{name} at {i}</b>",
                "gold": 0.0,
                "answer": "2",
                "held_out": True,
            }
            for i in (0, 2, 4)
        ],
    )
    folder.write_status(state, steps)
    return folder


open_page = partial(opened, "runs")


def frame(app, column):
    return next(e.value for e in app.dataframe if column in e.value.columns)


def completions(app):
    """The texts in the table of completions, whose last column they are."""
    (table,) = (
        json.loads(e.proto.json)[0]
        for e in app.get("bidi_component")
        if e.proto.component_name == "lab_sample_table"
    )
    return [cells[-1]["text"] for cells in table["rows"]]


def listed(app):
    return frame(app, "run")["run"].tolist()


def test_without_a_run_the_page_says_where_to_start_one(root, sent):
    assert "There is no run yet" in texts(open_page())


def test_the_table_says_of_every_run_what_it_is_and_what_became_of_it(root, tmp_path, sent):
    finished(root, "a", seed=3, beta=0.3)
    finished(tmp_path / "recorded", "grpo", "grpo", steps=2)
    create(root / "young", make_config("kto"))
    rows = frame(open_page(), "run").set_index("run")
    assert set(rows.index) == {"a", "grpo", "young"}
    assert rows.loc["a", ["kind", "method", "state", "settings", "steps"]].tolist() == [
        "own",
        "DPO",
        "finished",
        "seed 3, β 0.3",
        "4 of 4",
    ]
    assert rows.loc["a", ["gold before", "gold after", "seconds"]].tolist() == pytest.approx(
        [0.4, 0.8, 2.0]
    )
    assert (
        rows.loc["grpo", "kind"] == "recorded"
        and rows["started"].isna()["grpo"]
        and rows["gold after"].isna()["young"]
    )


@pytest.mark.parametrize(
    "asked, found",
    [
        ("", ["a", "b", "c"]),
        ("DPO", ["a", "b"]),
        ("grpo", ["c"]),
        ("dpo β 0.3", ["b"]),
        ("stopped", ["c"]),
        ("[", []),
        ("<b>", []),
    ],
)
def test_the_search_keeps_the_runs_that_have_all_its_words(root, sent, asked, found):
    finished(root, "a")
    finished(root, "b", beta=0.3)
    finished(root, "c", "grpo", state="stopped")
    assert sorted(listed(open_page(search=asked))) == found


def test_runs_of_the_address_are_laid_over_each_other_and_what_differs_is_listed(root, sent):
    finished(root, "a")
    finished(root, "b", beta=0.3)
    app = open_page(run=["a", "b"])
    assert [run["name"] for run in sent[-1]["data"]["runs"]] == ["a", "b"]
    assert (
        frame(app, "setting").set_index("setting").loc["β"].tolist() == ["0.1", "0.3"]
        and len(frame(app, "setting")) == 1
    )
    assert "**β 0\\.1 \\(a\\)** Step 4: gold accuracy 0.40 → 0.80" in texts(app)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_in_the_address_cannot_leave_the_runs_folder(root, sent, name):
    finished(root, "a")
    app = open_page(run=name, step=name, search=name, mean=name)
    assert app.multiselect(key="run").value == ["a"] and "alert" not in texts(app)


def test_rows_that_are_picked_in_the_table_are_shown_beside_those_that_are_not_listed(
    root, sent, monkeypatch
):
    for name in "abc":
        finished(root, name)
    app = open_page(run="b", search="a")
    assert app.session_state["table"]["selection"]["rows"] == []
    state = {
        "listed": app.session_state["listed"],
        "run": ["b"],
        "table": {"selection": {"rows": [0]}},
    }
    monkeypatch.setattr(page.st, "session_state", state)
    run_table.show_selected_rows()
    assert state["run"] == ["b", "a"]
    state["table"]["selection"]["rows"] = []
    run_table.show_selected_rows()
    assert state["run"] == ["b"]


def test_at_most_eight_runs_are_shown(root, sent):
    for i in range(10):
        finished(root, f"r{i}")
    assert len(open_page(run=[f"r{i}" for i in range(10)]).multiselect(key="run").value) == 8


def test_runs_that_differ_only_in_seed_are_added_and_drawn_as_their_mean_in_a_band(root, sent):
    for seed, gain in ((0, 0.05), (1, 0.055)):
        finished(root, f"s{seed}", seed=seed, gain=gain)
    finished(root, "other", beta=0.3)
    app = open_page(run="s0")
    healthy(app.button(key="alike").click().run())
    assert app.multiselect(key="run").value == ["s0", "s1"] and app.toggle(key="mean").value
    (run,) = sent[-1]["data"]["runs"]
    band, *others = json.loads(run["traces"])
    line = next(t for t in others if "fill" not in t and t["yaxis"] == band["yaxis"])
    half = (
        12.706205 * 0.02 / 2
    )  # t with one degree of freedom, by the standard error of 0.6 and 0.62
    assert (
        band["fill"] == "toself"
        and band["y"][4] == pytest.approx(0.61 + half)
        and line["y"][-1] == pytest.approx(0.61)
    )
    assert f"gold accuracy 0.61 ± {half:.2f} at step 4" in texts(app)
    app.toggle(key="mean").set_value(False).run()
    assert len(sent[-1]["data"]["runs"]) == 2


def test_a_replayed_step_comes_from_the_address_and_brings_the_samples_of_then(root, sent):
    finished(root, "a")
    app = open_page(run="a", step="3")
    assert sent[-1]["data"]["replay"] == {"until": 3, "end": 4} and app.query_params["step"] in (
        "3",
        ["3"],
    )
    assert completions(app) == ["<b>a at 2</b>"] and "<b>" not in texts(app)
    app.session_state["replay-curves"] = {"until": 1}
    app.session_state["replay"] = 1
    assert completions(healthy(app.run())) == ["<b>a at 0</b>"]


@pytest.mark.parametrize("step", ["-1", "1e3", "many", "²", "9" * 40, ""])
def test_a_step_that_is_none_shows_the_whole_run(root, sent, step):
    finished(root, "a")
    assert (
        "step" not in open_page(run="a", step=step).query_params
        and sent[-1]["data"]["replay"]["until"] == 4
    )


def test_numbers_config_adapter_and_command_of_a_run_can_be_taken_away(root, sent, tmp_path):
    folder = finished(root, "a", beta=0.3)
    app = open_page(run="a")
    assert [b.proto.disabled for b in app.get("download_button")] == [
        False,  # share, numbers, config
        False,
        False,
        True,  # this run has no adapter
    ]
    codes = [code.value for code in unfolded(app).code]
    assert any("--beta 0.3" in code and "runs/a" in code for code in codes)
    rows = list(csv.DictReader(io.StringIO(downloads.metrics_csv(folder.path))))
    assert (
        [row["step"] for row in rows] == list("01234")
        and rows[0]["loss"] == ""
        and float(rows[4]["gold/accuracy"]) == 0.8
    )
    (folder.path / "adapter").mkdir()
    (folder.path / "adapter" / "adapter_config.json").write_text("{}")
    (folder.path / "adapter" / "secret").symlink_to(tmp_path / "outside" / "config.json")
    assert not healthy(app.run()).get("download_button")[2].proto.disabled
    assert [link.proto.label for link in app.get("page_link")] == ["Let a answer a prompt"]
    assert zipfile.ZipFile(
        io.BytesIO(downloads.zip_folder(folder.path / "adapter"))
    ).namelist() == ["adapter/adapter_config.json"]


def buttons(app):
    return {button.key: button for button in app.button}


def test_selected_runs_are_deleted_under_the_table_and_come_back_together(root, sent):
    for name in "abc":
        finished(root, name)
    app = open_page(run=["a", "b"])
    assert buttons(app)["delete"].label == "Delete 2 selected runs"
    healthy(app.button(key="delete").click().run())
    assert listed(app) == ["c"] and app.multiselect(key="run").value == []
    assert (root / TRASH_FOLDER / "a").is_dir() and "Deleted `a`, `b`." in texts(app)
    healthy(app.button(key="undo").click().run())
    assert sorted(listed(app)) == ["a", "b", "c"] and not trashed_runs(root)
    assert "undo" not in buttons(app)


def test_a_run_comes_back_under_another_name_when_its_own_is_taken(root, sent):
    finished(root, "a")
    app = open_page(run="a")
    app.button(key="delete").click().run()
    finished(root, "a")
    healthy(app.button(key="restore").click().run())
    assert sorted(listed(app)) == ["a", "a-2"] and "run is called a\\-2" in texts(app)


def test_runs_that_train_or_wait_and_recorded_ones_are_not_deleted(root, tmp_path, sent):
    finished(root, "trains", state="running")
    finished(root, "waits", state="queued")
    finished(tmp_path / "recorded", "old")
    assert "delete" not in buttons(open_page(run=["trains", "waits", "recorded:old"]))
    finished(root, "done")
    app = open_page(run=["trains", "recorded:old", "done"])
    assert buttons(app)["delete"].label == "Delete the selected run"
    assert "A run that trains or waits stays: trains" in texts(app)
    healthy(app.button(key="delete").click().run())
    assert trashed_runs(root) == ["done"]


def test_a_run_that_began_to_train_meanwhile_is_not_deleted(root, sent):
    folder = finished(root, "a")
    app = open_page(run="a")
    folder.write_status("running", 4)
    healthy(app.button(key="delete").click().run())
    assert "being trained" in texts(app) and [run.name for run in list_runs(root)] == ["a"]


def test_a_damaged_run_can_be_deleted(root, sent):
    finished(root, "a")
    (finished(root, "b").path / "config.json").write_text("{")
    app = open_page()
    assert app.selectbox(key="damaged-name").options == ["b"]
    healthy(app.button(key="delete-damaged").click().run())
    assert trashed_runs(root) == ["b"]


def test_the_runs_of_the_first_visit_are_in_view_in_the_table(tmp_path, sent, monkeypatch):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "runs"))
    app = open_page()
    selected = app.session_state["table"]["selection"]["rows"]
    assert len(selected) == len(app.multiselect(key="run").value) == 2
    assert max(selected) < run_table.VISIBLE_ROWS


def test_chips_keep_the_order_in_which_runs_were_picked(root, sent, monkeypatch):
    for name in "abc":
        finished(root, name)
    app = open_page(run=["b", "a"])
    assert app.multiselect(key="run").value == ["b", "a"]
    state = {"listed": app.session_state["listed"], "run": ["b", "a"]}
    rows = sorted(state["listed"].index(name) for name in "abc")
    state["table"] = {"selection": {"rows": rows}}
    monkeypatch.setattr(page.st, "session_state", state)
    run_table.show_selected_rows()
    assert state["run"] == ["b", "a", "c"]


def test_the_guess_is_answered_with_what_was_measured(root, sent):
    finished(root, "a")
    app = open_page()
    app.segmented_control(key="guess").set_value("under 0.02").run()
    assert "The measured difference between the best and the worst seed" in texts(
        healthy(app)
    ) and "python -m lab experiment tuned" in texts(app)


def test_of_a_hundred_long_runs_only_those_in_the_figure_are_read_whole(root, sent, monkeypatch):
    line = (
        '{"type": "step", "step": %d, "metrics": {"gold/accuracy": 0.5, "gold/kl": 1.0, "loss":'
        ' 0.5, "grad_norm": 1.0, "rewards/margins": 0.1, "rewards/accuracies": 0.5, "logps/chosen":'
        ' -9.5, "logps/rejected": -9.5}, "seconds": 1.0, "tokens": 10, "phases": {}}\n'
    )
    record = "".join(line % step for step in range(5001))
    for i in range(100):
        folder = create(
            root / f"run-{i}", make_config(("dpo", "grpo")[i % 2], {"seed": i, "steps": 5000})
        )
        (folder.path / "metrics.jsonl").write_text(record)
        folder.write_status("finished", 5000)
    summary.summarise.__globals__["_ends"].cache_clear()
    run_cache.run_record.clear()
    read_whole = []

    def read(folder, offset=0):
        if offset == 0:  # Later looks read only what was added.
            read_whole.append(folder.name)
        return whole_read(folder, offset)

    whole_read = RunFolder.read
    monkeypatch.setattr(RunFolder, "read", read)
    app = open_page()
    shown = sent[-1]["data"]["runs"]
    assert len(listed(app)) == 100
    assert 0 < len(shown) < 10
    assert len(set(read_whole)) == len(read_whole) == len(shown)
    assert all(len(trace["x"]) <= 240 for run in shown for trace in json.loads(run["traces"]))
