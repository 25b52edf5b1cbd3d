"""An offline run that is measured while it trains: on fixed pairs of its own data, and on its
completions of held-out prompts.
"""

from collections.abc import Sequence
from typing import Any

import torch

from lab.config.methods import make_config
from lab.data.batching import collate
from lab.data.token_rows import EncodedExample
from lab.engine.token_logprobs import completion_logps
from lab.experiments.arms import EVALUATION_SEED
from lab.models.loading import fitting_threads
from lab.runs.records import StepRecord
from lab.training.evaluation import evaluate
from lab.training.loop import prepare, train
from lab.training.methods.offline import encode_pairs, load_preferences
from lab.training.reference_logps import reference_logps
from lab.training.state import TrainState


def probe_checkpoints(
    method: str,
    knobs: dict[str, Any],
    seed: int,
    device: str,
    looks: Sequence[int],
    pairs: int,
    prompts: int,
) -> dict[str, Any]:
    """Trains a run and measures it after each of the updates `looks`.

    "chosen" and "rejected" hold log π − log π_ref in nats of the first `pairs` training pairs, with
    the labels that the run learns from. "gold/accuracy" and "kl" come from one completion of each
    of `prompts` held-out prompts.
    """
    run = prepare(
        make_config(
            method,
            {
                "seed": seed,
                "steps": max(looks),
                "eval_every": 0,
                "eval_prompts": 2,
                "device": device,
            }
            | knobs,
        )
    )
    chosen, rejected = encode_pairs(run, load_preferences(run)[:pairs])
    sides = {"chosen": list(chosen), "rejected": list(rejected)}
    references = {side: reference_logps(run, examples) for side, examples in sides.items()}
    result: dict[str, Any] = {
        "steps": [],
        "chosen": [],
        "rejected": [],
        "gold/accuracy": [],
        "kl": [],
    }
    with fitting_threads(run.model):
        for record in train(run):
            if isinstance(record, StepRecord) and record.step in looks:
                result["steps"].append(record.step)
                for side, examples in sides.items():
                    result[side].append((_logps(run, examples) - references[side]).tolist())
                evaluation = evaluate(
                    run.model,
                    run.tokenizer,
                    run.task,
                    prompts=prompts,
                    max_tokens=run.config.max_completion_tokens,
                    seed=EVALUATION_SEED,
                    device=run.device,
                )
                result["gold/accuracy"].append(evaluation.accuracy)
                result["kl"].append(evaluation.kl)
    return result


@torch.no_grad()
def _logps(run: TrainState, examples: list[EncodedExample]) -> torch.Tensor:
    return completion_logps(run.model, collate(examples, run.tokenizer.pad_token_id).to(run.device))
