"""The interface of an engine for sampling, and the lab's own engine."""

import hashlib
from dataclasses import dataclass
from typing import Protocol

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from lab.engine.allocator import NO_RECORD, Allocator
from lab.engine.completions import Completions
from lab.engine.generate import DecodeOptions
from lab.engine.sampler import decode_options, sample
from lab.engine.truncation import Truncation


@dataclass(frozen=True)
class SamplingRequest:
    """A request for `group_size` completions of each of `prompts`, lists of token ids.

    The random numbers depend on (`seed`, `stream`, `step`) and on the place in the whole batch:
    `shard` (i, k) says that these prompts are shard i of the k equal shards of a batch.
    """

    prompts: list[list[int]]
    group_size: int
    max_tokens: int
    temperature: float
    seed: int
    step: int
    device: torch.device
    stream: str = "rollout"
    shard: tuple[int, int] = (0, 1)
    truncation: Truncation | None = None

    def options(self, model: PeftModel, tokenizer: PreTrainedTokenizerBase) -> DecodeOptions:
        """Return how these prompts are sampled from `model`."""
        return decode_options(
            model,
            tokenizer,
            self.prompts,
            self.group_size,
            self.max_tokens,
            self.temperature,
            self.truncation,
        )

    def seed_of(self, prompt: int) -> int:
        """Return the seed of the completions of one of `prompts`, a number below 2^62."""
        place = self.shard[0] * len(self.prompts) + prompt
        text = f"{self.seed}/{self.stream}/{self.step}/{place}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 2


class Sampler(Protocol):
    """An engine that samples completions from a policy as its weights are now."""

    def sample(
        self, model: PeftModel, tokenizer: PreTrainedTokenizerBase, request: SamplingRequest
    ) -> Completions:
        """Return the completions of `request`, with the log-probabilities that the engine sampled with
        where they may differ from the policy's. Raises `LabError` where the engine fails.
        """
        ...


@dataclass(frozen=True)
class LabSampler:
    """The lab's own engine: its fast path, or with `plain` the model's own forward pass."""

    allocator: Allocator = NO_RECORD
    plain: bool = False

    def sample(
        self, model: PeftModel, tokenizer: PreTrainedTokenizerBase, request: SamplingRequest
    ) -> Completions:
        """Return the completions of `request`, by `lab.engine.sampler.sample`."""
        return sample(
            model,
            tokenizer,
            request.prompts,
            request.group_size,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            seed=request.seed,
            step=request.step,
            device=request.device,
            stream=request.stream,
            shard=request.shard,
            truncation=request.truncation,
            allocator=self.allocator,
            plain=self.plain,
        )
