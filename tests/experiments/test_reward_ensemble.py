"""Several reward models score together."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lab.config.methods import make_config
from lab.experiments import reward_ensemble
from lab.experiments.reward_ensemble import RewardEnsemble, attach_ensemble, combine_scores
from lab.training.heads import ScalarHeadModel
from lab.training.loop import prepare


class Fixed(ScalarHeadModel):
    """A reward model whose scores are given."""

    def __init__(self, *scores):
        self.model = self.adapter = self.head = None
        self.given = torch.tensor(scores)

    def scores(self, tokens):
        return self.given


def test_an_ensemble_is_the_mean_minus_a_multiple_of_the_spread():
    scores = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    assert combine_scores(scores, 0.0).tolist() == [2.0, 5.0]
    assert combine_scores(scores, 1.0).tolist() == pytest.approx([2 - 2**0.5, 5.0])


def test_the_zero_of_every_member_is_taken_out_before_the_members_are_compared():
    members = [Fixed(1.0, 0.0), Fixed(11.0, 10.0), Fixed(-8.0, -9.0)]
    ensemble = RewardEnsemble(None, "", None, members, [0.0, 10.0, -9.0], 1.0)
    assert ensemble.scores(None).tolist() == [1.0, 0.0]


def test_the_members_score_the_completions_of_the_run(monkeypatch):
    shown, members = [], {"a": Fixed(0.0), "b": Fixed(2.0)}
    monkeypatch.setattr(
        reward_ensemble, "load_trained_reward_model", lambda run, *rest: members[run]
    )

    def mean_score(member, run, rows):
        shown.append(len(rows))
        return member.given.item()

    monkeypatch.setattr(reward_ensemble, "mean_score", mean_score)
    run = prepare(make_config("grpo", {"eval_prompts": 2, "device": "cpu"}))
    run.method_state = SimpleNamespace(reward_model=None)
    attach_ensemble(run, [Path("a"), Path("b")], 1.0)
    found = run.method_state.reward_model
    assert found.offsets == [0.0, 2.0] and shown == [256, 256]
    assert found.scores(None).tolist() == [0.0]
