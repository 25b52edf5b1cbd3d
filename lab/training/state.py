"""A method is a few functions: load the networks, yield batches lazily, compute a loss, evaluate."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lab.config.run_config import RunConfig
from lab.data.batching import Example, collate
from lab.engine.token_logprobs import completion_logps
from lab.models.loading import adapter_disabled
from lab.tasks.registry import Task
from lab.training.evaluation import evaluate
from lab.training.flat_params import FlatParameter
from lab.training.heads import ScalarHeadModel

PHASES = ("sampling", "scoring", "updating", "evaluating")
Metrics = dict[str, torch.Tensor]
EvalResult = tuple[dict[str, float], list[dict[str, Any]]]


@dataclass
class TrainState:
    """A training run between two updates: everything that the next update depends on.

    `config` changes when a live knob does; `step` counts finished updates, `tokens` the completion
    tokens trained on, `generated` those that were sampled to train on, `phases` the seconds of
    sampling, scoring, updating and evaluating; `rollout` is what an online method has sampled and
    not yet used up; `vectors` holds `trained` as the optimizer sees it; `cache` holds what can be
    computed again and is not part of a checkpoint; `notes` are remarks on the data and the model
    that wait to be reported. Beside the policy, `model`, a method may attach a critic, a reward
    model, and a reference with weights of its own; `kl_factor` multiplies PPO's β.
    """

    config: RunConfig
    task: Task
    tokenizer: PreTrainedTokenizerBase
    model: PeftModel
    device: torch.device
    optimizer: torch.optim.Optimizer = field(init=False)
    vectors: dict[str, list[FlatParameter]] = field(init=False)
    step: int = 0
    tokens: int = 0
    generated: int = 0
    phases: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    rollout: Any = None
    critic: ScalarHeadModel | None = None
    reward_model: ScalarHeadModel | None = None
    frozen_reference: PreTrainedModel | None = None
    kl_factor: float = 1.0
    cache: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _inner: float = field(default=0.0, repr=False)

    @property
    def seconds(self) -> float:
        """Wall time of training so far: sampling, scoring and updating, without evaluation and
        pauses.
        """
        return sum(self.phases.values()) - self.phases["evaluating"]

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Within it, time counts as `name`'s; a phase inside another takes its time away from the
        outer one.

        On CUDA a phase ends when its work has been asked for, which for sampling and updating is
        when it is done: both read a result.
        """
        outer, self._inner = self._inner, 0.0
        began = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - began
            self.phases[name] += took - self._inner
            self._inner = outer + took

    def trained(self) -> dict[str, dict[str, torch.nn.Parameter]]:
        """What the optimizer moves, by name, for each knob that is a learning rate: the policy's
        weights, and the critic's if there is one.
        """
        critic = dict(self.critic.named_parameters()) if self.critic else {}
        theirs = {id(p) for p in critic.values()}
        policy = {
            name: p
            for name, p in self.model.named_parameters()
            if p.requires_grad and id(p) not in theirs
        }
        return {"learning_rate": policy} | ({"critic_learning_rate": critic} if critic else {})


def evaluate_policy(run: TrainState) -> EvalResult:
    """Gold metrics on held-out prompts, and the first eight completions."""
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
    return result.metrics(), result.completions[:8]


def cut(items: list, pieces: int) -> list[list]:
    """`items` in at most `pieces` consecutive parts whose sizes differ by at most one; no part is
    empty, and no items have no parts.
    """
    pieces = min(pieces, len(items))
    edges = [round(i * len(items) / pieces) for i in range(pieces + 1)] if items else []
    return [items[a:b] for a, b in zip(edges, edges[1:])]


@torch.no_grad()
def reference_logps(run: TrainState, examples: list[Example]) -> torch.Tensor:
    """Summed completion log-probabilities (N,) under the reference, in one forward pass."""
    with adapter_disabled(run.model):
        return completion_logps(
            run.model, collate(examples, run.tokenizer.pad_token_id).to(run.device)
        )
