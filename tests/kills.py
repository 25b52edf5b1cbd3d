"""Kill training processes at random moments and in their last save, resume them, and compare with
runs that nobody killed.

    python tests/kills.py 200              # kills in all, spread over all methods
    python tests/kills.py 24 --methods dpo,ppo --seed 1

A kill is SIGKILL, sent after a random time or when a file of the run folder reaches a state that a
poll sees. After every kill each reader reads the folder; after every resume all records that were
there before are there still; at the end records and adapter are those of the run that was not
killed.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from safetensors.torch import load_file

from lab.config.methods import METHODS, make_config
from lab.models import adapter_files
from lab.runs.damage import damage
from lab.runs.folder import RunFolder, create
from lab.runs.sample_index import SampleIndex
from lab.runs.summary import summarise
from lab.storage import jsonl
from lab.training.driver import drive
from lab.training.resume import load_checkpoint

STEPS = 7
TINY = {
    "steps": STEPS,
    "batch_size": 8,
    "eval_prompts": 4,
    "eval_every": 3,
    "checkpoint_every": 2,
    "max_completion_tokens": 8,
    "lora_rank": 2,
    "device": "cpu",
}
GROUPED = ("grpo", "online_dpo")
MOMENTS = {  # What a poll waits for before it kills, by name.
    "at a random time": lambda folder: True,
    "after the last update": lambda folder: (
        folder.status()["step"] >= STEPS or _has(folder, b'"step": %d, "metrics"' % STEPS)
    ),
    "in the last checkpoint": lambda folder: (
        _has(folder, b'"step": %d, "metrics"' % STEPS) and _partial(folder.path / "checkpoint")
    ),
    "while the adapter is made": lambda folder: any(folder.path.glob(".peft.*")),
    "while the adapter is written": lambda folder: (
        _partial(folder.path, ".adapter.*") or _partial(folder.path / "adapter")
    ),
    "between adapter and end": lambda folder: (
        (folder.path / "adapter").is_dir() and not _has(folder, b'"finished"')
    ),
    "between end and status": lambda folder: _has(folder, b'"finished"'),
    "while a checkpoint is written": lambda folder: _partial(folder.path / "checkpoint"),
}


def _has(folder, text):
    return text in jsonl.read_bytes(folder.path / "metrics.jsonl")


def _partial(place, pattern=".*.*"):
    return place.is_dir() and any(place.glob(pattern))


def knobs(method):
    """Settings that train in a second or two."""
    return (
        TINY
        | ({"group_size": 4} if method == "grpo" else {})
        | ({} if method in ("grpo", "ppo", "online_dpo") else {"pairs": 40})
    )


def _train(path):
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    drive(RunFolder(path))


def started(path):
    """A process that trains the run; where the system can fork it needs no second to load torch."""
    kind = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    process = multiprocessing.get_context(kind).Process(target=_train, args=(path,))
    process.start()
    return process


def finish(path):
    """Resume a run until it ends; it must end well."""
    process = started(path)
    process.join()
    assert process.exitcode == 0, (
        f"{path}: a resume ended with exit code {process.exitcode}: {RunFolder(path).status()}"
    )


def steps_of(folder):
    return {row["step"]: row["metrics"] for row in folder.history() if row["type"] == "step"}


def read_everything(folder):
    """Every reader, on the folder as a kill left it; an adapter that is there must be sound."""
    assert not damage(folder), damage(folder)
    summarise(folder), folder.samples(), folder.state
    index = SampleIndex(folder.path / "samples.jsonl")
    index.refresh()
    assert all(index.at(step) for step in index.steps())
    load_checkpoint(folder)
    if (folder.path / "adapter").exists():
        adapter_files.require_adapter(folder.path / "adapter")
        assert load_file(folder.path / "adapter" / adapter_files.ADAPTER_WEIGHTS) and json.loads(
            (folder.path / "adapter" / adapter_files.ADAPTER_CONFIG).read_text()
        )


def kill_once(folder, moment, longest, dice):
    """Start the run and kill it at the moment; returns whether it was still running. What was
    acknowledged stays.
    """
    process = started(folder.path)
    began, wait = (
        time.monotonic(),
        (
            dice.uniform(0, longest)
            if moment == "at a random time"
            else dice.choice([0, 0, 0.001, 0.004, 0.02])
        ),
    )
    while process.is_alive() and (
        time.monotonic() - began < wait
        if moment == "at a random time"
        else not MOMENTS[moment](folder)
    ):
        time.sleep(0.0002)  # The process that is to be killed needs the core more.
    if moment != "at a random time":
        time.sleep(wait)
    process.kill()
    process.join()
    return process.exitcode == -9


def survive(method, root, count, seed, say=print):
    """Kill runs of `method` `count` times; returns how often at each moment. Raises AssertionError
    for what was lost.
    """
    dice, done = random.Random(f"{seed}/{method}"), Counter()
    whole = create(root / "whole", make_config(method, knobs(method)))
    began = time.monotonic()
    finish(whole.path)
    longest = time.monotonic() - began
    expected, weights = (
        steps_of(whole),
        load_file(whole.path / "adapter" / adapter_files.ADAPTER_WEIGHTS),
    )
    number = 0
    while sum(done.values()) < count:
        number += 1
        folder = create(root / f"run-{number}", make_config(method, knobs(method)))
        for _ in range(dice.randint(1, 3)):
            if sum(done.values()) >= count or folder.state == "finished":
                break
            moment = dice.choice(list(MOMENTS))
            if kill_once(folder, moment, longest, dice):
                done[moment] += 1
            read_everything(folder)
            acknowledged = jsonl.read_bytes(folder.path / "metrics.jsonl")
            acknowledged = acknowledged[: acknowledged.rfind(b"\n") + 1]
        if folder.state != "finished":
            finish(folder.path)
        assert jsonl.read_bytes(folder.path / "metrics.jsonl").startswith(acknowledged), (
            f"{folder.path}: records that were there are gone"
        )
        assert folder.state == "finished" and steps_of(folder) == expected, (
            f"{folder.path}: other records than without kills"
        )
        found = load_file(folder.path / "adapter" / adapter_files.ADAPTER_WEIGHTS)
        assert found.keys() == weights.keys() and all(
            (found[name] == weights[name]).all() for name in weights
        ), f"{folder.path}: another adapter"
        assert not [p for p in folder.path.rglob(".*.*[0-9]") if p.name != ".lock"], (
            f"{folder.path}: something is left over"
        )
        read_everything(folder)
        shutil.rmtree(folder.path)
    say(
        f"{method}: {sum(done.values())} kills survived in {number} runs: "
        + ", ".join(f"{moment} {n}" for moment, n in sorted(done.items()))
    )
    return done


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kills", type=int, nargs="?", default=200)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    methods, total = asked.methods.split(","), Counter()
    for place, method in enumerate(methods):
        share = asked.kills // len(methods) + (place < asked.kills % len(methods))
        with tempfile.TemporaryDirectory(prefix="kills-") as root:
            total += survive(
                method, Path(root), share, asked.seed, lambda text: print(text, flush=True)
            )
    print(
        f"{sum(total.values())} kills survived: "
        + ", ".join(f"{moment} {n}" for moment, n in sorted(total.items()))
    )


if __name__ == "__main__":
    main()
