"""What β does, for five values: how far a policy has moved after equal updates, and how the margin
of its training pairs grows.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from lab.analysis.statistics import NOT_NEGATIVE, SHARE, Interval, interval
from lab.experiments.arms import command_line, record_plan
from lab.experiments.checkpoint_probe import probe_checkpoints
from lab.experiments.process_pool import map_cached, mean_over_seeds, round_significant, write_table
from lab.experiments.protocol import Log
from lab.experiments.run_log import record_origin
from lab.figures.palette import METHOD_NAMES


@dataclass(frozen=True)
class BetaPlan:
    """The runs, and the updates `looks` after which each one is measured."""

    methods: tuple[str, ...] = ("dpo", "ipo", "kto")
    betas: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)
    looks: tuple[int, ...] = (0, 5, 10, 25, 50, 100, 200, 400)
    pairs: int = 128
    prompts: int = 128


PLAN = BetaPlan()


def mean_curves(run: dict[str, Any]) -> dict[str, list[float]]:
    """Returns a run as curves over its measured updates: KL, gold accuracy, and for the fixed pairs
    the mean log π − log π_ref and the share of positive margins.
    """
    pairs = list(zip(run["chosen"], run["rejected"]))
    return {
        "kl": run["kl"],
        "gold/accuracy": run["gold/accuracy"],
        "logps/chosen": [fmean(c) for c, _ in pairs],
        "logps/rejected": [fmean(r) for _, r in pairs],
        "rewards/accuracies": [fmean(a > b for a, b in zip(c, r)) for c, r in pairs],
    }


def run_experiment(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Trains every method with every β and seed and measures it on the way (`ExperimentCode`)."""
    interval([0.0] * seeds)
    plan = asdict(PLAN)
    record_plan(out, {"experiment": "beta", "device": device} | plan)
    arms = [(method, value) for method in PLAN.methods for value in PLAN.betas]
    runs = map_cached(
        out,
        probe_checkpoints,
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
        seed_curves = [mean_curves(runs[f"{method}-{value:g}-{seed}"]) for seed in range(seeds)]
        rows.append(
            {
                "method": method,
                "beta": value,
                "steps": list(PLAN.looks),
                **{
                    name: mean_over_seeds([curves[name] for curves in seed_curves])
                    for name in seed_curves[0]
                },
            }
        )
    table = {
        **record_origin(command_line("beta", seeds, device), device),
        "seeds": seeds,
        "plan": plan,
        "rows": round_significant(rows),
    }
    write_table(out, table, render_report(table))
    return table


def render_report(table: dict[str, Any]) -> str:
    """Returns as Markdown the KL after 10, 50 and 100 updates, and gold accuracy at its best and at
    the end.
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
            f"| {METHOD_NAMES[row['method']]} | {row['beta']:g} |{kl}"
            f" {_last(row['kl']).text(2, NOT_NEGATIVE)} |"
            f" {gold['mean'][best]:.2f} ({steps[best]}) | {_last(gold).text(2, SHARE)} |"
            f" {row['logps/chosen']['mean'][-1]:.1f} | {row['logps/rejected']['mean'][-1]:.1f} |"
        )
    return "\n".join(lines) + "\n"


def _last(curve: dict[str, list[float]]) -> Interval:
    return Interval(curve["mean"][-1], curve["half"][-1])
