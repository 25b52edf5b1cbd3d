"""The experiments behind the claims, at a size that a test can afford."""

import inspect
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from lab.config.methods import METHODS, make_config
from lab.config.presets import RUN_PRESETS
from lab.data.examples import Pair
from lab.data.parsing import load_pairs
from lab.engine.sampler import sample
from lab.errors import LabError
from lab.experiments import (
    arms,
    beta,
    checkpoint_probe,
    completion_pool,
    drift,
    groups,
    margins,
    overoptimisation,
    process_pool,
    sensitivity,
    shipped_runs,
)
from lab.experiments.protocol import ExperimentCode
from lab.experiments.registry import EXPERIMENTS, find_experiment
from lab.runs import folder
from lab.runs.catalogue import list_runs
from lab.runs.records import StepRecord
from lab.runs.run_names import safe_name
from lab.tasks.chain import gold_answer
from lab.training.loop import prepare, train


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(arms, "EVALUATION_PROMPTS", 8)
    monkeypatch.setattr(arms, "EVALUATION_SAMPLES", 1)
    for module in (arms, process_pool, overoptimisation):
        monkeypatch.setattr(
            module, "ProcessPoolExecutor", lambda jobs, mp_context: ThreadPoolExecutor(1)
        )


def test_each_knob_is_moved_alone_by_the_same_factor_both_ways():
    found = {arm.name: make_config(arm.method, arm.knobs) for arm in sensitivity.arms()}
    assert found["ppo-centre"] == make_config("ppo")
    assert (
        found["ppo-epsilon-low"].epsilon == pytest.approx(0.05)
        and found["ppo-epsilon-low"].beta == make_config("ppo").beta
    )
    assert found["ppo-epsilon-high"].epsilon == pytest.approx(0.8)
    assert found["grpo-beta-high"].beta == pytest.approx(0.16)
    assert len(found) == 7 + 2 * sum(map(len, sensitivity.MOVED_KNOBS.values()))
    policies = {name for name, spec in METHODS.items() if "policy" in spec.models}
    assert set(sensitivity.MOVED_KNOBS) == policies
    assert all("learning_rate" in knobs for knobs in sensitivity.MOVED_KNOBS.values())


def test_the_spread_of_a_row_is_the_largest_mean_minus_the_smallest(tmp_path, monkeypatch):
    monkeypatch.setattr(sensitivity, "MOVED_KNOBS", {"dpo": ("beta",)})
    monkeypatch.setattr(sensitivity, "CENTRES", {"dpo": {"steps": 1, "pairs": 32}})
    table = sensitivity.run_experiment(tmp_path, 2, "cpu", 1)
    (row,) = table["rows"]
    means = [
        sum(r["gold/accuracy"] for r in table["runs"][f"dpo-{name}"]) / 2
        for name in ("beta-low", "centre", "beta-high")
    ]
    assert [row[c]["mean"] for c in ("low", "centre", "high")] == pytest.approx(means)
    assert row["spread"] == pytest.approx(max(means) - min(means))
    assert "| DPO | beta |" in (tmp_path / "report.md").read_text()
    again = []
    monkeypatch.setattr(arms, "measure_run", lambda *a: again.append(a))
    assert sensitivity.run_experiment(tmp_path, 2, "cpu", 1)["rows"] == table["rows"] and not again


def test_over_optimisation_follows_proxy_and_gold_of_the_same_rollouts(tmp_path, monkeypatch):
    monkeypatch.setattr(overoptimisation, "OPTIMISATION_UPDATES", 2)
    monkeypatch.setattr(overoptimisation, "UPDATES_PER_POINT", 1)
    monkeypatch.setattr(overoptimisation, "ONLINE_METHODS", ("online_dpo",))
    monkeypatch.setattr(overoptimisation, "REWARD_MODELS", {"32 pairs": {"pairs": 32, "steps": 1}})
    monkeypatch.setattr(overoptimisation, "ENSEMBLE_DATA", "32 pairs")
    monkeypatch.setattr(overoptimisation, "ENSEMBLE_SIZE", 2)
    table = overoptimisation.run_experiment(tmp_path, 2, "cpu", 1)
    row, *ensembles = table["rows"]
    rows = [
        [
            r["metrics"]
            for r in folder.RunFolder(tmp_path / f"online_dpo-pairs32-steps1-{seed}").history()
            if r["type"] == "step"
        ]
        for seed in (0, 1)
    ]
    assert row["curve"]["proxy"] == pytest.approx(
        [(rows[0][i]["reward"] + rows[1][i]["reward"]) / 2 for i in (1, 2)]
    )
    assert row["curve"]["gold"] == pytest.approx(
        [
            (rows[0][i]["gold/rollout_accuracy"] + rows[1][i]["gold/rollout_accuracy"]) / 2
            for i in (1, 2)
        ]
    )
    assert (
        row["best_gold"] == max(row["curve"]["gold"])
        and row["proxy_last"] == row["curve"]["proxy"][-1]
    )
    assert "| 32 pairs | Online DPO |" in (tmp_path / "report.md").read_text()
    assert [row["reward_model"] for row in ensembles] == [
        "2 × 32 pairs, mean",
        "2 × 32 pairs, mean − spread",
    ]
    first = [r["curve"]["proxy"][0] for r in ensembles]
    assert first[1] < first[0]  # The same completions, before any update, minus a spread above 0.
    assert {f.name for f in tmp_path.glob("reward_model*")} == {
        f"reward_model-pairs32-steps1-{seed}" for seed in (0, 1, 1000, 1001)
    }


@pytest.mark.parametrize(
    "run",
    [
        sensitivity.run_experiment,
        overoptimisation.run_experiment,
        beta.run_experiment,
        groups.run_experiment,
    ],
)
def test_an_experiment_of_one_seed_has_no_interval_and_is_refused(tmp_path, run):
    with pytest.raises(LabError, match="at least two seeds"):
        run(tmp_path, 1, "cpu", 1)


def test_drift_counts_which_completions_stand_in_the_data():
    run = prepare(make_config("dpo", {"device": "cpu"}))
    pairs = load_pairs(run.task.pairs_path)[:16]
    prompts = run.tokenizer([p.prompt for p in pairs])["input_ids"]
    drawn = sample(
        run.model,
        run.tokenizer,
        prompts,
        1,
        max_tokens=64,
        temperature=1.0,
        seed=0,
        step=0,
        device=run.device,
        stream="drift",
    ).texts
    as_data = [
        Pair(p.prompt, text, "x") if i % 2 else Pair(p.prompt, "x", "y")
        for i, (p, text) in enumerate(zip(pairs, drawn))
    ]
    with pytest.raises(LabError, match="vocabulary has no 'x'"):
        drift.measure_drift(run, as_data)
    as_data = [
        Pair(p.prompt, text or "1", "=") if i % 2 else Pair(p.prompt, "+", "=")
        for i, (p, text) in enumerate(zip(pairs, drawn))
    ]
    seen = drift.measure_drift(run, as_data)
    right = [
        text.rpartition("</think>")[2] == gold_answer(p.prompt) for p, text in zip(pairs, drawn)
    ]
    assert seen["covered"] == 0.5 and seen["gold/accuracy"] == sum(right) / 16
    assert (
        seen["right_covered"] == pytest.approx(sum(right[1::2]) / sum(right))
        and seen["logps/rejected"] < seen["logps/chosen"] < 0
    )


def test_drift_is_followed_from_before_training_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(
        drift, "ProcessPoolExecutor", lambda jobs, mp_context: ThreadPoolExecutor(1)
    )
    for name, value in (
        ("DRIFT_UPDATES", 2),
        ("DRIFT_EVERY", 1),
        ("DRIFT_PROMPTS", 8),
        ("DRIFT_METHODS", ("dpo",)),
    ):
        monkeypatch.setattr(drift, name, value)
    (row,) = drift.run_experiment(tmp_path, 2, "cpu", 1)["rows"]
    assert row["step"] == [0, 1, 2] and len(row["covered"]) == len(row["covered ±"]) == 3
    assert "| DPO |" in (tmp_path / "report.md").read_text()


def test_numbers_are_cut_to_their_significant_digits_wherever_they_stand():
    assert process_pool.round_significant(
        {"a": [0.123456, -12.34567, 3], "b": ("x", None, 1e-7)}
    ) == {"a": [0.1235, -12.35, 3], "b": ["x", None, 1e-7]}


def test_curves_of_seeds_become_a_mean_and_an_interval_at_every_point():
    found = process_pool.mean_over_seeds([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
    assert found["mean"] == [2.0, 0.0] and found["half"] == pytest.approx([2.484, 0.0], abs=1e-3)


def test_following_a_run_sees_the_margins_that_its_own_loss_sees():
    knobs = {"batch_size": 16, "pairs": 16, "learning_rate": 1e-3}
    found = checkpoint_probe.probe_checkpoints("dpo", knobs, 0, "cpu", (0, 1, 2), 16, 4)
    run = prepare(
        make_config(
            "dpo", knobs | {"steps": 3, "eval_every": 0, "eval_prompts": 2, "device": "cpu"}
        )
    )
    seen = [record.metrics for record in train(run) if isinstance(record, StepRecord)]
    assert found["steps"] == [0, 1, 2] and len(found["gold/accuracy"]) == 3
    assert found["chosen"][0] == pytest.approx([0.0] * 16, abs=1e-4) and found["kl"][
        0
    ] == pytest.approx(0.0, abs=1e-5)
    for i in (
        1,
        2,
    ):  # The whole data is one batch, and an update reports what the policy before it says of it.
        assert 0.1 * sum(found["chosen"][i]) / 16 == pytest.approx(
            seen[i + 1]["rewards/chosen"], abs=1e-4
        )
        assert 0.1 * sum(found["rejected"][i]) / 16 == pytest.approx(
            seen[i + 1]["rewards/rejected"], abs=1e-4
        )


def test_the_curves_over_beta_are_means_of_the_pairs_and_a_second_call_trains_nothing(
    tmp_path, monkeypatch
):
    assert beta.mean_curves(
        {
            "kl": [0.5],
            "gold/accuracy": [0.25],
            "chosen": [[1.0, -3.0, 2.0, 0.0]],
            "rejected": [[0.0, -4.0, 3.0, 0.0]],
        }
    ) == {
        "kl": [0.5],
        "gold/accuracy": [0.25],
        "logps/chosen": [0.0],
        "logps/rejected": [-0.25],
        "rewards/accuracies": [0.5],
    }
    monkeypatch.setattr(beta, "PLAN", beta.BetaPlan(("ipo",), (0.1, 1.0), (0, 2), 8, 4))
    table = beta.run_experiment(tmp_path, 2, "cpu", 1)
    assert [(row["method"], row["beta"], row["steps"]) for row in table["rows"]] == [
        ("ipo", 0.1, [0, 2]),
        ("ipo", 1.0, [0, 2]),
    ]
    assert all(
        len(row[name][part]) == 2
        for row in table["rows"]
        for name in ("kl", "logps/chosen", "rewards/accuracies")
        for part in ("mean", "half")
    )
    assert (
        json.loads((tmp_path / "table.json").read_text()) == json.loads(json.dumps(table))
        and "| IPO | 0.1 |" in (tmp_path / "report.md").read_text()
    )
    monkeypatch.setattr(beta, "probe_checkpoints", lambda *a: pytest.fail("trained again"))
    assert beta.run_experiment(tmp_path, 2, "cpu", 1)["rows"] == table["rows"]


def test_the_margin_of_a_pair_is_chosen_minus_rejected_and_swapped_labels_stay_swapped(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(
        margins,
        "MARGIN_RUNS",
        {"plain": ("dpo", "DPO", {}), "swapped": ("dpo", "all swapped", {"label_noise": 1.0})},
    )
    for name, value in (("PROBED_UPDATES", (0, 2)), ("PROBED_PAIRS", 4), ("PROBED_PROMPTS", 4)):
        monkeypatch.setattr(margins, name, value)
    plain, swapped = margins.run_experiment(tmp_path, 1, "cpu", 1)["rows"]
    for row in (plain, swapped):
        assert row["margins"][1] == pytest.approx(
            [c - r for c, r in zip(row["chosen"][1], row["rejected"][1])], abs=2e-3
        )
    assert plain["beta"] == 0.1 and plain["margins"][1] != swapped["margins"][1]
    assert "| all swapped | 0 | 2 |" in (tmp_path / "report.md").read_text()


def test_groups_have_equal_completions_or_equal_prompts_and_share_the_arm_where_both_agree(
    tmp_path, monkeypatch
):
    for name, value in (
        ("GROUP_SIZES", (2, 4)),
        ("ROLLOUT_COMPLETIONS", 8),
        ("ROLLOUT_PROMPTS", 2),
        ("GROUP_UPDATES", 2),
        ("EVALUATE_EVERY", 1),
        ("HELD_OUT_PROMPTS", 4),
    ):
        monkeypatch.setattr(groups, name, value)
    table = groups.run_experiment(tmp_path, 2, "cpu", 1)
    assert [
        (r["budget"], r["group_size"], r["batch_size"], r["prompts"]) for r in table["rows"]
    ] == [("rollouts", 2, 8, 4), ("rollouts", 4, 8, 2), ("prompts", 2, 4, 2), ("prompts", 4, 8, 2)]
    assert (
        table["rows"][1]["tokens"] == table["rows"][3]["tokens"]
        and len(list(tmp_path.glob("grpo-*-0"))) == 3
    )
    row = table["rows"][0]
    assert (
        row["steps"] == [1, 2]
        and row["gold_steps"] == [0, 1, 2]
        and len(row["gold/accuracy"]["mean"]) == 3
    )
    assert (
        row["tokens"][1] > row["tokens"][0] > 0
        and "| prompts | 4 | 8 |" in (tmp_path / "report.md").read_text()
    )


def test_prompts_of_the_pool_are_spread_over_the_pass_rates():
    assert completion_pool.spread_over_pass_rates([0.5, 0.0, 1.0, 0.1, 0.9, 0.45], 3) == [1, 0, 2]
    assert completion_pool.spread_over_pass_rates([0.2, 0.2, 0.2], 2) == [0, 1]


def test_the_pool_scores_its_completions_under_the_policy_that_wrote_them_the_final_one_and_the_reference(
    tmp_path, monkeypatch
):
    for name, value in (
        ("CANDIDATE_PROMPTS", 6),
        ("BASE_PROMPTS", 3),
        ("TRAINED_PROMPTS", 2),
        ("COMPLETIONS_PER_PROMPT", 4),
        ("POOL_UPDATES", 2),
        ("MIDDLE_UPDATE", 1),
    ):
        monkeypatch.setattr(completion_pool, name, value)
    base, middle, end = completion_pool.run_experiment(tmp_path, 1, "cpu", 1)["rows"]
    assert [len(row["prompts"]) for row in (base, middle, end)] == [3, 2, 2] and middle[
        "prompts"
    ] == [base["prompts"][0], base["prompts"][2]]
    for row in (base, middle, end):
        for prompt, group in zip(row["prompts"], row["completions"]):
            assert len(group) == 4
            for one in group:
                assert (
                    len(one["tokens"])
                    == len(one["old_logps"])
                    == len(one["end_logps"])
                    == len(one["reference_logps"])
                )
                assert "".join(one["tokens"]).startswith(one["text"])
                assert (
                    one["reward"]
                    == float(one["text"].rpartition("</think>")[2] == gold_answer(prompt))
                    or one["reward"] == 0.0
                )
    first, last = base["completions"][0][0], end["completions"][0][0]
    assert (
        first["old_logps"] == pytest.approx(first["reference_logps"], abs=1e-3)
        and first["old_logps"] != first["end_logps"]
    )
    assert last["old_logps"] == last["end_logps"] and max(last["old_logps"]) <= 0


def test_what_is_recorded_are_all_defaults_and_every_preset_under_names_that_a_folder_can_have():
    plan = shipped_runs.shipped_run_plan()
    assert set(METHODS) <= set(plan) and {preset.name for preset in RUN_PRESETS} <= {
        title for _, _, title, _ in plan.values()
    }
    configs = [make_config(method, knobs) for method, knobs, _, _ in plan.values()]
    assert len(set(configs)) == len(plan) and all(safe_name(name) for name in plan)


def test_a_recorded_run_is_a_finished_run_without_process_checkpoint_or_adapter(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(
        shipped_runs,
        "shipped_run_plan",
        lambda: {"dpo": ("dpo", {"steps": 2, "eval_prompts": 4, "pairs": 32}, "defaults", "")},
    )
    (row,) = shipped_runs.run_experiment(tmp_path, 1, "cpu", 1)["rows"]
    (run,) = list_runs(tmp_path / "recorded")
    assert (run.state, run.status()["pid"], run.config.steps) == ("finished", 0, 2)
    assert sorted(p.name for p in run.path.iterdir()) == [
        "config.json",
        "metrics.jsonl",
        "recorded.json",
        "samples.jsonl",
        "status.json",
    ]
    assert [r["step"] for r in run.history() if r["type"] == "step"] == [0, 1, 2] and {
        r["step"] for r in run.samples()
    } == {0, 2}
    assert row["gold"]["first"] == run.history()[1]["metrics"]["gold/accuracy"]
    assert not any(str(tmp_path) in p.read_text() for p in run.path.iterdir())


@pytest.mark.parametrize("run", [completion_pool.run_experiment, shipped_runs.run_experiment])
def test_an_experiment_of_single_runs_refuses_seeds(tmp_path, run):
    with pytest.raises(LabError, match="takes one seed"):
        run(tmp_path, 2, "cpu", 1)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_has_its_question_its_code_and_its_recorded_table(name):
    experiment = EXPERIMENTS[name]
    assert experiment.name == name and experiment.question
    for function in ("run_experiment", "render_report"):
        expected = list(inspect.signature(getattr(ExperimentCode, function)).parameters)[1:]
        assert list(inspect.signature(getattr(experiment.code(), function)).parameters) == expected
    if experiment.record_path is not None:
        table = json.loads(experiment.record_path.read_text())
        assert f"experiment {name}" in table["command"] and experiment.code().render_report(table)


def test_an_unknown_experiment_is_answered_with_the_known_ones():
    with pytest.raises(LabError, match="Did you mean 'beta'"):
        find_experiment("betta")


def test_the_command_of_a_table_is_the_one_that_makes_it_again():
    assert arms.command_line("beta", 3, "auto") == "python -m lab experiment beta --seeds 3"
    assert arms.command_line("pool", None, "cpu") == "python -m lab experiment pool --device cpu"
