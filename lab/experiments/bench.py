"""The benchmark: the lab and, beside it, another library do the same work on the same model, turn by turn."""

import gc
import json
import statistics
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

from lab.data import last_token
from lab.errors import LabError, unknown
from lab.experiments import peer as other
from lab.experiments.arms import Say, device_name
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
    error.
    """
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
    against = other.version() if peer else None
    command = (f"python -m lab bench --works {','.join(names)} --sizes {','.join(sizes)} --rounds {rounds}" + (f" --peer {peer}" if peer else "")
               + (f" --out {out.name}" if out else ""))
    table: dict[str, Any] = {"command": command, "device": device_name(device), "torch": torch.__version__.partition("+")[0],
                             "transformers": transformers.__version__, "peer": against, "rounds": rounds, "limits": device_limits(where), "rows": []}
    say(f"{table['device']}: {table['limits']['flops'] / 1e12:,.2f} TFLOP/s, {table['limits']['bandwidth'] / 1e9:,.0f} GB/s")
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            for work in works(names, size, Path(folder), where):
                for row in measure(work, bool(peer), rounds, table["limits"], where):
                    table["rows"].append(row)
                    say(line(row))
                if out:
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
    turn(side, 2, where)
    turn(side, 1, where)
    if side.times and side.times[-1] < SLOW:
        turn(side, 2, where)
    once = min(side.times, default=1.0)
    side.times.clear()
    side.lengths.clear()
    side.repeat = max(1, min(MOST, round(SECONDS / once)))


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
    if work.tokens and any(sum(lengths) != work.tokens for lengths in side.lengths):
        raise LabError(f"{side.name} {side.setting} trained on {sum(side.lengths[0])} tokens in {work.name}, but the work has {work.tokens}.")
    seconds, tokens = statistics.median(side.times), statistics.mean(sum(lengths) for lengths in side.lengths)
    best = statistics.mean(best_seconds(work, limits, lengths, where) for lengths in side.lengths)
    return row | {"seconds": seconds, "low": min(side.times), "high": max(side.times), "tokens": tokens, "tokens_per_second": tokens / seconds,
                  "memory": side.peak or None, "limit": best, "share": best / seconds}


def line(row: dict[str, Any]) -> str:
    """One row in words."""
    who = f"{row['size']:9} {row['work']:15} {row['side']:4} {row['setting']:31}"
    if row["error"]:
        return f"{who} {row['error']}"
    memory = f", {row['memory'] / 2**30:.2f} GiB" if row["memory"] else ""
    return (f"{who} {row['seconds']:.4f} s ({row['low']:.4f} to {row['high']:.4f}), {row['tokens']:,.0f} tokens, {row['tokens_per_second']:,.0f} a second, "
            f"{row['share']:.1%} of the limit{memory}")


def pairs_of(table: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any] | None]]:
    """For each work and size the lab's row, the peer's in its default setting and in its fastest one; None where there is none."""
    found = []
    for own in [row for row in table["rows"] if row["side"] == "lab" and not row["work"].startswith("padding")]:
        theirs = [row for row in table["rows"] if (row["work"], row["size"]) == (own["work"], own["size"]) and row["side"] != "lab" and not row["error"]]
        default = next((row for row in theirs if row["setting"] == "default"), None)
        found.append((own, default, max(theirs, key=lambda row: row["tokens_per_second"], default=None)))
    return found


def faster(own: dict[str, Any], theirs: dict[str, Any]) -> float:
    """How many times the tokens a second."""
    return own["tokens_per_second"] / theirs["tokens_per_second"]


def padding(table: dict[str, Any]) -> dict[tuple[str, str], float]:
    """By size and side: time with one completion twice as long, over the time for the same number of tokens in completions of equal length."""
    rows = {(row["size"], row["side"], row["work"]): row["seconds"] for row in table["rows"] if row["work"].startswith("padding") and not row["error"]
            and not row["setting"].endswith("one thread")}
    return {(size, side): rows[size, side, "padding, longer"] / even for (size, side, work), even in rows.items()
            if work == "padding" and (size, side, "padding, longer") in rows}


def markdown(table: dict[str, Any]) -> str:
    """The table of the README, and under it what failed and what padding costs."""
    text = ["| model | work | lab | TRL, default | TRL, best | faster than the best | memory, lab / TRL's best | tokens a second | of the device's limit |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for own, default, best in pairs_of(table):
        memory = f"{own['memory'] / 2**30:.2f} / {best['memory'] / 2**30:.2f} GiB" if own["memory"] and best else "–"
        text.append(f"| {own['size']} | {own['work'].upper() if own['work'] != 'decode' else 'decoding'} | {_seconds(own)} | {_seconds(default)} | "
                    f"{_seconds(best)}{', ' + best['setting'] if best else ''} | {f'{faster(own, best):.1f} ×' if best else '–'} | {memory} | "
                    f"{own['tokens_per_second']:,.0f} | {own['share']:.1%} |".replace("%", " %"))
    notes = [f"- {size}, {'TRL' if side == 'trl' else side}: one completion twice as long, the number of tokens the same: {ratio:.2f} times the time."
             for (size, side), ratio in padding(table).items()]
    notes += [f"- {row['size']}, {row['work']}, TRL with {row['setting']}: {row['error']}" for row in table["rows"] if row["error"]]
    return "\n".join([*text, *([""] if notes else []), *notes])


def _seconds(row: dict[str, Any] | None) -> str:
    return "–" if row is None else f"{row['seconds']:.3f} s ({row['low']:.3f} to {row['high']:.3f})"
