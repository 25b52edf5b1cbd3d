"""Blocks on speed: one table for the GPU, one for the CPU, one for several GPUs, one for the peers in
an environment of their own.
"""

from collections.abc import Sequence
from typing import Any

from docs_blocks.markdown import command_text, markdown_table, source
from lab.analysis.recorded_results import RESULTS_FOLDER, load_result
from lab.benchmarks.report import (
    SIDES,
    checkpointing_word,
    has_checkpointing,
    padding_ratios,
    peer_rows,
    rows_with_peer,
    scaling_table,
    speed_ratio,
)
from lab.profiling.model_shapes import MODEL_SHAPES

H100_RECORDS = (
    "bench-h100-apart-dpo",
    "bench-h100-apart-ipo",
    "bench-h100-training",
    "bench-h100-grpo-135m",
    "bench-h100-grpo-1.2b",
    "bench-h100-decoding",
)
"""The records of the H100, which have TRL's KTO and GRPO beside the lab's."""
WORKS = ("dpo", "ipo", "kto", "grpo", "decode")
SIZES = ("embedded", *MODEL_SHAPES)
HEADS = (
    "model",
    "work",
    "gradient checkpointing",
    "lab, s",
    "TRL default, s",
    "TRL best, s",
    "TRL's best setting",
    "lab / TRL's best, tokens a second",
    "memory, GiB: lab / TRL's best",
    "of the device's limit",
    "record",
)


def _records(pattern: str) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in RESULTS_FOLDER.glob(f"{pattern}.json")))


def gpu_records() -> tuple[str, ...]:
    """Return the records of the H200's table."""
    return tuple(name for name in _records("bench-h200-*") if "scaling" not in name)


def scaling_records() -> tuple[str, ...]:
    """Return the records of the table for several GPUs, by the number of processes."""
    new = _records("bench-h200-scaling-*") or ("scaling-1", "scaling-2")
    return tuple(sorted(new, key=lambda name: load_result(name)["processes"]))


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
        checkpointing_word(own),
        _seconds(own),
        _seconds(default),
        _seconds(best),
        best["setting"] if best else "–",
        f"{speed_ratio(own, best):.1f} ×" if best else "–",
        memory,
        f"{100 * own['share']:.0f} %",
    ]


Key = tuple[str, str, bool]
"""Model, work, and whether the side has gradient checkpointing."""


def _sides(records: Sequence[str]) -> dict[Key, tuple[int, Any]]:
    """Return by model, work and checkpointing the number of the record and its three rows: of the
    first record that has the peer, or else of the first one.
    """
    sides: dict[Key, tuple[int, Any]] = {}
    for number, record in enumerate(records, start=1):
        for rows in rows_with_peer(load_result(record)):
            key = (rows[0]["size"], rows[0]["work"], has_checkpointing(rows[0]))
            if key not in sides or (rows[2] and not sides[key][1][2]):
                sides[key] = (number, rows)
    return sides


def speed_table(records: Sequence[str]) -> str:
    """Return one table of several records of one device, then the command of each record."""
    sides = _sides(records)
    rows = [
        [*_cells(*sides[key][1]), str(sides[key][0])]
        for key in ((s, w, c) for s in SIZES for w in WORKS for c in (False, True))
        if key in sides
    ]
    _require_one_machine(records)
    first = load_result(records[0])
    notes = [f"{number}. {_record_line(record)}" for number, record in enumerate(records, start=1)]
    return (
        f"{markdown_table(HEADS, rows)}\n{first['device']}, torch {first['torch']}, transformers"
        f" {first['transformers']}, {first['peer']}. Records:\n\n" + "\n".join(notes)
    )


def _require_one_machine(records: Sequence[str]) -> None:
    """Raise `ValueError` where records of one table come from several machines or versions."""
    for name in ("device", "torch", "transformers"):
        values = {load_result(record)[name] for record in records}
        if len(values) > 1:
            raise ValueError(f"one table has records with several values of {name}: {values}")


def _record_line(record: str) -> str:
    table = load_result(record)
    code = table.get("commit") or table.get("code")
    made = f", code {code}" if code else ""
    return f"`{record}.json`, {table['rounds']} rounds{made}: `{table['command']}`"


def failed_settings() -> str:
    """Return the settings of TRL that gave no number."""
    rows = [
        [row["size"], row["work"], row["setting"], row["error"]]
        for record in (*gpu_records(), *H100_RECORDS)
        for row in load_result(record)["rows"]
        if row["error"] and row["side"] == "trl" and "interrupted" not in row["error"]
    ]
    if not rows:
        return "None: every setting that was tried gave a number."
    return markdown_table(["model", "work", "setting of TRL", "no number because"], rows)


def padding() -> str:
    """Return the time with one completion twice as long over that with equal ones."""
    for record in (*gpu_records(), *H100_RECORDS):
        table = load_result(record)
        if ratios := padding_ratios(table):
            rows = [
                [size, "TRL, reference precomputed" if side == "trl" else side, f"{ratio:.2f}"]
                for (size, side), ratio in ratios.items()
            ]
            heads = ["model", "side", "time with one long completion / time with equal ones"]
            return f"{markdown_table(heads, rows)}\n{source(table, record)}"
    return "Not measured in these records. The command is `python -m lab bench --works padding`."


def peers() -> str:
    """Return the rows of Unsloth and vLLM beside the lab's, and which of them has no number."""
    rows, missing = [], dict.fromkeys(("unsloth", "vllm"))
    for record in _records("bench-*"):
        table = load_result(record)
        for row in peer_rows(table):
            missing.pop(row["side"], None)
            own = _lab_row(table, row)
            memory = f"{row['memory'] / 2**30:.1f}" if row["memory"] else "–"
            rows.append(
                [
                    row["size"],
                    "decoding" if row["work"] == "decode" else row["work"].upper(),
                    checkpointing_word(row),
                    f"{SIDES[row['side']]}, {row['setting']}",
                    _seconds(row),
                    memory,
                    _seconds(own),
                    f"{own['memory'] / 2**30:.1f}" if own and own["memory"] else "–",
                    f"`{record}.json`, {table['device']}",
                ]
            )
    heads = ["model", "work", "gradient checkpointing", "peer", "peer, s", "peer, GiB"]
    text = markdown_table([*heads, "lab, s", "lab, GiB", "record"], rows) + "\n" if rows else ""
    if "unsloth" in missing:
        text += "Unsloth: no number of this lab's own exists yet.\n\n"
    if "vllm" in missing:
        text += (
            "vLLM: no number of this lab's own exists yet. Most people sample with it for GRPO, so no"
            " number here\nsays how fast the lab's GRPO is beside TRL plus vLLM.\n"
        )
    return text


def _lab_row(table: dict[str, Any], row: dict[str, Any]) -> dict[str, Any] | None:
    """Return the lab's row with the same work, size and gradient checkpointing."""
    key = (row["work"], row["size"], has_checkpointing(row))
    return next(
        (
            own
            for own in table["rows"]
            if own["side"] == "lab"
            and not own["error"]
            and (own["work"], own["size"], has_checkpointing(own)) == key
        ),
        None,
    )


def scaling() -> str:
    """Return the same work on one and on several GPUs."""
    records = scaling_records()
    _require_one_machine(records)
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
        f" {first['transformers']}, NCCL; records"
        f" {' and '.join(f'`{record}.json`' for record in records)}.\n"
    )


def engine() -> str:
    """Return the three works whose speed decides for code of the lab's own."""
    records = H100_RECORDS
    gpu, cpu = _sides(records), _sides(["bench-cpu"])
    rows = []
    for part, sides, names, key in (
        ("packed forward and backward pass", gpu, records, ("1.2b", "dpo", False)),
        ("captured CUDA graphs", gpu, records, ("135m", "dpo", False)),
        (
            "sampler with a static cache, on a CPU",
            cpu,
            ["bench-cpu"],
            ("embedded", "decode", False),
        ),
    ):
        number, (own, _, best) = sides[key]
        cells = _cells(own, None, best)
        rows.append([part, *cells[:2], cells[3], *cells[5:9], f"`{names[number - 1]}.json`"])
    heads = ["own code", *HEADS[:2], HEADS[3], *HEADS[5:9], "record"]
    return markdown_table(heads, rows)


BLOCKS = {
    "bench-gpu": lambda: speed_table(gpu_records()),
    "bench-gpu-h100": lambda: speed_table(H100_RECORDS),
    "bench-gpu-failed": failed_settings,
    "bench-cpu": lambda: speed_table(["bench-cpu"]),
    "bench-laptop": lambda: speed_table(["bench-laptop"]),
    "bench-padding": padding,
    "bench-peers": peers,
    "bench-scaling": scaling,
    "engine-speed": engine,
}
