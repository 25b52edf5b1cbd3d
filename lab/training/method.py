"""A method is a few functions: load the networks, yield batches lazily, compute a loss, evaluate."""

from typing import Any

import torch

from lab.training.evaluation import evaluate
from lab.training.state import TrainState

MetricTensors = dict[str, torch.Tensor]
EvalResult = tuple[dict[str, float], list[dict[str, Any]]]
NUM_EVAL_SAMPLES = 8  # Completions of an evaluation that the record shows.


def evaluate_policy(run: TrainState) -> EvalResult:
    """Return gold metrics on held-out prompts, and the first eight completions."""
    result = evaluate(
        run.model,
        run.tokenizer,
        run.task,
        prompts=run.config.eval_prompts,
        max_tokens=run.config.max_completion_tokens,
        seed=run.config.seed,
        device=run.device,
        step=run.step,
    )
    return result.metrics(), result.completions[:NUM_EVAL_SAMPLES]
