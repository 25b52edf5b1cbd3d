"""The comparison of tuned methods: equal trials, disjoint prompts, budgets, and what a kill leaves."""

import functools
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab.config.methods import make_config
from lab.data.parsing import load_pairs
from lab.errors import LabError
from lab.experiments import run_log, tuned, tuned_runs
from lab.experiments.run_log import RunLog, code_commit, code_fingerprint
from lab.experiments.tuned_plan import PLAN, SearchRange, language_model_plan, radical_inverse
from lab.experiments.tuned_report import scores_of
from lab.experiments.tuned_runs import PlannedRun, PromptRange, accuracy_at_kl
from lab.tasks.chain import ChainTask, is_held_out
from lab.training.loop import prepare, train

TINY = replace(
    PLAN,
    arms=tuple(arm for arm in PLAN.arms if arm.name in ("dpo", "grpo")),
    trials=2,
    tuning_seeds=(7,),
    tokens=600,
    completions=16,
    kl=0.05,
    tuning_prompts=(0, 4),
    monitor_prompts=(4, 8),
    test_prompts=(8, 14),
    samples=1,
)


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Runs in this process, by the tiny plan."""
    monkeypatch.setattr(tuned, "ProcessPoolExecutor", lambda n, mp_context: ThreadPoolExecutor(1))
    monkeypatch.setattr(tuned, "PLAN", TINY)


def fake_run(plan, out, planned, device, made):
    """A run whose accuracy on the test prompts grows with the method's name and the seed."""
    made.append(planned.key)
    score = 0.9 if planned.arm == "grpo" else 0.4
    row = {"view": planned.view, "arm": planned.arm, "seed": planned.seed, "looks": []}
    row["settings"] = planned.settings
    if planned.view == "tuning":
        better = score + 0.05 * planned.trial
        return row | {"looks": [{"gold/accuracy": better, "kl": 2.0}]}
    right = "111110" if planned.arm == "grpo" else ("100000", "010000")[planned.seed % 2]
    return row | {
        "gold/accuracy": right.count("1") / 6,
        "kl": 1.0,
        "completions/mean_length": 9.0,
        "scratchpad_share": 0.5,
        "right": right,
        "updates": 3,
        "trained": 500,
        "sampled": 100,
        "seconds": 0.1,
        "reward_model_tokens": 0,
    }


@pytest.fixture
def made(monkeypatch):
    """The keys of the runs that were made; none of them trains."""
    keys = []
    monkeypatch.setattr(tuned, "run_planned", functools.partial(fake_run, made=keys))
    monkeypatch.setattr(
        tuned,
        "measure_untrained",
        lambda plan, seed, device, prompts, samples: {"gold/accuracy": 0.3, "right": "110000"},
    )
    return keys


def test_the_mirrored_digits_of_the_halton_sequence():
    assert [radical_inverse(i, 2) for i in range(1, 5)] == [0.5, 0.25, 0.75, 0.125]
    assert radical_inverse(5, 3) == pytest.approx(2 / 3 + 1 / 9)


def test_a_range_is_searched_on_a_log_scale_and_choices_in_their_order():
    assert [SearchRange("beta", 0.01, 1.0).value(p) for p in (0, 0.5)] == [0.01, 0.1]
    assert [SearchRange("g", choices=(2, 4, 8)).value(p) for p in (0, 0.4, 0.99)] == [2, 4, 8]


def test_every_method_gets_as_many_trials_at_the_same_places():
    runs = tuned.trial_runs(PLAN)
    counts = {arm.name: sum(run.arm == arm.name for run in runs) for arm in PLAN.arms}
    assert set(counts.values()) == {PLAN.trials * len(PLAN.tuning_seeds)}
    for trial in range(1, PLAN.trials):
        factors = [
            PLAN.trial_settings(arm, trial)["learning_rate"] / make_config(arm.method).learning_rate
            for arm in PLAN.arms
        ]
        assert factors == [pytest.approx(factors[0], rel=5e-3)] * len(factors)  # Three digits.
    assert {arm.name: PLAN.trial_settings(arm, 0) for arm in PLAN.arms} == dict.fromkeys(counts, {})


def test_training_tuning_and_test_prompts_are_disjoint():
    task = ChainTask()
    parts = [
        {p.prompt for p in PromptRange(task, *part).held_out(10_000)}
        for part in (PLAN.tuning_prompts, PLAN.monitor_prompts, PLAN.test_prompts)
    ]
    assert [len(part) for part in parts] == [192, 64, 512]
    assert sum(map(len, parts)) == len(set.union(*parts))
    trained = {pair.prompt for pair in load_pairs(task.pairs_path)}
    trained |= {p.prompt for step in range(20) for p in task.train_problems(32, 2000, step)}
    assert not trained & set.union(*parts)
    assert all(map(is_held_out, set.union(*parts))) and not any(map(is_held_out, trained))


def test_the_seeds_of_tuning_and_of_the_results_differ():
    assert not set(PLAN.tuning_seeds) & set(range(PLAN.first_seed, PLAN.first_seed + 100))


def test_accuracy_is_read_where_the_line_reaches_the_kl():
    looks = [{"kl": 0.5, "gold/accuracy": 0.6}, {"kl": 2.0, "gold/accuracy": 0.9}]
    assert accuracy_at_kl(looks, 0.4, 0.25) == pytest.approx(0.5)
    assert accuracy_at_kl(looks, 0.4, 1.0) == pytest.approx(0.7)
    assert accuracy_at_kl(looks, 0.4, 5.0) == 0.9
    assert accuracy_at_kl([], 0.4, 1.0) == 0.4


@pytest.mark.parametrize("method, generates", [("dpo", False), ("grpo", True)])
def test_a_run_ends_at_the_first_update_that_uses_up_the_tokens(tmp_path, method, generates):
    row = tuned_runs.run_planned(TINY, tmp_path, PlannedRun("tokens", method, 3), "cpu")
    used = row["trained"] + row["sampled"]
    assert used >= TINY.tokens and (row["sampled"] > 0) == generates
    config = make_config(
        method,
        {"seed": 3, "steps": row["updates"], "eval_every": 0, "eval_prompts": 2, "device": "cpu"}
        | {"batch_size": 16 if generates else 8},
    )
    run = prepare(config)
    counted = [run.tokens + run.generated for record in train(run) if hasattr(record, "metrics")]
    assert counted[-2] < TINY.tokens <= counted[-1] == used
    assert len(row["right"]) == 6
    assert row["gold/accuracy"] == pytest.approx(row["right"].count("1") / 6)


def test_a_digit_counts_the_right_completions_of_a_prompt(monkeypatch):
    gold = [True, False, True, True, False, False]
    evaluation = SimpleNamespace(
        accuracy=0.5, kl=1.0, mean_length=3.0, facts={}, completions=[{"gold": g} for g in gold]
    )
    monkeypatch.setattr(tuned_runs, "evaluate", lambda *args, **settings: evaluation)
    run = prepare(make_config("grpo", {"eval_prompts": 2, "device": "cpu"}))
    assert tuned_runs.measure(run, (0, 3), 5, samples=2)["right"] == "120"
    log = {"a-5": {"right": "120"}}
    assert scores_of(replace(TINY, samples=2), log, "a", [5]) == [[0.5, 1.0, 0.0]]


def test_a_plan_without_shipped_pairs_samples_them_once_for_all_that_learn_from_pairs(
    tmp_path, monkeypatch
):
    asked = []

    def built(path, *arguments):
        asked.append(arguments)
        path.write_text("")
        return {}

    monkeypatch.setattr(tuned_runs, "build_pairs", built)
    plan = language_model_plan("sentiment", common={"model": "embedded"}, pairs=50)
    for _ in range(2):
        tuned_runs.build_plan_pairs(plan, tmp_path, "cpu")
    assert asked == [("embedded", 50, 0, "cpu", "chain", "answer", 64)]
    folders = []
    monkeypatch.setattr(
        tuned_runs, "reward_model_run", lambda out, knobs, seed, device: folders.append(knobs)
    )
    config, _ = tuned_runs.run_config(plan, tmp_path, PlannedRun("tokens", "dpo", 3), "cpu")
    assert config.data == str(tmp_path / "pairs.jsonl") and config.pairs == 50
    assert tuned_runs.reward_settings(plan, tmp_path)["data"] == config.data
    assert tuned_runs.pairs_settings(PLAN, tmp_path) == {}


def test_the_results_name_the_better_method_and_the_settings_of_the_best_trial(tmp_path, made):
    table = tuned.run_experiment(tmp_path, 2, "cpu", 1)
    assert table["chosen"]["dpo"]["tokens"]["trial"] == 1
    assert table["chosen"]["dpo"]["tokens"]["scores"] == pytest.approx([0.4, 0.45])
    assert table["chosen"]["dpo"]["tokens"]["settings"] == TINY.trial_settings(TINY.arms[0], 1)
    (row,) = [r for r in table["rows"] if r["view"] == "kl" and r["arm"] == "grpo"]
    assert row["gold/accuracy"]["mean"] == pytest.approx(5 / 6)
    (found,) = table["comparisons"]["tokens"]
    assert (found["first"], found["second"]) == ("dpo", "grpo")
    assert found["mean"] == pytest.approx(1 / 6 - 5 / 6) and found["word"] == "worse"
    report = (tmp_path / "report.md").read_text("utf-8")
    assert "| GRPO, rule | +0.67 ±" in report and " better |" in report
    assert "| learning rate | × 0.5 | defaults |" in report
    assert "| DPO | 0.45 | 0.40 | 0.05 |" in report
    assert "| DPO | learning rate 0.00025, β 0.31 | 2 |" in report


def test_a_trial_that_fails_scores_nothing(tmp_path, made, monkeypatch):
    def fails(plan, out, planned, device):
        row = fake_run(plan, out, planned, device, made)
        broken = planned.view == "tuning" and planned.trial == 1 and planned.arm == "dpo"
        return row | {"failed": "not finite", "looks": []} if broken else row

    monkeypatch.setattr(tuned, "run_planned", fails)
    said = []
    table = tuned.run_experiment(tmp_path, 2, "cpu", 1, said.append)
    assert any("not finite" in line for line in said)
    assert table["chosen"]["dpo"]["kl"] == {
        "trial": 0,
        "settings": {},
        "scores": [pytest.approx(0.3 + 0.1 * 0.05 / 2), 0.0],
    }


def test_a_killed_experiment_makes_only_the_runs_that_are_missing(tmp_path, made):
    whole = tuned.run_experiment(tmp_path, 2, "cpu", 1)
    log = tmp_path / "runs.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:-1]) + lines[-1][:40])
    made.clear()
    again = tuned.run_experiment(tmp_path, 2, "cpu", 1)
    assert made == [json.loads(lines[-1])["key"]]
    assert again == whole


def test_other_chosen_settings_make_the_final_runs_anew(tmp_path, made, monkeypatch):
    tuned.run_experiment(tmp_path, 2, "cpu", 1)
    made.clear()
    chosen = tuned.choose_settings(TINY, RunLog(tmp_path / "runs.jsonl", "cpu"))
    chosen["dpo"]["tokens"]["settings"] = {"beta": 0.7}
    monkeypatch.setattr(tuned, "choose_settings", lambda plan, log: chosen)
    table = tuned.run_experiment(tmp_path, 2, "cpu", 1)
    assert sorted(made) == ["tokens-dpo-2000", "tokens-dpo-2001"]
    assert "| DPO | β 0.7 | 2 |" in tuned.render_report(table)


def test_more_seeds_extend_an_experiment(tmp_path, made):
    tuned.run_experiment(tmp_path, 2, "cpu", 1)
    made.clear()
    tuned.run_experiment(tmp_path, 3, "cpu", 1)
    assert sorted(made) == sorted(
        f"{view}-{arm}-2002" for view in ("tokens", "kl", "defaults") for arm in ("dpo", "grpo")
    )


@pytest.mark.parametrize("name", ["code", "device", "torch"])
def test_runs_of_other_code_or_machines_are_not_mixed(tmp_path, made, monkeypatch, name):
    tuned.run_experiment(tmp_path, 2, "cpu", 1)
    found = run_log.origin("cpu")
    monkeypatch.setattr(run_log, "origin", lambda device: found | {name: "another"})
    with pytest.raises(LabError, match=f"made with {name} '.*and here {name} is 'another'.*--out"):
        tuned.run_experiment(tmp_path, 2, "cpu", 1)


def test_the_fingerprint_follows_the_code_that_decides_the_numbers(tmp_path):
    for name in run_log.MEASURING_CODE:
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.suffix:
            place.write_text("one")
        else:
            place.mkdir()
            (place / "a.py").write_text("one")
    before = code_fingerprint.__wrapped__(tmp_path)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "b.py").write_text("a figure")
    assert code_fingerprint.__wrapped__(tmp_path) == before
    (tmp_path / "training" / "a.py").write_text("two")
    assert code_fingerprint.__wrapped__(tmp_path) != before
    assert all((Path(run_log.LAB_FOLDER) / name).exists() for name in run_log.MEASURING_CODE)


def test_outside_a_checkout_the_environment_names_the_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert code_commit.__wrapped__(tmp_path) == ""
    monkeypatch.setenv("LAB_COMMIT", "0123abcd")
    assert code_commit.__wrapped__(tmp_path) == "0123abcd"


def test_a_log_holds_the_commit_of_every_run(tmp_path):
    log = RunLog(tmp_path / "runs.jsonl", "cpu")
    row = log.append("one", {"view": "base"})
    assert RunLog(tmp_path / "runs.jsonl", "cpu").rows == {"one": row}
    assert log.commits() == [row["commit"]]


def test_one_seed_has_no_interval_and_is_refused(tmp_path):
    with pytest.raises(LabError, match="at least two seeds"):
        tuned.run_experiment(tmp_path, 1, "cpu", 1)
