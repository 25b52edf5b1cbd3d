"""pass@k of every method: what is counted, what is trained, and that a kill loses no finished run."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from lab.config.methods import make_config
from lab.errors import LabError
from lab.experiments import logged_runs, pass_at_k
from lab.experiments.chain_lengths import ChainsOfLength
from lab.experiments.pass_at_k import PLAN, count_prompt, problem_sets
from lab.tasks.base import Problem
from lab.tasks.chain import ChainTask, is_held_out

TINY = replace(
    PLAN,
    methods=("sft", "grpo"),
    ks=(1, 4),
    samples=4,
    prompts=3,
    prompts_at_once=2,
    scored=2,
    tokens=600,
    harder_tokens=48,
    longer_updates=1,
)


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Runs in this process, by the tiny plan."""
    monkeypatch.setattr(logged_runs, "ProcessPoolExecutor", lambda *a, **k: ThreadPoolExecutor(1))
    monkeypatch.setattr(pass_at_k, "PLAN", TINY)
    real = pass_at_k.arm_settings
    short = {"steps": 1, "batch_size": 16, "max_completion_tokens": 48}
    monkeypatch.setattr(
        pass_at_k,
        "arm_settings",
        lambda plan: real(plan) | {"grpo.defaults": short, "grpo.longer": short},
    )


def test_longer_chains_have_as_many_operations_as_asked_and_keep_the_split():
    task = ChainsOfLength(7, 9)
    held_out, trained = task.held_out(40), task.train_problems(40, 0, 1)
    for problem in held_out + trained:
        assert sum(problem.prompt.count(sign) for sign in "+-*") in (7, 8, 9)
    assert {sum(p.prompt.count(s) for s in "+-*") for p in trained} == {7, 8, 9}
    assert len({p.prompt for p in held_out}) == 40
    assert all(is_held_out(p.prompt) for p in held_out)
    assert not any(is_held_out(p.prompt) for p in trained)
    assert trained == task.train_problems(40, 0, 1) != task.train_problems(40, 0, 2)
    # 1+2*3-4 = 5 by hand: the task scores as the chain task does.
    assert task.score(Problem("1+2*3-4=", "5"), "5").answer == 1.0


def test_default_chains_are_test_prompts_and_no_longer_than_learnt():
    sets = problem_sets(PLAN)
    assert [p.prompt for p in sets["default"][0]] == [
        p.prompt for p in ChainTask().held_out(576)[512:]
    ]
    assert len(sets["harder"][0]) == 64
    assert sets["default"][1] == make_config("grpo").max_completion_tokens


def test_a_guess_is_right_and_only_a_full_working_is_worked():
    worked = "<think>1+2=3;3*3=9;9-4=5</think>5"
    texts = ["5", "5", "7", worked, worked, "<think>9-4=5</think>5", "<think>1+2=3"]
    assert count_prompt(ChainTask(), Problem("1+2*3-4=", "5"), texts) == {
        "right": 5,
        "worked": 2,
        "thinking": 3,
        "distinct": 5,
        "distinct_thinking": 2,
    }


def test_methods_train_with_the_settings_that_tuning_chose(monkeypatch):
    chosen = {"dpo": {"tokens": {"settings": {"beta": 0.7}}, "kl": {"settings": {"beta": 0.1}}}}
    monkeypatch.setattr(pass_at_k, "load_result", lambda name: {"chosen": chosen})
    found = pass_at_k.arm_settings(PLAN)
    assert found["dpo"] == {"beta": 0.7} and found["ppo"] == {} == found["base"]


def test_every_arm_has_a_row_for_each_set_and_a_second_call_makes_no_run(tmp_path, monkeypatch):
    table = pass_at_k.run_experiment(tmp_path, 2, "cpu", 1)
    arms = ["base", "sft", "grpo", "grpo.defaults", "grpo.longer"]
    assert [row["arm"] for row in table["rows"]] == arms * 2
    logged = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert len(logged) == 2 * len(arms)
    by_key = {row["key"]: row for row in logged}
    right = [sum(by_key[f"grpo-{seed}"]["default"]["right"]) for seed in (3000, 3001)]
    (row,) = [r for r in table["rows"] if (r["set"], r["arm"]) == ("default", "grpo")]
    assert row["pass"]["mean"][0] == pytest.approx(sum(right) / (2 * 3 * 4), abs=1e-4)
    assert by_key["base-3000"]["updates"] == 0 and by_key["base-3000"]["default"]["kl"] == 0
    assert by_key["grpo-3000"]["used"] >= 600 and by_key["grpo.longer-3000"]["updates"] == 1
    assert "| base |" in (tmp_path / "report.md").read_text("utf-8")
    monkeypatch.setattr(pass_at_k, "measure_arm", lambda *a: pytest.fail("a run was made again"))
    assert pass_at_k.run_experiment(tmp_path, 2, "cpu", 1)["rows"] == table["rows"]


def test_a_run_that_fails_loses_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(pass_at_k, "measure_arm", fail_for_sft)
    with pytest.raises(LabError, match="no sft"):
        pass_at_k.run_experiment(tmp_path, 2, "cpu", 1)
    keys = [json.loads(line)["arm"] for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert sorted(set(keys)) == ["base", "grpo", "grpo.defaults", "grpo.longer"]
    assert len(keys) == 8


def fail_for_sft(plan, out, arm, settings, seed, device):
    if arm == "sft":
        raise LabError("no sft")
    return {"arm": arm, "seconds": 0.1}


def test_one_seed_has_no_interval_and_is_refused(tmp_path):
    with pytest.raises(LabError, match="at least two seeds"):
        pass_at_k.run_experiment(tmp_path, 1, "cpu", 1)
