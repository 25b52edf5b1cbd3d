"""Samples preference pairs from a model: the chosen completion has the higher reward."""

import itertools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from lab.config.methods import make_config
from lab.data.examples import template_columns
from lab.engine.sampler import Completions, sample
from lab.errors import LabError
from lab.models.device import resolve_device
from lab.models.loading import load_policy
from lab.models.tokenizer import load_tokenizer
from lab.storage.paths import runs_root
from lab.tasks.base import Problem, Reward, Task
from lab.tasks.chain import ChainTask
from lab.tasks.prompting import as_messages, render_prompts
from lab.tasks.registry import TASKS, compute_rewards, extra_metrics, rule_of, task_of

PROMPTS_PER_BATCH = 256
CANDIDATES_PER_PROMPT = 8
MIN_PAIR_SHARE = 0.01
"""Share of the prompts that must give a pair; with fewer, sampling would hardly end."""
CHAIN_PAIRS = ChainTask.pairs_path


@dataclass(frozen=True)
class SampledPair:
    """Two completions of a problem, with their token ids."""

    problem: Problem
    chosen: str
    rejected: str
    chosen_ids: list[int]
    rejected_ids: list[int]


def pairs_path(task: str) -> Path:
    """Returns the default file of a task's pairs: the file that the lab ships, or one in the runs
    folder for a task without pairs.
    """
    shipped = TASKS[task].pairs_path if task in TASKS else None
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in task)
    return shipped or runs_root() / f"pairs-{name}.jsonl"


def build_pairs(
    out: Path = CHAIN_PAIRS,
    model: str = "embedded",
    count: int = 4000,
    seed: int = 0,
    device: str = "auto",
    task: str = "chain",
    reward: str = "answer",
    max_tokens: int = 64,
    template_options: str = "",
) -> dict[str, Any]:
    """Samples preference pairs and writes them to `out` in TRL's format, one a line.

    Each training prompt gets eight completions. Of those that are not empty the first with the
    highest reward is chosen, and the first with the lowest reward is rejected. A prompt whose
    completions have equal rewards gives no pair; no prompt is used again before every other prompt
    has been used.

    Returns, and writes beside `out` as .json, the command and the counts: pairs, prompts tried, and
    of chosen and rejected the mean reward and the task's metrics.

    `reward` is a reward of the task ("answer" is its ground truth), `max_tokens` the limit of a
    completion.

    Raises:
        LabError: fewer than one prompt in a hundred gives a pair.
    """
    torch_device = resolve_device(device)
    config = make_config(
        "grpo",
        {"model": model, "task": task, "reward": reward, "template_options": template_options},
    )
    source = task_of(config)
    rule = rule_of(source, reward)
    tokenizer, policy = load_tokenizer(model, template_options), load_policy(config, torch_device)

    def sample_batch(problems: list[Problem], step: int) -> Completions:
        ids, n = render_prompts(tokenizer, problems), CANDIDATES_PER_PROMPT
        noise: dict[str, Any] = {"seed": seed, "step": step, "stream": "pairs"}
        limits: dict[str, Any] = {"max_tokens": max_tokens, "temperature": 1.0}
        return sample(policy, tokenizer, ids, n, device=torch_device, **limits, **noise)

    pairs, prompts = _sample_pairs(source, rule, sample_batch, count, seed, model)
    _write_pairs(out, tokenizer, pairs)
    build = {
        "command": (
            f"python -m lab build-pairs --model {model} --count {count} --seed {seed}"
            + _options(task=(task, "chain"), reward=(reward, "answer"))
            + _options(max_tokens=(max_tokens, 64), template_options=(template_options, ""))
        ),
        "device": torch_device.type,
        "seed": seed,
        "torch": torch.__version__.split("+")[0],
        "pairs": len(pairs),
        "prompts": prompts,
    } | _side_metrics(source, rule, pairs, seed)
    out.with_suffix(".json").write_text(json.dumps(build, indent=2) + "\n")
    return build


def _write_pairs(out: Path, tokenizer: PreTrainedTokenizerBase, pairs: list[SampledPair]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps(_row(tokenizer, pair)) + "\n" for pair in pairs))


def _options(**settings: tuple[object, object]) -> str:
    """Options of the command line for settings whose value is not the default (value, default)."""
    return "".join(
        f" --{name.replace('_', '-')} {value}"
        for name, (value, default) in settings.items()
        if value != default
    )


def _sample_pairs(
    source: Task,
    rule: Reward,
    sample_batch: Callable[[list[Problem], int], Completions],
    count: int,
    seed: int,
    model: str,
) -> tuple[list[SampledPair], int]:
    """`count` pairs, and the number of prompts that it took."""
    pairs: list[SampledPair] = []
    prompts = 0
    for step, problems in enumerate(_problem_batches(source, seed)):
        prompts += len(problems)
        pairs += _pairs_of(problems, sample_batch(problems, step), rule, seed)
        if len(pairs) < MIN_PAIR_SHARE * prompts:
            raise LabError(
                f"Of {prompts} prompts only {len(pairs)} have both a better and a worse completion"
                f" from '{model}'. Pairs need a model that does better at some times than at"
                " others."
            )
        if len(pairs) >= count:
            break
    return pairs[:count], prompts


def _side_metrics(
    source: Task, rule: Reward, pairs: list[SampledPair], seed: int
) -> dict[str, float]:
    """The mean reward and the task's metrics of chosen and of rejected completions."""
    problems = [pair.problem for pair in pairs]
    metrics: dict[str, float] = {}
    for side, texts, ids in (
        ("chosen", [p.chosen for p in pairs], [p.chosen_ids for p in pairs]),
        ("rejected", [p.rejected for p in pairs], [p.rejected_ids for p in pairs]),
    ):
        rewards = compute_rewards(rule, problems, texts, seed=seed, ids=ids)
        metrics[f"reward_{side}"] = sum(rewards) / len(pairs)
        for name, value in extra_metrics(source, problems, texts, ids).items():
            metrics[f"{name}_{side}"] = value
    return metrics


def _problem_batches(source: Task, seed: int) -> Iterator[list[Problem]]:
    """Batches of different problems without end; none comes again before every other has come."""
    used: set[str] = set()
    for batch in itertools.count():
        by_prompt = {
            p.prompt: p for p in source.train_problems(PROMPTS_PER_BATCH, seed, -1 - batch)
        }
        if used.issuperset(by_prompt):
            used.clear()
        problems = [p for p in by_prompt.values() if p.prompt not in used]
        used |= {p.prompt for p in problems}
        yield problems


def _pairs_of(
    problems: list[Problem], completions: Completions, rule: Reward, seed: int
) -> list[SampledPair]:
    """A pair of each problem whose completions differ in reward."""
    pairs = []
    completion_ids = completions.completion_ids
    for i, problem in enumerate(problems):
        first = CANDIDATES_PER_PROMPT * i
        rows = [r for r in range(first, first + CANDIDATES_PER_PROMPT) if completions.texts[r]]
        texts, ids = [completions.texts[r] for r in rows], [completion_ids[r] for r in rows]
        if not texts:
            continue
        rewards = compute_rewards(rule, [problem] * len(texts), texts, seed=seed, ids=ids)
        known = [(reward, j) for j, reward in enumerate(rewards) if not math.isnan(reward)]
        if not known:
            continue
        best, worst = max(known, key=itemgetter(0)), min(known, key=itemgetter(0))
        if best[0] > worst[0]:
            # Where several completions have one text, the last of them gives its ids.
            ids_of = dict(zip(texts, ids))
            chosen, rejected = texts[best[1]], texts[worst[1]]
            pairs.append(SampledPair(problem, chosen, rejected, ids_of[chosen], ids_of[rejected]))
    return pairs


def _row(tokenizer: PreTrainedTokenizerBase, pair: SampledPair) -> dict[str, Any]:
    """A pair as a row of TRL's preference format."""
    prompt, chosen = as_messages(tokenizer, pair.problem, pair.chosen)
    rejected = as_messages(tokenizer, pair.problem, pair.rejected)[1]
    row = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    return row | template_columns(prompt)
