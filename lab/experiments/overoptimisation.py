"""Overoptimisation of a reward model: its score, the proxy, keeps rising while the gold reward
falls (arXiv 2210.10760).
"""

import json
import math
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from lab.analysis.statistics import SHARE, Interval, interval
from lab.experiments.arms import Arm, command_line, device_name, record_plan, run_arms
from lab.experiments.protocol import Log
from lab.figures.palette import METHOD_NAMES
from lab.runs.folder import RunFolder
from lab.storage.jsonl import replace_file

ONLINE_METHODS = ("ppo", "online_dpo", "grpo")
OPTIMISATION_UPDATES = 60
UPDATES_PER_POINT = 5  # Updates averaged into one point of a curve.
REWARD_MODELS: dict[str, dict[str, Any]] = {
    "100 pairs": {"pairs": 100},
    "500 pairs": {"pairs": 500},
    "2,000 pairs": {"pairs": 2000},
    "2,000 pairs, 30 % swapped": {"pairs": 2000, "label_noise": 0.3},
}
"""The reward models by their training data."""


def arm_on(method: str, model: str) -> Arm:
    """Returns the arm of a method that optimises a reward model."""
    return Arm(
        f"{method}-{'-'.join(f'{k}{v:g}' for k, v in REWARD_MODELS[model].items())}",
        method,
        {"steps": OPTIMISATION_UPDATES},
        REWARD_MODELS[model],
    )


def rollout_curve(folders: list[Path]) -> dict[str, list[float]]:
    """Returns the means over seeds of proxy, gold accuracy, KL and √KL in the rollouts. One point
    covers `UPDATES_PER_POINT` updates.
    """
    rows = [
        [r["metrics"] for r in RunFolder(folder).history() if r["type"] == "step" and r["step"]]
        for folder in folders
    ]
    points: dict[str, list[float]] = {"step": [], "proxy": [], "gold": [], "kl": [], "distance": []}
    for start in range(0, OPTIMISATION_UPDATES, UPDATES_PER_POINT):
        rollouts = [metrics for run in rows for metrics in run[start : start + UPDATES_PER_POINT]]
        proxy, gold, kl = (
            fmean(metrics[name] for metrics in rollouts)
            for name in ("reward", "gold/rollout_accuracy", "kl")
        )
        for name, value in zip(
            points, (start + (UPDATES_PER_POINT + 1) / 2, proxy, gold, kl, math.sqrt(max(kl, 0.0)))
        ):
            points[name].append(value)
    return points


def run_experiment(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Optimises every reward model with every method and seed (`ExperimentCode`)."""
    interval([0.0] * seeds)
    record_plan(out, {"experiment": "overoptimisation", "device": device})
    names = {
        (method, model): arm_on(method, model).name
        for model in REWARD_MODELS
        for method in ONLINE_METHODS
    }
    runs = run_arms(
        out,
        [arm_on(method, model) for model in REWARD_MODELS for method in ONLINE_METHODS],
        seeds,
        device,
        jobs,
        say,
    )
    rows = []
    for (method, model), name in names.items():
        points = rollout_curve([out / f"{name}-{seed}" for seed in range(seeds)])
        best = max(range(len(points["gold"])), key=lambda i: points["gold"][i])
        end = interval([r["gold/accuracy"] for r in runs[name]])
        rows.append(
            {
                "method": method,
                "reward_model": model,
                "curve": points,
                "best_gold": points["gold"][best],
                "best_step": points["step"][best],
                "gold": end.mean,
                "gold_half": end.half,
                "proxy_first": points["proxy"][0],
                "proxy_last": points["proxy"][-1],
                "kl": interval([r["kl"] for r in runs[name]]).mean,
            }
        )
    table = {
        "command": command_line("overoptimisation", seeds, device),
        "device": device_name(device),
        "torch": torch.__version__.partition("+")[0],
        "seeds": seeds,
        "steps": OPTIMISATION_UPDATES,
        "rows": rows,
        "runs": runs,
    }
    replace_file(out / "table.json", (json.dumps(table, indent=1) + "\n").encode())
    replace_file(out / "report.md", render_report(table).encode())
    return table


def render_report(table: dict[str, Any]) -> str:
    """Returns the table as Markdown."""
    lines = [
        "# What optimising a reward model does",
        "",
        (
            f"`{table['command']}` on {table['device']}; {table['steps']} updates, {table['seeds']}"
            " seeds, ± half the 95 % interval. Proxy is the reward model's mean score of the"
            " rollouts, gold what the task says of the same completions."
        ),
        "",
        (
            "| reward model taught with | method | proxy, first → last | best gold (update) | gold"
            " at the end | KL, nats |"
        ),
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in table["rows"]:
        lines.append(
            f"| {row['reward_model']} | {METHOD_NAMES[row['method']]} | {row['proxy_first']:.1f} →"
            f" {row['proxy_last']:.1f} | {row['best_gold']:.2f} ({row['best_step']:.0f}) |"
            f" {Interval(row['gold'], row['gold_half']).text(2, SHARE)} | {row['kl']:.1f} |"
        )
    return "\n".join(lines) + "\n"
