"""Cost and benefit of the group size: GRPO with five values of G, with equally many completions in an
update and with equally many prompts.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from lab.analysis.statistics import SHARE, Interval, interval
from lab.experiments.arms import (
    EVALUATION_PROMPTS,
    EVALUATION_SAMPLES,
    Arm,
    command_line,
    record_plan,
    run_arms,
)
from lab.experiments.process_pool import mean_over_seeds, round_significant, write_table
from lab.experiments.protocol import Log
from lab.experiments.run_log import record_origin
from lab.runs.folder import RunFolder

GROUP_SIZES = (2, 4, 8, 16, 32)
ROLLOUT_COMPLETIONS, ROLLOUT_PROMPTS = 128, 16
"""Completions of an update at equal rollouts; prompts of an update at equal prompts."""
GROUP_UPDATES, EVALUATE_EVERY, HELD_OUT_PROMPTS = 40, 10, 256
BATCH_SIZES: dict[str, Callable[[int], int]] = {
    "rollouts": lambda group: ROLLOUT_COMPLETIONS,
    "prompts": lambda group: ROLLOUT_PROMPTS * group,
}
"""For each budget the completions of an update, as a function of the group size."""
CURVES = ("reward", "frac_reward_zero_std", "kl", "seconds", "tokens")


def group_arm(group: int, batch: int) -> Arm:
    """Returns the arm of GRPO with groups of `group` and `batch` completions in an update. The two
    budgets share an arm where their batch sizes agree.
    """
    return Arm(
        f"grpo-{group}-{batch}",
        "grpo",
        {
            "group_size": group,
            "batch_size": batch,
            "steps": GROUP_UPDATES,
            "eval_every": EVALUATE_EVERY,
            "eval_prompts": HELD_OUT_PROMPTS,
        },
    )


def group_run_curves(folder: Path) -> dict[str, list[float]]:
    """Returns the curves of a run: reward, share of dead groups, KL, seconds and tokens at every
    update; gold accuracy at every evaluation.
    """
    steps = [row for row in RunFolder(folder).history() if row["type"] == "step"]
    curves = {
        name: [
            row["metrics"][name] if name in row["metrics"] else float(row[name])
            for row in steps
            if row["step"]
        ]
        for name in CURVES
    }
    evaluated = [row for row in steps if "gold/accuracy" in row["metrics"]]
    return curves | {
        "gold/accuracy": [row["metrics"]["gold/accuracy"] for row in evaluated],
        "gold_steps": [row["step"] for row in evaluated],
    }


def run_experiment(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Trains every arm with every seed (`ExperimentCode`)."""
    interval([0.0] * seeds)
    record_plan(out, {"experiment": "groups", "device": device})
    arms = {
        (budget, group): group_arm(group, batch(group))
        for budget, batch in BATCH_SIZES.items()
        for group in GROUP_SIZES
    }
    runs = run_arms(
        out, list({a.name: a for a in arms.values()}.values()), seeds, device, jobs, say
    )
    rows = []
    for (budget, group), one in arms.items():
        seed_curves = [group_run_curves(out / f"{one.name}-{seed}") for seed in range(seeds)]
        means = {
            name: [fmean(values) for values in zip(*(curves[name] for curves in seed_curves))]
            for name in CURVES
        }
        rows.append(
            {
                "budget": budget,
                "group_size": group,
                "batch_size": one.knobs["batch_size"],
                "prompts": one.knobs["batch_size"] // group,
                "steps": list(range(1, GROUP_UPDATES + 1)),
                **means,
                "gold_steps": seed_curves[0]["gold_steps"],
                "gold/accuracy": mean_over_seeds(
                    [curves["gold/accuracy"] for curves in seed_curves]
                ),
                "final": {
                    name: asdict(interval([r[name] for r in runs[one.name]]))
                    for name in ("gold/accuracy", "kl", "seconds", "tokens")
                },
            }
        )
    table = {
        **record_origin(command_line("groups", seeds, device), device),
        "seeds": seeds,
        "evaluation": (
            f"{EVALUATION_PROMPTS} held-out prompts x {EVALUATION_SAMPLES} completions;"
            f" on the way {HELD_OUT_PROMPTS} x 1"
        ),
        "rows": round_significant(rows),
    }
    write_table(out, table, render_report(table))
    return table


def render_report(table: dict[str, Any]) -> str:
    """Returns dead groups and final measures for each group size as Markdown."""
    lines = [
        "# Group size",
        "",
        (
            f"`{table['command']}` on {table['device']}; {table['seeds']} seeds, ± half the 95 %"
            f" interval; {table['evaluation']}."
        ),
        "",
        (
            "| equal | G | completions an update | dead groups, first → last update | gold accuracy"
            " | KL, nats | seconds | tokens |"
        ),
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in table["rows"]:
        end, dead = row["final"], row["frac_reward_zero_std"]
        lines.append(
            f"| {row['budget']} | {row['group_size']} | {row['batch_size']} | {dead[0]:.2f} →"
            f" {dead[-1]:.2f} | {Interval(**end['gold/accuracy']).text(2, SHARE)} |"
            f" {end['kl']['mean']:.1f} |"
            f" {end['seconds']['mean']:.0f} | {end['tokens']['mean'] / 1000:.0f} k |"
        )
    return "\n".join(lines) + "\n"
