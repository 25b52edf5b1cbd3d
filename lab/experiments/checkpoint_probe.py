"""An offline run looked at while it trains: fixed pairs of its own data, and what it writes on
held-out prompts.
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
from lab.runs.metrics import StepRecord
from lab.training.evaluation import evaluate
from lab.training.loop import prepare, train
from lab.training.methods.offline import encode_pairs, load_preferences
from lab.training.state import TrainState, reference_logps


def follow(
    method: str,
    knobs: dict[str, Any],
    seed: int,
    device: str,
    looks: Sequence[int],
    pairs: int,
    prompts: int,
) -> dict[str, Any]:
    """Train until the last of `looks` and look at each of them.

    "chosen" and "rejected" hold log π − log π_ref of the first `pairs` pairs as the run is taught
    them, in nats; "gold/accuracy" and "kl" come from one completion of each of `prompts` held-out
    prompts.
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
    sides = dict(zip(("chosen", "rejected"), encode_pairs(run, load_preferences(run)[:pairs])))
    frozen = {side: reference_logps(run, examples) for side, examples in sides.items()}
    found: dict[str, Any] = {
        "steps": [],
        "chosen": [],
        "rejected": [],
        "gold/accuracy": [],
        "kl": [],
    }
    with fitting_threads(run.model):
        for record in train(run):
            if isinstance(record, StepRecord) and record.step in looks:
                found["steps"].append(record.step)
                for side, examples in sides.items():
                    found[side].append((_logps(run, examples) - frozen[side]).tolist())
                held_out = evaluate(
                    run.model,
                    run.tokenizer,
                    run.task,
                    prompts=prompts,
                    max_tokens=run.config.max_completion_tokens,
                    seed=EVALUATION_SEED,
                    device=run.device,
                )
                found["gold/accuracy"].append(held_out.accuracy)
                found["kl"].append(held_out.kl)
    return found


@torch.no_grad()
def _logps(run: TrainState, examples: list[EncodedExample]) -> torch.Tensor:
    return completion_logps(run.model, collate(examples, run.tokenizer.pad_token_id).to(run.device))
