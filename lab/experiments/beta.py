"""Both readings of β: how far a policy has gone after equal updates, and how the margin of its
pairs grows, for five values.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from lab.analysis.statistics import interval
from lab.experiments.arms import Log, command_line, device_name, keep_plan
from lab.experiments.checkpoint_probe import follow
from lab.experiments.process_pool import map_cached, over_seeds, rounded, write_table
from lab.figures.palette import METHOD_NAMES


@dataclass(frozen=True)
class Plan:
    """What is run and where it is looked at."""

    methods: tuple[str, ...] = ("dpo", "ipo", "kto")
    betas: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)
    looks: tuple[int, ...] = (0, 5, 10, 25, 50, 100, 200, 400)
    pairs: int = 128
    prompts: int = 128


PLAN = Plan()


def curves(run: dict[str, Any]) -> dict[str, list[float]]:
    """One run as numbers over its looks: of the fixed pairs the mean log π − log π_ref and the
    share whose margin is above zero.
    """
    sides = list(zip(run["chosen"], run["rejected"]))
    return {
        "kl": run["kl"],
        "gold/accuracy": run["gold/accuracy"],
        "logps/chosen": [fmean(c) for c, _ in sides],
        "logps/rejected": [fmean(r) for _, r in sides],
        "rewards/accuracies": [fmean(a > b for a, b in zip(c, r)) for c, r in sides],
    }


def beta(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Follow every method with every β and seed and write table.json and report.md in `out`; an
    interrupted call goes on where it stopped.
    """
    interval([0.0] * seeds)
    plan = asdict(PLAN)
    keep_plan(out, {"experiment": "beta", "device": device} | plan)
    arms = [(method, value) for method in PLAN.methods for value in PLAN.betas]
    runs = map_cached(
        out,
        follow,
        {
            f"{method}-{value:g}-{seed}": (
                method,
                {"beta": value},
                seed,
                device,
                PLAN.looks,
                PLAN.pairs,
                PLAN.prompts,
            )
            for seed in range(seeds)
            for method, value in arms
        },
        jobs,
        say,
    )
    rows = []
    for method, value in arms:
        found = [curves(runs[f"{method}-{value:g}-{seed}"]) for seed in range(seeds)]
        rows.append(
            {
                "method": method,
                "beta": value,
                "steps": list(PLAN.looks),
                **{name: over_seeds([run[name] for run in found]) for name in found[0]},
            }
        )
    table = {
        "command": command_line("beta", seeds, device),
        "device": device_name(device),
        "torch": torch.__version__.partition("+")[0],
        "seeds": seeds,
        "plan": plan,
        "rows": rounded(rows),
    }
    write_table(out, table, report(table))
    return table


def report(table: dict[str, Any]) -> str:
    """KL at a few equal numbers of updates, and gold accuracy at its best and at the end, as
    Markdown.
    """
    steps = table["rows"][0]["steps"]
    shown = [i for i, step in enumerate(steps) if step in (10, 50, 100)] or [0]
    heads = "".join(f" KL, {steps[i]} |" for i in shown)
    lines = [
        "# β at equal updates and in the end",
        "",
        (
            f"`{table['command']}` on {table['device']}; {table['seeds']} seeds, ± half the 95 %"
            f" interval; KL in nats on {table['plan']['prompts']} held-out prompts, log π − log"
            f" π_ref of {table['plan']['pairs']} pairs of the data."
        ),
        "",
        (
            f"| method | β |{heads} KL, {steps[-1]} | best gold (update) | gold, {steps[-1]} |"
            " chosen, nats | rejected, nats |"
        ),
        f"| --- | --- |{' --- |' * len(shown)} --- | --- | --- | --- | --- |",
    ]
    for row in table["rows"]:
        gold = row["gold/accuracy"]
        best = max(range(len(steps)), key=lambda i: gold["mean"][i])
        kl = "".join(f" {row['kl']['mean'][i]:.2f} |" for i in shown)
        lines.append(
            f"| {METHOD_NAMES[row['method']]} | {row['beta']:g} |{kl} {row['kl']['mean'][-1]:.2f} ±"
            f" {row['kl']['half'][-1]:.2f} | {gold['mean'][best]:.2f} ({steps[best]}) |"
            f" {gold['mean'][-1]:.2f} ± {gold['half'][-1]:.2f} |"
            f" {row['logps/chosen']['mean'][-1]:.1f} | {row['logps/rejected']['mean'][-1]:.1f} |"
        )
    return "\n".join(lines) + "\n"
