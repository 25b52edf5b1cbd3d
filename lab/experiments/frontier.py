"""Gold reward against KL on a language model: how much of the one each method gets for the other
(arXiv 2305.18290, Fig. 2, left).
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

from lab.analysis.statistics import interval
from lab.config.methods import make_config
from lab.experiments.arms import (
    SAMPLES,
    Arm,
    Log,
    cached,
    command_line,
    device_name,
    keep_plan,
    measure_base,
    run_arms,
)
from lab.experiments.process_pool import over_seeds, rounded, write_table
from lab.experiments.shipped_runs import export
from lab.figures.palette import METHOD_NAMES
from lab.recipes.generate_pairs import build_pairs
from lab.runs.folder import RunFolder

MODEL, TASK = "smollm2-135m", "sentiment"
END = (
    "gold/accuracy",
    "reward",
    "kl",
    "repetition",
    "distinct_2",
    "empty",
    "completions/mean_length",
    "tokens",
    "seconds",
)
POINT = {"gold/reward": "reward", "gold/kl": "kl", "gold/repetition": "repetition"}
"""What a run's record says at each evaluation, and the name that it has in the table."""


@dataclass(frozen=True)
class Plan:
    """What is run. `rates` holds each method's learning rate, `updates` its optimizer updates; PPO
    makes two of them on a rollout.
    """

    betas: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
    rates: dict[str, float] = field(
        default_factory=lambda: {"dpo": 1e-4, "ipo": 1e-4, "kto": 1e-4, "grpo": 1e-4, "ppo": 1e-4}
    )
    updates: dict[str, int] = field(
        default_factory=lambda: {"dpo": 240, "ipo": 240, "kto": 240, "grpo": 120, "ppo": 240}
    )
    looks: int = 10
    pairs: int = 2000
    tokens: int = 32
    shown: int = 50
    shown_beta: float = 0.1
    model: str = MODEL


PLAN = Plan()


def arm(method: str, beta: float, data: str) -> Arm:
    """One method at one β, scored by VADER itself where it samples, so that no reward model's
    faults are counted as its own.
    """
    steps = PLAN.updates[method]
    knobs = {
        "model": PLAN.model,
        "task": TASK,
        "beta": beta,
        "learning_rate": PLAN.rates[method],
        "steps": steps,
        "max_completion_tokens": PLAN.tokens,
        "eval_every": max(1, steps // PLAN.looks),
        "eval_prompts": 256,
        "checkpoint_every": steps,
    }
    return Arm(
        f"{method}-{beta:g}",
        method,
        knobs
        | (
            {"batch_size": 64} if method in ("grpo", "ppo") else {"data": data, "pairs": PLAN.pairs}
        ),
    )


def path(folder: Path) -> dict[str, list[float]]:
    """Where a run went: the updates after which it was evaluated, and what was measured there."""
    looked = [
        row
        for row in RunFolder(folder).history()
        if row["type"] == "step" and "gold/reward" in row["metrics"]
    ]
    return {"steps": [row["step"] for row in looked]} | {
        to: [row["metrics"][name] for row in looked] for name, to in POINT.items()
    }


def frontier(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Sample pairs from the model, train every method with every β and seed, and write table.json,
    report.md and the runs that are shipped in `out`.

    An interrupted call goes on where it stopped.
    """
    interval([0.0] * seeds)
    plan = asdict(PLAN)
    keep_plan(out, {"experiment": "frontier", "device": device} | plan)
    data = out / "pairs.jsonl"
    built = cached(
        out / "pairs-built.json",
        lambda: build_pairs(data, PLAN.model, PLAN.pairs, 0, device, TASK, "answer", PLAN.tokens),
    )
    arms = {
        (method, beta): arm(method, beta, str(data)) for method in PLAN.rates for beta in PLAN.betas
    }
    base = cached(
        out / "base.json",
        lambda: measure_base(
            make_config("grpo", arms["grpo", PLAN.betas[0]].knobs | {"device": device}), PLAN.shown
        ),
    )
    runs = run_arms(out, list(arms.values()), seeds, device, jobs, say, PLAN.shown)
    rows = []
    for (method, beta), one in arms.items():
        paths = [path(out / f"{one.name}-{seed}") for seed in range(seeds)]
        rows.append(
            {
                "method": method,
                "beta": beta,
                "steps": paths[0]["steps"],
                **{name: over_seeds([p[name] for p in paths]) for name in POINT.values()},
                "end": {name: asdict(interval([r[name] for r in runs[one.name]])) for name in END},
            }
        )
    facts = {
        "command": command_line("frontier", seeds, device),
        "device": device_name(device),
        "torch": torch.__version__.partition("+")[0],
        "transformers": transformers.__version__,
    }
    of = {method: arms[method, PLAN.shown_beta] for method in PLAN.rates}
    for one in of.values():
        ship(
            out,
            one,
            f"Sentiment, SmolLM2-135M, β {PLAN.shown_beta:g}",
            facts,
            runs[one.name][0]["seconds"],
        )
    table = facts | {
        "seeds": seeds,
        "plan": plan,
        "pairs": built,
        "evaluation": f"256 held-out openings x {SAMPLES} completions; on the way x 1",
        "base": {name: value for name, value in base.items() if name != "shown"},
        "shown": {"base": base["shown"]} | {m: runs[one.name][0]["shown"] for m, one in of.items()},
        "rows": rounded(rows),
    }
    write_table(out, table, report(table))
    return table


def ship(out: Path, one: Arm, title: str, facts: dict[str, Any], seconds: float) -> None:
    """Write the small copy of an arm's first seed to `out`/recorded."""
    name = f"smollm2-{one.name}".replace(".", "")
    export(
        RunFolder(out / f"{one.name}-0"),
        out / "recorded" / name,
        facts | {"title": title, "shows": "", "seconds": rounded(seconds)},
    )


def matrix(table: dict[str, Any]) -> str:
    """Gold reward and KL at the end by method and β, as Markdown."""
    betas, ends = (
        table["plan"]["betas"],
        {(row["method"], row["beta"]): row["end"] for row in table["rows"]},
    )
    lines = [
        "| gold reward at KL | " + " | ".join(f"β = {beta:g}" for beta in betas) + " |",
        "| --- |" + " --- |" * len(betas),
    ]
    for method in table["plan"]["rates"]:
        cells = [
            f"{e['reward']['mean']:.2f} ± {e['reward']['half']:.2f} at {e['kl']['mean']:.1f}"
            for e in (ends[method, beta] for beta in betas)
        ]
        lines.append(f"| {METHOD_NAMES[method]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def report(table: dict[str, Any]) -> str:
    """Where every arm ended as Markdown."""
    base = table["base"]
    lines = [
        "# Gold reward against KL",
        "",
        (
            f"`{table['command']}` on {table['device']}; {table['plan']['model']} on {TASK},"
            f" {table['seeds']} seeds, ± half the 95 % interval; {table['evaluation']}. The base:"
            f" gold reward {base['reward']:.2f}, repeated bigrams {base['repetition']:.2f}."
        ),
        "",
        matrix(table),
        (
            "| method | β | gold reward (VADER) | KL, nats | repeated bigrams | distinct bigrams |"
            " length, tokens |"
        ),
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in table["rows"]:
        end = row["end"]
        lines.append(
            f"| {METHOD_NAMES[row['method']]} | {row['beta']:g} | {end['reward']['mean']:.2f} ±"
            f" {end['reward']['half']:.2f} | {end['kl']['mean']:.1f} ± {end['kl']['half']:.1f} |"
            f" {end['repetition']['mean']:.2f} | {end['distinct_2']['mean']:.2f} |"
            f" {end['completions/mean_length']['mean']:.0f} |"
        )
    return "\n".join(lines) + "\n"
