"""A pool of real completions: the same prompts answered by the base, in the middle of a GRPO run
and at its end, token by token.
"""

from pathlib import Path
from typing import Any

import torch

from lab.config.methods import make_config
from lab.data.batching import TokenBatch
from lab.data.encoding import prompt_ids
from lab.engine.sampler import Completions, sample
from lab.engine.token_logprobs import token_statistics
from lab.errors import LabError
from lab.experiments.arms import Log, command_line, device_name, keep_plan
from lab.experiments.process_pool import map_cached, rounded, write_table
from lab.models.adapters import adapter_disabled
from lab.models.loading import fitting_threads
from lab.runs.metrics import StepRecord
from lab.tasks.registry import Problem
from lab.training.loop import prepare, train
from lab.training.state import TrainState

CANDIDATES, PROMPTS, LATER = (
    96,
    12,
    8,
)  # Prompts to choose from, chosen for the base, of those also answered by the trained policy.
SIZE = 64
STEPS, MIDDLE = 40, 10


def spread(rates: list[float], count: int) -> list[int]:
    """Indices of `count` prompts whose pass rates lie evenly between the least and the greatest, in
    rising order, none twice.
    """
    order = sorted(range(len(rates)), key=lambda i: (rates[i], i))
    low, high, chosen = rates[order[0]], rates[order[-1]], []
    for k in range(count):
        wanted = low + (high - low) * k / max(1, count - 1)
        chosen.append(
            min((i for i in order if i not in chosen), key=lambda i: abs(rates[i] - wanted))
        )
    return sorted(chosen, key=lambda i: (rates[i], i))


def draw(run: TrainState, problems: list[Problem]) -> Completions:
    """`SIZE` completions of each problem from the present policy."""
    return sample(
        run.model,
        run.tokenizer,
        prompt_ids(run.tokenizer, [p.prompt for p in problems]),
        SIZE,
        max_tokens=run.config.max_completion_tokens,
        temperature=run.config.temperature,
        seed=run.config.seed,
        step=run.step,
        device=run.device,
        stream="pool",
    )


@torch.no_grad()
def scored(run: TrainState, drawn: Completions) -> list[list[float]]:
    """The log-probability of every completion token under the present policy, a list per
    completion.
    """
    per_token = torch.cat(
        [
            token_statistics(
                run.model, TokenBatch(ids, mask), temperature=run.config.temperature
            ).logps
            for ids, mask in zip(drawn.ids.split(256), drawn.completion_mask.split(256))
        ]
    )
    return [row[mask].tolist() for row, mask in zip(per_token, drawn.completion_mask)]


def collect(device: str) -> dict[str, Any]:
    """Train, draw at step 0, `MIDDLE` and the end, and score what was drawn: when it was drawn,
    under the final policy, under the reference.
    """
    run = prepare(
        make_config(
            "grpo",
            {"seed": 0, "steps": STEPS, "eval_every": 0, "eval_prompts": 2, "device": device},
        )
    )
    candidates, problems, drawn, old = run.task.held_out(CANDIDATES), [], {}, {}
    with fitting_threads(run.model):
        for record in train(run):
            if not isinstance(record, StepRecord) or record.step not in (0, MIDDLE, STEPS):
                continue
            if not problems:
                first = draw(run, candidates)
                right = _rewards(run, candidates, first)
                chosen = spread(
                    [sum(right[i * SIZE : (i + 1) * SIZE]) / SIZE for i in range(len(candidates))],
                    PROMPTS,
                )
                problems = [candidates[i] for i in chosen]
            some = problems if not record.step else [problems[i] for i in _even(LATER)]
            drawn[record.step] = some, draw(run, some)
            old[record.step] = scored(run, drawn[record.step][1])
        end = {step: scored(run, completions) for step, (_, completions) in drawn.items()}
        with adapter_disabled(run.model):
            frozen = {step: scored(run, completions) for step, (_, completions) in drawn.items()}
    return {
        "policies": [
            {
                "step": step,
                "prompts": [p.prompt for p in some],
                "answers": [p.answer for p in some],
                "completions": _completions(
                    run, some, completions, old[step], end[step], frozen[step]
                ),
            }
            for step, (some, completions) in drawn.items()
        ]
    }


def _even(count: int) -> list[int]:
    """`count` places spread over the chosen prompts, the first and the last among them."""
    return [round(k * (PROMPTS - 1) / max(1, count - 1)) for k in range(count)]


def _rewards(run: TrainState, problems: list[Problem], drawn: Completions) -> list[float]:
    return run.task.rewards["answer"](
        [p for p in problems for _ in range(SIZE)], drawn.texts, seed=0
    )


def _completions(
    run: TrainState, problems: list[Problem], drawn: Completions, old: list, end: list, frozen: list
) -> list[list[dict[str, Any]]]:
    """Per prompt its completions, each with its reward, tokens and three log-probabilities a token."""
    rewards = _rewards(run, problems, drawn)
    tokens = [
        run.tokenizer.convert_ids_to_tokens(ids[mask].tolist())
        for ids, mask in zip(drawn.ids, drawn.completion_mask)
    ]
    found = [
        {
            "text": text,
            "reward": reward,
            "tokens": own,
            "old_logps": a,
            "end_logps": b,
            "reference_logps": c,
        }
        for text, reward, own, a, b, c in zip(drawn.texts, rewards, tokens, old, end, frozen)
    ]
    return [found[i : i + SIZE] for i in range(0, len(found), SIZE)]


def pool(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Collect the pool of one run and write table.json and report.md in `out`."""
    if seeds != 1:
        raise LabError(
            "pool keeps the completions of a single run, so it takes one seed. Leave --seeds out."
        )
    keep_plan(out, {"experiment": "pool", "device": device})
    found = map_cached(out, collect, {"pool": (device,)}, jobs, say)["pool"]
    names = {
        0: "the base",
        MIDDLE: f"GRPO after {MIDDLE} updates",
        STEPS: f"GRPO after {STEPS} updates",
    }
    table = {
        "command": command_line("pool", None, device),
        "device": device_name(device),
        "torch": torch.__version__.partition("+")[0],
        "seeds": 1,
        "size": SIZE,
        "rows": [{"policy": names[row["step"]]} | row for row in rounded(found["policies"])],
    }
    write_table(out, table, report(table))
    return table


def report(table: dict[str, Any]) -> str:
    """Pass rates as Markdown."""
    lines = [
        "# A pool of completions",
        "",
        (
            f"`{table['command']}` on {table['device']}; {table['size']} completions a prompt,"
            " share that is right."
        ),
        "",
        "| policy | prompt: share |",
        "| --- | --- |",
    ]
    for row in table["rows"]:
        rates = [
            f"`{prompt}` {sum(c['reward'] for c in group) / len(group):.2f}"
            for prompt, group in zip(row["prompts"], row["completions"])
        ]
        lines.append(f"| {row['policy']} | {', '.join(rates)} |")
    return "\n".join(lines) + "\n"
