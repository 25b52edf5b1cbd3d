"""The benchmark: the lab and, beside it, another library do the same work on the same model, turn by turn."""

import gc
import json
import statistics
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from lab import parallel
from lab.data import last_token
from lab.errors import LabError, unknown
from lab.experiments import peer as other
from lab.experiments.arms import Say, device_name
from lab.experiments.bench_report import line
from lab.experiments.costs import shape_of
from lab.experiments.workload import Prompts, Work, best_seconds, device_limits, lab_config, now, works
from lab.jsonl import replace
from lab.models import fitting_threads, load_policy, resolve_device
from lab.sampler import sample
from lab.train import METHODS, prepare, update

WORKS = ("dpo", "ipo", "kto", "grpo", "decode", "padding")
SECONDS, MOST, SLOW = 0.3, 10, 1.0
"""What a turn of one side lasts at least, if `MOST` steps are enough for that; the step, in seconds, from which on fewer of them are spent on warming up."""


@dataclass
class Side:
    """One contender at one work: its steps, the seconds of one in each round, how many make a turn, and the bytes it holds and held at most."""

    name: str
    setting: str
    steps: Iterator[tuple[float, list[int]]]
    times: list[float] = field(default_factory=list)
    lengths: list[list[int]] = field(default_factory=list)
    repeat: int = 1
    held: int = 0
    peak: int = 0
    error: str = ""


def bench(names: list[str], sizes: list[str], peer: str, rounds: int, device: str = "auto", say: Say = lambda text: None,
          out: Path | None = None) -> dict[str, Any]:
    """Measure every work of `names` on every size, the sides one after the other in each of `rounds`; `out` gets the table as it grows.

    Raises `LabError` for an unknown work or size, too few rounds, or a peer that is not installed. A setting of the peer that fails is a row with its
    error. Processes that were launched together do as many times the work together; the peer and sampling alone are for one process.
    """
    with parallel.together():
        return _bench(names, sizes, peer, rounds, device, say if parallel.rank() == 0 else lambda text: None, out)


def _bench(names: list[str], sizes: list[str], peer: str, rounds: int, device: str, say: Say, out: Path | None) -> dict[str, Any]:
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
    if parallel.world() > 1 and (peer or "decode" in names):
        raise LabError(f"{parallel.world()} processes measure training together. Leave --peer and decode out, or start one process.")
    against = other.version() if peer else None
    command = (f"python -m lab bench --works {','.join(names)} --sizes {','.join(sizes)} --rounds {rounds}" + (f" --peer {peer}" if peer else "")
               + (f" --out {out.name}" if out else ""))
    table: dict[str, Any] = {"command": command, "device": device_name(device), "torch": torch.__version__.partition("+")[0],
                             "transformers": transformers.__version__, "peer": against, "processes": parallel.world(),
                             "rounds": rounds, "limits": device_limits(where), "rows": []}
    say(f"{table['device']}: {table['limits']['flops'] / 1e12:,.2f} TFLOP/s, {table['limits']['bandwidth'] / 1e9:,.0f} GB/s")
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            for work in parallel.from_main(partial(works, names, size, Path(folder), where)):
                for row in measure(work, bool(peer), rounds, table["limits"], where):
                    table["rows"].append(row)
                    say(line(row))
                if out and parallel.rank() == 0:
                    replace(out, (json.dumps(table, indent=1) + "\n").encode())
    return table


def measure(work: Work, with_peer: bool, rounds: int, limits: dict[str, float], where: torch.device) -> list[dict[str, Any]]:
    """One row for each side of one work. Every side has warmed up before the first round, and all are in memory until the last."""
    sides = [Side("lab", "", lab_steps(work, where))]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # The trainers warn at length of what they themselves are about to change.
            _warm(sides[0], where)
            if with_peer:
                sides += _warmed(work, other.settings_of(work, where), where)
            if with_peer and all(side.error for side in sides[1:]):
                sides += _warmed(work, other.LAST_RESORT.get(work.name, {}), where)
            for _ in range(rounds):
                for side in sides:
                    turn(side, side.repeat, where)
    finally:
        for side in sides:
            side.steps.close()
        _forget(where)
    return [row_of(work, side, limits, where) for side in sides]


def _warmed(work: Work, settings: dict[str, dict[str, Any]], where: torch.device) -> list[Side]:
    sides = [Side("trl", name, other.contender(work, knobs, where), error=other.unavailable(knobs)) for name, knobs in settings.items()]
    with other.checked():
        for side in sides:
            _warm(side, where)
    return sides


def _warm(side: Side, where: torch.device) -> None:
    """Take the untimed steps, fewer of slow ones, and choose how many make a turn."""
    turn(side, 1, where)
    turn(side, 1, where)
    if parallel.from_main(lambda: bool(side.times) and side.times[-1] < SLOW):
        turn(side, 3, where)
    once = min(side.times, default=1.0)
    side.times.clear()
    side.lengths.clear()
    side.repeat = parallel.from_main(lambda: max(1, min(MOST, round(SECONDS / once))))


def turn(side: Side, repeat: int, where: torch.device) -> None:
    """Let one side take `repeat` steps and note the mean time of one; an error ends its part in the contest."""
    if side.error:
        return
    cuda = where.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(where)
        before = torch.cuda.memory_allocated(where)
    try:
        found = [next(side.steps) for _ in range(repeat)]
    except Exception as error:
        side.error = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        side.steps.close()
    else:
        side.times.append(sum(seconds for seconds, _ in found) / repeat)
        side.lengths += [lengths for _, lengths in found]
    gc.collect()  # Here, so that no side's rubbish is swept out in another's turn.
    if cuda:
        side.peak = max(side.peak, side.held + torch.cuda.max_memory_allocated(where) - before)
        side.held += torch.cuda.memory_allocated(where) - before


def _forget(where: torch.device) -> None:
    gc.collect()
    if where.type == "cuda":
        torch.cuda.empty_cache()


def lab_steps(work: Work, where: torch.device) -> Iterator[tuple[float, list[int]]]:
    """Do `work` in the lab once for every value asked for: seconds, and the lengths in tokens that it trained on (of sampling: that it drew)."""
    return _trained(work, where) if work.method else _decoded(work, where)


def _trained(work: Work, where: torch.device) -> Iterator[tuple[float, list[int]]]:
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


def _decoded(work: Work, where: torch.device) -> Iterator[tuple[float, list[int]]]:
    config, step = lab_config(work, where), 0
    model = load_policy(config, where)
    while True:
        step += 1
        with fitting_threads(model):
            began = now(where)
            drawn = sample(model, work.tokenizer, work.prompts, work.group, max_tokens=work.longest, temperature=1.0, seed=0, step=step, device=where)
            took = now(where) - began
        yield took, drawn.lengths.tolist()


def row_of(work: Work, side: Side, limits: dict[str, float], where: torch.device) -> dict[str, Any]:
    """What one side did: median seconds of a step and their range over the rounds, tokens, tokens a second, peak memory, share of the device's limit.

    Raises `LabError` when it trained on other tokens than the work has.
    """
    row: dict[str, Any] = {"work": work.name, "size": work.size, "side": side.name, "setting": side.setting, "error": side.error or None}
    if side.error:
        return row
    counts = [parallel.total(sum(lengths)) for lengths in side.lengths]
    if work.tokens and any(count != work.tokens for count in counts):
        raise LabError(f"{side.name} {side.setting} trained on {counts[0]} tokens in {work.name}, but the work has {work.tokens}.")
    seconds, tokens = statistics.median(side.times), statistics.mean(counts)
    best = statistics.mean(best_seconds(work, limits, lengths, where) for lengths in side.lengths)
    return row | {"seconds": seconds, "low": min(side.times), "high": max(side.times), "tokens": tokens, "tokens_per_second": tokens / seconds,
                  "memory": side.peak or None, "limit": best, "share": best / seconds}
