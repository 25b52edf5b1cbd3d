"""Where the pairs of a real run stand on the loss curve: the margin of every one of them while it
trains.
"""

from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from lab.config.methods import make_config
from lab.experiments.arms import Log, command_line, device_name, keep_plan
from lab.experiments.checkpoint_probe import follow
from lab.experiments.process_pool import map_cached, rounded, write_table

RUNS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "dpo": ("dpo", "DPO", {}),
    "ipo": ("ipo", "IPO", {}),
    "kto": ("kto", "KTO", {}),
    "dpo-noise": ("dpo", "DPO, 30 % of the labels swapped", {"label_noise": 0.3}),
    "dpo-tiny": ("dpo", "DPO, 64 pairs in all", {"pairs": 64}),
}
"""Per run its method, its title and the knobs that differ from the defaults."""
LOOKS = tuple(range(0, 151, 5))
PAIRS, PROMPTS = 64, 128


def margins(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Follow every run with every seed and write table.json and report.md in `out`; an interrupted
    call goes on where it stopped.
    """
    keep_plan(out, {"experiment": "margins", "device": device})
    names = [(name, seed) for seed in range(seeds) for name in RUNS]
    found = map_cached(
        out,
        follow,
        {
            f"{name}-{seed}": (RUNS[name][0], RUNS[name][2], seed, device, LOOKS, PAIRS, PROMPTS)
            for name, seed in names
        },
        jobs,
        say,
    )
    rows = []
    for name, seed in names:
        method, title, knobs = RUNS[name]
        run = found[f"{name}-{seed}"]
        between = [[c - r for c, r in zip(*sides)] for sides in zip(run["chosen"], run["rejected"])]
        rows.append(
            {
                "method": method,
                "name": title,
                "seed": seed,
                "beta": make_config(method, knobs).beta,
                "steps": run["steps"],
                "margins": between,
                **{part: run[part] for part in ("chosen", "rejected", "gold/accuracy")},
            }
        )
    table = {
        "command": command_line("margins", seeds, device),
        "device": device_name(device),
        "torch": torch.__version__.partition("+")[0],
        "seeds": seeds,
        "pairs": PAIRS,
        "prompts": PROMPTS,
        "rows": rounded(rows),
    }
    write_table(out, table, report(table))
    return table


def report(table: dict[str, Any]) -> str:
    """The margins at the last look as Markdown."""
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
