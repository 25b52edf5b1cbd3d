"""What a baseline does to the gradient: its variance without a baseline, with the mean of the batch or
of the group, leave-one-out, and with PPO's critic, for several group sizes.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lab.algorithms.advantages import dead_groups, group_advantages, leave_one_out_advantages
from lab.analysis.statistics import interval
from lab.config.methods import make_config
from lab.data.batching import TokenBatch
from lab.engine.sampler import sample
from lab.engine.token_logprobs import token_statistics
from lab.experiments.arms import command_line, device_name, record_plan
from lab.experiments.process_pool import map_cached, round_significant, write_table
from lab.experiments.protocol import Log
from lab.models.loading import fitting_threads
from lab.runs.records import StepRecord
from lab.tasks.prompting import render_prompts
from lab.training.loop import prepare, train
from lab.training.method_state import PPOState
from lab.training.state import TrainState

BASELINES = {
    "none": "no baseline",
    "batch": "mean of the batch",
    "group": "mean of the group",
    "leave_one_out": "mean of the others of the group",
    "critic": "critic",
}
"""The baselines by name, with their words."""


@dataclass(frozen=True)
class BaselinesPlan:
    """PPO trains by the rule, and after `looks` updates its policy and its critic are measured: for every
    group size on `rollouts` rollouts of `completions` completions.
    """

    looks: tuple[int, ...] = (20, 60)
    group_sizes: tuple[int, ...] = (2, 4, 8, 16)
    completions: int = 32
    rollouts: int = 24


PLAN = BaselinesPlan()


def baseline_advantages(rewards: torch.Tensor, group_size: int) -> dict[str, torch.Tensor]:
    """Return reward minus baseline (N,) for every baseline but the critic, scaled so that the expected
    gradient is the same.

    A mean that includes the completion itself makes the gradient smaller by the factor 1 − 1/n, so it
    is divided by it. Then the mean of the group and leave-one-out are one estimator.
    Anchor: rewards 1, 0 with G = 2 give 1, 0 without and 1, −1 with any other baseline.
    """
    n = len(rewards)
    return {
        "none": rewards,
        "batch": (rewards - rewards.mean()) * n / (n - 1),
        "group": group_advantages(rewards, group_size, scale="none")
        * group_size
        / (group_size - 1),
        "leave_one_out": leave_one_out_advantages(rewards, group_size),
    }


def total_variance(gradients: torch.Tensor) -> float:
    """Return the trace of the covariance of gradients (R, P), unbiased.

    Anchor: (0, 0) and (2, 2) have variance 2 in each entry, 4 in all.
    """
    return gradients.var(0).sum().item()


def gradient_rows(run: TrainState[Any], plan: BaselinesPlan, group_size: int) -> dict[str, Any]:
    """Measure the gradients of one policy for a group size: for each baseline the variance relative to
    no baseline and the mean size of the advantages; the share of dead groups.
    """
    weights = list(run.trainable_parameters()["learning_rate"].values())
    gradients: dict[str, list[torch.Tensor]] = {name: [] for name in BASELINES}
    sizes: dict[str, list[float]] = {name: [] for name in BASELINES}
    dead: list[float] = []
    for index in range(plan.rollouts):
        tokens, rewards = _rollout(run, plan.completions, group_size, index)
        dead.append(dead_groups(rewards, group_size).float().mean().item())
        with torch.no_grad():
            values = PPOState.of(run).critic.values(tokens)
        weightings = {
            name: one[:, None].expand_as(values)
            for name, one in baseline_advantages(rewards, group_size).items()
        } | {"critic": rewards[:, None] - values}
        for name, advantages in weightings.items():
            used = advantages * tokens.completion_mask
            loss = (token_statistics(run.model, tokens).logps * used).sum() / len(rewards)
            parts = torch.autograd.grad(loss, weights)
            gradients[name].append(torch.cat([part.flatten() for part in parts]))
            sizes[name].append(used.abs().sum().item() / tokens.completion_mask.sum().item())
    variances = {name: total_variance(torch.stack(found)) for name, found in gradients.items()}
    return {
        "dead": sum(dead) / len(dead),
        "variance": {name: value / variances["none"] for name, value in variances.items()},
        "size": {name: sum(found) / len(found) for name, found in sizes.items()},
    }


def _rollout(
    run: TrainState[Any], completions: int, group_size: int, index: int
) -> tuple[TokenBatch, torch.Tensor]:
    """Fresh completions of training prompts, with the rewards (N,) of the task's rule."""
    problems = run.task.train_problems(completions // group_size, run.config.seed, 10_000 + index)
    drawn = sample(
        run.model,
        run.tokenizer,
        render_prompts(run.tokenizer, problems),
        group_size,
        max_tokens=run.config.max_completion_tokens,
        temperature=1.0,
        seed=run.config.seed,
        step=index,
        device=run.device,
        stream="baselines",
    )
    owners = [problem for problem in problems for _ in range(group_size)]
    scores = [run.task.score(p, text).answer or 0.0 for p, text in zip(owners, drawn.texts)]
    return TokenBatch(drawn.ids, drawn.completion_mask), torch.tensor(scores, device=run.device)


def measure_seed(plan: BaselinesPlan, seed: int, device: str) -> dict[str, Any]:
    """Train PPO with one seed; return for every look and group size what `gradient_rows` measures."""
    run = prepare(
        make_config(
            "ppo",
            {"seed": seed, "steps": plan.looks[-1], "eval_every": 0, "eval_prompts": 2}
            | {"device": device},
        )
    )
    found = {}
    with fitting_threads(run.model):
        for record in train(run):
            if isinstance(record, StepRecord) and record.step in plan.looks:
                for group_size in plan.group_sizes:
                    found[f"{record.step}/{group_size}"] = gradient_rows(run, plan, group_size)
    return found


def run_experiment(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Measure the gradient of every seed's policy (`ExperimentCode`)."""
    interval([0.0] * seeds)
    record_plan(out, {"experiment": "baselines", "device": device} | asdict(PLAN))
    runs = map_cached(
        out, measure_seed, {f"seed-{s}": (PLAN, s, device) for s in range(seeds)}, jobs, say
    )
    rows = []
    for look in PLAN.looks:
        for group_size in PLAN.group_sizes:
            found = [runs[f"seed-{s}"][f"{look}/{group_size}"] for s in range(seeds)]
            rows.append(
                {"updates": look, "group_size": group_size}
                | {"dead": asdict(interval([one["dead"] for one in found]))}
                | {
                    measure: {
                        name: asdict(interval([one[measure][name] for one in found]))
                        for name in BASELINES
                    }
                    for measure in ("variance", "size")
                }
            )
    table = {
        "command": command_line("baselines", seeds, device),
        "device": device_name(device),
        "torch": torch.__version__.partition("+")[0],
        "seeds": seeds,
        "plan": asdict(PLAN),
        "rows": round_significant(rows),
    }
    write_table(out, table, render_report(table))
    return table


def render_report(table: Mapping[str, Any]) -> str:
    """Return the variances relative to no baseline, and the sizes of advantages, as Markdown."""
    names = list(BASELINES)[1:]
    lines = [
        "# The variance of the gradient with different baselines",
        "",
        (
            f"`{table['command']}` on {table['device']}; {table['seeds']} seeds, ± half the 95 %"
            f" interval; {table['plan']['rollouts']} rollouts of {table['plan']['completions']}"
            " completions. Variance of the gradient without a baseline = 1."
        ),
        "",
        f"| updates | G | dead groups | {' | '.join(BASELINES[name] for name in names)} |",
        "| --- " * (len(names) + 3) + "|",
    ]
    for row in table["rows"]:
        cells = [
            f"{row['variance'][name]['mean']:.2f} ± {row['variance'][name]['half']:.2f}"
            for name in names
        ]
        lines.append(
            f"| {row['updates']} | {row['group_size']} | {row['dead']['mean']:.2f} |"
            f" {' | '.join(cells)} |"
        )
    return "\n".join(lines) + "\n"
