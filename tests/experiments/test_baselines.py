"""The variance of the gradient with different baselines."""

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from lab.config.methods import make_config
from lab.errors import LabError
from lab.experiments import baselines, process_pool
from lab.experiments.baselines import BaselinesPlan, baseline_advantages, total_variance
from lab.training.loop import prepare

TINY = BaselinesPlan(looks=(1,), group_sizes=(2, 4), completions=8, rollouts=3)


def test_advantages_of_one_right_and_one_wrong_completion():
    found = baseline_advantages(torch.tensor([1.0, 0.0]), 2)
    assert found.pop("none").tolist() == [1.0, 0.0]
    assert all(one.tolist() == [1.0, -1.0] for one in found.values())


def test_every_baseline_has_the_same_expected_gradient():
    # Four independent Bernoulli(0.3) completions in groups of two; the score function of a completion
    # is reward − 0.3. The expectation runs over all 16 outcomes.
    expected = dict.fromkeys(("none", "batch", "group", "leave_one_out"), 0.0)
    for outcome in range(16):
        rewards = torch.tensor([float(outcome >> i & 1) for i in range(4)], dtype=torch.float64)
        probability = math.prod(0.3 if r else 0.7 for r in rewards.tolist())
        for name, advantages in baseline_advantages(rewards, 2).items():
            expected[name] += probability * ((rewards - 0.3) * advantages).sum().item()
    assert expected == {name: pytest.approx(4 * 0.3 * 0.7) for name in expected}


def test_the_variance_of_two_gradients_by_hand():
    assert total_variance(torch.tensor([[0.0, 0.0], [2.0, 2.0]])) == pytest.approx(4.0)


def test_a_critic_that_expects_half_is_a_constant_baseline(monkeypatch):
    run = prepare(make_config("ppo", {"device": "cpu", "eval_prompts": 2}))
    critic = run.method_state.critic
    plain = baselines.gradient_rows(run, TINY, 2)
    assert plain["variance"]["critic"] == pytest.approx(1.0)  # An untrained critic says 0.
    assert plain["variance"]["group"] == pytest.approx(plain["variance"]["leave_one_out"], rel=1e-4)
    monkeypatch.setattr(
        critic, "values", lambda tokens: torch.where(tokens.completion_mask, 0.5, 0.0)
    )
    shifted = baselines.gradient_rows(run, TINY, 2)
    assert shifted["size"]["critic"] == pytest.approx(0.5)
    assert shifted["variance"]["none"] == 1.0 and shifted["variance"]["critic"] != pytest.approx(1)


def test_the_table_has_a_row_for_each_look_and_group_size(tmp_path, monkeypatch):
    monkeypatch.setattr(baselines, "PLAN", TINY)
    monkeypatch.setattr(
        process_pool, "ProcessPoolExecutor", lambda jobs, mp_context: ThreadPoolExecutor(1)
    )
    table = baselines.run_experiment(tmp_path, 2, "cpu", 1)
    assert [(row["updates"], row["group_size"]) for row in table["rows"]] == [(1, 2), (1, 4)]
    assert table["rows"][0]["variance"]["none"]["mean"] == 1.0
    assert "| 1 | 2 |" in (tmp_path / "report.md").read_text("utf-8")


def test_one_seed_has_no_interval_and_is_refused(tmp_path):
    with pytest.raises(LabError, match="at least two seeds"):
        baselines.run_experiment(tmp_path, 1, "cpu", 1)
