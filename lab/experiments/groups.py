"""What the size of a group costs and buys: GRPO with five values of G, at equal rollouts and at
equal prompts.
"""

from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from lab.analysis.statistics import interval
from lab.experiments.arms import PROMPTS as MEASURED
from lab.experiments.arms import SAMPLES, Arm, Log, command_line, device_name, keep_plan, run_arms
from lab.experiments.process_pool import over_seeds, rounded, write_table
from lab.runs.folder import RunFolder

SIZES = (2, 4, 8, 16, 32)
ROLLOUT, PROMPTS = (
    128,
    16,
)  # Completions of an update at equal rollouts, prompts of an update at equal prompts.
STEPS, EVERY, HELD_OUT = 40, 10, 256
BUDGETS = {"rollouts": lambda group: ROLLOUT, "prompts": lambda group: PROMPTS * group}
"""Per budget how many completions an update has with groups of that size."""
CURVES = ("reward", "frac_reward_zero_std", "kl", "seconds", "tokens")


def arm(group: int, batch: int) -> Arm:
    """GRPO with groups of `group`, `batch` completions an update; the two budgets share the arm
    where they agree.
    """
    return Arm(
        f"grpo-{group}-{batch}",
        "grpo",
        {
            "group_size": group,
            "batch_size": batch,
            "steps": STEPS,
            "eval_every": EVERY,
            "eval_prompts": HELD_OUT,
        },
    )


def curve(folder: Path) -> dict[str, list[float]]:
    """Of one run, per update what it was paid, how many groups were dead and what it had cost so
    far; gold accuracy where it was evaluated.
    """
    steps = [row for row in RunFolder(folder).history() if row["type"] == "step"]
    found = {
        name: [
            row["metrics"][name] if name in row["metrics"] else float(row[name])
            for row in steps
            if row["step"]
        ]
        for name in CURVES
    }
    looked = [row for row in steps if "gold/accuracy" in row["metrics"]]
    return found | {
        "gold/accuracy": [row["metrics"]["gold/accuracy"] for row in looked],
        "gold_steps": [row["step"] for row in looked],
    }


def groups(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Train every arm with every seed and write table.json and report.md in `out`; an interrupted
    call goes on where it stopped.
    """
    interval([0.0] * seeds)
    keep_plan(out, {"experiment": "groups", "device": device})
    arms = {
        (budget, group): arm(group, batch(group))
        for budget, batch in BUDGETS.items()
        for group in SIZES
    }
    runs = run_arms(
        out, list({a.name: a for a in arms.values()}.values()), seeds, device, jobs, say
    )
    rows = []
    for (budget, group), one in arms.items():
        found = [curve(out / f"{one.name}-{seed}") for seed in range(seeds)]
        means = {
            name: [fmean(values) for values in zip(*(run[name] for run in found))]
            for name in CURVES
        }
        rows.append(
            {
                "budget": budget,
                "group_size": group,
                "batch_size": one.knobs["batch_size"],
                "prompts": one.knobs["batch_size"] // group,
                "steps": list(range(1, STEPS + 1)),
                **means,
                "gold_steps": found[0]["gold_steps"],
                "gold/accuracy": over_seeds([run["gold/accuracy"] for run in found]),
                "final": {
                    name: asdict(interval([r[name] for r in runs[one.name]]))
                    for name in ("gold/accuracy", "kl", "seconds", "tokens")
                },
            }
        )
    table = {
        "command": command_line("groups", seeds, device),
        "device": device_name(device),
        "torch": torch.__version__.partition("+")[0],
        "seeds": seeds,
        "evaluation": (
            f"{MEASURED} held-out prompts x {SAMPLES} completions; on the way {HELD_OUT} x 1"
        ),
        "rows": rounded(rows),
    }
    write_table(out, table, report(table))
    return table


def report(table: dict[str, Any]) -> str:
    """Dead groups and the outcome per group size as Markdown."""
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
            f" {dead[-1]:.2f} | {end['gold/accuracy']['mean']:.2f} ±"
            f" {end['gold/accuracy']['half']:.2f} | {end['kl']['mean']:.1f} |"
            f" {end['seconds']['mean']:.0f} | {end['tokens']['mean'] / 1000:.0f} k |"
        )
    return "\n".join(lines) + "\n"
