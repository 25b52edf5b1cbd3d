"""Training against several reward models at once: their mean score, or the mean minus their spread
(arXiv 2310.02743).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from lab.config.methods import make_config
from lab.data.batching import TokenBatch
from lab.data.examples import plain_text
from lab.data.parsing import load_pairs
from lab.experiments.arms import cached_json, mean_score, measure_run
from lab.models.loading import fitting_threads
from lab.runs.records import StepRecord
from lab.training.heads import ScalarHeadModel, load_trained_reward_model
from lab.training.loop import prepare, train
from lab.training.state import TrainState

CENTRING_PAIRS = 128
"""The score of a member is 0 on average over both completions of so many pairs."""


@dataclass
class RewardEnsemble(ScalarHeadModel):
    """Reward models that give one score together: the mean of their scores minus `spread_weight` times
    their standard deviation over the members.

    Preferences leave the zero of a reward model open, so `offsets` are subtracted from the members'
    scores first. The inherited fields are those of the first member.
    """

    members: list[ScalarHeadModel]
    offsets: list[float]
    spread_weight: float

    def scores(self, tokens: TokenBatch) -> torch.Tensor:
        """Return one reward (B,) in float32 for each completion."""
        return combine_scores(
            torch.stack([m.scores(tokens) - zero for m, zero in zip(self.members, self.offsets)]),
            self.spread_weight,
        )


def combine_scores(scores: torch.Tensor, spread_weight: float) -> torch.Tensor:
    """Return the scores (B,) of an ensemble from those of its members (M, B): the mean minus
    `spread_weight` times the unbiased standard deviation.

    Anchor: 1 and 3 have mean 2 and standard deviation √2, so weight 1 gives 0.586.
    """
    return scores.mean(0) - spread_weight * scores.std(0)


def attach_ensemble(run: TrainState, folders: list[Path], spread_weight: float) -> None:
    """Let the reward models in `folders` score the completions of a run that has a reward model."""
    assert run.task.pairs_path is not None
    members = [
        load_trained_reward_model(str(folder), run.config, run.tokenizer, run.device)
        for folder in folders
    ]
    rows = [
        {"prompt": plain_text(pair.prompt), "completion": plain_text(completion)}
        for pair in load_pairs(run.task.pairs_path)[:CENTRING_PAIRS]
        for completion in (pair.chosen, pair.rejected)
    ]
    first = members[0]
    cast(Any, run.method_state).reward_model = RewardEnsemble(
        first.model,
        first.adapter,
        first.head,
        members,
        [mean_score(member, run, rows) for member in members],
        spread_weight,
    )


def run_with_ensemble(
    path: Path,
    method: str,
    knobs: dict[str, Any],
    folders: list[Path],
    spread_weight: float,
    seed: int,
    device: str,
) -> dict[str, Any]:
    """Train one run against an ensemble and measure it, or read the earlier result in the file `path`.
    "rollouts" holds the metrics of every update.
    """

    def make() -> dict[str, Any]:
        settings = {"seed": seed, "eval_every": 0, "eval_prompts": 2, "device": device}
        run = prepare(
            make_config(method, settings | knobs | {"reward_from": str(folders[0].absolute())})
        )
        attach_ensemble(run, folders, spread_weight)
        with fitting_threads(run.model):
            rollouts = [
                record.metrics
                for record in train(run)
                if isinstance(record, StepRecord) and record.step
            ]
        return measure_run(run) | {"rollouts": rollouts}

    return cached_json(path, make)
