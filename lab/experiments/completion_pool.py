"""A pool of real completions for the dashboard: equal prompts, answered by the base and by a GRPO
run in its middle and at its end, with the log-probability of every token.
"""

from pathlib import Path
from typing import Any

import torch

from lab.config.methods import make_config
from lab.config.run_config import OnlineConfig
from lab.data.batching import TokenBatch
from lab.data.encoding import prompt_ids
from lab.data.examples import Text
from lab.engine.sampler import Completions, sample
from lab.engine.token_logprobs import token_statistics
from lab.errors import LabError
from lab.experiments.arms import command_line, device_name, record_plan
from lab.experiments.process_pool import map_cached, round_significant, write_table
from lab.experiments.protocol import Log
from lab.models.adapters import adapter_disabled
from lab.models.loading import fitting_threads
from lab.runs.records import StepRecord
from lab.tasks.base import Problem
from lab.training.loop import prepare, train
from lab.training.state import TrainState

CANDIDATE_PROMPTS, BASE_PROMPTS, TRAINED_PROMPTS = 96, 12, 8
"""Prompts to choose from; prompts that the base answers; prompts that the trained policy answers."""
COMPLETIONS_PER_PROMPT = 64
POOL_UPDATES, MIDDLE_UPDATE = 40, 10


def spread_over_pass_rates(rates: list[float], count: int) -> list[int]:
    """Returns the indices of `count` different prompts by rising pass rate, whose rates lie evenly
    between the least and the greatest.
    """
    order = sorted(range(len(rates)), key=lambda i: (rates[i], i))
    low, high = rates[order[0]], rates[order[-1]]
    chosen: list[int] = []
    for k in range(count):
        wanted = low + (high - low) * k / max(1, count - 1)
        chosen.append(
            min((i for i in order if i not in chosen), key=lambda i: abs(rates[i] - wanted))
        )
    return sorted(chosen, key=lambda i: (rates[i], i))


def sample_completions(run: TrainState, problems: list[Problem]) -> Completions:
    """Samples `COMPLETIONS_PER_PROMPT` completions of each problem from the present policy."""
    texts: list[Text] = [problem.prompt for problem in problems]
    return sample(
        run.model,
        run.tokenizer,
        prompt_ids(run.tokenizer, texts),
        COMPLETIONS_PER_PROMPT,
        max_tokens=run.config.max_completion_tokens,
        temperature=_temperature(run),
        seed=run.config.seed,
        step=run.step,
        device=run.device,
        stream="pool",
    )


@torch.no_grad()
def completion_token_logps(run: TrainState, completions: Completions) -> list[list[float]]:
    """Returns for each completion the log-probability of every token under the present policy."""
    per_token = torch.cat(
        [
            token_statistics(run.model, TokenBatch(ids, mask), temperature=_temperature(run)).logps
            for ids, mask in zip(completions.ids.split(256), completions.completion_mask.split(256))
        ]
    )
    return [row[mask].tolist() for row, mask in zip(per_token, completions.completion_mask)]


def _temperature(run: TrainState) -> float:
    assert isinstance(run.config, OnlineConfig)
    return run.config.temperature


def collect_pool(device: str) -> dict[str, Any]:
    """Trains a GRPO run and samples at step 0, `MIDDLE_UPDATE` and the end.

    Every completion is scored under three policies: the one that wrote it, the final one, and the
    reference.
    """
    run = prepare(
        make_config(
            "grpo",
            {
                "seed": 0,
                "steps": POOL_UPDATES,
                "eval_every": 0,
                "eval_prompts": 2,
                "device": device,
            },
        )
    )
    problems: list[Problem] = []
    samples: dict[int, tuple[list[Problem], Completions]] = {}
    old_logps = {}
    with fitting_threads(run.model):
        for record in train(run):
            sampled_at = (0, MIDDLE_UPDATE, POOL_UPDATES)
            if not isinstance(record, StepRecord) or record.step not in sampled_at:
                continue
            problems = problems or _chosen_problems(run)
            answered = (
                problems if not record.step else [problems[i] for i in _even(TRAINED_PROMPTS)]
            )
            completions = sample_completions(run, answered)
            samples[record.step] = answered, completions
            old_logps[record.step] = completion_token_logps(run, completions)
        end_logps = {step: completion_token_logps(run, c) for step, (_, c) in samples.items()}
        with adapter_disabled(run.model):
            reference_logps = {
                step: completion_token_logps(run, c) for step, (_, c) in samples.items()
            }
    return {
        "policies": [
            {
                "step": step,
                "prompts": [problem.prompt for problem in answered],
                "answers": [problem.answer for problem in answered],
                "completions": _rows_by_prompt(
                    run,
                    answered,
                    completions,
                    old_logps=old_logps[step],
                    end_logps=end_logps[step],
                    reference_logps=reference_logps[step],
                ),
            }
            for step, (answered, completions) in samples.items()
        ]
    }


def _chosen_problems(run: TrainState) -> list[Problem]:
    """Returns `BASE_PROMPTS` held-out problems whose pass rates under the base are spread evenly."""
    candidates = run.task.held_out(CANDIDATE_PROMPTS)
    rewards = _rewards(run, candidates, sample_completions(run, candidates))
    rates = [
        sum(rewards[start : start + COMPLETIONS_PER_PROMPT]) / COMPLETIONS_PER_PROMPT
        for start in range(0, len(rewards), COMPLETIONS_PER_PROMPT)
    ]
    return [candidates[i] for i in spread_over_pass_rates(rates, BASE_PROMPTS)]


def _even(count: int) -> list[int]:
    """Returns `count` indices spread over the chosen prompts, with the first and the last one."""
    return [round(k * (BASE_PROMPTS - 1) / max(1, count - 1)) for k in range(count)]


def _rewards(run: TrainState, problems: list[Problem], completions: Completions) -> list[float]:
    owners = [problem for problem in problems for _ in range(COMPLETIONS_PER_PROMPT)]
    return run.task.rewards["answer"](owners, completions.texts, seed=0)


def _rows_by_prompt(
    run: TrainState, problems: list[Problem], completions: Completions, **logps: list[list[float]]
) -> list[list[dict[str, Any]]]:
    """Returns for each prompt its completions, each with text, reward, tokens and, by the names of
    `logps`, log-probabilities of the tokens.
    """
    rewards = _rewards(run, problems, completions)
    rows = []
    for i, (ids, mask) in enumerate(zip(completions.ids, completions.completion_mask)):
        tokens = run.tokenizer.convert_ids_to_tokens(ids[mask].tolist())
        row = {"text": completions.texts[i], "reward": rewards[i], "tokens": tokens}
        rows.append(row | {name: values[i] for name, values in logps.items()})
    size = COMPLETIONS_PER_PROMPT
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def run_experiment(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Collects the pool of one run; writes table.json and report.md (`ExperimentCode`)."""
    if seeds != 1:
        raise LabError(
            "pool keeps the completions of a single run, so it takes one seed. Leave --seeds out."
        )
    record_plan(out, {"experiment": "pool", "device": device})
    pool = map_cached(out, collect_pool, {"pool": (device,)}, jobs, say)["pool"]
    names = {
        0: "the base",
        MIDDLE_UPDATE: f"GRPO after {MIDDLE_UPDATE} updates",
        POOL_UPDATES: f"GRPO after {POOL_UPDATES} updates",
    }
    table = {
        "command": command_line("pool", None, device),
        "device": device_name(device),
        "torch": torch.__version__.partition("+")[0],
        "seeds": 1,
        "size": COMPLETIONS_PER_PROMPT,
        "rows": [
            {"policy": names[row["step"]]} | row for row in round_significant(pool["policies"])
        ],
    }
    write_table(out, table, render_report(table))
    return table


def render_report(table: dict[str, Any]) -> str:
    """Returns the pass rates of the prompts as Markdown."""
    lines = [
        "# A pool of completions",
        "",
        (
            f"`{table['command']}` on {table['device']}; {table['size']} completions a prompt, share that is right."
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
