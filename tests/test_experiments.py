"""The experiments behind the claims, at a size that a test can afford."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from lab.config import make_config
from lab.data import Pair, load_pairs
from lab.errors import LabError
from lab.experiments import arms, drift, overoptimisation, sensitivity
from lab.sampler import sample
from lab.tasks.chain import answer
from lab.train import prepare


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(arms, "PROMPTS", 8)
    monkeypatch.setattr(arms, "SAMPLES", 1)
    monkeypatch.setattr(arms, "ProcessPoolExecutor", lambda jobs, mp_context: ThreadPoolExecutor(1))


def test_each_knob_is_moved_alone_by_the_same_factor_both_ways():
    found = {arm.name: make_config(arm.method, arm.knobs) for arm in sensitivity.arms()}
    assert found["ppo-centre"] == make_config("ppo")
    assert found["ppo-epsilon-low"].epsilon == pytest.approx(0.05) and found["ppo-epsilon-low"].beta == make_config("ppo").beta
    assert found["ppo-epsilon-high"].epsilon == pytest.approx(0.8)
    assert found["grpo-beta-high"].beta == pytest.approx(0.16)
    assert len(found) == 4 + 2 * sum(map(len, sensitivity.KNOBS.values()))


def test_the_spread_of_a_row_is_the_largest_mean_minus_the_smallest(tmp_path, monkeypatch):
    monkeypatch.setattr(sensitivity, "KNOBS", {"dpo": ("beta",)})
    monkeypatch.setattr(sensitivity, "CENTRES", {"dpo": {"steps": 1, "pairs": 32}})
    table = sensitivity.sensitivity(tmp_path, 2, "cpu", 1)
    row, = table["rows"]
    means = [sum(r["gold/accuracy"] for r in table["runs"][f"dpo-{name}"]) / 2 for name in ("beta-low", "centre", "beta-high")]
    assert [row[c]["mean"] for c in ("low", "centre", "high")] == pytest.approx(means)
    assert row["spread"] == pytest.approx(max(means) - min(means))
    assert "| DPO | beta |" in (tmp_path / "report.md").read_text()
    again = []
    monkeypatch.setattr(arms, "measure", lambda *a: again.append(a))
    assert sensitivity.sensitivity(tmp_path, 2, "cpu", 1)["rows"] == table["rows"] and not again


def test_over_optimisation_follows_proxy_and_gold_of_the_same_rollouts(tmp_path, monkeypatch):
    monkeypatch.setattr(overoptimisation, "STEPS", 2)
    monkeypatch.setattr(overoptimisation, "SMOOTH", 1)
    monkeypatch.setattr(overoptimisation, "METHODS", ("online_dpo",))
    monkeypatch.setattr(overoptimisation, "MODELS", {"32 pairs": {"pairs": 32, "steps": 1}})
    table = overoptimisation.overoptimisation(tmp_path, 2, "cpu", 1)
    row, = table["rows"]
    rows = [[r["metrics"] for r in arms.RunFolder(tmp_path / f"online_dpo-pairs32-steps1-{seed}").history() if r["type"] == "step"] for seed in (0, 1)]
    assert row["curve"]["proxy"] == pytest.approx([(rows[0][i]["reward"] + rows[1][i]["reward"]) / 2 for i in (1, 2)])
    assert row["curve"]["gold"] == pytest.approx([(rows[0][i]["gold/rollout_accuracy"] + rows[1][i]["gold/rollout_accuracy"]) / 2 for i in (1, 2)])
    assert row["best_gold"] == max(row["curve"]["gold"]) and row["proxy_last"] == row["curve"]["proxy"][-1]
    assert "| 32 pairs | Online DPO |" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize("run", [sensitivity.sensitivity, overoptimisation.overoptimisation])
def test_an_experiment_of_one_seed_has_no_interval_and_is_refused(tmp_path, run):
    with pytest.raises(LabError, match="at least two seeds"):
        run(tmp_path, 1, "cpu", 1)


def test_drift_counts_which_completions_stand_in_the_data():
    run = prepare(make_config("dpo", {"device": "cpu"}))
    pairs = load_pairs(run.task.pairs_path)[:16]
    drawn = sample(run.model, run.tokenizer, [p.prompt for p in pairs], 1, max_tokens=64, temperature=1.0, seed=0, step=0, device=run.device,
                   stream="drift").texts
    as_data = [Pair(p.prompt, text, "x") if i % 2 else Pair(p.prompt, "x", "y") for i, (p, text) in enumerate(zip(pairs, drawn))]
    with pytest.raises(LabError, match="vocabulary has no 'x'"):
        drift.look(run, as_data)
    as_data = [Pair(p.prompt, text or "1", "=") if i % 2 else Pair(p.prompt, "+", "=") for i, (p, text) in enumerate(zip(pairs, drawn))]
    seen = drift.look(run, as_data)
    right = [text.rpartition("</think>")[2] == answer(p.prompt) for p, text in zip(pairs, drawn)]
    assert seen["covered"] == 0.5 and seen["gold/accuracy"] == sum(right) / 16
    assert seen["right_covered"] == pytest.approx(sum(right[1::2]) / sum(right)) and seen["logps/rejected"] < seen["logps/chosen"] < 0


def test_drift_is_followed_from_before_training_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(drift, "ProcessPoolExecutor", lambda jobs, mp_context: ThreadPoolExecutor(1))
    for name, value in (("STEPS", 2), ("EVERY", 1), ("PROMPTS", 8), ("METHODS", ("dpo",))):
        monkeypatch.setattr(drift, name, value)
    row, = drift.drift(tmp_path, 2, "cpu", 1)["rows"]
    assert row["step"] == [0, 1, 2] and len(row["covered"]) == len(row["covered ±"]) == 3
    assert "| DPO |" in (tmp_path / "report.md").read_text()
