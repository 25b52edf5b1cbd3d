"""The content of a checkpoint: everything from which a run continues on the same trajectory."""

from typing import Any

import torch

from lab.config.json_format import to_dict
from lab.training.rollout import load_rollout
from lab.training.state import TrainState


def restore_checkpoint(run: TrainState, state: dict[str, Any]) -> None:
    """Put the weights, the optimizer, the counters and the rollout of a checkpoint into `run`."""
    with torch.no_grad():
        for rate, group in run.trainable_parameters().items():
            for name, weight in group.items():
                weight.copy_(state["trained"][rate][name])
    run.optimizer.load_state_dict(state["optimizer"])
    run.step, run.tokens, run.generated = state["step"], state["tokens"], state["generated"]
    run.changed_at = state.get("changed_at")  # The first checkpoint of a fork has none.
    run.timer.phases = dict(state["phases"])
    run.method_state.load_checkpoint(state)
    run.rollout = load_rollout(state["rollout"], run.device) if state["rollout"] else None


def make_checkpoint(run: TrainState) -> dict[str, Any]:
    """Return all that `prepare` needs to continue the same trajectory: tensors, numbers and strings.

    No state of a random generator is among it: the config's seed and the step seed every draw.
    """
    return {
        "config": to_dict(run.config),
        "step": run.step,
        "tokens": run.tokens,
        "generated": run.generated,
        "changed_at": run.changed_at,
        "phases": dict(run.timer.phases),
        **run.method_state.to_checkpoint(),
        "trained": {
            rate: {name: weight.detach() for name, weight in group.items()}
            for rate, group in run.trainable_parameters().items()
        },
        "optimizer": run.optimizer.state_dict(),
        "rollout": run.rollout and run.rollout.to_checkpoint(),
    }
