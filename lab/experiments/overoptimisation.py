"""Overoptimisation of a reward model: its score, the proxy, keeps rising while the gold reward
falls (arXiv 2210.10760), and what an ensemble of reward models changes.
"""

import json
import math
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

from lab.analysis.statistics import SHARE, Interval, interval
from lab.experiments.arms import Arm, command_line, record_plan, reward_model_run, run_arms
from lab.experiments.protocol import Log
from lab.experiments.reward_ensemble import run_with_ensemble
from lab.experiments.run_log import record_origin
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
ENSEMBLE_DATA, ENSEMBLE_SIZE, MEMBER_SEEDS = "2,000 pairs", 4, 1000
"""Data and number of the members of an ensemble. Member i of seed s has the seed s + i·`MEMBER_SEEDS`,
so the first is the reward model that a single one would be.
"""
ENSEMBLES = {"mean": 0.0, "mean − spread": 1.0}
"""By the title of an ensemble, the weight of its members' standard deviation."""


def arm_on(method: str, model: str) -> Arm:
    """Returns the arm of a method that optimises a reward model."""
    return Arm(
        f"{method}-{'-'.join(f'{k}{v:g}' for k, v in REWARD_MODELS[model].items())}",
        method,
        {"steps": OPTIMISATION_UPDATES},
        REWARD_MODELS[model],
    )


def ensemble_title(name: str) -> str:
    """Returns the title of an ensemble, such as "4 × 2,000 pairs, mean"."""
    return f"{ENSEMBLE_SIZE} × {ENSEMBLE_DATA}, {name}"


def update_metrics(folder: Path) -> list[dict[str, float]]:
    """Returns the metrics of every update of a run."""
    return [r["metrics"] for r in RunFolder(folder).history() if r["type"] == "step" and r["step"]]


def rollout_curve(rows: list[list[dict[str, float]]]) -> dict[str, list[float]]:
    """Returns the means over seeds of proxy, gold accuracy, KL and √KL in the rollouts, from the metrics
    of every update of every seed. One point covers `UPDATES_PER_POINT` updates.
    """
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
    rows = [
        table_row(
            method,
            model,
            [update_metrics(out / f"{name}-{seed}") for seed in range(seeds)],
            runs[name],
        )
        for (method, model), name in names.items()
    ]
    for (method, ensemble), results in ensemble_runs(out, seeds, device, jobs, say).items():
        title = ensemble_title(ensemble)
        rows.append(table_row(method, title, [r.pop("rollouts") for r in results], results))
        runs[f"{method}-ensemble-{ensemble}"] = results
    table = {
        **record_origin(command_line("overoptimisation", seeds, device), device),
        "seeds": seeds,
        "steps": OPTIMISATION_UPDATES,
        "rows": rows,
        "runs": runs,
    }
    replace_file(out / "table.json", (json.dumps(table, indent=1) + "\n").encode())
    replace_file(out / "report.md", render_report(table).encode())
    return table


def ensemble_runs(
    out: Path, seeds: int, device: str, jobs: int, say: Log
) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Trains every method against every ensemble with every seed; returns the results by method and
    ensemble.
    """
    knobs = REWARD_MODELS[ENSEMBLE_DATA]
    members = {
        (seed, i): (seed + i * MEMBER_SEEDS) for seed in range(seeds) for i in range(ENSEMBLE_SIZE)
    }
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        trained = {
            key: pool.submit(reward_model_run, out, knobs, member_seed, device)
            for key, member_seed in members.items()
        }
        folders = {key: future.result() for key, future in trained.items()}
        futures = {
            (method, name, seed): pool.submit(
                run_with_ensemble,
                out / f"{method}-ensemble-{weight:g}-{seed}.json",
                method,
                {"steps": OPTIMISATION_UPDATES},
                [folders[seed, i] for i in range(ENSEMBLE_SIZE)],
                weight,
                seed,
                device,
            )
            for seed in range(seeds)
            for method in ONLINE_METHODS
            for name, weight in ENSEMBLES.items()
        }
        for (method, name, seed), future in futures.items():
            gold = future.result()["gold/accuracy"]
            say(f"{method}, {ensemble_title(name)}, seed {seed}: gold {gold:.3f}")
    return {
        (method, name): [futures[method, name, seed].result() for seed in range(seeds)]
        for method in ONLINE_METHODS
        for name in ENSEMBLES
    }


def table_row(
    method: str, model: str, rollouts: list[list[dict[str, float]]], results: list[dict[str, Any]]
) -> dict[str, Any]:
    """Returns the row of a method on one reward model: its curve, its best and its last measures."""
    points = rollout_curve(rollouts)
    best = max(range(len(points["gold"])), key=lambda i: points["gold"][i])
    end = interval([r["gold/accuracy"] for r in results])
    return {
        "method": method,
        "reward_model": model,
        "curve": points,
        "best_gold": points["gold"][best],
        "best_step": points["step"][best],
        "gold": end.mean,
        "gold_half": end.half,
        "proxy_first": points["proxy"][0],
        "proxy_last": points["proxy"][-1],
        "kl": interval([r["kl"] for r in results]).mean,
    }


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
