"""The position of real training pairs on the loss curve: the margin of each pair while a run trains."""

from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from lab.config.json_format import to_dict
from lab.config.methods import make_config
from lab.experiments.arms import command_line, device_name, record_plan
from lab.experiments.checkpoint_probe import probe_checkpoints
from lab.experiments.process_pool import map_cached, round_significant, write_table
from lab.experiments.protocol import Log

MARGIN_RUNS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "dpo": ("dpo", "DPO", {}),
    "ipo": ("ipo", "IPO", {}),
    "kto": ("kto", "KTO", {}),
    "dpo-noise": ("dpo", "DPO, 30 % of the labels swapped", {"label_noise": 0.3}),
    "dpo-tiny": ("dpo", "DPO, 64 pairs in all", {"pairs": 64}),
}
"""For each run its method, its title and the knobs that differ from the defaults."""
PROBED_UPDATES = tuple(range(0, 151, 5))
PROBED_PAIRS, PROBED_PROMPTS = 64, 128


def run_experiment(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Measures the margins of every run with every seed on the way (`ExperimentCode`)."""
    record_plan(out, {"experiment": "margins", "device": device})
    names = [(name, seed) for seed in range(seeds) for name in MARGIN_RUNS]
    probes = map_cached(
        out,
        probe_checkpoints,
        {
            f"{name}-{seed}": (
                MARGIN_RUNS[name][0],
                MARGIN_RUNS[name][2],
                seed,
                device,
                PROBED_UPDATES,
                PROBED_PAIRS,
                PROBED_PROMPTS,
            )
            for name, seed in names
        },
        jobs,
        say,
    )
    rows = []
    for name, seed in names:
        method, title, knobs = MARGIN_RUNS[name]
        run = probes[f"{name}-{seed}"]
        margins = [[c - r for c, r in zip(*sides)] for sides in zip(run["chosen"], run["rejected"])]
        rows.append(
            {
                "method": method,
                "name": title,
                "seed": seed,
                "beta": to_dict(make_config(method, knobs))["beta"],
                "steps": run["steps"],
                "margins": margins,
                **{name: run[name] for name in ("chosen", "rejected", "gold/accuracy")},
            }
        )
    table = {
        "command": command_line("margins", seeds, device),
        "device": device_name(device),
        "torch": torch.__version__.partition("+")[0],
        "seeds": seeds,
        "pairs": PROBED_PAIRS,
        "prompts": PROBED_PROMPTS,
        "rows": round_significant(rows),
    }
    write_table(out, table, render_report(table))
    return table


def render_report(table: dict[str, Any]) -> str:
    """Returns the margins after the last update as Markdown."""
    lines = [
        "# Margins of fixed training pairs",
        "",
        (
            f"`{table['command']}` on {table['device']}; {table['pairs']} pairs of the data as the"
            " run is taught them, h in nats, not multiplied by β."
        ),
        "",
        (
            "| run | seed | updates | mean h | least h | largest h | share above 0 | gold, best →"
            " end |"
        ),
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in table["rows"]:
        last, gold = row["margins"][-1], row["gold/accuracy"]
        lines.append(
            f"| {row['name']} | {row['seed']} | {row['steps'][-1]} | {fmean(last):.1f} |"
            f" {min(last):.1f} | {max(last):.1f} | {fmean(h > 0 for h in last):.2f} |"
            f" {max(gold):.2f} → {gold[-1]:.2f} |"
        )
    return "\n".join(lines) + "\n"
