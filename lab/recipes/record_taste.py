"""Records the two pools of answer pairs that the lab ships for the page Taste: `chain`, answers of the
embedded model at several checkpoints, and `tone`, short English texts of SmolLM2-135M-Instruct.
"""

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from lab.config.methods import make_config
from lab.data.encoding import prompt_ids
from lab.data.examples import Text
from lab.engine.sampler import Completions, sample
from lab.models.device import resolve_device
from lab.models.loading import fitting_threads
from lab.recipes.record_tone import TONE_MODEL, Pair, ToneRecorder
from lab.recipes.tone_styles import Answer
from lab.runs.records import StepRecord
from lab.storage.jsonl import replace_file
from lab.tasks.base import Problem
from lab.tasks.chain import ChainTask
from lab.tasks.sentiment import compound_score
from lab.training.loop import prepare, train

CHAIN_SOURCES = {"answer": (0, 8, 20, 40), "length": (12, 20)}
"""By the reward of a GRPO run, the updates after which it answers: 0 is the base, and the run that is
paid for length rambles."""
RAMBLING, RAMBLING_EVERY = "GRPO for length", 5
"""Every fifth pair has one answer of the rambling run."""
FIRST_TONE_NUMBER = 105
"""The pairs of smaller numbers are in the file of retired pairs: labels may name them."""


def record_pool(
    pool: str, out: Path, count: int, seed: int, device: str, commit: str = ""
) -> dict[str, Any]:
    """Records at most `count` pairs of the pool `pool` (chain or tone) as `out`/POOL.jsonl, and the
    command, device, `commit` of the code and counts as `out`/POOL.json, which it returns.

    A row has `id`, `prompt`, `first` and `second` (texts), `sources` of both, and `measures` of
    both: of chains whether the answer is right, thinks first and is well-formed, and of texts VADER's
    compound score; of all the length in characters. The pool tone is written after every batch.
    """
    torch_device = resolve_device(device)
    facts = {
        "command": f"python -m lab build-taste {pool} --count {count} --seed {seed}",
        "device": torch_device.type,
        "seed": seed,
        "commit": commit,
        "torch": torch.__version__.partition("+")[0],
        "transformers": transformers.__version__,
        "model": "embedded" if pool == "chain" else _tone_weights(),
    }
    if pool == "chain":
        rows = chain_pairs(count, seed, torch_device, random.Random(f"taste/{pool}/{seed}"))
        return _write_pool(out, pool, rows, facts)
    recorder = ToneRecorder(seed, torch_device)

    def write(pairs: Sequence[Pair]) -> dict[str, Any]:
        rows = [
            _row(FIRST_TONE_NUMBER + number, "tone", Problem(prompt), two, None)
            for number, prompt, two in pairs
        ]
        counts = {"texts": recorder.texts, "refused": dict(recorder.refused.most_common())}
        return _write_pool(out, pool, rows, facts | counts)

    return write(recorder.pairs(count, write))


def _write_pool(
    out: Path, pool: str, rows: Sequence[dict[str, Any]], facts: dict[str, Any]
) -> dict[str, Any]:
    """Writes the two files of a pool and returns the facts with the number of pairs."""
    facts = facts | {"pairs": len(rows)}
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    out.mkdir(parents=True, exist_ok=True)
    replace_file(out / f"{pool}.jsonl", lines.encode())
    replace_file(out / f"{pool}.json", (json.dumps(facts, indent=1) + "\n").encode())
    return facts


def _tone_weights() -> str:
    """What the folder of the fetched SmolLM2 says about its weights."""
    from lab.models.download import fetched_folder

    source = json.loads((fetched_folder(TONE_MODEL) / "SOURCE.json").read_text("utf-8"))
    return f"{source['from']}; {source['precision']}"


def chain_pairs(
    count: int, seed: int, device: torch.device, state: random.Random
) -> list[dict[str, Any]]:
    """Returns pairs of different answers to `count` training chains, each sampled at two of the
    checkpoints in `CHAIN_SOURCES`. Chains whose answers are all equal give no pair.
    """
    task = ChainTask()
    problems = list(
        {p.prompt: p for p in task.train_problems(2 * count, seed, -1_000_000)}.values()
    )
    answers: dict[str, list[Answer]] = {problem.prompt: [] for problem in problems}
    for source, completions in _chain_checkpoints(problems, seed, device):
        for problem, text in zip(problems, completions.texts):
            if text and text not in [answer.text for answer in answers[problem.prompt]]:
                answers[problem.prompt].append(Answer(text, source))
    rows: list[dict[str, Any]] = []
    for problem in problems:
        own = answers[problem.prompt]
        rambling = [answer for answer in own if answer.source.startswith(RAMBLING)]
        usual = [answer for answer in own if answer not in rambling]
        is_due = len(rows) % RAMBLING_EVERY == RAMBLING_EVERY - 1
        if is_due and usual and rambling:
            two = [state.choice(usual), state.choice(rambling)]
            state.shuffle(two)
        elif len(usual) > 1:
            two = state.sample(usual, 2)
        else:
            continue
        rows.append(_row(len(rows), "chain", problem, two, task))
    return rows[:count]


def _chain_checkpoints(
    problems: Sequence[Problem], seed: int, device: torch.device
) -> Iterator[tuple[str, Completions]]:
    """The completions of all problems at every checkpoint of `CHAIN_SOURCES`."""
    texts: list[Text] = [problem.prompt for problem in problems]
    for reward, steps in CHAIN_SOURCES.items():
        settings = {"reward": reward, "steps": max(steps), "seed": seed, "device": str(device)}
        run = prepare(make_config("grpo", settings | {"eval_every": 0, "eval_prompts": 2}))
        with fitting_threads(run.model):
            for record in train(run):
                if isinstance(record, StepRecord) and record.step in steps:
                    completions = sample(
                        run.model,
                        run.tokenizer,
                        prompt_ids(run.tokenizer, texts),
                        1,
                        max_tokens=64,
                        temperature=1.0,
                        seed=seed,
                        step=record.step,
                        device=device,
                        stream=f"taste {reward}",
                    )
                    name = f"GRPO for {reward}, update {record.step}" if record.step else "the base"
                    yield name, completions


def _row(
    number: int, pool: str, problem: Problem, two: Sequence[Answer], task: ChainTask | None
) -> dict[str, Any]:
    return {
        "id": f"{pool}-{number:03d}",
        "prompt": problem.prompt,
        "first": two[0].text,
        "second": two[1].text,
        "sources": [answer.source for answer in two],
        "measures": [_measures(problem, answer.text, task) for answer in two],
    }


def _measures(problem: Problem, text: str, task: ChainTask | None) -> dict[str, float]:
    if task is None:
        return {"length": len(text), "warmth": compound_score(text)}
    score = task.score(problem, text)
    return {
        "length": len(text),
        "right": float(score.answer or 0.0),
        "thinks": float(bool(score.scratchpad)),
        "neat": score.format,
    }
