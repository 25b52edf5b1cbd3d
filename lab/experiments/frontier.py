"""Gold reward against KL on a language model: how much reward each method gets for how much KL
(arXiv 2305.18290, Fig. 2, left).
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lab.analysis.statistics import NOT_NEGATIVE, Interval, interval, possible_range
from lab.config.methods import make_config
from lab.experiments.arms import (
    EVALUATION_SAMPLES,
    Arm,
    cached_json,
    command_line,
    measure_base,
    record_plan,
    run_arms,
)
from lab.experiments.process_pool import mean_over_seeds, round_significant, write_table
from lab.experiments.protocol import Log
from lab.experiments.run_log import record_origin
from lab.experiments.shipped_runs import export_run
from lab.figures.palette import METHOD_NAMES
from lab.recipes.generate_pairs import build_pairs
from lab.runs.folder import RunFolder

MODEL, TASK = "smollm2-135m", "sentiment"
FINAL_MEASURES = (
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
EVALUATION_METRICS = {"gold/reward": "reward", "gold/kl": "kl", "gold/repetition": "repetition"}
"""Metrics of a run at every evaluation, each with its name in the table."""


@dataclass(frozen=True)
class FrontierPlan:
    """The settings of the experiment. `rates` holds the learning rate of each method, `updates` its
    optimizer updates; PPO makes two updates on each rollout.
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


PLAN = FrontierPlan()


def arm_of(method: str, beta: float, data: str) -> Arm:
    """Returns the arm of a method at one β. VADER itself scores the completions of online methods,
    so that the errors of a reward model do not count as theirs.
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


def evaluation_curves(folder: Path) -> dict[str, list[float]]:
    """Returns the evaluated steps of a run, and its metrics at these steps."""
    evaluated = [
        row
        for row in RunFolder(folder).history()
        if row["type"] == "step" and "gold/reward" in row["metrics"]
    ]
    return {"steps": [row["step"] for row in evaluated]} | {
        to: [row["metrics"][name] for row in evaluated] for name, to in EVALUATION_METRICS.items()
    }


def run_experiment(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Samples pairs from the model and trains every method with every β and seed; writes
    table.json, report.md and the runs to ship in `out`.
    """
    interval([0.0] * seeds)
    plan = asdict(PLAN)
    record_plan(out, {"experiment": "frontier", "device": device} | plan)
    data = out / "pairs.jsonl"
    built = cached_json(
        out / "pairs-built.json",
        lambda: build_pairs(data, PLAN.model, PLAN.pairs, 0, device, TASK, "answer", PLAN.tokens),
    )
    arms = {
        (method, beta): arm_of(method, beta, str(data))
        for method in PLAN.rates
        for beta in PLAN.betas
    }
    first = make_config("grpo", arms["grpo", PLAN.betas[0]].knobs | {"device": device})
    base = cached_json(out / "base.json", lambda: measure_base(first, PLAN.shown))
    runs = run_arms(out, list(arms.values()), seeds, device, jobs, say, PLAN.shown)
    facts = record_origin(command_line("frontier", seeds, device), device)
    first_runs = {}
    for method in PLAN.rates:
        arm = arms[method, PLAN.shown_beta]
        first_runs[method] = runs[arm.name][0]
        title = f"Sentiment, SmolLM2-135M, β {PLAN.shown_beta:g}"
        ship_run(out, arm, title, facts, first_runs[method]["seconds"])
    table = facts | {
        "seeds": seeds,
        "plan": plan,
        "pairs": built,
        "evaluation": f"256 held-out openings x {EVALUATION_SAMPLES} completions; on the way x 1",
        "base": {name: value for name, value in base.items() if name != "shown"},
        "shown": {"base": base["shown"]} | {m: run["shown"] for m, run in first_runs.items()},
        "rows": round_significant([_row(out, *key, runs[arm.name]) for key, arm in arms.items()]),
    }
    write_table(out, table, render_report(table))
    return table


def _row(out: Path, method: str, beta: float, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the row of a method at one β: its curves and its final measures over all seeds."""
    name = f"{method}-{beta:g}"
    seed_curves = [evaluation_curves(out / f"{name}-{seed}") for seed in range(len(results))]
    return {
        "method": method,
        "beta": beta,
        "steps": seed_curves[0]["steps"],
        **{
            column: mean_over_seeds([curves[column] for curves in seed_curves])
            for column in EVALUATION_METRICS.values()
        },
        "end": {
            measure: asdict(interval([result[measure] for result in results]))
            for measure in FINAL_MEASURES
        },
    }


def ship_run(out: Path, arm: Arm, title: str, facts: dict[str, Any], seconds: float) -> None:
    """Writes the small copy of an arm's first seed to `out`/recorded."""
    name = f"smollm2-{arm.name}".replace(".", "")
    export_run(
        RunFolder(out / f"{arm.name}-0"),
        out / "recorded" / name,
        facts | {"title": title, "shows": "", "seconds": round_significant(seconds)},
    )


def reward_and_kl_table(table: dict[str, Any]) -> str:
    """Returns the final gold reward and KL by method and β as a Markdown table."""
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
            f"{_reward_text(e)} at {e['kl']['mean']:.1f}"
            for e in (ends[method, beta] for beta in betas)
        ]
        lines.append(f"| {METHOD_NAMES[method]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _reward_text(end: dict[str, Any]) -> str:
    return Interval(**end["reward"]).text(2, possible_range("reward"))


def render_report(table: dict[str, Any]) -> str:
    """Returns the final measures of every arm as Markdown."""
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
        reward_and_kl_table(table),
        (
            "| method | β | gold reward (VADER) | KL, nats | repeated bigrams | distinct bigrams |"
            " length, tokens |"
        ),
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in table["rows"]:
        end = row["end"]
        lines.append(
            f"| {METHOD_NAMES[row['method']]} | {row['beta']:g} | {_reward_text(end)} |"
            f" {Interval(**end['kl']).text(1, NOT_NEGATIVE)} |"
            f" {end['repetition']['mean']:.2f} | {end['distinct_2']['mean']:.2f} |"
            f" {end['completions/mean_length']['mean']:.0f} |"
        )
    return "\n".join(lines) + "\n"
