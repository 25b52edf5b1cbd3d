"""The benchmark: the lab and, beside it, another library do the same work on the same model, and
take turns at it.

The time of a turn is the mean time of its steps; every side takes untimed steps before it, for
equally many seconds. Memory is the most that torch had allocated on the GPU in the process of a
side, with its model and its untimed steps.
"""

import gc
import json
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from lab.benchmarks import trl_settings
from lab.benchmarks.device_limits import best_seconds, device_limits
from lab.benchmarks.lab_side import lab_steps
from lab.benchmarks.report import row_in_words
from lab.benchmarks.side_process import InProcess, SeparateProcess
from lab.benchmarks.trl_peer import trl_steps
from lab.benchmarks.turns import Side, take_turn, warm_up
from lab.benchmarks.workload import Work, make_works
from lab.distributed import collectives
from lab.errors import LabError, unknown
from lab.experiments.arms import device_name
from lab.experiments.costs import shape_of
from lab.experiments.protocol import Log
from lab.models.device import resolve_device
from lab.storage.jsonl import replace_file

WORKS = ("dpo", "ipo", "kto", "grpo", "decode", "padding")
"""Names of the works: updates of a method, sampling alone, and the cost of padding."""


def run_benchmark(
    names: list[str],
    sizes: list[str],
    peer: str,
    rounds: int,
    device: str = "auto",
    say: Log = lambda text: None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Measures every work of `names` on every size; in each of the `rounds` every side has a turn.

    `out` is rewritten whenever the table has new rows. A setting of the peer that fails becomes a
    row with its error. N processes of a distributed run do N times the work; the peer and "decode"
    take one process. Raises `LabError` for an unknown work or size, too few rounds, or a peer that
    is not installed.
    """
    with collectives.process_group():
        _require_known(names, sizes, peer, rounds)
        where = resolve_device(device)
        if collectives.rank():
            say = _silent
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
        command = (
            f"python -m lab bench --works {','.join(names)} --sizes {','.join(sizes)} --rounds"
            f" {rounds}"
            + (f" --peer {peer}" if peer else "")
            + (f" --out {out.name}" if out else "")
        )
        table: dict[str, Any] = {
            "command": command,
            "device": device_name(device),
            "torch": torch.__version__.partition("+")[0],
            "transformers": transformers.__version__,
            "peer": trl_settings.trl_version() if peer else None,
            "processes": collectives.world_size(),
            "rounds": rounds,
            "limits": device_limits(where),
            "rows": [],
        }
        say(
            f"{table['device']}: {table['limits']['flops'] / 1e12:,.2f} TFLOP/s,"
            f" {table['limits']['bandwidth'] / 1e9:,.0f} GB/s"
        )
        for size in sizes:
            with tempfile.TemporaryDirectory() as folder:
                make = partial(make_works, names, size, Path(folder), where)
                for work in collectives.broadcast_object(make):
                    for row in measure_work(work, bool(peer), rounds, table["limits"], where):
                        table["rows"].append(row)
                        say(row_in_words(row))
                    if out and collectives.rank() == 0:
                        replace_file(out, (json.dumps(table, indent=1) + "\n").encode())
        return table


def _silent(text: str) -> None:
    """Prints nothing: rank 0 alone reports."""


def _require_known(names: list[str], sizes: list[str], peer: str, rounds: int) -> None:
    """Raises `LabError` unless this machine and these processes can measure what is asked for."""
    for name in names:
        if name not in WORKS:
            raise unknown("work", name, list(WORKS))
    for size in sizes:
        shape_of(size)
    if peer not in ("", "trl"):
        raise unknown("peer", peer, ["trl"])
    if rounds < 1:
        raise LabError(f"rounds is {rounds}, but takes a whole number of at least 1.")
    if collectives.world_size() > 1 and (peer or "decode" in names):
        raise LabError(
            f"{collectives.world_size()} processes measure training together. Leave --peer and"
            " decode out, or start one process."
        )
    if peer:
        trl_settings.trl_version()


def measure_work(
    work: Work, with_peer: bool, rounds: int, limits: dict[str, float], where: torch.device
) -> list[dict[str, Any]]:
    """Measures one work and returns one row for each side.

    All sides have warmed up before the first round and stay in memory until the last one. With a
    peer each side runs in its own process and this process only waits; without one the lab runs in
    this process.
    """
    _free_memory(where)
    sides: list[Side] = []
    try:
        lab = (SeparateProcess if with_peer else InProcess)(partial(lab_steps, work, where), where)
        sides.append(Side("lab", "", lab))
        if with_peer:
            _add_peer(sides, work, trl_settings.settings_of(work, where), where)
        warm_up(sides)
        if with_peer and all(side.error for side in sides[1:]):
            tried = len(sides)
            _add_peer(sides, work, trl_settings.FALLBACK_SETTINGS.get(work.name, {}), where)
            warm_up(sides[tried:])
        for _ in range(rounds):
            for side in sides:
                take_turn(side, side.lead, side.repeat)
    finally:
        players = [side.player for side in sides if side.player]
        for player in players:
            player.close()
        for player in players:
            player.join()
        _free_memory(where)
    return [row_of(work, side, limits, where) for side in sides]


def _add_peer(
    sides: list[Side], work: Work, settings: dict[str, dict[str, Any]], where: torch.device
) -> None:
    """Adds one side of the peer for each of `settings`. A setting that this machine cannot try gets
    the reason as its error.
    """
    for name, knobs in settings.items():
        error = trl_settings.unavailable(knobs)
        make = partial(trl_steps, work, knobs, where)
        sides.append(
            Side("trl", name, None if error else SeparateProcess(make, where), error=error)
        )


def _free_memory(where: torch.device) -> None:
    gc.collect()
    if where.type == "cuda":
        torch.cuda.empty_cache()


def row_of(work: Work, side: Side, limits: dict[str, float], where: torch.device) -> dict[str, Any]:
    """Returns the row of one side: median and range of the seconds of a step over the rounds,
    tokens, tokens per second, peak memory in bytes, and share of the device's limit.

    Raises `LabError` when the side trained on another number of tokens than the work has.
    """
    row: dict[str, Any] = {
        "work": work.name,
        "size": work.size,
        "side": side.name,
        "setting": side.setting,
        "error": side.error or None,
    }
    if side.error:
        return row
    counts = [collectives.all_reduce_sum_int(sum(lengths)) for lengths in side.lengths]
    if work.tokens and any(count != work.tokens for count in counts):
        raise LabError(
            f"{side.name} {side.setting} trained on {counts[0]} tokens in {work.name}, but the work"
            f" has {work.tokens}."
        )
    seconds, tokens = statistics.median(side.times), statistics.mean(counts)
    best = statistics.mean(best_seconds(work, limits, lengths, where) for lengths in side.lengths)
    return row | {
        "seconds": seconds,
        "low": min(side.times),
        "high": max(side.times),
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "memory": side.peak or None,
        "limit": best,
        "share": best / seconds,
    }
