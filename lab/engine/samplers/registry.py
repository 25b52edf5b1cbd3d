"""Finds the engine that a run's settings name."""

from pathlib import Path

from lab.config.run_config import OnlineConfig, RunConfig
from lab.config.sampler_settings import TRANSFORMERS, server_address
from lab.distributed import collectives
from lab.engine.samplers.base import Sampler
from lab.engine.samplers.continuous_batching import TransformersSampler
from lab.engine.samplers.vllm import VLLMSampler
from lab.engine.samplers.vllm_client import VLLMServer


def other_sampler(config: RunConfig, folder: Path | None = None) -> Sampler | None:
    """Return the engine of a run whose engine is not the lab's own; None for the lab's own.

    A vLLM server reads the adapter from `folder`, or from a temporary one. Raises `LabError` where it
    cannot be reached, or serves another model; of several processes rank 0 asks.
    """
    if not isinstance(config, OnlineConfig):
        return None
    if address := server_address(config.sampler):
        sampler = VLLMSampler(VLLMServer(*address, config.sampler_seconds), config.model, folder)
        if collectives.rank() == 0:
            sampler.require_model()
        return sampler
    return TransformersSampler() if config.sampler == TRANSFORMERS else None
