"""The experiments with a language model, on a random one: what a row says must follow from the runs
on disk.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from support.doubles_task import doubles
from support.small import small_model
from support.tiny import save

from lab.data.parsing import load_pairs
from lab.errors import LabError
from lab.experiments import arithmetic, arms, frontier
from lab.experiments import compare as compare_module
from lab.experiments.compare import run_comparison
from lab.experiments.comparison_plan import ComparisonPlan
from lab.profiling.memory_tracker import MEMORY_KINDS
from lab.runs.catalogue import list_runs
from lab.runs.folder import RunFolder
from lab.runs.metrics import METRICS
from lab.tasks.sentiment import compound_score, opening_split

NOTHING = {
    "models": [],
    "copies": 0.0,
    "memory": dict.fromkeys(MEMORY_KINDS, 1),
    "largest_cache": 0,
    "tokens": {"backward": 0},
    "flops": 0,
}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(arms, "EVALUATION_PROMPTS", 8)
    monkeypatch.setattr(arms, "EVALUATION_SAMPLES", 2)
    monkeypatch.setattr(arms, "ProcessPoolExecutor", lambda jobs, mp_context: ThreadPoolExecutor(1))


@pytest.fixture(scope="module")
def critic_of_films(tmp_path_factory):
    words = ["good", "great", "bad", "awful", "a", "the", "."] + [
        word for p in opening_split()[0] for word in p.prompt.split()
    ]
    return small_model(tmp_path_factory.mktemp("model"), words)


def rows_of(folder, name):
    return [
        row["metrics"][name]
        for row in RunFolder(folder).history()
        if row["type"] == "step" and name in row["metrics"]
    ]


def test_the_frontier_holds_where_each_run_was_and_what_the_model_said_before_and_after(
    tmp_path, monkeypatch, critic_of_films
):
    plan = frontier.FrontierPlan(
        betas=(0.1, 1.0),
        rates={"dpo": 1e-3, "grpo": 1e-3},
        updates={"dpo": 4, "grpo": 2},
        looks=2,
        pairs=64,
        tokens=6,
        shown=3,
        model=critic_of_films,
    )
    monkeypatch.setattr(frontier, "PLAN", plan)
    monkeypatch.chdir(tmp_path)
    table = frontier.run_experiment(tmp_path / "f", 2, "cpu", 1)
    assert all(
        compound_score(p.chosen) > compound_score(p.rejected)
        for p in load_pairs(tmp_path / "f" / "pairs.jsonl")
    )
    assert [(row["method"], row["beta"], row["steps"]) for row in table["rows"]] == [
        ("dpo", 0.1, [0, 2, 4]),
        ("dpo", 1.0, [0, 2, 4]),
        ("grpo", 0.1, [0, 1, 2]),
        ("grpo", 1.0, [0, 1, 2]),
    ]
    for row in table["rows"]:
        runs = [
            rows_of(tmp_path / "f" / f"{row['method']}-{row['beta']:g}-{seed}", "gold/reward")
            for seed in (0, 1)
        ]
        assert row["reward"]["mean"] == pytest.approx(
            [sum(v) / 2 for v in zip(*runs)], rel=1e-3
        )  # four digits are kept
        assert (
            row["kl"]["mean"][0] == pytest.approx(0.0, abs=1e-5)
            and row["end"]["reward"]["half"] >= 0
        )
    assert (
        set(table["shown"]) == {"base", "dpo", "grpo"}
        and table["rows"][0]["reward"]["mean"][0] == table["rows"][1]["reward"]["mean"][0]
    )
    for said in table["shown"].values():
        assert [one["prompt"] for one in said] == [p.prompt for p in opening_split()[1][:3]]
        assert all(one["gold"] == (compound_score(one["completion"]) > 0) for one in said)
    assert {run.name for run in list_runs(tmp_path / "f" / "recorded")} == {
        "smollm2-dpo-01",
        "smollm2-grpo-01",
    }
    assert "| DPO | 0.1 |" in (tmp_path / "f" / "report.md").read_text()
    monkeypatch.setattr(arms, "measure_run", lambda *a: pytest.fail("measured again"))
    assert frontier.run_experiment(tmp_path / "f", 2, "cpu", 1)["rows"] == table["rows"]


def test_arithmetic_shares_the_arm_in_which_both_budgets_agree_and_pays_the_control_at_random(
    tmp_path, monkeypatch
):
    doubles(monkeypatch)
    plan = arithmetic.ArithmeticPlan(
        model=save(tmp_path / "model"),
        task="gym:doubles",
        sizes=(2, 4),
        rollout=8,
        prompts=2,
        control=2,
        updates=2,
        looks=1,
        tokens=4,
        held_out=8,
        shown=2,
    )
    monkeypatch.setattr(arithmetic, "PLAN", plan)
    every = arithmetic.arms()
    assert (
        every["rollouts", 4] == every["steps", 4]
        and every["rollouts", 2].knobs["batch_size"] == 8
        and every["steps", 2].knobs["batch_size"] == 4
    )
    assert {
        key: arm.knobs["reward"] for key, arm in every.items() if arm.knobs["reward"] != "answer"
    } == {("math", 2): "math", ("random", 2): "random"}
    table = arithmetic.run_experiment(tmp_path / "a", 2, "cpu", 1)
    assert [(row["equal"], row["group_size"]) for row in table["rows"]] == list(every)
    for row in table["rows"]:
        name = every[row["equal"], row["group_size"]].name
        runs = [rows_of(tmp_path / "a" / f"{name}-{seed}", "entropy") for seed in (0, 1)]
        assert row["steps"] == [1, 2] and row["looks"] == [0, 2]
        assert row["entropy"]["mean"] == pytest.approx(
            [sum(v) / 2 for v in zip(*runs)], rel=1e-3
        )  # four digits are kept
    assert (
        set(table["shown"]) == {"base", "grpo", "math", "random"}
        and len(table["shown"]["base"]) == 2
    )
    assert (
        len(list_runs(tmp_path / "a" / "recorded")) == 3
        and "| random | 2 | 8 |" in (tmp_path / "a" / "report.md").read_text()
    )


def test_a_language_model_is_compared_on_its_task_with_knobs_of_its_own(
    tmp_path, monkeypatch, critic_of_films
):
    monkeypatch.setattr(compare_module, "update_cost", lambda arm, device, out: NOTHING)
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(
        "".join(
            json.dumps({"prompt": p.prompt, "chosen": "good great", "rejected": "bad"}) + "\n"
            for p in opening_split()[0][:32]
        )
    )
    plan = ComparisonPlan(
        ("dpo", "grpo", "ppo"),
        2,
        "updates",
        1,
        "cpu",
        critic_of_films,
        "sentiment",
        str(pairs),
        "batch_size=8,max_completion_tokens=4,learning_rate=1e-3,grpo.beta=0.04,reward_model.steps=1,grpo.group_size=4",
    )
    table = run_comparison(plan, tmp_path / "c")
    configs = {
        name: json.loads((tmp_path / "c" / f"{name}-1" / "config.json").read_text())
        for name in ("dpo", "grpo", "ppo")
    }
    assert {c["model"] for c in configs.values()} == {critic_of_films} and {
        c["learning_rate"] for c in configs.values()
    } == {1e-3}
    assert (
        configs["dpo"]["data"] == str(pairs)
        and "data" not in configs["grpo"]
        and [c["beta"] for c in configs.values()] == [0.1, 0.04, 0.02]
    )
    report, heads = (
        (tmp_path / "c" / "report.md").read_text(),
        (tmp_path / "c" / "table.csv").read_text().splitlines()[0],
    )
    assert (
        f"| {METRICS['gold/reward'].label} | " in report
        and "scratchpads" not in report
        and "distinct_2,distinct_2 ±" in heads
    )
    assert (
        table["evaluation"] == f"{len(opening_split()[1])} held-out prompts x 4 completions"
    )  # The task has no 512.
    assert table["command"].endswith(
        f"--model {critic_of_films} --task sentiment --data {pairs} --knobs {plan.knobs}"
    )


@pytest.mark.parametrize(
    "given, says",
    [
        ({"knobs": "beta"}, "'beta' in knobs is neither"),
        ({"knobs": "bta=1"}, "Did you mean 'beta'"),
        ({"knobs": "ppo.beta=1"}, "Unknown method in knobs"),
        ({"knobs": "dpo.group_size=4"}, "group_size"),
        ({"knobs": "beta=x"}, "takes a number"),
        ({"task": "sentiment"}, "Give a language model"),
        ({"task": "sentiment", "model": "elsewhere"}, "ships no pairs"),
    ],
)
def test_knobs_that_fit_nothing_and_a_task_without_pairs_are_refused_before_anything_is_trained(
    given, says
):
    with pytest.raises(LabError, match=says):
        replace(ComparisonPlan(("dpo",), 2, "updates", 1, "cpu"), **given)
