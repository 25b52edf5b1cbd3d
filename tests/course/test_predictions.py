"""Predictions: nothing is shown before they are made, then they stand beside the outcome; and numbers that
are too close decide nothing.
"""

import json
import math

import pytest

from lab.course import predictions
from lab.course.outcomes import Answer, between, difference_noise, largest, seed_noise, share_noise
from lab.course.predictions import outcome, predict, require_predictions, score
from lab.course.run_from_notebook import train
from lab.course.waiting import PredictFirst
from lab.errors import LabError


@pytest.fixture(autouse=True)
def notebook(tmp_path, monkeypatch):
    """A notebook that was just opened; returns its progress file."""
    monkeypatch.setattr(predictions, "_asked", {})
    monkeypatch.setattr(predictions, "_grades", {})
    monkeypatch.setenv("LAB_COURSE", str(tmp_path / "progress.jsonl"))
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("LAB_PREDICTIONS", raising=False)
    return tmp_path / "progress.jsonl"


def buttons_of(monkeypatch):
    """The buttons that `predict` makes, in order."""
    made, real = [], predictions._buttons
    monkeypatch.setattr(predictions, "_buttons", lambda one: made.append(real(one)) or made[-1])
    return made


def test_nothing_is_shown_before_the_prediction_is_made(capsys):
    asked = predict("Which?", ("a", "b"))
    with pytest.raises(PredictFirst, match="Predict first.*Which"):
        outcome(asked, "a", "It was a by 3.")
    with pytest.raises(PredictFirst):
        train("dpo", steps=1)
    assert capsys.readouterr().out.count("by 3") == 0
    assert PredictFirst("Predict first.")._render_traceback_() == ["Predict first."]
    asked.value = "b"
    require_predictions()
    outcome(asked, "a", "It was a by 3.")
    out = capsys.readouterr().out
    assert out.startswith(
        "Which?\nYou said: b. Measured: a. The result is different. It was a by 3."
    )


def test_many_questions_that_wait_are_counted():
    for question in ("A?", "B?", "C?", "D?"):
        predict(question, ("a", "b"))
    with pytest.raises(PredictFirst) as caught:
        require_predictions()
    assert str(caught.value) == (
        'Predict first. Pick an answer above to "A?", "B?" and 2 more. Then run this cell again.'
    )


def test_a_pick_is_recorded_comes_back_and_is_closed_by_its_outcome(notebook, monkeypatch, capsys):
    made = buttons_of(monkeypatch)
    asked = predict("Which?", ("a", "b"))
    toggle = made[0].children[1]
    toggle.value = "a"
    toggle.value = "b"
    assert asked.value == "b" and predict("Which?", ("a", "b")).value == "b"
    monkeypatch.setattr(predictions, "_asked", {})  # The kernel was restarted.
    again = predict("Which?", ("a", "b"))
    assert again.value == "b"
    outcome(again, "a", "")
    assert made[-1].children[1].disabled
    rows = [json.loads(line) for line in notebook.read_text().splitlines()]
    assert [(row.get("prediction"), row.get("outcome"), row["value"]) for row in rows] == [
        ("Which?", None, "a"),
        ("Which?", None, "b"),
        (None, "Which?", "b"),
    ]
    assert rows[-1]["answer"] == "a" and rows[-1]["graded"] is True
    rows.append({"prediction": "Which?", "value": "a", "time": "later"})
    notebook.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(predictions, "_asked", {})
    assert predict("Which?", ("a", "b")).value == "b"


def test_the_first_outcome_of_each_question_counts(capsys):
    for question, value, answer in (("1", "a", "a"), ("2", "b", "a"), ("3", "a", "a")):
        asked = predict(question, ("a", "b"))
        asked.value = value
        outcome(asked, answer, "")
    assert score() == "Your predictions in this notebook: 2 of 3 right."
    asked.value = "b"
    outcome(asked, "a", "")
    assert score() == "Your predictions in this notebook: 2 of 3 right."
    close = predict("4", ("a", "b"))
    close.value = "a"
    outcome(close, Answer("a", 0.02), "", noise=0.05)
    out = capsys.readouterr().out
    assert "Not graded." in out and "apart by 0.02, and the noise is 0.05" in out
    assert score() == "Your predictions in this notebook: 2 of 3 right, 1 too close to grade."
    outcome(close, Answer("a", 0.06), "", noise=0.05)
    assert "Measured: a. Right." in capsys.readouterr().out


def test_a_setting_predicts_in_place_of_a_reader_and_says_so(monkeypatch, capsys, notebook):
    monkeypatch.setenv("LAB_PREDICTIONS", "first")
    asked = predict("Which?", ("a", "b"))
    outcome(asked, "b", "By 3.")
    out = capsys.readouterr().out
    assert "The first option: a. Measured: b." in out and "Your predictions" not in out
    assert not notebook.exists()
    monkeypatch.setenv("LAB_PREDICTIONS", "last")
    with pytest.raises(LabError, match="takes 'first'"):
        predict("Which?", ("a", "b"))


def test_an_answer_that_is_no_option_or_has_no_noise_is_refused():
    asked = predict("Which?", ("a", "b"))
    asked.value = "a"
    with pytest.raises(LabError, match="takes one of a, b"):
        outcome(asked, "c", "")
    with pytest.raises(LabError, match="takes their noise"):
        outcome(asked, Answer("a", 1.0), "")


def test_answers_and_noise_of_numbers():
    options = ("low", "middle", "high")
    assert between(options, 0.82, 0.7, 0.9) == ("middle", pytest.approx(0.08))
    assert between(options, 0.2, 0.7, 0.9) == ("low", pytest.approx(0.5))
    assert between(options, 0.95, 0.7, 0.9) == ("high", pytest.approx(0.05))
    with pytest.raises(LabError, match="take 2 numbers in ascending order"):
        between(options, 0.5, 0.9, 0.7)
    assert largest({"a": 1, "b": 4, "c": 2}) == ("b", 2)
    with pytest.raises(LabError, match="at least 2"):
        largest({"a": 1})
    assert share_noise(0.5, 96) == pytest.approx(1.96 * math.sqrt(0.25 / 100))
    assert share_noise(1.0, 96) == pytest.approx(1.96 * math.sqrt(0.98 * 0.02 / 100))
    assert difference_noise(0.5, 0.5, 96) == pytest.approx(1.96 * math.sqrt(0.5 / 100))
    assert seed_noise((1, 2, 3), 3, 4) == pytest.approx(1.96 * 0.5 * 5)
