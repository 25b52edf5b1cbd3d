"""The log-ratio of every token of a few training pairs while DPO trains."""

from pathlib import Path
from typing import Any

import torch

from lab.config.methods import make_config
from lab.config.run_config import RunConfig
from lab.data.batching import collate
from lab.engine.token_logprobs import token_statistics
from lab.experiments.arms import command_line, device_name, record_plan
from lab.experiments.process_pool import map_cached, round_significant, write_table
from lab.experiments.protocol import Log
from lab.models.loading import fitting_threads
from lab.runs.records import StepRecord
from lab.training.loop import prepare, train
from lab.training.methods.offline import encode_pairs, load_preferences
from lab.training.state import TrainState

PROBED_UPDATES = tuple(range(0, 101, 5))
PROBED_PAIRS = 8
SIDES = ("chosen", "rejected")


def run_experiment(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Trains DPO at its defaults with every seed and measures the pairs (`ExperimentCode`)."""
    record_plan(out, {"experiment": "pair_tokens", "device": device})
    results = map_cached(
        out, probe_run, {f"dpo-{seed}": (seed, device) for seed in range(seeds)}, jobs, say
    )
    table = {
        "command": command_line("pair_tokens", seeds, device),
        "device": device_name(device),
        "torch": torch.__version__.partition("+")[0],
        "seeds": seeds,
        "rows": round_significant(list(results.values())),
    }
    write_table(out, table, render_report(table))
    return table


def probe_run(seed: int, device: str) -> dict[str, Any]:
    """Trains one run and measures the pairs after each of `PROBED_UPDATES`."""
    knobs = {"seed": seed, "steps": max(PROBED_UPDATES), "eval_every": 0, "device": device}
    return probe(make_config("dpo", knobs), PROBED_UPDATES, PROBED_PAIRS)


def probe(config: RunConfig, looks: tuple[int, ...], count: int) -> dict[str, Any]:
    """Trains the run of `config`. Returns its β and seed, `steps`, and the first `count` training
    pairs: the prompt and, of the chosen and the rejected completion, the tokens and at every step
    their log π − log π_ref in nats.
    """
    run = prepare(config)
    pairs = load_preferences(run)[:count]
    examples = dict(zip(SIDES, encode_pairs(run, pairs)))
    rows: list[dict[str, Any]] = [
        {
            "prompt": pair.prompt,
            **{
                side: {
                    "tokens": _tokens(
                        run, examples[side][i].ids[examples[side][i].prompt_length :]
                    ),
                    "ratios": [],
                }
                for side in SIDES
            },
        }
        for i, pair in enumerate(pairs)
    ]
    with fitting_threads(run.model):
        for record in train(run):
            if isinstance(record, StepRecord) and record.step in looks:
                for side in SIDES:
                    for row, ratios in zip(rows, _log_ratios(run, list(examples[side]))):
                        row[side]["ratios"].append(ratios)
    beta = getattr(config, "beta", None)
    return {"seed": config.seed, "beta": beta, "steps": list(looks), "pairs": rows}


def _tokens(run: TrainState, ids: list[int]) -> list[str]:
    return [str(run.tokenizer.decode([token])) for token in ids]


@torch.no_grad()
def _log_ratios(run: TrainState, examples: list[Any]) -> list[list[float]]:
    """log π − log π_ref of the completion tokens of each example, in nats."""
    batch = collate(examples, run.tokenizer.pad_token_id).to(run.device)
    found = token_statistics(run.model, batch, reference=run.model)
    assert found.reference_logps is not None
    ratios = found.logps - found.reference_logps
    return [row[mask].tolist() for row, mask in zip(ratios, batch.completion_mask)]


def render_report(table: dict[str, Any]) -> str:
    """Returns the margin of each pair after the last update as Markdown."""
    lines = [
        "# The tokens of training pairs",
        "",
        f"`{table['command']}` on {table['device']}; log π − log π_ref in nats.",
        "",
        "| seed | pair | prompt | chosen | rejected | margin h |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in table["rows"]:
        for number, pair in enumerate(row["pairs"], 1):
            chosen, rejected = (sum(pair[side]["ratios"][-1]) for side in SIDES)
            lines.append(
                f"| {row['seed']} | {number} | {pair['prompt']} | {chosen:.1f} | {rejected:.1f} |"
                f" {chosen - rejected:.1f} |"
            )
    return "\n".join(lines) + "\n"
