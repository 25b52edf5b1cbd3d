"""GRPO on one prompt, update by update: the group that page GRPO opens with."""

from pathlib import Path
from typing import Any

import torch

from lab.experiments.arms import command_line, device_name
from lab.experiments.process_pool import write_table
from lab.experiments.protocol import Log
from lab.serving.one_prompt import OnePromptTrainer

PROMPT = "7+5*3-4="
UPDATES = 10


def run_experiment(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Makes the updates of every seed one by one, each measured (`ExperimentCode`)."""
    trainer = OnePromptTrainer(device)
    rows = []
    for seed in range(seeds):
        measured: dict[str, dict[str, int]] = {}
        for updates in range(UPDATES + 1):
            row = trainer.answer(PROMPT, seed=seed, updates=updates)
            measured |= row["measured"]
        rows.append(row | {"measured": measured})
        say(f"seed {seed} is done")
    table = {
        "command": command_line("one_prompt", seeds, device),
        "device": device_name(device),
        "torch": torch.__version__.partition("+")[0],
        "seeds": seeds,
        "rows": rows,
    }
    out.mkdir(parents=True, exist_ok=True)
    write_table(out, table, render_report(table))
    return table


def render_report(table: dict[str, Any]) -> str:
    """Returns right completions of prompt and held-out prompts after every update as Markdown."""
    of = table["rows"][0]["of"]
    lines = [
        "# GRPO on one prompt",
        "",
        f"`{table['command']}` on {table['device']}; prompt {PROMPT}",
        "",
        f"| seed | update | mean reward | right of {of['fresh']} samples of the prompt | right of"
        f" {of['held_out']} held-out prompts |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in table["rows"]:
        for (at, count), group in zip(row["measured"].items(), row["groups"]):
            lines.append(
                f"| {row['seed']} | {at} | {group['mean']:.2f} | {count['fresh']} |"
                f" {count['held_out']} |"
            )
    return "\n".join(lines) + "\n"
