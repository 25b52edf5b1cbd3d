"""transformers' continuous batching as an engine: completions that end make room for waiting ones."""

from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedTokenizerBase

from lab.engine.completions import Completions, completions_of, with_logps
from lab.engine.decode_any_model import base_of
from lab.engine.generate import DecodeOptions
from lab.engine.sampler import MAX_CACHE_BYTES
from lab.engine.samplers.base import SamplingRequest
from lab.errors import LabError
from lab.models.adapters import adapter_merged

CPU_PAGE, CPU_BATCH_TOKENS = 16, 512
"""Tokens of a page of the cache and of a forward pass on a CPU, where an attention mask has an entry for
each pair of a token of the pass and a token of the cache.
"""


@dataclass(frozen=True)
class TransformersSampler:
    """`generate_batch` of the model itself, with the adapter merged: the same weights, and nothing to
    push. Its seed is that of the first prompt.
    """

    def sample(
        self, model: PeftModel, tokenizer: PreTrainedTokenizerBase, request: SamplingRequest
    ) -> Completions:
        """Return the completions of `request`, with the log-probabilities that were sampled with."""
        options = request.options(model, tokenizer)
        base: Any = base_of(model)  # A model that writes is a `GenerationMixin`, too.
        try:
            with adapter_merged(model), torch.random.fork_rng(_gpus(request.device)):
                outputs = list(
                    base.generate_batch(
                        request.prompts,
                        generation_config=_generation(options, tokenizer),
                        continuous_batching_config=_batching(base, request, options),
                        progress_bar=False,
                    ).values()
                )
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # Every kind of model and device raises errors of its own.
            raise _failed(base, f"{type(error).__name__}: {error}") from error
        expected = len(request.prompts) * options.group_size
        errors = [str(output.error) for output in outputs if output.error is not None]
        if errors or len(outputs) != expected:
            reason = errors[0] if errors else f"{len(outputs)} of {expected} completions came back"
            raise _failed(base, reason)
        rows = [output.generated_tokens for output in outputs]
        truncated = torch.tensor(
            [row[-1] not in options.end_ids for row in rows], device=request.device
        )
        completions = completions_of(tokenizer, request.prompts, options, rows, truncated)
        return with_logps(completions, [output.logprobs for output in outputs])


def _generation(options: DecodeOptions, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Settings that sample from the policy, whatever the model's own generation config says."""
    truncation = options.truncation
    return GenerationConfig(
        do_sample=True,
        temperature=options.temperature,
        top_k=truncation.top_k if truncation else 0,
        top_p=truncation.top_p if truncation else 1.0,
        min_p=truncation.min_p or None if truncation else None,
        num_return_sequences=options.group_size,
        max_new_tokens=options.max_tokens,
        eos_token_id=options.end_ids,
        pad_token_id=tokenizer.pad_token_id,
    )


def _batching(
    base: Any, request: SamplingRequest, options: DecodeOptions
) -> ContinuousBatchingConfig:
    """A cache for all completions, or for as many as fit into `MAX_CACHE_BYTES`."""
    on_cpu = request.device.type == "cpu"
    page = CPU_PAGE if on_cpu else ContinuousBatchingConfig.page_size
    rows = len(request.prompts) * options.group_size
    longest = max(map(len, request.prompts)) + options.max_tokens
    blocks_of_row = -(-longest // page) + 1
    shape = base.config.get_text_config()
    heads = getattr(shape, "num_key_value_heads", None) or shape.num_attention_heads
    size = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    block_bytes = 2 * page * shape.num_hidden_layers * heads * size * base.dtype.itemsize
    return ContinuousBatchingConfig(
        page_size=page,
        num_blocks=max(blocks_of_row, min(rows * blocks_of_row, MAX_CACHE_BYTES // block_bytes)),
        max_batch_tokens=max(CPU_BATCH_TOKENS, rows) if on_cpu else None,
        return_logprobs=True,
        seed=request.seed_of(0),
    )


def _gpus(device: torch.device) -> list[torch.device]:
    """The devices, beside the CPU, whose random numbers continuous batching seeds anew."""
    return [] if device.type == "cpu" else [device]


def _failed(base: Any, reason: str) -> LabError:
    return LabError(
        "transformers' continuous batching cannot sample this model of type"
        f" '{base.config.model_type}' on {base.device.type} ({' '.join(reason.split())[:300]})."
        " Leave --sampler out, and the lab's own sampler takes it."
    )
