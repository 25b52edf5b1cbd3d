"""The networks and weights that a run has in memory."""

import torch

from lab.config.methods import METHODS, method_of
from lab.engine.token_logprobs import Network
from lab.engine.torch_private import storage_id
from lab.training.method_state import PPOState
from lab.training.state import TrainState


def networks_of(run: TrainState) -> list[Network]:
    """Return the networks that a run has in memory, each once; several of its models may share one."""
    state = run.method_state
    networks: list[Network | None] = [
        run.model,
        state.frozen_reference if isinstance(state, PPOState) else None,
        *(head.model for head in state.heads().values()),
    ]
    return list({id(network): network for network in networks if network is not None}.values())


def resident_weights(run: TrainState) -> list[torch.Tensor]:
    """Return every weight and buffer that a run has in memory, each storage once."""
    weights: list[torch.Tensor] = [
        w for network in networks_of(run) for w in (*network.parameters(), *network.buffers())
    ]
    weights += [scalar.head for scalar in run.method_state.heads().values()]
    return list({storage_id(w): w for w in weights}.values())


def models_of(run: TrainState) -> list[str]:
    """Return the names of the models in the algorithm, however many weights they share."""
    method = METHODS[method_of(run.config)]
    absent = (
        {"reward model"}
        if method.online and "reward model" not in run.method_state.heads()
        else set()
    )
    return [name for name in method.models if name not in absent]
