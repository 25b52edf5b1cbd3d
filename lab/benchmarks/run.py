"""The benchmark: the lab and, beside it, another library do the same work on the same model, turn
by turn.

A turn's time is the mean of a step; before it come untimed steps, the same seconds of them for
every side. Memory is the most that torch had allocated on the GPU in the process of that side, its
model and its untimed steps included.
"""

import gc
import json
import math
import statistics
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from lab.benchmarks import trl_peer as other
from lab.benchmarks.report import line
from lab.benchmarks.side_process import Apart, Here, Steps
from lab.benchmarks.workload import (
    Prompts,
    Work,
    best_seconds,
    device_limits,
    lab_config,
    now,
    works,
)
from lab.config.methods import METHODS
from lab.data.batching import last_token
from lab.data.encoding import prompt_ids
from lab.distributed import collectives
from lab.engine.sampler import sample
from lab.errors import LabError, unknown
from lab.experiments.arms import Log, device_name
from lab.experiments.costs import shape_of
from lab.models.loading import fitting_threads, load_policy, resolve_device
from lab.storage.jsonl import replace
from lab.training.loop import prepare, update

WORKS = ("dpo", "ipo", "kto", "grpo", "decode", "padding")
SECONDS, MOST, SLOW = 0.3, 10, 1.0
"""What a turn of one side lasts at least, if `MOST` steps are enough for that, and what its untimed
steps last before it; the step, in seconds, from which on there are none of those and fewer to warm
up.
"""


@dataclass
class Side:
    """One contender at one work: who takes its turns, the mean seconds of a step in each round, how
    many steps make a turn after how many that are not timed, and the bytes that it held at most.
    """

    name: str
    setting: str
    player: Here | Apart | None = None
    times: list[float] = field(default_factory=list)
    lengths: list[list[int]] = field(default_factory=list)
    lead: int = 0
    repeat: int = 1
    peak: int = 0
    error: str = ""


def bench(
    names: list[str],
    sizes: list[str],
    peer: str,
    rounds: int,
    device: str = "auto",
    say: Log = lambda text: None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Measure every work of `names` on every size, the sides one after the other in each of
    `rounds`; `out` gets the table as it grows.

    Raises `LabError` for an unknown work or size, too few rounds, or a peer that is not installed.
    A setting of the peer that fails is a row with its error. Processes that were launched together
    do as many times the work together; the peer and sampling alone are for one process.
    """
    with collectives.process_group():
        return _bench(
            names,
            sizes,
            peer,
            rounds,
            device,
            say if collectives.rank() == 0 else lambda text: None,
            out,
        )


def _bench(
    names: list[str],
    sizes: list[str],
    peer: str,
    rounds: int,
    device: str,
    say: Log,
    out: Path | None,
) -> dict[str, Any]:
    where = resolve_device(device)
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
            f"{collectives.world_size()} processes measure training together. Leave --peer and decode"
            " out, or start one process."
        )
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
    against = other.version() if peer else None
    command = (
        f"python -m lab bench --works {','.join(names)} --sizes {','.join(sizes)} --rounds {rounds}"
        + (f" --peer {peer}" if peer else "")
        + (f" --out {out.name}" if out else "")
    )
    table: dict[str, Any] = {
        "command": command,
        "device": device_name(device),
        "torch": torch.__version__.partition("+")[0],
        "transformers": transformers.__version__,
        "peer": against,
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
            for work in collectives.broadcast_object(
                partial(works, names, size, Path(folder), where)
            ):
                for row in measure(work, bool(peer), rounds, table["limits"], where):
                    table["rows"].append(row)
                    say(line(row))
                if out and collectives.rank() == 0:
                    replace(out, (json.dumps(table, indent=1) + "\n").encode())
    return table


def measure(
    work: Work, with_peer: bool, rounds: int, limits: dict[str, float], where: torch.device
) -> list[dict[str, Any]]:
    """One row for each side of one work. Every side has warmed up before the first round, and all
    are in memory until the last.

    With a peer each side runs in a process of its own and this one only collects; the lab alone
    runs here.
    """
    _forget(where)
    sides: list[Side] = []
    try:
        sides.append(
            Side("lab", "", (Apart if with_peer else Here)(partial(lab_steps, work, where), where))
        )
        if with_peer:
            _join(sides, work, other.settings_of(work, where), where)
        _warm(sides)
        if with_peer and all(side.error for side in sides[1:]):
            known = len(sides)
            _join(sides, work, other.LAST_RESORT.get(work.name, {}), where)
            _warm(sides[known:])
        for _ in range(rounds):
            for side in sides:
                turn(side, side.lead, side.repeat)
    finally:
        players = [side.player for side in sides if side.player]
        for player in players:
            player.close()
        for player in players:
            player.join()
        _forget(where)
    return [row_of(work, side, limits, where) for side in sides]


def _join(
    sides: list[Side], work: Work, settings: dict[str, dict[str, Any]], where: torch.device
) -> None:
    """Add the peer in each of `settings`, one that cannot be tried here with the reason as its
    error.
    """
    for name, knobs in settings.items():
        error = other.unavailable(knobs)
        sides.append(
            Side(
                "trl",
                name,
                None if error else Apart(partial(other.contender, work, knobs, where), where),
                error=error,
            )
        )


def _warm(sides: list[Side]) -> None:
    """Let every side take its untimed steps; the first step of all comes before the second of any,
    so that no process is still starting by then.
    """
    for side in sides:
        turn(side, 0, 1)
    for side in sides:
        turn(side, 0, 1)
        _settle(side)


def _settle(side: Side) -> None:
    """Warm up for as long as a turn lasts, unless steps are slow, and choose how many make a turn
    and how many come untimed before it.
    """
    turn(
        side,
        0,
        collectives.broadcast_object(
            lambda: (
                max(3, round(SECONDS / side.times[-1]))
                if side.times and side.times[-1] < SLOW
                else 0
            )
        ),
    )
    once = min(side.times[1:], default=1.0)
    side.lead, side.repeat = collectives.broadcast_object(
        lambda: (
            math.ceil(SECONDS / once) if once < SLOW else 0,
            max(1, min(MOST, round(SECONDS / once))),
        )
    )
    side.times.clear()
    side.lengths.clear()


def turn(side: Side, lead: int, repeat: int) -> None:
    """Let one side take `lead` steps and then `repeat` more, and note the mean time of these; an
    error ends its part in the contest.

    The steps that are not timed show a side how many cores are free, and bring back what other
    sides have had of the caches since its last turn.
    """
    if side.error or side.player is None or not repeat:
        return
    found = side.player.take(lead, repeat)
    side.error, side.peak = found.error, max(side.peak, found.peak)
    if not found.error:
        side.times.append(statistics.mean(found.times))
        side.lengths += found.lengths


def _forget(where: torch.device) -> None:
    gc.collect()
    if where.type == "cuda":
        torch.cuda.empty_cache()


def lab_steps(work: Work, where: torch.device) -> Steps:
    """Do `work` in the lab once for every value asked for: seconds, and the lengths in tokens that
    it trained on (of sampling: that it drew).
    """
    return _trained(work, where) if work.method else _decoded(work, where)


def _trained(work: Work, where: torch.device) -> Steps:
    run = prepare(lab_config(work, where))
    if work.prompts:
        run.task = Prompts(work.prompts)
    method = METHODS[work.method]
    batches = method.batches(run)
    while True:
        with fitting_threads(run.model):
            began = now(where)
            pieces = next(batches)
            update(run, method, pieces)
            took = now(where) - began
        if work.prompts:
            yield took, run.rollout.completion_mask.sum(1).tolist()
        else:
            yield took, [n + 1 for piece in pieces for n in last_token(piece.tokens).tolist()]


def _decoded(work: Work, where: torch.device) -> Steps:
    config, step, prompts = lab_config(work, where), 0, prompt_ids(work.tokenizer, work.prompts)
    model = load_policy(config, where)
    while True:
        step += 1
        with fitting_threads(model):
            began = now(where)
            drawn = sample(
                model,
                work.tokenizer,
                prompts,
                work.group,
                max_tokens=work.longest,
                temperature=1.0,
                seed=0,
                step=step,
                device=where,
            )
            took = now(where) - began
        yield took, drawn.lengths.tolist()


def row_of(work: Work, side: Side, limits: dict[str, float], where: torch.device) -> dict[str, Any]:
    """What one side did: median seconds of a step and their range over the rounds, tokens, tokens a
    second, peak memory, share of the device's limit.

    Raises `LabError` when it trained on other tokens than the work has.
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
