"""LoRA of every rank against full fine-tuning: the same DPO run, each at the best learning rate of its own.

The question is that of "LoRA without regret" (Schulman et al. 2025): from which rank on LoRA loses nothing.
docs/results/lora-rank.md says how the learning rates are chosen.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from lab.analysis.comparison_words import Judgement, judge
from lab.analysis.crossed_design import crossed_mean
from lab.analysis.lora_rank import rank_title
from lab.analysis.statistics import interval
from lab.config.methods import make_config
from lab.errors import LabError
from lab.experiments.arms import record_plan
from lab.experiments.logged_runs import LoggedRun, make_missing, record_head
from lab.experiments.lora_rank_report import render_report
from lab.experiments.process_pool import round_significant, write_table
from lab.experiments.protocol import Log
from lab.experiments.run_log import RunLog
from lab.experiments.tuned_runs import measure
from lab.models.loading import fitting_threads
from lab.runs.records import StepRecord
from lab.training.loop import prepare, train

__all__ = ["render_report", "run_experiment"]

MODULES = ("lora_rank",)
FULL = 0
FIRST_TRIALS = 4


@dataclass(frozen=True)
class RankPlan:
    """One pass of DPO over the shipped pairs, for every rank; rank 0 is full fine-tuning.

    Tuning: every rank tries the four learning rates of `ladder` from `lora_from` on, full fine-tuning those
    from `full_from` on, with every tuning seed; where the best of them is the lowest or the highest, also
    the next one beyond, at most `extensions` times. The rate with the highest accuracy on the tuning
    prompts is the rank's own. Then come the final seeds with fresh test prompts.
    """

    ranks: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, FULL)
    ladder: tuple[float, ...] = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    lora_from: int = 3
    full_from: int = 1
    extensions: int = 2
    settings: dict[str, Any] = field(default_factory=lambda: {"steps": 125, "batch_size": 16})
    last_updates: int = 25
    tuning_seeds: tuple[int, ...] = (1000,)
    first_seed: int = 4000
    tuning_prompts: tuple[int, int] = (0, 192)
    test_prompts: tuple[int, int] = (512, 1024)
    tuning_samples: int = 1
    test_samples: int = 2
    margin: float = 0.02


PLAN = RankPlan()


def train_rank(
    plan: RankPlan, part: str, rank: int, rate: float, seed: int, device: str
) -> dict[str, Any]:
    """Train one run and measure it on the prompts of the part, "tuning" or "test"; a run whose loss is not
    finite has accuracy 0.
    """
    start = time.monotonic()
    prompts, samples = plan.test_prompts, plan.test_samples
    if part == "tuning":
        prompts, samples = plan.tuning_prompts, plan.tuning_samples
    settings = {"lora_rank": rank, "learning_rate": rate, "seed": seed, "device": device}
    run = prepare(
        make_config("dpo", plan.settings | settings | {"eval_every": 0, "eval_prompts": 2})
    )
    weights = sum(
        w.numel() for group in run.trainable_parameters().values() for w in group.values()
    )
    losses: list[float] = []
    found: dict[str, Any] = {"gold/accuracy": 0.0}
    try:
        with fitting_threads(run.model):
            for record in train(run):
                if isinstance(record, StepRecord) and record.step:
                    losses.append(record.metrics["loss"])
        found = measure(run, prompts, seed, samples)
    except LabError as error:
        found["failed"] = str(error)
    return found | {
        "rank": rank,
        "learning_rate": rate,
        "seed": seed,
        "trained_weights": weights,
        "loss": fmean(losses[-plan.last_updates :]) if losses else math.nan,
        "updates": run.step,
        "seconds": time.monotonic() - start,
    }


def run_experiment(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Tune the learning rate of every rank, then train it with fresh seeds (`ExperimentCode`)."""
    return run_plan(PLAN, out, seeds, device, jobs, say)


def run_plan(
    plan: RankPlan, out: Path, seeds: int, device: str, jobs: int, say: Log
) -> dict[str, Any]:
    """Make all runs of a plan and tabulate them."""
    interval([0.0] * seeds)
    record_plan(out, {"experiment": "lora_rank", "device": device} | asdict(plan))
    log = RunLog(out / "runs.jsonl", device, *MODULES)

    def make(part: str, wanted: Sequence[tuple[int, float]], numbers: Sequence[int]) -> None:
        runs = [
            LoggedRun(
                run_key(part, rank, rate, seed), train_rank, (plan, part, rank, rate, seed, device)
            )
            for seed in numbers
            for rank, rate in wanted
        ]
        make_missing(log, runs, jobs, say)

    for _ in range(1 + plan.extensions):
        wanted = [(rank, rate) for rank in plan.ranks for rate in next_rates(plan, log.rows, rank)]
        make("tuning", wanted, plan.tuning_seeds)
    chosen = {rank: best_rate(plan, log.rows, rank) for rank in plan.ranks}
    numbers = [plan.first_seed + i for i in range(seeds)]
    make("test", list(chosen.items()), numbers)
    rows = [rank_row(plan, log.rows, rank, rate, numbers) for rank, rate in chosen.items()]
    table = record_head("lora_rank", log, seeds, device) | {
        "plan": asdict(plan),
        "comparisons": round_significant(compare_with_full(plan, rows)),
        "rows": [
            round_significant({name: value for name, value in row.items() if name != "right"})
            | {"right": row["right"]}
            for row in rows
        ],
    }
    write_table(out, table, render_report(table))
    return table


def run_key(part: str, rank: int, rate: float, seed: int) -> str:
    """Return the name of a run in the log."""
    return f"{part}-{rank}-{rate:g}-{seed}"


def next_rates(plan: RankPlan, rows: Mapping[str, Mapping[str, Any]], rank: int) -> list[float]:
    """Return the learning rates that a rank tries next: at first four, then one beyond the lowest or the
    highest where that is the best so far and the plan allows a further one, else none.
    """
    start = plan.full_from if rank == FULL else plan.lora_from
    tried = list(trials(plan, rows, rank))
    first = [rate for rate in plan.ladder[start : start + FIRST_TRIALS] if rate not in tried]
    if first or len(tried) >= FIRST_TRIALS + plan.extensions:
        return first
    best, low, high = (
        plan.ladder.index(x) for x in (best_rate(plan, rows, rank), tried[0], tried[-1])
    )
    beyond = {low: low - 1, high: high + 1}.get(best, -1)
    return [plan.ladder[beyond]] if 0 <= beyond < len(plan.ladder) else []


def trials(plan: RankPlan, rows: Mapping[str, Mapping[str, Any]], rank: int) -> dict[float, list]:
    """Return the tuning runs of a rank by learning rate, in ascending order; rates whose runs are not all
    done are left out.
    """
    found: dict[float, list[Mapping[str, Any]]] = {}
    for key, row in rows.items():
        if key.startswith(f"tuning-{rank}-"):
            found.setdefault(row["learning_rate"], []).append(row)
    return {
        rate: runs for rate, runs in sorted(found.items()) if len(runs) == len(plan.tuning_seeds)
    }


def best_rate(plan: RankPlan, rows: Mapping[str, Mapping[str, Any]], rank: int) -> float:
    """Return the learning rate of a rank with the highest mean accuracy on the tuning prompts; of equal
    ones the lowest.
    """
    scores = {
        rate: fmean(run["gold/accuracy"] for run in runs)
        for rate, runs in trials(plan, rows, rank).items()
    }
    return max(scores, key=lambda rate: scores[rate])


def rank_row(
    plan: RankPlan,
    log: Mapping[str, Mapping[str, Any]],
    rank: int,
    rate: float,
    seeds: Sequence[int],
) -> dict[str, Any]:
    """Return the tuning trials of a rank and its measures over the final seeds."""
    runs = [log[run_key("test", rank, rate, seed)] for seed in seeds]
    tried = trials(plan, log, rank)
    return {
        "rank": rank,
        "title": rank_title(rank),
        "trained_weights": runs[0]["trained_weights"],
        "learning_rate": rate,
        "at_edge": rate in (min(tried), max(tried)),
        "trials": [
            {
                "learning_rate": tried_rate,
                "gold/accuracy": fmean(run["gold/accuracy"] for run in trial),
                "failed": sum("failed" in run for run in trial),
            }
            for tried_rate, trial in tried.items()
        ],
        "gold/accuracy": asdict(crossed_mean(scores(plan, runs)).interval),
        "by_seed": [run["gold/accuracy"] for run in runs],
        **{
            name: asdict(interval([run[name] for run in runs]))
            for name in ("kl", "loss", "seconds")
        },
        "right": [run["right"] for run in runs],
    }


def scores(plan: RankPlan, runs: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    """Return for every seed and test prompt the share of right completions."""
    return [[int(digit) / plan.test_samples for digit in run["right"]] for run in runs]


def compare_with_full(plan: RankPlan, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the word for the accuracy of every rank minus that of full fine-tuning: one family.

    All runs of a seed see the same batches and the same sampling noise, and all answer the same prompts,
    so a difference is paired over seeds and prompts.
    """
    by_rank = {
        row["rank"]: scores(plan, [{"right": right} for right in row["right"]]) for row in rows
    }
    full = by_rank.pop(FULL)
    differences = [
        crossed_mean([[x - y for x, y in zip(a, b)] for a, b in zip(ours, full)])
        for ours in by_rank.values()
    ]
    return [
        {"rank": rank} | _as_record(one)
        for rank, one in zip(by_rank, judge(differences, margin=plan.margin))
    ]


def _as_record(one: Judgement) -> dict[str, Any]:
    return asdict(one.difference.interval) | {"word": one.word, "p": one.p_value}
