"""The main comparison: every method at its defaults, tuned at equal tokens, and tuned at equal KL.

docs/results/protocol.md says how, and `lab.experiments.tuned_plan` holds the plan.
"""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

from lab.analysis.statistics import interval
from lab.analysis.tuned_view import VIEW_TITLES
from lab.experiments.arms import command_line, record_plan, reward_model_run
from lab.experiments.process_pool import write_table
from lab.experiments.protocol import Log
from lab.experiments.run_log import RunLog
from lab.experiments.tuned_plan import PLAN, TunedPlan
from lab.experiments.tuned_report import render_report, tabulate_tuned
from lab.experiments.tuned_runs import (
    PlannedRun,
    accuracy_at_kl,
    build_plan_pairs,
    measure_untrained,
    require_valid_trials,
    reward_settings,
    run_planned,
)

__all__ = ["render_report", "run_experiment"]


def run_experiment(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Tune every method, train it with fresh seeds in three views, and tabulate (`ExperimentCode`)."""
    return run_plan("tuned", PLAN, out, seeds, device, jobs, say)


def run_plan(
    name: str, plan: TunedPlan, out: Path, seeds: int, device: str, jobs: int, say: Log
) -> dict[str, Any]:
    """Make all runs of a plan; `name` is the experiment on the command line.

    Every finished run is a line of runs.jsonl in `out`, so that a killed experiment loses at most the
    runs that were in progress.
    """
    interval([0.0] * seeds)
    for arm in plan.arms:
        require_valid_trials(plan, arm)
    record_plan(out, {"experiment": name, "device": device} | asdict(plan))
    log = RunLog(out / "runs.jsonl", device)
    final_seeds = [plan.first_seed + i for i in range(seeds)]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        pool.submit(build_plan_pairs, plan, out, device).result()
        runner = _Runner(plan, out, device, log, pool, say)
        runner.measure_base([*plan.tuning_seeds], "tuning")
        runner.measure_base(final_seeds, "test")
        runner.run(trial_runs(plan))
        chosen = choose_settings(plan, log)
        table = write_results(name, plan, out, log, seeds, device)
        for view in VIEW_TITLES:
            settings = {
                arm: {} if view == "defaults" else views[view]["settings"]
                for arm, views in chosen.items()
            }
            runner.run([PlannedRun(view, a, s, settings[a]) for a in settings for s in final_seeds])
            table = write_results(name, plan, out, log, seeds, device)
    return table


def write_results(
    name: str, plan: TunedPlan, out: Path, log: RunLog, seeds: int, device: str
) -> dict[str, Any]:
    """Write table.json and report.md from the runs that are in the log so far; return the table."""
    table = {
        "command": command_line(name, seeds, device),
        **log.origin,
        "commit": ", ".join(log.commits()),
        "seeds": seeds,
        "plan": asdict(plan),
        **tabulate_tuned(
            plan, log.rows, choose_settings(plan, log), [plan.first_seed + i for i in range(seeds)]
        ),
    }
    write_table(out, table, render_report(table))
    return table


def trial_runs(plan: TunedPlan) -> list[PlannedRun]:
    """Return the runs of tuning: equally many for every arm."""
    return [
        PlannedRun("tuning", arm.name, seed, plan.trial_settings(arm, trial), trial)
        for seed in plan.tuning_seeds
        for trial in range(plan.trials)
        for arm in plan.arms
    ]


def choose_settings(plan: TunedPlan, log: RunLog) -> dict[str, dict[str, Any]]:
    """Return for every arm whose trials are done, and for every tuned view, the trial with the highest
    mean score over tuning seeds, its settings, and the scores of all trials.

    The score at equal tokens is the accuracy of the last look, and at equal KL `accuracy_at_kl`. A
    trial that failed scores 0. Of equal scores the first counts.
    """
    base = {seed: log.rows[f"base-tuning-{seed}"]["gold/accuracy"] for seed in plan.tuning_seeds}
    trials = trial_runs(plan)
    tuned = [
        arm
        for arm in plan.arms
        if all(log.has(t.key, t.settings) for t in trials if t.arm == arm.name)
    ]

    def score(view: str, planned: PlannedRun) -> float:
        row = log.rows[planned.key]
        if "failed" in row:
            return 0.0
        if view == "tokens":
            return float(row["looks"][-1]["gold/accuracy"])
        return accuracy_at_kl(row["looks"], base[planned.seed], plan.kl)

    chosen: dict[str, dict[str, Any]] = {}
    for arm in tuned:
        chosen[arm.name] = {}
        for view in ("tokens", "kl"):
            scores = [
                fmean(
                    score(view, planned)
                    for planned in trials
                    if (planned.arm, planned.trial) == (arm.name, trial)
                )
                for trial in range(plan.trials)
            ]
            best = max(range(plan.trials), key=lambda trial: scores[trial])
            chosen[arm.name][view] = {
                "trial": best,
                "settings": plan.trial_settings(arm, best),
                "scores": scores,
            }
    return chosen


class _Runner:
    """Makes the runs that the log does not hold yet, in a pool of processes."""

    def __init__(
        self,
        plan: TunedPlan,
        out: Path,
        device: str,
        log: RunLog,
        pool: ProcessPoolExecutor,
        say: Log,
    ) -> None:
        self.plan, self.out, self.device = plan, out, device
        self.log, self.pool, self.say = log, pool, say

    def measure_base(self, seeds: Sequence[int], part: str) -> None:
        """Measure the untrained model on the "tuning" or "test" prompts with the noise of every seed."""
        plan = self.plan
        prompts, samples = plan.tuning_prompts, 1
        if part == "test":
            prompts, samples = plan.test_prompts, plan.samples
        futures = {
            seed: self.pool.submit(measure_untrained, plan, seed, self.device, prompts, samples)
            for seed in seeds
            if f"base-{part}-{seed}" not in self.log.rows
        }
        for seed, measured in futures.items():
            row = {"view": "base", "seed": seed} | measured.result()
            self.log.append(f"base-{part}-{seed}", row)

    def run(self, planned: Sequence[PlannedRun]) -> None:
        """Make the runs that are missing, those of the last arms first, because they take longest. The
        reward models that they need come before, because runs share them.
        """
        missing = [one for one in planned if not self.log.has(one.key, one.settings)]
        scored = {one.seed for one in missing if self.plan.arm(one.arm).scored_by_model}
        knobs = reward_settings(self.plan, self.out)
        for model in [
            self.pool.submit(reward_model_run, self.out, knobs, seed, self.device)
            for seed in sorted(scored)
        ]:
            self.say(f"reward model {model.result().name}")
        order = {arm.name: -place for place, arm in enumerate(self.plan.arms)}
        futures = {
            self.pool.submit(run_planned, self.plan, self.out, one, self.device): one
            for one in sorted(missing, key=lambda one: order[one.arm])
        }
        for done in as_completed(futures):
            row = self.log.append(futures[done].key, done.result())
            self.say(f"{_summary(row)}, {len(self.log.rows)} runs so far")


def _summary(row: dict[str, Any]) -> str:
    """A finished run in one line."""
    if "failed" in row:
        return f"{row['key']}: {row['failed']}"
    measured = row if "gold/accuracy" in row else row["looks"][-1]
    return f"{row['key']}: gold accuracy {measured['gold/accuracy']:.3f}, KL {measured['kl']:.2f}"
