"""Rollouts in a checkpoint, and what a record shows of them."""

import pytest
import torch

from lab.training.micro_batches import split_evenly
from lab.training.rollout import GRPORollout, PPORollout, Rollout, load_rollout
from lab.training.timer import PhaseTimer

CPU = torch.device("cpu")


def sampled(rewards, group_size=2):
    count = len(rewards)
    return Rollout(
        ids=torch.arange(3 * count).reshape(count, 3),
        completion_mask=torch.tensor([[False, True, True]] * count),
        truncated=torch.zeros(count, dtype=torch.bool),
        rewards=torch.tensor(rewards),
        gold=None,
        group_size=group_size,
        prompts=[f"prompt {i}" for i in range(count // group_size)],
        texts=[f"text {i}" for i in range(count)],
        num_updates=2,
        reward_metrics={"length": 3.0},
    )


def grpo_rollout():
    return GRPORollout(**vars(sampled([1.0, 1.0, 0.0, 1.0])), advantages=torch.arange(4.0))


def ppo_rollout():
    per_token = torch.arange(12.0).reshape(4, 3)
    return PPORollout(
        **vars(sampled([1.0, 0.0, 0.0, 1.0], group_size=1)),
        advantages=per_token,
        old_logps=-per_token,
        values=per_token + 1,
        returns=per_token + 2,
    )


@pytest.mark.parametrize("make", [lambda: sampled([0.0, 1.0]), grpo_rollout, ppo_rollout])
def test_a_rollout_is_the_same_after_a_checkpoint(make):
    rollout = make()
    loaded = load_rollout(rollout.to_checkpoint(), CPU)
    assert type(loaded) is type(rollout)
    for name, value in vars(rollout).items():
        other = getattr(loaded, name)
        equal = torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
        assert equal, name


def test_a_checkpoint_keeps_the_keys_of_older_ones():
    checkpoint = grpo_rollout().to_checkpoint()
    assert checkpoint["uses"] == 2 and checkpoint["logged"] == {"length": 3.0}
    older = checkpoint | {"values": None, "returns": None, "facts": None}
    assert isinstance(load_rollout(older, CPU), GRPORollout)
    assert type(load_rollout(older | {"advantages": None}, CPU)) is Rollout


def test_samples_are_the_first_group_with_different_rewards_and_show_advantages():
    samples = grpo_rollout().samples()
    assert [sample["completion"] for sample in samples] == ["text 2", "text 3"]
    assert [sample["advantage"] for sample in samples] == [2.0, 3.0]
    first = ppo_rollout().samples()[0]
    assert first["advantage"] == 1.5, "the mean over the tokens of the completion"
    assert "advantage" not in sampled([0.0, 1.0]).samples()[0]


def test_a_batch_is_split_into_parts_that_differ_by_at_most_one():
    assert split_evenly([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4, 5]]
    assert split_evenly([1, 2], 5) == [[1], [2]]
    assert split_evenly([], 3) == []


def test_a_phase_within_another_takes_its_time_from_the_outer_one(monkeypatch):
    clock = iter([0.0, 1.0, 4.0, 6.0])
    monkeypatch.setattr("lab.training.timer.time.perf_counter", lambda: next(clock))
    timer = PhaseTimer()
    with timer.phase("updating"), timer.phase("sampling"):
        pass
    assert timer.phases == {"sampling": 3.0, "scoring": 0.0, "updating": 3.0, "evaluating": 0.0}
    assert timer.training_seconds == 6.0
