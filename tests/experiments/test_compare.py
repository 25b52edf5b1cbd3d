import csv
import functools
import json
import math
from concurrent.futures import ThreadPoolExecutor

import pytest

from lab.analysis.statistics import interval, paired_interval
from lab.config.methods import make_config
from lab.errors import LabError
from lab.experiments import arms
from lab.experiments import compare as compare_module
from lab.experiments.compare import run_comparison
from lab.experiments.comparison_plan import ComparisonPlan
from lab.profiling.memory_tracker import MEMORY_KINDS
from lab.training.loop import prepare

NOTHING = {
    "models": [],
    "copies": 0.0,
    "memory": dict.fromkeys(MEMORY_KINDS, 1),
    "largest_cache": 0,
    "tokens": {"backward": 0},
    "flops": 0,
}
measured_cost = compare_module.update_cost


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(arms, "EVALUATION_PROMPTS", 16)
    monkeypatch.setattr(arms, "EVALUATION_SAMPLES", 1)
    quick = functools.partial(quick_reward_model, arms.reward_model_run)
    for module in (arms, compare_module):
        monkeypatch.setattr(module, "reward_model_run", quick)
    monkeypatch.setattr(compare_module, "update_cost", lambda arm, device, out: NOTHING)


def quick_reward_model(original, out, knobs, seed, device):
    return original(out, knobs | {"steps": 1, "pairs": 32}, seed, device)


def test_the_interval_of_one_two_three_by_hand():
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2.0 and found.half == pytest.approx(4.302653 / math.sqrt(3))


def test_a_paired_difference_is_sharper_than_two_separate_intervals():
    first, second = [0.5, 0.7, 0.9], [0.4, 0.6, 0.8]
    assert paired_interval(first, second).mean == pytest.approx(0.1) and paired_interval(
        first, second
    ).half == pytest.approx(0.0, abs=1e-12)
    assert interval(first).half > 0.4


@pytest.mark.parametrize("values", [[], [1.0]])
def test_an_interval_of_fewer_than_two_seeds_is_refused(values):
    with pytest.raises(LabError, match="at least two seeds"):
        interval(values)


@pytest.mark.parametrize(
    "plan, says",
    [
        ({"methods": ("dop",)}, "Did you mean 'dpo'"),
        ({"methods": ("reward_model",)}, "Unknown method to compare"),
        ({"methods": ("dpo", "dpo")}, "compared once"),
        ({"methods": ("dpo@gold",)}, "nobody scores its completions"),
        ({"methods": ("ppo@golf",)}, "Did you mean 'gold'"),
        ({"seeds": 1}, "at least two seeds"),
        ({"budget": "second"}, "Did you mean 'seconds'"),
        ({"budget": "tokens"}, "above 0"),
    ],
)
def test_a_plan_that_cannot_be_compared_is_refused(plan, says):
    with pytest.raises(LabError, match=says):
        ComparisonPlan(
            **{"methods": ("dpo",), "seeds": 2, "budget": "defaults", "amount": 0, "device": "cpu"}
            | plan
        )


@pytest.mark.parametrize(
    "budget, amount, unit",
    [("updates", 2, "updates"), ("tokens", 600, "tokens"), ("seconds", 0.2, "seconds")],
)
def test_every_run_gets_the_budget_and_no_more_than_one_update_above_it(
    tmp_path, budget, amount, unit
):
    table = run_comparison(ComparisonPlan(("sft", "dpo"), 2, budget, amount, "cpu"), tmp_path / "c")
    for method, runs in table["runs"].items():
        for seed, result in enumerate(runs):
            assert result[unit] >= amount
            rows = [
                json.loads(line)
                for line in (
                    (tmp_path / "c" / f"{method}-{seed}" / "metrics.jsonl").read_text().splitlines()
                )
            ]
            steps = [row for row in rows if row["type"] == "step"]
            assert {
                "updates": len(steps) - 2,
                "tokens": steps[-2]["tokens"],
                "seconds": steps[-2]["seconds"],
            }[unit] < amount


def test_an_interrupted_comparison_goes_on_where_it_stopped_and_another_plan_is_refused(
    tmp_path, monkeypatch
):
    plan, measured = ComparisonPlan(("sft", "dpo"), 2, "updates", 1, "cpu"), []
    original = arms.measure_run
    monkeypatch.setattr(compare_module, "update_cost", measured_cost)

    def dies_at_the_third(run, *rest):
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(run)
        return original(run, *rest)

    monkeypatch.setattr(arms, "measure_run", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run_comparison(plan, tmp_path)
    monkeypatch.setattr(
        arms, "measure_run", lambda run, *rest: measured.append(run) or original(run, *rest)
    )
    table = run_comparison(plan, tmp_path)
    assert len(measured) == 4
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert [row["method"] for row in rows] == ["sft", "dpo"]
    for row, results in zip(rows, table["runs"].values()):
        assert float(row["kl"]) == pytest.approx(
            (results[0]["kl"] + results[1]["kl"]) / 2, rel=1e-5
        )
    report = (tmp_path / "report.md").read_text()
    (line,) = (line for line in report.splitlines() if line.startswith("| SFT − DPO |"))
    assert line.split(" | ")[-1].strip(" |") in ("better", "worse", "not told apart")
    (row,) = table["differences in gold/accuracy"]
    sft, dpo = ([r["gold/accuracy"] for r in table["runs"][arm]] for arm in ("sft", "dpo"))
    assert row["mean"] == pytest.approx(sum(sft) / 2 - sum(dpo) / 2) and row["word"] in line
    assert "SFT − DPO" in report and "| DPO | 2: policy, reference |" in report
    assert "its real tokens counted" in report and "padding" not in report
    assert [int(row["models"]) for row in rows] == [1, 2] and int(
        rows[1]["memory/weights"]
    ) > 4 * 330_000
    run_comparison(ComparisonPlan(("sft", "dpo"), 3, "updates", 1, "cpu"), tmp_path)
    assert len(measured) == 6  # One more seed of each.
    with pytest.raises(LabError, match="holds another experiment"):
        run_comparison(ComparisonPlan(("sft",), 2, "updates", 1, "cpu"), tmp_path)


def test_online_methods_are_scored_by_the_rule_or_by_the_reward_model_of_the_same_seed(tmp_path):
    table = run_comparison(
        ComparisonPlan(("grpo", "grpo@model", "online_dpo"), 2, "updates", 1, "cpu"), tmp_path
    )
    assert [row["title"] for row in table["methods"]] == [
        "GRPO, rule",
        "GRPO, reward model",
        "Online DPO, reward model",
    ]
    configs = {
        name: json.loads((tmp_path / f"{name}-1" / "config.json").read_text())
        for name in ("grpo", "grpo.model", "online_dpo")
    }
    assert configs["grpo"]["reward_from"] == "gold"
    assert configs["grpo.model"]["reward_from"] == configs["online_dpo"]["reward_from"] and configs[
        "grpo.model"
    ]["reward_from"].endswith("-1")
    assert all("proxy" in result for results in table["runs"].values() for result in results)


def test_the_proxy_is_the_mean_score_of_the_completions_one_by_one(tmp_path):
    folder = arms.reward_model_run(tmp_path, {}, 0, "cpu")
    run = prepare(make_config("grpo", {"reward_from": str(folder), "device": "cpu"}))
    completions = [
        {"prompt": "1+2*3=", "completion": text}
        for text in ("9", "<think>1+2=3;3*3=9</think>9", "12")
    ]
    alone = [arms.mean_score(run.method_state.reward_model, run, [c]) for c in completions]
    assert arms.mean_score(run.method_state.reward_model, run, completions) == pytest.approx(
        sum(alone) / 3, rel=1e-4
    )
    assert len(set(alone)) == 3


def test_several_jobs_make_the_same_runs_as_one(tmp_path, monkeypatch):
    pools = []

    def pool(jobs, mp_context):
        pools.append(jobs)
        return ThreadPoolExecutor(1)

    monkeypatch.setattr(compare_module, "ProcessPoolExecutor", pool)
    plan = ComparisonPlan(("sft", "dpo"), 2, "updates", 1, "cpu")
    one, two = (run_comparison(plan, tmp_path / str(jobs), jobs=jobs) for jobs in (1, 2))
    assert pools == [2]
    for name in ("sft", "dpo"):
        kl = [[run["kl"] for run in table["runs"][name]] for table in (one, two)]
        assert kl[0] == pytest.approx(kl[1], rel=1e-5) and len(kl[0]) == 2
