"""Does training add abilities or only sharpen those of the base? pass@k of the base and of every method
for k = 1 to 256, on held-out chains and on longer ones where the base is weak, with diversity and entropy
beside it.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lab.analysis.pass_at_k import BASE, Counts, curve, differences_from_base
from lab.analysis.recorded_results import load_result
from lab.analysis.statistics import interval
from lab.config.methods import make_config
from lab.config.run_config import RunConfig
from lab.data.batching import TokenBatch
from lab.engine.sampler import Completions, sample
from lab.engine.token_logprobs import token_statistics
from lab.experiments.arms import record_plan
from lab.experiments.chain_lengths import ChainsOfLength
from lab.experiments.logged_runs import LoggedRun, make_missing, record_head
from lab.experiments.pass_at_k_report import render_report
from lab.experiments.process_pool import round_significant, write_table
from lab.experiments.protocol import Log
from lab.experiments.run_log import RunLog
from lab.experiments.tuned_plan import PLAN as TUNED
from lab.experiments.tuned_runs import PlannedRun, run_config, tokens_used, train_until
from lab.figures.palette import METHOD_NAMES
from lab.tasks.base import Problem, Task
from lab.tasks.chain import OPERATION_RANGE, scratchpad
from lab.tasks.prompting import render_prompts
from lab.tasks.registry import load_task
from lab.training.loop import prepare
from lab.training.state import TrainState

__all__ = ["render_report", "run_experiment"]

MODULES = ("pass_at_k", "chain_lengths")
SETS = ("default", "harder")
"""The sets of chains that every policy is measured on."""
COUNTS = {"right": "pass", "worked": "worked"}
"""For each count of right completions in a run, the curve of the table that is made from it."""
EXTRA_ARMS = {"grpo.defaults": "GRPO, defaults", "grpo.longer": "GRPO, defaults, longer chains"}
"""Arms besides the tuned ones, with their titles."""


@dataclass(frozen=True)
class PassPlan:
    """The settings of the experiment.

    `methods` train with the settings that tuning chose, to the token budget of the tuned comparison.
    Every policy writes `samples` completions for `prompts` chains of each set, `prompts_at_once` at a
    time; the first `scored` of each give entropy and KL. A harder chain has `fewest` to `most`
    operations and its completions up to `harder_tokens` tokens. Default chains begin after
    `first_prompt` of the held-out list. The arm grpo.longer trains `longer_updates` updates on chains of
    3 to `most` operations.
    """

    methods: tuple[str, ...] = ("sft", "dpo", "ipo", "kto", "online_dpo", "grpo", "ppo")
    ks: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    samples: int = 256
    prompts: int = 64
    first_prompt: int = 512
    prompts_at_once: int = 8
    scored: int = 16
    fewest: int = 7
    most: int = 9
    harder_tokens: int = 112
    longer_updates: int = 80
    first_seed: int = 3000
    tokens: int = TUNED.tokens


PLAN = PassPlan()


def problem_sets(plan: PassPlan) -> dict[str, tuple[list[Problem], int]]:
    """Return for each set its chains and the largest number of tokens of a completion."""
    default = load_task("chain").held_out(plan.first_prompt + plan.prompts)[plan.first_prompt :]
    harder = ChainsOfLength(plan.fewest, plan.most).held_out(plan.prompts)
    return {
        "default": (default, make_config("grpo").max_completion_tokens),
        "harder": (harder, plan.harder_tokens),
    }


def count_prompt(task: Task, problem: Problem, texts: Sequence[str]) -> dict[str, int]:
    """Count the completions of one chain.

    right: those with the right answer, among them lucky guesses
    worked: those that write every step, all steps and the answer right
    thinking: right ones with any scratchpad
    distinct: different completions
    distinct_thinking: different ones among `thinking`
    """
    right = [text for text in texts if task.score(problem, text).answer]
    thinking = [text for text in right if text.startswith("<think>")]
    return {
        "right": len(right),
        "worked": sum(text == scratchpad(problem.prompt) for text in right),
        "thinking": len(thinking),
        "distinct": len(set(texts)),
        "distinct_thinking": len(set(thinking)),
    }


def measure_set(
    run: TrainState[Any], plan: PassPlan, problems: Sequence[Problem], max_tokens: int, seed: int
) -> dict[str, Any]:
    """Sample completions of every chain; return the counts of `count_prompt` in the order of the chains,
    the mean length, and entropy per token and KL per completion of the first `scored` of each chain.
    """
    counts: dict[str, list[int]] = {}
    totals = {"entropy": 0.0, "kl": 0.0, "tokens": 0.0, "length": 0.0}
    for first in range(0, len(problems), plan.prompts_at_once):
        part = problems[first : first + plan.prompts_at_once]
        drawn = sample(
            run.model,
            run.tokenizer,
            render_prompts(run.tokenizer, part),
            plan.samples,
            max_tokens=max_tokens,
            temperature=1.0,
            seed=seed,
            step=first,
            device=run.device,
            stream=f"pass@k/{max_tokens}",
        )
        for i, problem in enumerate(part):
            texts = drawn.texts[i * plan.samples : (i + 1) * plan.samples]
            for name, count in count_prompt(run.task, problem, texts).items():
                counts.setdefault(name, []).append(count)
        totals["length"] += drawn.lengths.sum().item()
        for name, value in entropy_and_kl(run, plan, drawn).items():
            totals[name] += value
    return counts | {
        "entropy": totals["entropy"] / totals["tokens"],
        "kl": totals["kl"] / (len(problems) * min(plan.scored, plan.samples)),
        "length": totals["length"] / (len(problems) * plan.samples),
    }


@torch.no_grad()
def entropy_and_kl(run: TrainState[Any], plan: PassPlan, drawn: Completions) -> dict[str, float]:
    """Return sums over the first `scored` completions of each prompt: entropy and KL, both exact at every
    token, and tokens.
    """
    rows = torch.arange(len(drawn.texts))
    rows = rows[rows % plan.samples < plan.scored]
    tokens = TokenBatch(drawn.ids[rows], drawn.completion_mask[rows])
    found = token_statistics(run.model, tokens, reference=run.model, entropy=True)
    assert found.entropy is not None and found.kl is not None
    return {
        "entropy": found.entropy.sum().item(),
        "kl": found.kl.sum().item(),
        "tokens": float(tokens.completion_mask.sum().item()),
    }


def chosen_settings(method: str) -> dict[str, Any]:
    """Return the settings that tuning chose for equal tokens; empty where nothing was tuned."""
    chosen = load_result("tuned")["chosen"].get(method, {"tokens": {"settings": {}}})
    return dict(chosen["tokens"]["settings"])


def arm_settings(plan: PassPlan) -> dict[str, dict[str, Any]]:
    """Return every arm with the settings that differ from its method's defaults."""
    return (
        {BASE: {}}
        | {method: chosen_settings(method) for method in plan.methods}
        | {
            "grpo.defaults": {},
            "grpo.longer": {
                "steps": plan.longer_updates,
                "max_completion_tokens": plan.harder_tokens,
            },
        }
    )


def measure_arm(
    plan: PassPlan, out: Path, arm: str, settings: dict[str, Any], seed: int, device: str
) -> dict[str, Any]:
    """Train one arm with one seed and return its counts on both sets of chains."""
    start = time.monotonic()
    run = prepare(_config(plan, out, arm, settings, seed, device))
    if arm == "grpo.longer":
        run.task = ChainsOfLength(OPERATION_RANGE[0], plan.most)
    if arm != BASE:
        train_until(run, lambda run: arm in plan.methods and tokens_used(run) >= plan.tokens)
    return {
        "arm": arm,
        "seed": seed,
        **{
            name: measure_set(run, plan, problems, max_tokens, seed)
            for name, (problems, max_tokens) in problem_sets(plan).items()
        },
        "updates": run.step,
        "used": tokens_used(run),
        "seconds": time.monotonic() - start,
    }


def _config(
    plan: PassPlan, out: Path, arm: str, settings: dict[str, Any], seed: int, device: str
) -> RunConfig:
    """The config of an arm; that of the base trains nothing."""
    method = "sft" if arm == BASE else arm.partition(".")[0]
    view = "tokens" if arm in plan.methods else "defaults"
    return run_config(TUNED, out, PlannedRun(view, method, seed, settings), device)[0]


def run_experiment(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Train and sample every arm with every seed (`ExperimentCode`)."""
    plan = PLAN
    interval([0.0] * seeds)
    record_plan(out, {"experiment": "pass_at_k", "device": device} | asdict(plan))
    log = RunLog(out / "runs.jsonl", device, *MODULES)
    arms = arm_settings(plan)
    planned = [
        LoggedRun(
            f"{arm}-{plan.first_seed + i}",
            measure_arm,
            (plan, out, arm, settings, plan.first_seed + i, device),
            settings,
        )
        for i in range(seeds)
        for arm, settings in arms.items()
    ]
    make_missing(log, planned, jobs, say)
    rows = {arm: [log.rows[f"{arm}-{plan.first_seed + i}"] for i in range(seeds)] for arm in arms}
    table = record_head("pass_at_k", log, seeds, device) | {
        "plan": asdict(plan),
        "settings": arms,
        "rows": [round_significant(row) for name in SETS for row in set_rows(plan, name, rows)],
    }
    write_table(out, table, render_report(table))
    return table


def set_rows(
    plan: PassPlan, name: str, rows: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[dict[str, Any]]:
    """Return the row of every arm on one set of chains: curves, differences from the base, and diversity,
    entropy, KL and length with intervals over seeds.
    """
    measured = {arm: [row[name] for row in seeds] for arm, seeds in rows.items()}
    found = {arm: _arm_row(plan, name, arm, seeds) for arm, seeds in measured.items()}
    for count, to in COUNTS.items():
        counts: dict[str, Counts] = {
            arm: [one[count] for one in seeds] for arm, seeds in measured.items()
        }
        for arm, points in differences_from_base(counts, plan.samples, plan.ks).items():
            found[arm][f"{to}_differences"] = points
    for arm, seeds in rows.items():
        found[arm]["updates"] = asdict(interval([row["updates"] for row in seeds]))
    return list(found.values())


def _arm_row(
    plan: PassPlan, name: str, arm: str, seeds: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    title = {BASE: "base"} | EXTRA_ARMS | dict(METHOD_NAMES)
    return {
        "set": name,
        "arm": arm,
        "title": title[arm],
        **{
            to: curve([one[count] for one in seeds], plan.samples, plan.ks)
            for count, to in COUNTS.items()
        },
        **{
            measure: asdict(interval([one[measure] for one in seeds]))
            for measure in ("entropy", "kl", "length")
        },
        "distinct": asdict(
            interval([sum(one["distinct"]) / (plan.prompts * plan.samples) for one in seeds])
        ),
        "distinct_thinking": asdict(
            interval(
                [sum(one["distinct_thinking"]) / max(1, sum(one["thinking"])) for one in seeds]
            )
        ),
    }
