"""Offline and online: how far a policy leaves the data that it was taught with (the article's
distribution shift).
"""

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from lab.analysis.statistics import interval
from lab.config.methods import make_config
from lab.data.batching import collate, encode_examples
from lab.data.encoding import prompt_ids
from lab.data.examples import Pair
from lab.data.parsing import load_pairs
from lab.engine.sampler import sample
from lab.engine.token_logprobs import completion_logps
from lab.experiments.arms import Log, cached, command_line, device_name, keep_plan
from lab.figures.palette import METHOD_NAMES
from lab.models.loading import fitting_threads
from lab.runs.metrics import StepRecord
from lab.storage.jsonl import replace
from lab.tasks.base import Problem
from lab.tasks.chain import gold_answer
from lab.training.loop import prepare, train
from lab.training.state import TrainState

METHODS = ("dpo", "online_dpo", "grpo")
STEPS, EVERY, PROMPTS = 100, 10, 256
MEASURES = (
    "logps/chosen",
    "logps/rejected",
    "gold/accuracy",
    "covered",
    "right_covered",
    "wrong_covered",
)


def follow(method: str, seed: int, device: str) -> dict[str, list[float]]:
    """One run, looked at every `EVERY` updates on the prompts of the first pairs, which DPO trains
    on.
    """
    run = prepare(
        make_config(
            method,
            {"seed": seed, "steps": STEPS, "eval_every": 0, "eval_prompts": 2, "device": device},
        )
    )
    pairs = load_pairs(run.task.pairs_path)[:PROMPTS]
    found: dict[str, list[float]] = {"step": [], **{name: [] for name in MEASURES}}
    with fitting_threads(run.model):
        for record in train(run):
            if isinstance(record, StepRecord) and record.step % EVERY == 0:
                found["step"].append(record.step)
                for name, value in look(run, pairs).items():
                    found[name].append(value)
    return found


@torch.no_grad()
def look(run: TrainState, pairs: list[Pair]) -> dict[str, float]:
    """Log-probabilities of the pairs under the policy, in nats; and of one completion that it
    writes to each of their prompts: the share that is right, the share that stands in the data, and
    that share among the right ones (as chosen) and the wrong ones (as rejected).
    """
    logps = {}
    for side in ("chosen", "rejected"):
        examples = encode_examples(
            run.tokenizer, [(p.prompt, getattr(p, side)) for p in pairs], 128, f"{side} of pair"
        )
        logps[f"logps/{side}"] = (
            completion_logps(
                run.model, collate(examples, run.tokenizer.pad_token_id).to(run.device)
            )
            .mean()
            .item()
        )
    drawn = sample(
        run.model,
        run.tokenizer,
        prompt_ids(run.tokenizer, [p.prompt for p in pairs]),
        1,
        max_tokens=run.config.max_completion_tokens,
        temperature=1.0,
        seed=run.config.seed,
        step=run.step,
        device=run.device,
        stream="drift",
    )
    right = [
        bool(run.task.score(Problem(p.prompt, gold_answer(p.prompt)), text).answer)
        for p, text in zip(pairs, drawn.texts)
    ]
    known = [text in (p.chosen, p.rejected) for p, text in zip(pairs, drawn.texts)]
    return logps | {
        "gold/accuracy": sum(right) / len(pairs),
        "covered": sum(known) / len(pairs),
        "right_covered": _share(known, right),
        "wrong_covered": _share(known, [not r for r in right]),
    }


def _share(known: list[bool], among: list[bool]) -> float | None:
    """Share of `known` where `among` holds; None where it never does."""
    return sum(k for k, a in zip(known, among) if a) / sum(among) if any(among) else None


def _over_seeds(values: list[float | None]) -> dict[str, float | None]:
    """Mean and half the interval over the seeds that have a value; None where fewer than two have."""
    there = [value for value in values if value is not None]
    return asdict(interval(there)) if len(there) > 1 else {"mean": None, "half": None}


def drift(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Follow every method with every seed and write table.json and report.md in `out`; an
    interrupted call goes on where it stopped.
    """
    interval([0.0] * seeds)
    keep_plan(out, {"experiment": "drift", "device": device})
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        waiting = {
            (method, seed): pool.submit(_followed, out, method, seed, device)
            for seed in range(seeds)
            for method in METHODS
        }
        for (method, seed), done in waiting.items():
            say(
                f"{method:12} seed {seed}: {done.result()['covered'][-1]:.0%} of its completions"
                " stand in the data"
            )
    rows = []
    for method in METHODS:
        runs = [waiting[method, seed].result() for seed in range(seeds)]
        points = {
            name: [_over_seeds([run[name][i] for run in runs]) for i in range(len(runs[0]["step"]))]
            for name in MEASURES
        }
        rows.append(
            {
                "method": method,
                "step": runs[0]["step"],
                **{name: [p["mean"] for p in found] for name, found in points.items()},
                **{f"{name} ±": [p["half"] for p in found] for name, found in points.items()},
            }
        )
    table = {
        "command": command_line("drift", seeds, device),
        "device": device_name(device),
        "seeds": seeds,
        "prompts": PROMPTS,
        "rows": rows,
    }
    replace(out / "table.json", (json.dumps(table, indent=1) + "\n").encode())
    replace(out / "report.md", report(table).encode())
    return table


def _followed(out: Path, method: str, seed: int, device: str) -> dict[str, Any]:
    return cached(out / f"{method}-{seed}.json", lambda: follow(method, seed, device))


def report(table: dict[str, Any]) -> str:
    """First and last look as Markdown."""
    lines = [
        "# How far the policy leaves the data",
        "",
        (
            f"`{table['command']}` on {table['device']}, {table['seeds']} seeds; {table['prompts']}"
            " prompts of the pairs, one completion each. A completion is covered when it stands in"
            " the data for its prompt."
        ),
        "",
        (
            "| method | right | log π of chosen, nats | log π of rejected, nats | right ones"
            " covered | wrong ones covered |"
        ),
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in table["rows"]:
        cells = [
            " → ".join(
                "–" if value is None else f"{value:.2f}" for value in (row[name][0], row[name][-1])
            )
            for name in (
                "gold/accuracy",
                "logps/chosen",
                "logps/rejected",
                "right_covered",
                "wrong_covered",
            )
        ]
        lines.append(f"| {METHOD_NAMES[row['method']]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
