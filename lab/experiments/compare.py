"""The comparison of methods: each from the same base, on the same data, at an equal budget, with
several seeds; one table with intervals.
"""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from lab.analysis.recorded_results import judged_differences
from lab.analysis.statistics import interval
from lab.config.methods import make_config
from lab.experiments.arms import (
    EVALUATION_PROMPTS,
    EVALUATION_SAMPLES,
    Arm,
    cached_json,
    measure_base,
    record_plan,
    reward_model_run,
    reward_source,
    run_arm,
)
from lab.experiments.comparison_plan import ComparisonPlan, command_of
from lab.experiments.comparison_report import comparison_csv, comparison_measures, comparison_report
from lab.experiments.protocol import Log
from lab.experiments.run_log import record_origin
from lab.profiling.profiler import profile_update
from lab.storage.jsonl import replace_file
from lab.tasks.registry import task_of


def run_comparison(
    plan: ComparisonPlan, out: Path, say: Log = lambda text: None, jobs: int = 1
) -> dict[str, Any]:
    """Trains and measures every method with every seed, `jobs` runs at a time; writes table.json,
    table.csv and report.md.

    An interrupted comparison continues when it is called again, and more seeds extend it. Raises
    `LabError` when `out` holds another plan.
    """
    record_plan(out, {name: value for name, value in asdict(plan).items() if name != "seeds"})
    base = cached_json(
        out / "base.json", lambda: measure_base(plan.config(plan.arm(plan.methods[0])))
    )
    runs = measure_all(plan, out, say, jobs)
    costs = {}
    for arm in map(plan.arm, plan.methods):
        measure_cost = partial(update_cost, arm, plan.device, out)
        costs[arm.name] = cached_json(out / f"{arm.name}-cost.json", measure_cost)
    table = tabulate_comparison(plan, base, runs, costs)
    replace_file(out / "table.json", (json.dumps(table, indent=1) + "\n").encode())
    replace_file(out / "table.csv", comparison_csv(table).encode())
    replace_file(out / "report.md", comparison_report(table).encode())
    return table


def measure_all(
    plan: ComparisonPlan, out: Path, say: Log, jobs: int
) -> dict[str, list[dict[str, Any]]]:
    """Returns for every method its measurements in the order of the seeds. With one job the runs are
    made in this process; with more, each in a process of its own.
    """
    knobs = plan.shared("reward_model")
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in plan.methods}
    with _started(jobs) as start:
        judges = [
            result()
            for result in [
                start(partial(reward_model_run, out, knobs, seed, plan.device))
                for seed in range(plan.seeds)
            ]
        ]
        results = {
            (name, seed): start(
                partial(run_arm, out, plan.arm(name), seed, plan.device, plan.spent, judge)
            )
            for seed, judge in enumerate(judges)
            for name in plan.methods
        }
        for (name, seed), measured in results.items():
            result = measured()
            runs[name].append(result)
            say(
                f"{name:16} seed {seed}: gold {result['gold/accuracy']:.3f}  KL {result['kl']:.2f} "
                f" {result['updates']} updates, {result['seconds']:.1f} s of training"
            )
    return runs


@contextmanager
def _started(jobs: int) -> Iterator[Callable[[Callable[[], Any]], Callable[[], Any]]]:
    """A function that starts some work in one of `jobs` processes and returns a function that waits for
    its result; with one job the work is done in this process when its result is asked for.
    """
    if jobs == 1:
        yield lambda work: work
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield lambda work: pool.submit(work).result


def update_cost(arm: Arm, device: str, out: Path) -> dict[str, Any]:
    """Measures what one update of an arm costs: models, copies of the weights, peak memory in bytes
    by kind, forward and backward tokens, FLOPs, joules.
    """
    knobs = {"device": device} | arm.knobs | reward_source(out, arm, 0, device)
    measured = profile_update(make_config(arm.method, knobs), rollouts=1)
    memory = max(measured.memory.values(), key=lambda kinds: sum(kinds.values()))
    return {
        "models": measured.models,
        "copies": measured.copies,
        "memory": memory,
        "largest_cache": measured.largest_cache,
        "allocated": measured.allocated,
        "batch": list(measured.batch),
        "tokens": measured.tokens,
        "flops": measured.flops,
        "joules": measured.joules,
    }


def tabulate_comparison(
    plan: ComparisonPlan,
    base: dict[str, Any],
    runs: dict[str, list[dict[str, Any]]],
    costs: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Returns the table: every measure as a mean with its interval, the cost of an update, and the
    differences in gold accuracy between every two methods with their words.
    """
    rows = [
        {"method": name, "title": plan.title(name)}
        | {m: asdict(interval([r[m] for r in results])) for m in comparison_measures(base)}
        | {"cost": costs[plan.arm(name).name]}
        for name, results in runs.items()
    ]
    differences = [
        {
            "first": first,
            "second": second,
            **asdict(judgement.difference.interval),
            "p_value": judgement.p_value,
            "word": judgement.word,
        }
        for first, second, judgement in judged_differences(runs)
    ]
    prompts = len(task_of(plan.config(plan.arm(plan.methods[0]))).held_out(EVALUATION_PROMPTS))
    return {
        **record_origin(command_of(plan), plan.device),
        "plan": asdict(plan),
        "evaluation": f"{prompts} held-out prompts x {EVALUATION_SAMPLES} completions",
        "base": base,
        "methods": rows,
        "differences in gold/accuracy": differences,
        "runs": runs,
    }
