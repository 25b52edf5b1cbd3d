"""The networks and weights that a run has in memory."""

import torch

from lab.config.methods import method_of
from lab.engine.token_logprobs import Network
from lab.engine.torch_private import storage_id
from lab.training.state import TrainState


def networks_of(run: TrainState) -> list[Network]:
    """Return the networks that a run has in memory, each once; several of its models may share one."""
    networks: list[Network | None] = [
        run.model,
        run.frozen_reference,
        run.critic.model if run.critic else None,
        run.reward_model.model if run.reward_model else None,
    ]
    return list({id(network): network for network in networks if network is not None}.values())


def resident_weights(run: TrainState) -> list[torch.Tensor]:
    """Return every weight and buffer that a run has in memory, each storage once."""
    weights: list[torch.Tensor] = [
        w for network in networks_of(run) for w in (*network.parameters(), *network.buffers())
    ]
    weights += [scalar.head for scalar in (run.critic, run.reward_model) if scalar]
    return list({storage_id(w): w for w in weights}.values())


def models_of(run: TrainState) -> list[str]:
    """Return the names of the models in the algorithm, however many weights they share."""
    method = method_of(run.config)
    if method in ("sft", "reward_model"):
        return ["policy" if method == "sft" else "reward model"]
    return (
        ["policy", "reference"]
        + ["reward model"] * bool(run.reward_model)
        + ["critic"] * bool(run.critic)
    )
