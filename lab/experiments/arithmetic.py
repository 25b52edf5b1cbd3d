"""GRPO on arithmetic with a language model: checked answers as the reward, and groups of five
sizes; beside them a checker that can be fooled, and the control of random rewards (arXiv
2506.10947).
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from lab.analysis.statistics import interval
from lab.config.methods import make_config
from lab.experiments.arms import (
    PROMPTS,
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
from lab.experiments.frontier import ship
from lab.experiments.process_pool import over_seeds, rounded, write_table
from lab.runs.folder import RunFolder

END = (
    "gold/accuracy",
    "gold/format",
    "reward",
    "kl",
    "completions/mean_length",
    "tokens",
    "seconds",
)
STEP = {
    "reward": "reward",
    "completions/mean_length": "length",
    "entropy": "entropy",
    "frac_reward_zero_std": "dead",
    "kl": "kl",
}
LOOK = {"gold/accuracy": "gold/accuracy", "gold/mean_length": "gold/length"}
"""What a run's record says of every update and of every evaluation, and the names in the table."""


@dataclass(frozen=True)
class Plan:
    """What is run. `rollout` completions make an update at equal rollouts, `prompts` × G at equal
    steps; other rewards have the group size `control`.
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


PLAN = Plan()
OTHERS = ("math", "random")


def arms() -> dict[tuple[str, int], Arm]:
    """Every arm by what it holds equal and by G; the two budgets share the arm where they agree.
    "math" pays for the value, which the sum said again has too, "random" heads or tails.
    """
    batches = {("rollouts", g): PLAN.rollout for g in PLAN.sizes} | {
        ("steps", g): PLAN.prompts * g for g in PLAN.sizes
    }
    found = {key: _arm(key[1], batch, "answer") for key, batch in batches.items()}
    return found | {
        (reward, PLAN.control): _arm(PLAN.control, PLAN.rollout, reward) for reward in OTHERS
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


def curves(folder: Path) -> dict[str, list[float]]:
    """One run over its updates, and over those after which it was evaluated."""
    rows = [row for row in RunFolder(folder).history() if row["type"] == "step"]
    trained, looked = (
        [row for row in rows if row["step"]],
        [row for row in rows if "gold/accuracy" in row["metrics"]],
    )
    return (
        {"steps": [row["step"] for row in trained], "looks": [row["step"] for row in looked]}
        | {to: [row["metrics"][name] for row in trained] for name, to in STEP.items()}
        | {to: [row["metrics"][name] for row in looked] for name, to in LOOK.items()}
    )


def arithmetic(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Train every arm with every seed and write table.json, report.md and the runs that are shipped
    in `out`; an interrupted call goes on where it stopped.
    """
    interval([0.0] * seeds)
    plan, every = asdict(PLAN), arms()
    keep_plan(out, {"experiment": "arithmetic", "device": device} | plan)
    first = make_config(
        "grpo", every["random", PLAN.control].knobs | {"device": device, "reward": "answer"}
    )
    base = cached(out / "base.json", lambda: measure_base(first, PLAN.shown))
    runs = run_arms(
        out,
        list({one.name: one for one in every.values()}.values()),
        seeds,
        device,
        jobs,
        say,
        PLAN.shown,
    )
    rows = []
    for (equal, group), one in every.items():
        found = [curves(out / f"{one.name}-{seed}") for seed in range(seeds)]
        rows.append(
            {
                "equal": equal,
                "group_size": group,
                "batch_size": one.knobs["batch_size"],
                "steps": found[0]["steps"],
                "looks": found[0]["looks"],
                **{
                    name: over_seeds([run[name] for run in found])
                    for name in (*STEP.values(), *LOOK.values())
                },
                "end": {name: asdict(interval([r[name] for r in runs[one.name]])) for name in END},
            }
        )
    facts = {
        "command": command_line("arithmetic", seeds, device),
        "device": device_name(device),
        "torch": torch.__version__.partition("+")[0],
        "transformers": transformers.__version__,
    }
    alike = {
        "grpo": ("rollouts", "checked answers"),
        "math": ("math", "a checker that can be fooled"),
        "random": ("random", "random rewards"),
    }
    first_of = {
        name: runs[every[equal, PLAN.control].name][0] for name, (equal, _) in alike.items()
    }
    for name, (equal, said) in alike.items():
        ship(
            out,
            every[equal, PLAN.control],
            f"Arithmetic, SmolLM2-135M, {said}",
            facts,
            first_of[name]["seconds"],
        )
    table = facts | {
        "seeds": seeds,
        "plan": plan,
        "evaluation": (
            f"{PROMPTS} held-out problems x {SAMPLES} completions; on the way {PLAN.held_out} x 1"
        ),
        "base": {name: value for name, value in base.items() if name != "shown"},
        "shown": {"base": base["shown"]} | {name: run["shown"] for name, run in first_of.items()},
        "rows": rounded(rows),
    }
    write_table(out, table, report(table))
    return table


def report(table: dict[str, Any]) -> str:
    """The Markdown report."""
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
        markdown(table),
    ]
    return "\n".join(lines)


def markdown(table: dict[str, Any]) -> str:
    """Where every arm ended as Markdown."""
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
        end, right = row["end"], row["end"]["gold/accuracy"]
        paid, entropy, dead = (
            f"{row[name]['mean'][0]:.2f} → {row[name]['mean'][-1]:.2f}"
            for name in ("reward", "entropy", "dead")
        )
        lines.append(
            f"| {row['equal']} | {row['group_size']} | {row['batch_size']} | {right['mean']:.2f} ±"
            f" {right['half']:.2f} | {paid} | {end['completions/mean_length']['mean']:.0f} |"
            f" {entropy} | {dead} | {end['kl']['mean']:.1f} |"
        )
    return "\n".join(lines) + "\n"
