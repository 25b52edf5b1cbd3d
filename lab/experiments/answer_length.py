"""How long right and wrong answers become while GRPO trains, under three reductions of the loss.

Dr. GRPO (arXiv 2503.20783) says that the division by a completion's own length (sequence_mean) makes wrong
answers grow. The chains have 3 to 9 operations, so that some answers stay wrong, and a completion may have
several times the tokens that a scratchpad needs. `lab.experiments.answer_length_smollm2` has another plan.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from lab.analysis.answer_length import KINDS, REDUCTIONS
from lab.analysis.comparison_words import (
    Difference,
    Judgement,
    against_constant,
    judge,
    paired_difference,
)
from lab.analysis.statistics import interval
from lab.config.methods import make_config
from lab.experiments.answer_length_report import render_report
from lab.experiments.arms import record_plan
from lab.experiments.chain_lengths import ChainsOfLength
from lab.experiments.logged_runs import LoggedRun, make_missing, record_head
from lab.experiments.process_pool import mean_over_seeds, round_significant, write_table
from lab.experiments.protocol import Log
from lab.experiments.run_log import RunLog
from lab.models.loading import fitting_threads
from lab.runs.records import StepRecord
from lab.tasks.chain import scratchpad
from lab.training.loop import prepare, train
from lab.training.rollout import Rollout

__all__ = ["render_report", "run_experiment", "run_plan"]

MODULES = ("answer_length", "answer_length_smollm2", "chain_lengths")
WORDS = ("longer", "shorter")


@dataclass(frozen=True)
class LengthPlan:
    """GRPO trains `updates` updates with completions of up to `max_tokens` tokens, on chains of
    `operations` (fewest, most) or, where that is None, on the task that `settings` name. Measures are means
    over `bin` updates; the middle ends after `middle` updates. `window` bins make up the middle and the end.
    """

    operations: tuple[int, int] | None = (3, 9)
    settings: dict[str, Any] = field(default_factory=dict)
    max_tokens: int = 192
    updates: int = 150
    bin: int = 10
    middle: int = 60
    window: int = 3
    first_seed: int = 3000


PLAN = LengthPlan()


def scratchpad_tokens(prompt: str) -> int:
    """Return the tokens of a full scratchpad, its answer and the end: each think tag is one token.

    Anchor: `1+2=` has <think> 1 + 2 = 3 </think> 3 and the end: 9 tokens.
    """
    tags = len("<think>") + len("</think>")
    return len(scratchpad(prompt)) - tags + 2 + 1


def rollout_sums(rollout: Rollout, on_chains: bool = True) -> dict[str, float]:
    """Return sums over the right and over the wrong completions of a rollout: their number, their tokens,
    those that think first, and their tokens relative to a full scratchpad of their chain (without
    chains: their tokens).
    """
    sums = {
        f"{kind}_{name}": 0.0
        for kind in KINDS
        for name in ("count", "tokens", "thinking", "relative")
    }
    lengths = rollout.completion_mask.sum(1).tolist()
    for i, (tokens, reward) in enumerate(zip(lengths, rollout.rewards.tolist())):
        kind = "right" if reward else "wrong"
        sums[f"{kind}_count"] += 1
        sums[f"{kind}_tokens"] += tokens
        sums[f"{kind}_thinking"] += rollout.texts[i].startswith("<think>")
        prompt = rollout.prompts[i // rollout.group_size]
        sums[f"{kind}_relative"] += tokens / (scratchpad_tokens(prompt) if on_chains else 1)
    return sums | {"truncated_count": float(rollout.truncated.sum())}


def bin_measures(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the measures of one bin of updates from the sums of its rollouts.

    A bin without any right or wrong completion has length 0 and share 0 for that kind.
    """
    total = {name: sum(part[name] for part in parts) for name in parts[0]}
    everything = total["right_count"] + total["wrong_count"]
    found = {
        "accuracy": total["right_count"] / everything,
        "truncated": total["truncated_count"] / everything,
    }
    for kind in KINDS:
        count = max(1.0, total[f"{kind}_count"])
        found |= {
            f"{kind}_{name}": total[f"{kind}_{name}"] / count
            for name in ("tokens", "thinking", "relative")
        }
    return found


def measure_reduction(plan: LengthPlan, reduction: str, seed: int, device: str) -> dict[str, Any]:
    """Train GRPO with one reduction and one seed; return the measures of every bin of updates."""
    start = time.monotonic()
    settings = {"loss_aggregation": reduction, "max_completion_tokens": plan.max_tokens}
    settings |= {"steps": plan.updates, "eval_every": 0, "eval_prompts": 2}
    settings |= plan.settings | {"seed": seed, "device": device}
    run = prepare(make_config("grpo", settings))
    if plan.operations is not None:
        run.task = ChainsOfLength(*plan.operations)
    sums, entropies = [], []
    with fitting_threads(run.model):
        for record in train(run):
            if isinstance(record, StepRecord) and run.step:
                assert run.rollout is not None
                sums.append(rollout_sums(run.rollout, plan.operations is not None))
                entropies.append(record.metrics["entropy"])
    starts = range(0, plan.updates, plan.bin)
    bins = [bin_measures(sums[i : i + plan.bin]) for i in starts]
    return {
        "reduction": reduction,
        "seed": seed,
        **{name: [one[name] for one in bins] for name in bins[0]},
        "entropy": [
            sum(part) / len(part) for part in (entropies[i : i + plan.bin] for i in starts)
        ],
        "sampled": run.generated,
        "seconds": time.monotonic() - start,
    }


def window_mean(plan: LengthPlan, values: Sequence[float], which: str) -> float:
    """Return the mean of the bins of the "middle" or of the "end"."""
    end = plan.middle // plan.bin if which == "middle" else len(values)
    part = values[end - plan.window : end]
    return sum(part) / len(part)


def run_experiment(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Train GRPO on chains with every reduction and seed (`ExperimentCode`)."""
    return run_plan("answer_length", PLAN, out, seeds, device, jobs, say)


def run_plan(
    name: str, plan: LengthPlan, out: Path, seeds: int, device: str, jobs: int, say: Log
) -> dict[str, Any]:
    """Train GRPO by a plan with every reduction and seed, and tabulate."""
    interval([0.0] * seeds)
    record_plan(out, {"experiment": name, "device": device} | asdict(plan))
    log = RunLog(out / "runs.jsonl", device, *MODULES)
    numbers = [plan.first_seed + i for i in range(seeds)]
    planned = [
        LoggedRun(f"{reduction}-{seed}", measure_reduction, (plan, reduction, seed, device))
        for seed in numbers
        for reduction in REDUCTIONS
    ]
    make_missing(log, planned, jobs, say)
    runs = {arm: [log.rows[f"{arm}-{seed}"] for seed in numbers] for arm in REDUCTIONS}
    table = record_head(name, log, seeds, device) | {
        "plan": asdict(plan),
        "comparisons": round_significant(compare_reductions(plan, runs)),
        "rows": [round_significant(_row(plan, arm, rows)) for arm, rows in runs.items()],
    }
    write_table(out, table, render_report(table))
    return table


def _row(plan: LengthPlan, name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    measures = ["accuracy", "truncated", "entropy"]
    measures += [f"{kind}_{what}" for kind in KINDS for what in ("tokens", "thinking", "relative")]
    return {
        "reduction": name,
        "updates": list(range(plan.bin, plan.updates + 1, plan.bin)),
        **{measure: mean_over_seeds([row[measure] for row in rows]) for measure in measures},
        "end": {
            measure: asdict(interval([window_mean(plan, row[measure], "end") for row in rows]))
            for measure in measures
        },
        "sampled": asdict(interval([row["sampled"] for row in rows])),
    }


def compare_reductions(
    plan: LengthPlan, runs: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[dict[str, Any]]:
    """Return words for the relative length of right and of wrong completions, one family for each: every
    two reductions at the end, and for each reduction the end minus the middle of training.

    The reductions of a seed share prompts and sampling noise, so they are paired by seed.
    """
    found = []
    for kind in KINDS:
        ends, growth = {}, {}
        for name, rows in runs.items():
            middle, end = (
                [window_mean(plan, row[f"{kind}_relative"], which) for row in rows]
                for which in ("middle", "end")
            )
            ends[name] = end
            growth[name] = against_constant([a - b for a, b in zip(end, middle)], 0.0)
        pairs = list(combinations(runs, 2))
        differences: list[Difference] = [
            *(paired_difference(ends[first], ends[second]) for first, second in pairs),
            *growth.values(),
        ]
        names = [*({"first": a, "second": b} for a, b in pairs), *({"grows": a} for a in growth)]
        judged = judge(differences, words=WORDS)
        found += [{"kind": kind} | name | _as_record(one) for name, one in zip(names, judged)]
    return found


def _as_record(one: Judgement) -> dict[str, Any]:
    return asdict(one.difference.interval) | {"word": one.word, "p": one.p_value}
