"""Offline against online: how far a policy moves away from its training data (the article's
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
from lab.data.examples import Pair, Text, plain_text
from lab.data.parsing import load_pairs
from lab.engine.sampler import sample
from lab.engine.token_logprobs import completion_logps
from lab.experiments.arms import cached_json, command_line, record_plan
from lab.experiments.protocol import Log
from lab.experiments.run_log import record_origin
from lab.figures.palette import METHOD_NAMES
from lab.models.loading import fitting_threads
from lab.runs.records import StepRecord
from lab.storage.jsonl import replace_file
from lab.tasks.base import Problem
from lab.tasks.chain import gold_answer
from lab.training.loop import prepare, train
from lab.training.state import TrainState

DRIFT_METHODS = ("dpo", "online_dpo", "grpo")
DRIFT_UPDATES, DRIFT_EVERY, DRIFT_PROMPTS = 100, 10, 256
DRIFT_MEASURES = (
    "logps/chosen",
    "logps/rejected",
    "gold/accuracy",
    "covered",
    "right_covered",
    "wrong_covered",
)


def probe_drift(method: str, seed: int, device: str) -> dict[str, list[float | None]]:
    """Trains a run and measures it every `DRIFT_EVERY` updates on the prompts of the first pairs,
    on which DPO trains.
    """
    run = prepare(
        make_config(
            method,
            {
                "seed": seed,
                "steps": DRIFT_UPDATES,
                "eval_every": 0,
                "eval_prompts": 2,
                "device": device,
            },
        )
    )
    assert run.task.pairs_path is not None
    pairs = load_pairs(run.task.pairs_path)[:DRIFT_PROMPTS]
    curves: dict[str, list[float | None]] = {"step": [], **{name: [] for name in DRIFT_MEASURES}}
    with fitting_threads(run.model):
        for record in train(run):
            if isinstance(record, StepRecord) and record.step % DRIFT_EVERY == 0:
                curves["step"].append(record.step)
                for name, value in measure_drift(run, pairs).items():
                    curves[name].append(value)
    return curves


@torch.no_grad()
def measure_drift(run: TrainState, pairs: list[Pair]) -> dict[str, float | None]:
    """Measures a policy against its training pairs.

    "logps/…" are mean log-probabilities of the pairs in nats. The other measures come from one
    completion of each prompt: the share of right completions, the share that the data contains for
    its prompt ("covered"), and that share among the right and among the wrong completions.
    """
    prompts: list[Text] = [pair.prompt for pair in pairs]
    logps: dict[str, float | None] = {}
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
    completions = sample(
        run.model,
        run.tokenizer,
        prompt_ids(run.tokenizer, prompts),
        1,
        max_tokens=run.config.max_completion_tokens,
        temperature=1.0,
        seed=run.config.seed,
        step=run.step,
        device=run.device,
        stream="drift",
    )
    right = [
        bool(run.task.score(Problem(prompt, gold_answer(prompt)), text).answer)
        for prompt, text in zip(map(plain_text, prompts), completions.texts)
    ]
    covered = [text in (p.chosen, p.rejected) for p, text in zip(pairs, completions.texts)]
    return logps | {
        "gold/accuracy": sum(right) / len(pairs),
        "covered": sum(covered) / len(pairs),
        "right_covered": _share(covered, right),
        "wrong_covered": _share(covered, [not r for r in right]),
    }


def _share(covered: list[bool], among: list[bool]) -> float | None:
    """Returns the share of `covered` where `among` is true; None where it is never true."""
    return sum(c for c, a in zip(covered, among) if a) / sum(among) if any(among) else None


def _over_seeds(values: list[float | None]) -> dict[str, float | None]:
    """Returns mean and half the interval over the seeds with a value; None for fewer than two."""
    numbers = [value for value in values if value is not None]
    return asdict(interval(numbers)) if len(numbers) > 1 else {"mean": None, "half": None}


def run_experiment(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Measures every method with every seed on the way (`ExperimentCode`)."""
    interval([0.0] * seeds)
    record_plan(out, {"experiment": "drift", "device": device})
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = {
            (method, seed): pool.submit(_cached_curves, out, method, seed, device)
            for seed in range(seeds)
            for method in DRIFT_METHODS
        }
        for (method, seed), future in futures.items():
            say(
                f"{method:12} seed {seed}: {future.result()['covered'][-1]:.0%} of its completions"
                " stand in the data"
            )
    rows = []
    for method in DRIFT_METHODS:
        runs = [futures[method, seed].result() for seed in range(seeds)]
        points = {
            name: [_over_seeds([run[name][i] for run in runs]) for i in range(len(runs[0]["step"]))]
            for name in DRIFT_MEASURES
        }
        rows.append(
            {
                "method": method,
                "step": runs[0]["step"],
                **{name: [p["mean"] for p in values] for name, values in points.items()},
                **{f"{name} ±": [p["half"] for p in values] for name, values in points.items()},
            }
        )
    table = {
        **record_origin(command_line("drift", seeds, device), device),
        "seeds": seeds,
        "prompts": DRIFT_PROMPTS,
        "rows": rows,
    }
    replace_file(out / "table.json", (json.dumps(table, indent=1) + "\n").encode())
    replace_file(out / "report.md", render_report(table).encode())
    return table


def _cached_curves(out: Path, method: str, seed: int, device: str) -> dict[str, Any]:
    return cached_json(out / f"{method}-{seed}.json", lambda: probe_drift(method, seed, device))


def render_report(table: dict[str, Any]) -> str:
    """Returns the first and last measurement of every method as Markdown."""
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
