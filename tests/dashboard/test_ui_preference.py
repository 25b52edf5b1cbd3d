"""The pages DPO and IPO and KTO without a browser."""

import json
import math
import shutil

import pytest
from support.elements import opened, sent, texts

import lab.analysis.recorded_results
from lab.config.methods import make_config
from lab.dashboard.components.slider_figure import _slider_frames_json
from lab.dashboard.pages.dpo.beta_runs import beta_rows
from lab.dashboard.pages.dpo.loss_figure import recorded_dpo_runs
from lab.dashboard.pages.dpo.page import prediction_answer
from lab.dashboard.pages.ipo_kto.kto_figure import class_balance
from lab.dashboard.pages.ipo_kto.margin_figure import probability_text
from lab.dashboard.state.user_runs import last_value_until
from lab.runs.folder import create
from lab.runs.records import StepRecord
from lab.storage.jsonl import append_rows

LOOKS = [0, 10, 400]


@pytest.fixture
def with_beta(tmp_path, monkeypatch):
    """Results among which is one of the experiment `beta`, and an empty runs folder."""
    shutil.copytree(lab.analysis.recorded_results.RESULTS_FOLDER, tmp_path / "compare")
    line = {"mean": [0.0, 1.0, 2.0], "half": [0.0, 0.1, 0.2]}
    row = {
        "method": "dpo",
        "steps": LOOKS,
        **dict.fromkeys(
            ("gold/accuracy", "logps/chosen", "logps/rejected", "rewards/accuracies"), line
        ),
    }
    rows = [
        row | {"beta": beta, "kl": {"mean": [0.0, early, late], "half": [0.0] * 3}}
        for beta, early, late in ((0.01, 1.0, 30.0), (1.0, 5.0, 6.0))
    ]
    table = {
        "command": "python -m lab experiment beta",
        "device": "cpu",
        "torch": "2",
        "seeds": 3,
        "plan": {"looks": LOOKS},
        "rows": rows,
    }
    (tmp_path / "compare" / "beta.json").write_text(json.dumps(table))
    monkeypatch.setattr(lab.analysis.recorded_results, "RESULTS_FOLDER", tmp_path / "compare")
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "runs"))
    for cached in (
        beta_rows,
        _slider_frames_json,
    ):  # what other tests have kept of the shipped results
        cached.clear()
    yield tmp_path / "runs"
    for cached in (beta_rows, _slider_frames_json):
        cached.clear()


def test_the_curve_at_beta_is_the_loss_and_the_pairs_are_the_recorded_run_s():
    app = opened("dpo", beta="0.2", step="100")
    data = sent(app, "loss")
    curve, pairs = data["figure"]["data"][2], data["figure"]["data"][4]
    assert (
        curve["y"][curve["x"].index(0.0)] == pytest.approx(0.693147, abs=1e-6)
        and "the push is 0.1 per nat" in data["says"]
    )
    row = recorded_dpo_runs()["DPO"]
    assert pairs["x"] == pytest.approx(row["margins"][row["steps"].index(100)], rel=1e-5)
    assert [len(slider["frames"]) for slider in data["sliders"]] == [41, len(row["steps"])]
    assert "python -m lab experiment margins" in texts(app)


def test_every_value_of_beta_has_its_own_curve_before_any_move():
    frames = sent(opened("dpo"), "loss")["sliders"][0]["frames"]
    assert len({tuple(frame["traces"]["2"]["y"]) for frame in frames}) == 41


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("dpo", {"pairs": "../x", "beta": "nan", "step": "1e9", "after": "x", "guess": "<b>"}),
        ("ipo_kto", {"beta": "-1", "z": "inf", "up": "", "down": "[]", "share": "200"}),
    ],
)
def test_hostile_addresses_are_ignored(name, query):
    assert "<b>" not in texts(opened(name, **query))


def test_another_recorded_run_is_picked_in_the_address():
    app = opened("dpo", pairs="DPO, 64 pairs in all", step="150")
    assert app.segmented_control(key="pairs").value == "DPO, 64 pairs in all"
    margins = recorded_dpo_runs()["DPO, 64 pairs in all"]["margins"][-1]
    assert sent(app, "loss")["figure"]["data"][4]["x"] == pytest.approx(margins, rel=1e-5)


def test_the_prediction_is_answered_with_the_measured_fall_of_the_chosen():
    row = {
        "steps": [0, 9],
        "chosen": [[0.0, 0.0], [-4.0, -6.0]],
        "rejected": [[0.0, 0.0], [-9.0, -9.0]],
    }
    assert (
        prediction_answer("it falls", row)
        == "Right. Over 9 updates, the mean log-probability of the chosen completions changed by"
        " −5.0 nats, and that of the rejected ones by −9.0 nats."
    )
    assert prediction_answer("it rises", row).startswith("You said that it rises")
    app = opened("dpo")
    app.segmented_control(key="guess").set_value("it falls").run()
    assert "Right. Over" in texts(app)


def test_the_article_s_words_stand_beside_what_was_measured():
    said = texts(opened("dpo"))
    assert (
        "gradient → push up preferred" in said
        and "Higher β → steeper loss curve" in said
        and "less likely than under the reference" in said
    )
    # 0.05·σ(−0.05·h) = 0.5·σ(−0.5·h) at h = 6.24; σ(−1) = 0.268941 and σ(−10) = 0.0000454
    assert "Above h = 6.2 nats the smaller β pushes harder" in said
    assert "β = 0.05 still pushes with 0.01, and β = 0.5 with 0.00002" in said


def test_both_readings_of_beta_are_said_from_the_recorded_runs(with_beta):
    early, late = (sent(opened("dpo", after=after), "beta-runs")["says"] for after in ("10", "400"))
    said = texts(opened("dpo"))
    assert (
        "After 10 updates it is 1.00 nats at β = 0.01 and 5.00 nats at β = 1. After 400 updates it"
        " is 30.00 nats at β = 0.01 and 6.00 nats at β = 1." in said
    )
    assert "β = 1 is furthest from the reference (mean KL 5.00 nats)" in early
    assert "β = 0.01 is furthest from the reference (mean KL 30.00 nats)" in late


def test_own_runs_stand_beside_the_recorded_ones_with_their_log_ratios(with_beta):
    folder = create(with_beta / "mine", make_config("dpo", {"beta": 0.5, "steps": 20}))
    logged = {"gold/accuracy": 0.5, "rewards/chosen": -1.0, "rewards/rejected": -2.0}
    rows = [StepRecord(step, logged | {"gold/kl": step / 10}, 0.0, 0).row() for step in (0, 8, 20)]
    append_rows(folder.path / "metrics.jsonl", rows)
    app = opened("dpo", after="10")
    stars = [trace for trace in sent(app, "beta-runs")["figure"]["data"] if trace["name"] == "mine"]
    assert [star["y"] for star in stars] == [
        [0.8],
        [0.5],
        [-2.0],
        [-4.0],
    ] and "Stars: your own DPO runs (mine)" in texts(app)


def test_without_that_experiment_the_page_shows_no_figure_of_it(tmp_path, monkeypatch):
    shutil.copy(lab.analysis.recorded_results.RESULTS_FOLDER / "margins.json", tmp_path)
    monkeypatch.setattr(lab.analysis.recorded_results, "RESULTS_FOLDER", tmp_path)
    assert not opened("dpo").subheader


def test_ipo_stops_where_dpo_goes_on():
    data = sent(opened("ipo_kto", beta="0.5"), "bounded")
    assert data["says"].startswith(
        "At β = 0.5 IPO's target is 1/(2β) = 1 nats. After 300 updates, IPO has the margin 1.00"
        " nats and writes y₁ 73 %"
    )
    assert data["figure"]["layout"]["shapes"][0]["x0"] == 1.0


@pytest.mark.parametrize(
    ("log_odds", "text"), [(0.0, "50 %"), (5.0, "99.33 %"), (50.0, "more than 99.999 %")]
)
def test_a_share_has_the_digits_that_tell_it_from_one(log_odds, text):
    assert probability_text(log_odds) == text


def test_the_rule_of_kto_is_worked_out_for_the_picked_weights():
    assert class_balance(9.0, 1.0, 10) == pytest.approx(1.0) and class_balance(1.0, 2.0, 50) == 0.5
    inside, outside = (
        sent(opened("ipo_kto", share="10", up=up), "kto")["says"] for up in ("9", "1")
    )
    assert (
        "is 1, inside" in inside and "λ_D from 9 to 12" in inside and "is 0.111, outside" in outside
    )


def test_the_same_data_is_shown_as_pairs_and_as_thumbs():
    app = opened("ipo_kto")
    pairs, thumbs = (
        [{name: cell["text"] for name, cell in zip(table["columns"], row)} for row in table["rows"]]
        for part in app.get("bidi_component")
        for table in json.loads(part.proto.json)
        if "rows" in table
    )
    assert len(thumbs) == 2 * len(pairs)
    assert {pair["rejected"] for pair in pairs} == {
        row["completion"] for row in thumbs if row["thumb"] == "down"
    }


def test_the_last_value_before_a_look_counts():
    assert (
        last_value_until(([0, 5, 20], [1.0, 2.0, 3.0]), 10) == 2.0
        and last_value_until(([5], [1.0]), 4) is None
    )


def test_one_pair_stands_on_the_curve_of_the_loss_at_every_recorded_update():
    app = opened("dpo", show="one pair, token by token", pair="2", update="40", beta="0.5")
    sent = next(
        data
        for e in app.get("bidi_component")
        for data in json.loads(e.proto.json)
        if "places" in data
    )
    assert sent["place"] == {"pair": 2, "update": 40, "beta": 0.5}
    for beta, pairs in sent["places"].items():
        for pair, places in zip(sent["pairs"], pairs):
            sides = zip(pair["chosen"]["ratios"], pair["rejected"]["ratios"])
            for (chosen, rejected), (h, loss, push) in zip(sides, places, strict=True):
                margin = sum(chosen) - sum(rejected)
                assert h == pytest.approx(margin, abs=1e-5)
                assert loss == pytest.approx(
                    math.log1p(math.exp(-float(beta) * margin)), rel=1e-4, abs=1e-5
                )
                expected = float(beta) / (1 + math.exp(float(beta) * margin))
                assert push == pytest.approx(expected, rel=1e-4, abs=1e-5)
    for pair in sent["pairs"]:
        for side in ("chosen", "rejected"):
            first, *_ = pair[side]["ratios"]
            assert set(first) == {0.0} and len(first) == len(pair[side]["tokens"])


@pytest.mark.parametrize(
    "query", [{"pair": "0"}, {"pair": "9"}, {"update": "7"}, {"beta": "nan"}, {"pair": "<b>"}]
)
def test_an_address_that_names_no_recorded_place_shows_the_middle_of_the_first_pair(query):
    app = opened("dpo", show="one pair, token by token", **query)
    place = next(
        data["place"]
        for e in app.get("bidi_component")
        for data in json.loads(e.proto.json)
        if "places" in data
    )
    assert place == {"pair": 1, "update": 50, "beta": 0.1}
