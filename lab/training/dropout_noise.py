"""The random numbers of dropout in one update, which a resumed run draws again."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lab.config.run_config import RunConfig
from lab.distributed import collectives
from lab.engine.sampler import generator


@contextmanager
def dropout_noise(config: RunConfig, step: int, device: torch.device) -> Iterator[None]:
    """Within it torch's generators depend on the seed, the update `step` and this process alone.
    Afterwards they are as before. Without dropout it does nothing.
    """
    if not config.lora_dropout:
        yield
        return
    stream = f"dropout {collectives.rank()}"
    seed = generator(config.seed, stream, step, torch.device("cpu")).initial_seed()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
