"""TODO: one line."""

import json
import math
from operator import itemgetter
from pathlib import Path

import torch

from lab.config.methods import make_config
from lab.data.examples import template_columns
from lab.engine.sampler import sample
from lab.errors import LabError
from lab.models.device import resolve_device
from lab.models.loading import load_policy
from lab.models.tokenizer import load_tokenizer
from lab.storage.paths import runs_root
from lab.tasks.prompting import as_messages, render_prompts
from lab.tasks.registry import TASKS, Problem, compute_rewards, extra_metrics, rule_of, task_of

MIN_PAIR_SHARE = 0.01  # Share of prompts that must give a pair, or sampling pairs would hardly end.


def pairs_path(task: str) -> Path:
    """Where a task's pairs go unless something else is said: to what the lab ships, or for a task
    without pairs into the runs folder.
    """
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in task)
    return (
        TASKS[task].pairs_path if task in TASKS else None
    ) or runs_root() / f"pairs-{name}.jsonl"


def build_pairs(
    out: Path = TASKS["chain"].pairs_path,
    model: str = "embedded",
    count: int = 4000,
    seed: int = 0,
    device: str = "auto",
    task: str = "chain",
    reward: str = "answer",
    max_tokens: int = 64,
    template_options: str = "",
) -> dict:
    """Sample preference pairs from `model` and write them to `out` in TRL's format, one a line.

    Eight completions of each training prompt; of those that are not empty the first with the
    highest `reward` is chosen, the first with the lowest rejected; "answer" is the task's ground
    truth. Prompts on which all are worth the same give no pair; none is used again before every
    other has been. Raises `LabError` when fewer than one prompt in a hundred gives a pair. Returns,
    and writes beside `out` as .json, the command and the counts: pairs, prompts tried, and of
    chosen and rejected the mean reward and what the task alone measures.
    """
    where, config = (
        resolve_device(device),
        make_config(
            "grpo",
            {"model": model, "task": task, "reward": reward, "template_options": template_options},
        ),
    )
    source = task_of(config)
    gold = rule_of(source, reward)
    tokenizer, policy = load_tokenizer(model, template_options), load_policy(config, where)
    found: list[tuple[Problem, str, str]] = []
    tokens: dict[tuple[str, str], list[int]] = {}
    seen, tried, prompts = set(), 0, 0
    while len(found) < count:
        problems = {p.prompt: p for p in source.train_problems(256, seed, -1 - tried)}
        if seen.issuperset(problems):
            seen.clear()
        problems = [p for p in problems.values() if p.prompt not in seen]
        seen |= {p.prompt for p in problems}
        prompts += len(problems)
        drawn = sample(
            policy,
            tokenizer,
            render_prompts(tokenizer, problems),
            8,
            max_tokens=max_tokens,
            temperature=1.0,
            seed=seed,
            step=tried,
            device=where,
            stream="pairs",
        )
        completion_ids = drawn.completion_ids
        for i, problem in enumerate(problems):
            rows = [row for row in range(8 * i, 8 * i + 8) if drawn.texts[row]]
            texts, ids = [drawn.texts[row] for row in rows], [completion_ids[row] for row in rows]
            tokens |= {(problem.prompt, text): own for text, own in zip(texts, ids)}
            worths = (
                compute_rewards(gold, [problem] * len(texts), texts, seed=seed, ids=ids)
                if texts
                else []
            )
            known = [(worth, t) for worth, t in zip(worths, texts) if not math.isnan(worth)]
            best, worst = (pick(known, key=itemgetter(0), default=(0.0, "")) for pick in (max, min))
            if best[0] > worst[0]:
                found.append((problem, best[1], worst[1]))
        tried += 1
        if len(found) < MIN_PAIR_SHARE * prompts:
            raise LabError(
                f"Of {prompts} prompts only {len(found)} have both a better and a worse completion"
                f" from '{model}'. Pairs need a model that does better at some times than at"
                " others."
            )
    found = found[:count]
    sides = [
        (as_messages(tokenizer, problem, chosen), as_messages(tokenizer, problem, rejected)[1])
        for problem, chosen, rejected in found
    ]
    rows = [
        {"prompt": prompt, "chosen": chosen, "rejected": rejected} | template_columns(prompt)
        for (prompt, chosen), rejected in sides
    ]
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    owners = [problem for problem, *_ in found]
    build = {
        "command": (
            f"python -m lab build-pairs --model {model} --count {count} --seed {seed}"
            + (f" --task {task}" if task != "chain" else "")
            + (f" --reward {reward}" if reward != "answer" else "")
            + (f" --max-tokens {max_tokens}" if max_tokens != 64 else "")
            + (f" --template-options {template_options}" if template_options else "")
        ),
        "device": where.type,
        "seed": seed,
        "torch": torch.__version__.split("+")[0],
        "pairs": len(rows),
        "prompts": prompts,
    }
    for side, texts in (
        ("chosen", [chosen for _, chosen, _ in found]),
        ("rejected", [rejected for *_, rejected in found]),
    ):
        ids = [tokens[problem.prompt, text] for problem, text in zip(owners, texts)]
        build |= {
            f"reward_{side}": sum(compute_rewards(gold, owners, texts, seed=seed, ids=ids)) / count
        }
        build |= {
            f"{name}_{side}": value
            for name, value in extra_metrics(source, owners, texts, ids).items()
        }
    out.with_suffix(".json").write_text(json.dumps(build, indent=2) + "\n")
    return build
