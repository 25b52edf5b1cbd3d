"""Blocks on speed: one table for the GPU, one for the CPU, one for several GPUs."""

from collections.abc import Sequence
from typing import Any

from docs_blocks.markdown import command_text, markdown_table, source
from lab.analysis.recorded_results import load_result
from lab.benchmarks.report import padding_ratios, rows_with_peer, scaling_table, speed_ratio

GPU_RECORDS = (
    "bench-h100-apart-dpo",
    "bench-h100-apart-ipo",
    "bench-h100-training",
    "bench-h100-grpo-135m",
    "bench-h100-grpo-1.2b",
    "bench-h100-decoding",
)
"""The records of the GPU table. Where two have the same work and model, the first one counts."""
WORKS = ("dpo", "ipo", "kto", "grpo", "decode")
HEADS = (
    "model",
    "work",
    "lab, s",
    "TRL default, s",
    "TRL best, s",
    "TRL's best setting",
    "lab / TRL's best, tokens a second",
    "memory, GiB: lab / TRL's best",
    "of the device's limit",
    "record",
)


def _seconds(row: dict[str, Any] | None) -> str:
    return "–" if row is None else f"{row['seconds']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def _cells(own: Any, default: Any, best: Any) -> list[str]:
    memory = "–"
    if own["memory"]:
        theirs = f"{best['memory'] / 2**30:.1f}" if best else "–"
        memory = f"{own['memory'] / 2**30:.1f} / {theirs}"
    return [
        own["size"],
        "decoding" if own["work"] == "decode" else own["work"].upper(),
        _seconds(own),
        _seconds(default),
        _seconds(best),
        best["setting"] if best else "–",
        f"{speed_ratio(own, best):.1f} ×" if best else "–",
        memory,
        f"{100 * own['share']:.0f} %",
    ]


def _sides(records: Sequence[str]) -> dict[tuple[str, str], tuple[int, Any]]:
    """Return by model and work the number of its record and its three rows."""
    sides: dict[tuple[str, str], tuple[int, Any]] = {}
    for number, record in enumerate(records, start=1):
        for rows in rows_with_peer(load_result(record)):
            sides.setdefault((rows[0]["size"], rows[0]["work"]), (number, rows))
    return sides


def speed_table(records: Sequence[str]) -> str:
    """Return one table of several records of one device, then the command of each record."""
    sides = _sides(records)
    sizes = list(dict.fromkeys(size for size, _ in sorted(sides)))
    rows = [
        [*_cells(*sides[size, work][1]), str(sides[size, work][0])]
        for size in sizes
        for work in WORKS
        if (size, work) in sides
    ]
    first = load_result(records[0])
    notes = [f"{number}. {_record_line(record)}" for number, record in enumerate(records, start=1)]
    return (
        f"{markdown_table(HEADS, rows)}\n{first['device']}, torch {first['torch']}, transformers"
        f" {first['transformers']}, {first['peer']}. Records:\n\n" + "\n".join(notes)
    )


def _record_line(record: str) -> str:
    table = load_result(record)
    return f"`{record}.json`, {table['rounds']} rounds: `{table['command']}`"


def failed_settings() -> str:
    """Return the settings of TRL that gave no number."""
    rows = [
        [row["size"], row["work"], row["setting"], row["error"]]
        for record in GPU_RECORDS
        for row in load_result(record)["rows"]
        if row["error"] and "interrupted" not in row["error"]
    ]
    return markdown_table(["model", "work", "setting of TRL", "no number because"], rows)


def padding() -> str:
    """Return the time with one completion twice as long over that with equal ones."""
    record = "bench-h100-training"
    table = load_result(record)
    rows = [
        [size, "TRL, reference precomputed" if side == "trl" else side, f"{ratio:.2f}"]
        for (size, side), ratio in padding_ratios(table).items()
    ]
    heads = ["model", "side", "time with one long completion / time with equal ones"]
    return f"{markdown_table(heads, rows)}\n{source(table, record)}"


def scaling() -> str:
    """Return the same work on one and on two GPUs."""
    records = ("scaling-1", "scaling-2")
    tables = [load_result(record) for record in records]
    first = tables[0]
    commands = [
        f"torchrun --nproc-per-node {table['processes']} -m lab"
        f" {table['command'].removeprefix('python -m lab ')}"
        for table in tables
    ]
    return (
        f"{scaling_table(tables)}\n\n"
        + "\n\n".join(command_text(command) for command in commands)
        + f"\n\nOn GPUs of one host: {first['device']}, torch {first['torch']}, transformers"
        f" {first['transformers']}, NCCL; records `scaling-1.json` and `scaling-2.json`.\n"
    )


def engine() -> str:
    """Return the three works whose speed decides for code of the lab's own."""
    gpu, cpu = _sides(GPU_RECORDS), _sides(["bench-cpu"])
    rows = []
    for part, sides, records, key in (
        ("packed forward and backward pass", gpu, GPU_RECORDS, ("1.2b", "dpo")),
        ("captured CUDA graphs", gpu, GPU_RECORDS, ("135m", "dpo")),
        ("sampler with a static cache, on a CPU", cpu, ["bench-cpu"], ("embedded", "decode")),
    ):
        number, (own, _, best) = sides[key]
        cells = _cells(own, None, best)
        rows.append([part, *cells[:3], *cells[4:8], f"`{records[number - 1]}.json`"])
    return markdown_table(["own code", *HEADS[:3], *HEADS[4:8], "record"], rows)


BLOCKS = {
    "bench-gpu": lambda: speed_table(GPU_RECORDS),
    "bench-gpu-failed": failed_settings,
    "bench-cpu": lambda: speed_table(["bench-cpu"]),
    "bench-padding": padding,
    "bench-scaling": scaling,
    "engine-speed": engine,
}
