"""The experiments behind the claims of the lab: one list for the command line, the documentation and tests.

This module imports no experiment, because experiments need torch and a help text does not.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from lab.analysis.recorded_results import RESULTS_FOLDER
from lab.errors import unknown
from lab.experiments.protocol import ExperimentCode


@dataclass(frozen=True)
class Experiment:
    """One experiment: its name on the command line and its question in one line.

    `module` is the module of `lab.experiments` that implements `ExperimentCode`. `seeds` is the
    number of seeds by default: 1 for an experiment that shows single runs. `recorded` says whether
    the lab ships the table of the experiment.
    """

    name: str
    question: str
    module: str
    seeds: int = 3
    recorded: bool = True

    @property
    def record_path(self) -> Path | None:
        """The table that the lab ships and the dashboard shows; None when there is none."""
        return RESULTS_FOLDER / f"{self.name}.json" if self.recorded else None

    def code(self) -> ExperimentCode:
        """Imports the module of the experiment."""
        return cast(ExperimentCode, import_module(f"lab.experiments.{self.module}"))


EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            "answer_length",
            "the length of right and of wrong answers while GRPO trains, under three reductions",
            "answer_length",
            seeds=10,
        ),
        Experiment(
            "answer_length_smollm2",
            "the same on sums with SmolLM2-135M, whose text may ramble",
            "answer_length_smollm2",
            seeds=5,
        ),
        Experiment(
            "arithmetic",
            "GRPO on sums with SmolLM2-135M: checked answers, a checker that can be fooled, random"
            " rewards, groups of 2 to 32",
            "arithmetic",
            seeds=5,
        ),
        Experiment(
            "baselines",
            "the variance of the gradient without a baseline, with means, leave-one-out and a critic",
            "baselines",
            seeds=10,
        ),
        Experiment(
            "beta",
            "KL, gold accuracy and log-probabilities of DPO, IPO and KTO at equal updates for five"
            " β",
            "beta",
            seeds=10,
        ),
        Experiment(
            "data_quality",
            "DPO and IPO with swapped labels and with few pairs",
            "data_quality",
            seeds=10,
        ),
        Experiment("drift", "how far a policy leaves its data", "drift", seeds=10),
        Experiment(
            "frontier",
            "gold reward against KL of every method on sentiment with SmolLM2-135M, for four β",
            "frontier",
            seeds=5,
        ),
        Experiment(
            "groups",
            "GRPO with groups of 2 to 32, at equal rollouts and at equal prompts",
            "groups",
            seeds=10,
        ),
        Experiment(
            "lora_rank",
            "DPO with LoRA of rank 1 to 64 and with all weights, each at its own learning rate",
            "lora_rank",
            seeds=5,
        ),
        Experiment(
            "margins",
            "the margin of every one of 64 training pairs while a run trains",
            "margins",
            seeds=1,
        ),
        Experiment(
            "one_prompt",
            "ten updates of GRPO on one prompt, and what they do to other prompts",
            "one_prompt",
            seeds=1,
        ),
        Experiment(
            "one_update",
            "one update of PPO and one of DPO, number by number",
            "one_update",
            seeds=1,
        ),
        Experiment(
            "overoptimisation",
            "proxy against gold reward as reward models and ensembles of them are optimised",
            "overoptimisation",
            seeds=10,
        ),
        Experiment(
            "pair_tokens",
            "the log-ratio of every token of 8 training pairs while DPO trains",
            "pair_tokens",
            seeds=1,
        ),
        Experiment(
            "pass_at_k",
            "pass@k of the base and of every method for k to 256, on chains of 3 to 6 operations and"
            " on longer ones",
            "pass_at_k",
            seeds=10,
        ),
        Experiment(
            "playground",
            "the runs of the page Play, with checkpoints from which a visitor's run forks",
            "playground",
            seeds=1,
            recorded=False,
        ),
        Experiment(
            "pool",
            "real completions of the base and of a GRPO run, with the log-probability of every"
            " token",
            "completion_pool",
            seeds=1,
        ),
        Experiment(
            "random_rewards",
            "random and true rewards with 1 and 4 updates on a rollout, with and without the clip",
            "random_rewards",
            seeds=10,
        ),
        Experiment(
            "random_rewards_smollm2",
            "the same on sums with SmolLM2-135M",
            "random_rewards_smollm2",
            seeds=5,
        ),
        Experiment(
            "recorded",
            "the runs that the lab ships: every method's defaults and every preset",
            "shipped_runs",
            seeds=1,
            recorded=False,
        ),
        Experiment(
            "sensitivity",
            "the outcome of every method against each setting",
            "sensitivity",
            seeds=10,
        ),
        Experiment(
            "taste",
            "how many labels a simulated labeller needs, for pairs at random and where the model is"
            " least sure",
            "taste",
            seeds=10,
        ),
        Experiment(
            "tuned",
            "all methods at defaults, tuned at equal tokens, and tuned at equal KL",
            "tuned",
            seeds=10,
        ),
        Experiment(
            "tuned_arithmetic",
            "the same three views with SmolLM2-135M on sums",
            "tuned_arithmetic",
            seeds=5,
            recorded=False,
        ),
        Experiment(
            "tuned_sentiment",
            "the same three views with SmolLM2-135M on film reviews",
            "tuned_sentiment",
            seeds=5,
        ),
    )
}
"""Every experiment by its name."""


def find_experiment(name: str) -> Experiment:
    """Returns the experiment of this name. Raises `LabError`, with the names, for an unknown one."""
    if name not in EXPERIMENTS:
        raise unknown("experiment", name, list(EXPERIMENTS))
    return EXPERIMENTS[name]


if TYPE_CHECKING:  # mypy compares every module with `ExperimentCode`.
    from lab.experiments import (
        answer_length,
        answer_length_smollm2,
        arithmetic,
        baselines,
        beta,
        completion_pool,
        data_quality,
        drift,
        frontier,
        groups,
        lora_rank,
        margins,
        one_prompt,
        one_update,
        overoptimisation,
        pair_tokens,
        pass_at_k,
        playground,
        random_rewards,
        random_rewards_smollm2,
        sensitivity,
        shipped_runs,
        taste,
        tuned,
        tuned_arithmetic,
        tuned_sentiment,
    )

    _MODULES: tuple[ExperimentCode, ...] = (
        answer_length,
        answer_length_smollm2,
        arithmetic,
        baselines,
        beta,
        completion_pool,
        data_quality,
        drift,
        frontier,
        groups,
        lora_rank,
        margins,
        one_prompt,
        one_update,
        overoptimisation,
        pair_tokens,
        pass_at_k,
        playground,
        random_rewards,
        random_rewards_smollm2,
        sensitivity,
        shipped_runs,
        taste,
        tuned,
        tuned_arithmetic,
        tuned_sentiment,
    )
