"""A training run between two updates: everything that the next update depends on."""

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from lab.config.run_config import RunConfig
from lab.engine.allocator import NO_RECORD, Allocator
from lab.engine.samplers.base import Sampler
from lab.tasks.base import Task
from lab.training.flat_params import FlatParameter
from lab.training.method_state import MethodState
from lab.training.own_functions import OwnFunctions
from lab.training.rollout import Rollout
from lab.training.timer import PhaseTimer

ConfigT = TypeVar("ConfigT", bound=RunConfig)


@dataclass
class TrainState(Generic[ConfigT]):
    """A training run between two updates: everything that the next update depends on.

    `config` changes when a live setting does. `step` counts finished updates, `tokens` the completion
    tokens trained on, `generated` the tokens that were sampled to train on; `timer` measures the
    phases. `model` is the policy, and `method_state` what the method keeps beside it. `rollout` is
    what an online method has sampled and not yet used up. `flat_params` holds
    `trainable_parameters` as the optimizer sees them. `cache` holds what can be computed again, and
    is not part of a checkpoint. `notes` are remarks on data and model that wait to be reported.
    `own` holds functions of the learner that replace the lab's, by the names of the method's hooks.
    `sampler` is the engine that samples rollouts, None for the lab's own; `allocator` provides the
    memory that the lab's own keeps. `changed_at` belongs to a fork of a recorded
    run, which is evaluated more often after a change: the update of its last one; None for other runs.
    """

    config: ConfigT
    task: Task
    tokenizer: PreTrainedTokenizerBase
    model: PeftModel
    device: torch.device
    optimizer: torch.optim.Optimizer = field(init=False)
    flat_params: dict[str, list[FlatParameter]] = field(init=False)
    step: int = 0
    tokens: int = 0
    generated: int = 0
    timer: PhaseTimer = field(default_factory=PhaseTimer)
    rollout: Rollout | None = None
    method_state: MethodState = field(default_factory=MethodState)
    cache: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    own: OwnFunctions = field(default_factory=dict)
    sampler: Sampler | None = None
    allocator: Allocator = NO_RECORD
    changed_at: int | None = None

    def trainable_parameters(self) -> dict[str, dict[str, torch.nn.Parameter]]:
        """Return the weights that the optimizer moves, by name, for each setting that is a learning
        rate: the policy's, then the method's own (PPO's critic).
        """
        beside = self.method_state.trainable_parameters()
        ids = {id(weight) for group in beside.values() for weight in group.values()}
        policy = {
            name: weight
            for name, weight in self.model.named_parameters()
            if weight.requires_grad and id(weight) not in ids
        }
        return {"learning_rate": policy} | beside
