"""How a method loads, attaches and evaluates: its own way, or the one that its kind has."""

from typing import cast

import torch
from peft import PeftModel

from lab.config.methods import MethodSpec
from lab.config.run_config import RunConfig
from lab.models.loading import load_policy
from lab.training.method import EvalResult, evaluate_policy
from lab.training.methods.offline import evaluate_task_or_rows
from lab.training.methods.online import attach_reward_model
from lab.training.state import TrainState


def load_model(method: MethodSpec, config: RunConfig, device: torch.device) -> PeftModel:
    """Return the model that trains: by default the base with LoRA."""
    return cast(PeftModel, (method.load or load_policy)(config, device))


def attach_networks(method: MethodSpec, run: TrainState) -> None:
    """Add the networks beside the policy: by default the reward model that an online config names."""
    if method.attach:
        method.attach(run)
    elif method.online:
        attach_reward_model(run)


def evaluate_method(method: MethodSpec, run: TrainState) -> EvalResult:
    """Return held-out metrics and sample completions: by default the task's, or those of the user's
    own held-out rows.
    """
    if method.evaluate:
        return method.evaluate(run)
    if method.offline:
        return evaluate_task_or_rows(method.batches, method.loss)(run)
    return evaluate_policy(run)
