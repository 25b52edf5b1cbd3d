"""The benchmark: the lab and, beside it, another library do the same work on the same model.

On a GPU, and beside another library, every side has a process of its own. The time of a turn is the
mean time of its steps; every side takes untimed steps before it, for equally many seconds. Memory is
the most that torch had allocated on the GPU in the process of a side, with its model and its untimed
steps. On a CPU it is the most memory that the process of a side has had, libraries included.
"""

import gc
import json
import os
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from lab.benchmarks import trl_settings
from lab.benchmarks.device_limits import best_seconds, device_limits
from lab.benchmarks.plans import Piece, Request
from lab.benchmarks.report import row_in_words
from lab.benchmarks.sides import fallback_sides, lab_sides, measured, peer_sides
from lab.benchmarks.turns import Side
from lab.benchmarks.workload import BENCH_SEED, Work, make_works
from lab.distributed import collectives
from lab.errors import LabError
from lab.experiments.arms import device_name
from lab.experiments.protocol import Log
from lab.experiments.run_log import code_commit, code_fingerprint
from lab.models.device import resolve_device
from lab.storage.jsonl import replace_file


def run_benchmark(
    request: Request,
    rounds: int,
    device: str = "auto",
    say: Log = lambda text: None,
    out: Path | None = None,
    models: Path | None = None,
) -> dict[str, Any]:
    """Measures the pieces of `request`; in each of the `rounds` every side has a turn.

    `out` is rewritten after every side. If it is there already, its rows stay and only what it lacks
    is measured. A setting of the peer that fails becomes a row with its error. `models` keeps the
    models with random weights. N processes of a distributed run do N times the work; a peer and
    "decode" take one process. Raises `LabError` for an unknown name, too few rounds, a peer that is
    not installed, or an `out` of another machine.
    """
    with collectives.process_group(), _model_folder(models) as folder:
        _require_known(request.pieces, rounds)
        where = resolve_device(device)
        if collectives.rank():
            say = _silent
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
        table = collectives.broadcast_object(
            partial(_begun_table, request, rounds, device, where, out)
        )
        say(
            f"{table['device']}: {table['limits']['flops'] / 1e12:,.2f} TFLOP/s,"
            f" {table['limits']['bandwidth'] / 1e9:,.0f} GB/s"
        )
        for piece in request.pieces:
            for row, versions in _missing_rows(piece, table, rounds, where, folder):
                table["rows"].append(row)
                if versions and versions not in (table["peer"] or ""):
                    table["peer"] = "; ".join(filter(None, [table["peer"], versions]))
                say(row_in_words(row))
                if out and collectives.rank() == 0:
                    replace_file(out, (json.dumps(table, indent=1) + "\n").encode())
        return table


@contextmanager
def _model_folder(models: Path | None) -> Iterator[Path]:
    """Within it there is the folder `models`, or a temporary one."""
    if models is not None:
        models.mkdir(parents=True, exist_ok=True)
        yield models
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _silent(text: str) -> None:
    """Prints nothing: rank 0 alone reports."""


def _begun_table(
    request: Request, rounds: int, device: str, where: torch.device, out: Path | None
) -> dict[str, Any]:
    """Returns the table in the file `out`, or a new one without rows."""
    facts: dict[str, Any] = {
        "code": code_fingerprint(),
        "seed": BENCH_SEED,
        "device": device_name(device),
        "torch": torch.__version__.partition("+")[0],
        "transformers": transformers.__version__,
        "processes": collectives.world_size(),
        "rounds": rounds,
        "order": "one after another" if _one_at_a_time(where) else "turns",
        "command": request.command(rounds, out.name if out else ""),
    }
    if out and out.is_file():
        table = json.loads(out.read_text("utf-8"))
        for name, fact in facts.items():
            if table.get(name) != fact:
                raise LabError(
                    f"{out} was measured with {name} '{table.get(name)}', and this is '{fact}'. Give"
                    " another --out, or delete the file."
                )
        return table
    trl = any(piece.peer == "trl" for piece in request.pieces)
    return facts | {
        "commit": code_commit(),
        "peer": trl_settings.trl_version() if trl else None,
        "limits": device_limits(where),
        "rows": [],
    }


def _one_at_a_time(where: torch.device) -> bool:
    """Whether one side ends before the next one begins; processes that a launcher such as torchrun
    started measure the lab alone, in themselves.
    """
    return where.type == "cuda" and "WORLD_SIZE" not in os.environ


def _require_known(pieces: tuple[Piece, ...], rounds: int) -> None:
    """Raises `LabError` unless this machine and these processes can measure what is asked for."""
    for piece in pieces:
        piece.require_known()
        if "WORLD_SIZE" in os.environ and (piece.peer or "decode" in piece.works):
            raise LabError(
                f"{collectives.world_size()} processes of a launcher measure training together."
                " Leave --peer and decode out, or start the command without the launcher."
            )
        if piece.peer == "trl":
            trl_settings.trl_version()
    if rounds < 1:
        raise LabError(f"rounds is {rounds}, but takes a whole number of at least 1.")


def _missing_rows(
    piece: Piece, table: dict[str, Any], rounds: int, where: torch.device, folder: Path
) -> Iterator[tuple[dict[str, Any], str]]:
    """Measures the sides of a piece that `table` lacks; yields the row of each and its versions."""
    one_at_a_time = _one_at_a_time(where)
    make = partial(
        make_works, list(piece.works), piece.size, folder / piece.size, where, piece.amounts
    )
    works = collectives.broadcast_object(make)
    _free_memory(where)
    separate = one_at_a_time or bool(piece.peer)
    by_work = [
        [*lab_sides(work, piece, where, separate), *peer_sides(work, piece, where)]
        for work in works
    ]
    # One after another, the processes of all works can start together.
    for sides in [sum(by_work, [])] if one_at_a_time else by_work:
        yield from _rows(sides, table, rounds, where)
    for work in works:
        theirs = [
            row
            for row in table["rows"]
            if (row["work"], row["size"], row["side"]) == (work.name, work.size, piece.peer)
        ]
        if theirs and all(row["error"] for row in theirs):
            yield from _rows(fallback_sides(work, piece, where), table, rounds, where)


def _rows(
    sides: list[Side], table: dict[str, Any], rounds: int, where: torch.device
) -> Iterator[tuple[dict[str, Any], str]]:
    there = {(row["work"], row["size"], row["side"], row["setting"]) for row in table["rows"]}
    missing = [
        side
        for side in sides
        if side.work is not None
        and (side.work.name, side.work.size, side.name, side.setting) not in there
    ]
    for side in measured(missing, rounds, _one_at_a_time(where)):
        _free_memory(where)
        assert side.work is not None
        yield row_of(side.work, side, table["limits"], where), side.versions


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
        "checkpointing": side.checkpointing,
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
