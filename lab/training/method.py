"""A method is a few functions: load the networks, yield batches lazily, compute a loss, evaluate."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel

from lab.config.methods import RunConfig
from lab.models.loading import load_policy
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


@dataclass(frozen=True)
class Method:
    """How one method trains.

    `batches(run)` yields one batch per update, as a list of micro-batches. It is a generator that the
    loop pulls once per update, after the live changes, so a rollout always comes from the current
    policy. `loss(run, micro_batch)` returns the micro-batch's share of the batch's loss, a scalar
    (without a gradient where there is nothing to learn), and metrics: detached tensors whose non-NaN
    entries are averaged over the whole batch. `load` returns the policy, `attach(run)` adds the
    networks beside it as `run.method_state`; `evaluate(run)` returns held-out metrics and sample
    completions.
    """

    batches: Callable[[TrainState], Iterator[list[Any]]]
    loss: Callable[[TrainState, Any], tuple[torch.Tensor, MetricTensors]]
    load: Callable[[RunConfig, torch.device], PeftModel] = load_policy
    evaluate: Callable[[TrainState], EvalResult] = evaluate_policy
    attach: Callable[[TrainState], None] = lambda run: None
