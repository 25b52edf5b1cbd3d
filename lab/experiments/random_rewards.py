"""Do random rewards teach when the clip is active? GRPO with a coin as the reward, with 1 and with 4 updates
on each rollout, with and without the clip; beside it the true reward.

arXiv 2506.10947 explains the gain from random rewards by the clip. With one update on a rollout the ratio
is 1 and nothing is clipped, so the clip can only act from the second update on.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from lab.analysis.comparison_words import Judgement, judge, recorded_text
from lab.analysis.crossed_design import Scores, crossed_difference, crossed_mean
from lab.analysis.random_rewards import BASE, REWARDS, arm_title
from lab.analysis.statistics import NOT_NEGATIVE, SHARE, Interval, interval
from lab.config.methods import make_config
from lab.experiments.arms import record_plan
from lab.experiments.logged_runs import LoggedRun, make_missing, record_head
from lab.experiments.process_pool import mean_over_seeds, round_significant, write_table
from lab.experiments.protocol import Log
from lab.experiments.run_log import RunLog
from lab.experiments.tuned_runs import measure
from lab.models.loading import fitting_threads
from lab.runs.records import StepRecord
from lab.training.loop import prepare, train

MODULES = ("random_rewards", "random_rewards_smollm2")
NO_CLIP = {"epsilon": 1.0, "epsilon_high": 10.0}
"""A ratio is never below 0, and one above 11 is rare: the share of clipped tokens shows how rare."""
VARIANTS: dict[str, dict[str, Any]] = {
    "once": {"updates_per_rollout": 1},
    "clip": {"updates_per_rollout": 4},
    "free": {"updates_per_rollout": 4} | NO_CLIP,
}
STEP_METRICS = {"clip_ratio/region_mean": "clipped", "kl": "kl", "entropy": "entropy"}
"""Metrics of every update, each with its name in the table."""


@dataclass(frozen=True)
class RandomPlan:
    """All arms make `updates` updates. Accuracy is measured on the held-out prompts from `test_prompts[0]`
    to before `test_prompts[1]`. Curves have the mean of every `bin` updates. `settings` hold for all arms.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    updates: int = 80
    bin: int = 8
    test_prompts: tuple[int, int] = (512, 1024)
    first_seed: int = 3000
    margin: float = 0.02


PLAN = RandomPlan()


def arms() -> dict[str, dict[str, Any]]:
    """Return the settings of every arm by its name, such as random.clip; the base has none."""
    return {
        f"{reward}.{variant}": {"reward": reward} | settings
        for reward in REWARDS
        for variant, settings in VARIANTS.items()
    }


def measure_arm(
    plan: RandomPlan, arm: str, settings: dict[str, Any], seed: int, device: str
) -> dict[str, Any]:
    """Train one arm with one seed (the base is only measured); return its curves, and accuracy and KL on
    the test prompts.

    "clipped_later" is the share of clipped tokens in the updates that reuse a rollout.
    """
    start = time.monotonic()
    common = {"steps": plan.updates, "eval_every": 0, "eval_prompts": 2}
    run = prepare(
        make_config("grpo", common | plan.settings | settings | {"seed": seed, "device": device})
    )
    metrics: dict[str, list[float]] = {name: [] for name in STEP_METRICS.values()}
    reused: list[float] = []
    if arm != BASE:
        with fitting_threads(run.model):
            for record in train(run):
                if isinstance(record, StepRecord) and run.step:
                    for name, to in STEP_METRICS.items():
                        metrics[to].append(record.metrics[name])
                    if run.rollout is not None and run.rollout.num_updates > 1:
                        reused.append(record.metrics["clip_ratio/region_mean"])
    starts = range(0, len(metrics["kl"]), plan.bin)
    return {
        "arm": arm,
        "seed": seed,
        "curves": {
            name: [fmean(values[i : i + plan.bin]) for i in starts]
            for name, values in metrics.items()
        },
        "clipped": fmean(metrics["clipped"] or [0.0]),
        "clipped_later": fmean(reused or [0.0]),
        **measure(run, plan.test_prompts, seed),
        "sampled": run.generated,
        "seconds": time.monotonic() - start,
    }


def run_experiment(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Train every arm on the embedded chain task (`ExperimentCode`)."""
    return run_plan("random_rewards", PLAN, out, seeds, device, jobs, say)


def run_plan(
    name: str, plan: RandomPlan, out: Path, seeds: int, device: str, jobs: int, say: Log
) -> dict[str, Any]:
    """Train every arm of a plan with every seed, and tabulate."""
    interval([0.0] * seeds)
    record_plan(out, {"experiment": name, "device": device} | asdict(plan))
    log = RunLog(out / "runs.jsonl", device, *MODULES)
    numbers = [plan.first_seed + i for i in range(seeds)]
    settings: dict[str, dict[str, Any]] = {BASE: {}} | arms()
    planned = [
        LoggedRun(f"{arm}-{seed}", measure_arm, (plan, arm, changed, seed, device), changed)
        for seed in numbers
        for arm, changed in settings.items()
    ]
    make_missing(log, planned, jobs, say)
    runs = {arm: [log.rows[f"{arm}-{seed}"] for seed in numbers] for arm in settings}
    table = record_head(name, log, seeds, device) | {
        "plan": asdict(plan),
        "comparisons": round_significant(compare_arms(plan, runs)),
        "rows": [round_significant(_row(plan, arm, rows)) for arm, rows in runs.items()],
    }
    write_table(out, table, render_report(table))
    return table


def _scores(rows: Sequence[Mapping[str, Any]]) -> Scores:
    """For every seed whether each test prompt was answered right."""
    return [[float(digit) for digit in row["right"]] for row in rows]


def _row(plan: RandomPlan, arm: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    measures = ("kl", "completions/mean_length", "clipped", "clipped_later")
    by_seed = [row["gold/accuracy"] for row in rows]
    return {
        "arm": arm,
        "title": arm_title(arm),
        "gold/accuracy": asdict(crossed_mean(_scores(rows)).interval),
        "lowest": min(by_seed),
        "highest": max(by_seed),
        **{name: asdict(interval([row[name] for row in rows])) for name in measures},
        "updates": [min(i + plan.bin, plan.updates) for i in range(0, plan.updates, plan.bin)]
        if arm != BASE
        else [],
        "curves": {
            name: mean_over_seeds([row["curves"][name] for row in rows]) if arm != BASE else {}
            for name in STEP_METRICS.values()
        },
    }


def compare_arms(
    plan: RandomPlan, runs: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[dict[str, Any]]:
    """Return words for gold accuracy, in one family: every arm against the base, and with each reward the
    arms of 4 updates with against without the clip, and with the clip against 1 update.
    """
    pairs = [(arm, BASE) for arm in runs if arm != BASE]
    for reward in REWARDS:
        pairs += [(f"{reward}.clip", f"{reward}.free"), (f"{reward}.clip", f"{reward}.once")]
    judged = judge(
        [crossed_difference(_scores(runs[a]), _scores(runs[b])) for a, b in pairs],
        margin=plan.margin,
    )
    return [_as_record(a, b, one) for (a, b), one in zip(pairs, judged)]


def _as_record(first: str, second: str, one: Judgement) -> dict[str, Any]:
    return {
        "first": first,
        "second": second,
        **asdict(one.difference.interval),
        "word": one.word,
        "p": one.p_value,
    }


def render_report(table: Mapping[str, Any]) -> str:
    """Return accuracy, KL and clipped tokens of every arm, and the comparisons, as Markdown."""
    first, end = table["plan"]["test_prompts"]
    intro = (
        f"`{table['command']}` on {table['device']}; {table['seeds']} seeds, ± half the 95 % interval"
        f" over seeds and {end - first} test prompts; {table['plan']['updates']} updates."
    )
    parts = ["# Random rewards with an active clip", intro, arm_table(table)]
    return "\n\n".join([*parts, comparison_table(table)])


def arm_table(table: Mapping[str, Any]) -> str:
    """Return the measures of every arm."""
    heads = (
        "reward and updates",
        "gold accuracy",
        "lowest to highest seed",
        "tokens clipped, all updates",
        "tokens clipped, updates 2 to 4 of a rollout",
        "KL, nats",
    )
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for row in table["rows"]:
        clipped = ["", ""]
        if row["arm"] != BASE:
            clipped = [Interval(**row[n]).text(4, SHARE) for n in ("clipped", "clipped_later")]
            if row["arm"].endswith(".once"):
                clipped[1] = "no such update"
        cells = [
            Interval(**row["gold/accuracy"]).text(2, SHARE),
            f"{row['lowest']:.2f} to {row['highest']:.2f}",
            *clipped,
            Interval(**row["kl"]).text(2, NOT_NEGATIVE),
        ]
        lines.append(f"| {row['title']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def comparison_table(table: Mapping[str, Any]) -> str:
    """Return the differences in gold accuracy with their words."""
    lines = ["| comparison | gold accuracy |", "| --- | --- |"]
    lines += [
        f"| {arm_title(one['first'])} − {arm_title(one['second'])} | {recorded_text(one)} |"
        for one in table["comparisons"]
    ]
    return "\n".join(lines) + "\n"
