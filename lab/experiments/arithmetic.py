"""GRPO on arithmetic with a language model: checked answers as the reward, with five group sizes;
for comparison a checker that can be fooled, and random rewards as a control (arXiv 2506.10947).
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab.analysis.statistics import SHARE, Interval, interval
from lab.config.methods import make_config
from lab.experiments.arms import (
    EVALUATION_PROMPTS,
    EVALUATION_SAMPLES,
    Arm,
    cached_json,
    command_line,
    measure_base,
    record_plan,
    run_arms,
)
from lab.experiments.frontier import ship_run
from lab.experiments.process_pool import mean_over_seeds, round_significant, write_table
from lab.experiments.protocol import Log
from lab.experiments.run_log import record_origin
from lab.runs.folder import RunFolder

FINAL_MEASURES = (
    "gold/accuracy",
    "gold/format",
    "reward",
    "kl",
    "completions/mean_length",
    "tokens",
    "seconds",
)
STEP_METRICS = {
    "reward": "reward",
    "completions/mean_length": "length",
    "entropy": "entropy",
    "frac_reward_zero_std": "dead",
    "kl": "kl",
}
EVALUATION_METRICS = {"gold/accuracy": "gold/accuracy", "gold/mean_length": "gold/length"}
"""Metrics of a run at every update and at every evaluation, each with its name in the table."""


@dataclass(frozen=True)
class ArithmeticPlan:
    """The settings of the experiment.

    An update has `rollout` completions where rollouts are equal, and `prompts` × G completions where
    steps are equal. The control rewards have the group size `control`.
    """

    model: str = "smollm2-135m"
    task: str = "gym:chain_sum:min_terms=2,max_terms=2,min_digits=1,max_digits=2,truth=number"
    sizes: tuple[int, ...] = (2, 4, 8, 16, 32)
    rollout: int = 128
    prompts: int = 8
    control: int = 8
    rate: float = 3e-4
    updates: int = 60
    looks: int = 10
    tokens: int = 32
    held_out: int = 256
    shown: int = 50


PLAN = ArithmeticPlan()
CONTROL_REWARDS = ("math", "random")
SHIPPED = {
    "grpo": ("rollouts", "checked answers"),
    "math": ("math", "a checker that can be fooled"),
    "random": ("random", "random rewards"),
}
"""Runs that the lab ships, by name: what their arm holds equal, and their title."""


def arms() -> dict[tuple[str, int], Arm]:
    """Returns every arm by what is equal ("rollouts", "steps" or the reward) and by G. The two budgets
    share an arm where their batch sizes agree.

    The reward "math" compares values, so restating the sum earns it too; "random" tosses a coin.
    """
    batches = {("rollouts", g): PLAN.rollout for g in PLAN.sizes} | {
        ("steps", g): PLAN.prompts * g for g in PLAN.sizes
    }
    answer_arms = {key: _arm(key[1], batch, "answer") for key, batch in batches.items()}
    return answer_arms | {
        (reward, PLAN.control): _arm(PLAN.control, PLAN.rollout, reward)
        for reward in CONTROL_REWARDS
    }


def _arm(group: int, batch: int, reward: str) -> Arm:
    return Arm(
        f"grpo-{reward}-{group}-{batch}",
        "grpo",
        {
            "model": PLAN.model,
            "task": PLAN.task,
            "group_size": group,
            "batch_size": batch,
            "reward": reward,
            "learning_rate": PLAN.rate,
            "steps": PLAN.updates,
            "max_completion_tokens": PLAN.tokens,
            "eval_every": max(1, PLAN.updates // PLAN.looks),
            "eval_prompts": PLAN.held_out,
            "checkpoint_every": PLAN.updates,
        },
    )


def arithmetic_curves(folder: Path) -> dict[str, list[float]]:
    """Returns the metrics of a run at every update, and of its evaluations at every evaluated step."""
    rows = [row for row in RunFolder(folder).history() if row["type"] == "step"]
    updates = [row for row in rows if row["step"]]
    evaluated = [row for row in rows if "gold/accuracy" in row["metrics"]]
    return (
        {"steps": [row["step"] for row in updates], "looks": [row["step"] for row in evaluated]}
        | {to: [row["metrics"][name] for row in updates] for name, to in STEP_METRICS.items()}
        | {
            to: [row["metrics"][name] for row in evaluated]
            for name, to in EVALUATION_METRICS.items()
        }
    )


def run_experiment(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Trains every arm with every seed; writes table.json, report.md and the runs to ship in `out`."""
    interval([0.0] * seeds)
    plan, arm_of = asdict(PLAN), arms()
    record_plan(out, {"experiment": "arithmetic", "device": device} | plan)
    control = arm_of["random", PLAN.control].knobs | {"device": device, "reward": "answer"}
    base = cached_json(
        out / "base.json", lambda: measure_base(make_config("grpo", control), PLAN.shown)
    )
    distinct = list({arm.name: arm for arm in arm_of.values()}.values())
    runs = run_arms(out, distinct, seeds, device, jobs, say, PLAN.shown)
    facts = record_origin(command_line("arithmetic", seeds, device), device)
    first_runs = {}
    for name, (equal, title) in SHIPPED.items():
        arm = arm_of[equal, PLAN.control]
        first_runs[name] = runs[arm.name][0]
        seconds = first_runs[name]["seconds"]
        ship_run(out, arm, f"Arithmetic, SmolLM2-135M, {title}", facts, seconds)
    table = facts | {
        "seeds": seeds,
        "plan": plan,
        "evaluation": (
            f"{EVALUATION_PROMPTS} held-out problems x"
            f" {EVALUATION_SAMPLES} completions; on the way {PLAN.held_out} x 1"
        ),
        "base": {name: value for name, value in base.items() if name != "shown"},
        "shown": {"base": base["shown"]} | {name: run["shown"] for name, run in first_runs.items()},
        "rows": round_significant(
            [_row(out, key, arm, runs[arm.name]) for key, arm in arm_of.items()]
        ),
    }
    write_table(out, table, render_report(table))
    return table


def _row(
    out: Path, key: tuple[str, int], arm: Arm, results: list[dict[str, Any]]
) -> dict[str, Any]:
    """Returns the row of an arm: its curves and its final measures over all seeds."""
    equal, group = key
    seed_curves = [arithmetic_curves(out / f"{arm.name}-{seed}") for seed in range(len(results))]
    return {
        "equal": equal,
        "group_size": group,
        "batch_size": arm.knobs["batch_size"],
        "steps": seed_curves[0]["steps"],
        "looks": seed_curves[0]["looks"],
        **{
            name: mean_over_seeds([curves[name] for curves in seed_curves])
            for name in (*STEP_METRICS.values(), *EVALUATION_METRICS.values())
        },
        "end": {
            name: asdict(interval([result[name] for result in results])) for name in FINAL_MEASURES
        },
    }


def render_report(table: dict[str, Any]) -> str:
    """Returns the Markdown report of the table."""
    base = table["base"]
    lines = [
        "# GRPO on arithmetic",
        "",
        (
            f"`{table['command']}` on {table['device']}; {table['plan']['model']} on"
            f" {table['plan']['task']}, {table['seeds']} seeds, ± half the 95 % interval;"
            f" {table['evaluation']}. The base is right {100 * base['gold/accuracy']:.1f} % of the"
            " time."
        ),
        "",
        arithmetic_table(table),
    ]
    return "\n".join(lines)


def arithmetic_table(table: dict[str, Any]) -> str:
    """Returns the final measures of every arm as a Markdown table."""
    heads = (
        "equal",
        "G",
        "completions an update",
        "gold accuracy",
        "reward paid, first → last",
        "length, tokens",
        "entropy, first → last",
        "dead groups, first → last",
        "KL, nats",
    )
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for row in table["rows"]:
        end, right = row["end"], Interval(**row["end"]["gold/accuracy"]).text(2, SHARE)
        paid, entropy, dead = (
            f"{row[name]['mean'][0]:.2f} → {row[name]['mean'][-1]:.2f}"
            for name in ("reward", "entropy", "dead")
        )
        lines.append(
            f"| {row['equal']} | {row['group_size']} | {row['batch_size']} | {right} | {paid} |"
            f" {end['completions/mean_length']['mean']:.0f} | {entropy} | {dead} | {end['kl']['mean']:.1f} |"
        )
    return "\n".join(lines) + "\n"
