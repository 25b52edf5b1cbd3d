"""Runs with a fault that a seed draws: every fault is drawn, and its curve shows what it should."""

import pytest
import torch

from lab.config.methods import make_config
from lab.course.mystery import (
    HEALTHY,
    MYSTERIES,
    drawn_fault,
    faults_of,
    largest_gap,
    mystery_run,
    repeat_run,
    reveal,
    samples_of,
)
from lab.course.predictions import predict
from lab.course.waiting import PredictFirst
from lab.errors import LabError
from lab.runs.records import StepRecord
from lab.training.loop import prepare, train

LOG2 = 0.693147


def metrics(task, fault):
    """The metrics of a short run of a task with a fault."""
    mystery = MYSTERIES[task - 1]
    few = {"pairs": 16, "batch_size": 16} if mystery.method != "grpo" else {"batch_size": 32}
    run = prepare(make_config(mystery.method, {"steps": 12, "eval_prompts": 2, "seed": 1} | few))
    run.own = {mystery.place: mystery.faults[fault].function}
    return [r.metrics for r in train(run) if isinstance(r, StepRecord)][1:]


def test_every_fault_of_every_task_is_drawn_by_some_seed():
    for task, mystery in enumerate(MYSTERIES, 1):
        assert {drawn_fault(task, seed) for seed in range(60)} == set(mystery.faults)
        assert HEALTHY in mystery.faults and len(mystery.faults) >= 3


def test_the_faults_of_dpo_show():
    healthy, sign, bare = (
        metrics(1, fault)
        for fault in (HEALTHY, "the sign of the margin", "the reference is missing")
    )
    assert healthy[0]["loss"] == pytest.approx(LOG2, abs=1e-5) == sign[0]["loss"]
    assert abs(bare[0]["loss"] - LOG2) > 0.01
    assert healthy[-1]["rewards/margins"] > 0 > sign[-1]["rewards/margins"]
    assert sign[-1]["loss"] < sign[0]["loss"]


def test_the_faults_of_grpo_show():
    zero = metrics(2, "the advantages are zero")
    assert {m["grad_norm"] for m in zero} == {0.0} and zero[-1]["kl"] == pytest.approx(0, abs=1e-6)
    healthy, sign = metrics(2, HEALTHY), metrics(2, "the sign of the advantages")
    assert (
        healthy[0]["grad_norm"] == pytest.approx(sign[0]["grad_norm"]) and healthy[0]["grad_norm"]
    )
    assert sum(m["reward"] for m in sign[-3:]) < sum(m["reward"] for m in healthy[-3:])


def test_the_faults_of_kto_show():
    def gap(rows):
        return rows[-1]["rewards/chosen"] - rows[-1]["rewards/rejected"]

    healthy = metrics(3, HEALTHY)
    assert gap(healthy) > 0 > gap(metrics(3, "the labels are swapped"))
    up = metrics(3, "bad completions are pulled up like good ones")
    assert healthy[-1]["rewards/rejected"] < -0.02 < up[-1]["rewards/rejected"]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("LAB_COURSE", "")
    monkeypatch.setenv("LAB_FAST", "1")


def test_a_fault_is_revealed_after_an_answer_and_the_folder_of_the_run_does_not_tell(runs, capsys):
    seed = next(seed for seed in range(60) if drawn_fault(2, seed) == "the sign of the advantages")
    run = mystery_run(2, seed)
    text = (run.path / "own_functions.json").read_text("utf-8")
    assert "hidden" in text and "minus" not in text and "sign" not in text
    asked = predict("Which?", faults_of(2))
    with pytest.raises(PredictFirst, match="Which"):
        reveal(run, asked)
    assert "falls" not in capsys.readouterr().out
    asked.value = "the sign of the advantages"
    reveal(run, asked)
    assert "Right. The reward falls" in capsys.readouterr().out
    samples_of(run, count=1)
    assert capsys.readouterr().out.count("after ") == 2
    with pytest.raises(LabError, match="from 1 to 3"):
        mystery_run(4, 0)


def test_a_function_with_the_fault_repeats_the_run_and_another_does_not(runs, capsys):
    seed = next(seed for seed in range(60) if drawn_fault(1, seed) == "the reference is missing")
    run = mystery_run(1, seed)

    def my_suspect(pw, pl, qw, ql, beta):
        return torch.nn.functional.softplus(beta * (pl - pw))

    def another(pw, pl, qw, ql, beta):
        return torch.nn.functional.softplus(beta * (pl - pw + qw - ql))

    assert largest_gap(run, repeat_run(run, my_suspect)) < 1e-4
    assert "Your function repeats the run." in capsys.readouterr().out
    other = repeat_run(run, another)
    assert largest_gap(run, other) > 0.01 and other.name == f"{run.name}-another"
    assert "It is another function." in capsys.readouterr().out
    with pytest.raises(LabError, match="is no run of mystery_run"):
        repeat_run(other, another)
