"""Which decoder of `lab.engine.decode_any_model` is the fastest that is right for a model: each is
compared with an unpadded pass without a cache.
"""

from typing import cast
from weakref import WeakKeyDictionary

import torch
from peft import PeftModel
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import LinearAttentionCacheLayerMixin

from lab.distributed.fsdp import is_sharded
from lab.engine.decode_any_model import (
    EqualLengthDecoder,
    NextTokenDecoder,
    PaddedDecoder,
    RecomputingDecoder,
    base_of,
    forward_accepts,
)
from lab.errors import LabError
from lab.models.device import autocast

LOGIT_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.15}
"""How far logits may be from those of an unpadded pass, relative to the largest logit. bfloat16
rounds, and a rounded router may choose another expert.
"""


_FASTEST: WeakKeyDictionary[PreTrainedModel, type[NextTokenDecoder]] = WeakKeyDictionary()


def fastest_decoder(model: PeftModel) -> type[NextTokenDecoder]:
    """Return the fastest of the three decoders whose logits agree with `RecomputingDecoder`; each
    model is tried once, on a few tokens.

    Raises `LabError` where the weights are sharded and only prompts of one length would do:
    processes take equal numbers of steps only if each reads all its prompts together.
    """
    base = base_of(model)
    if base not in _FASTEST:
        _FASTEST[base] = next(
            candidate
            for candidate in _candidates(base)
            if candidate is RecomputingDecoder or _agrees(model, candidate)
        )
    if is_sharded(model) and _FASTEST[base].needs_equal_lengths:
        raise LabError(
            f"shard is on, but a model of type '{base.config.model_type}' cannot read prompts of"
            " different lengths together, which sharded weights need. Leave --shard out, or use"
            " --quantization 4bit for a model that does not fit."
        )
    return _FASTEST[base]


def _candidates(base: PreTrainedModel) -> list[type[NextTokenDecoder]]:
    """Return the decoders that may be right, by the cache that transformers would make for
    `generate`.
    """
    # transformers has no public call that says whether `generate` makes a DynamicCache, and its
    # types have the method on GenerationMixin alone, which every causal model inherits.
    has_cache = base._supports_default_dynamic_cache()  # type: ignore[operator]  # noqa: SLF001
    if not has_cache or not (
        forward_accepts(base, "past_key_values") or forward_accepts(base, "cache_params")
    ):
        return [RecomputingDecoder]
    try:
        layers = DynamicCache(config=base.config).layers
    except (AttributeError, KeyError, TypeError, ValueError):
        # The model has a layer type without a cache of its own.
        return [RecomputingDecoder]
    recurrent = getattr(base, "_is_stateful", False) or any(
        isinstance(layer, LinearAttentionCacheLayerMixin) for layer in layers
    )
    with_cache: list[type[NextTokenDecoder]] = (
        [EqualLengthDecoder] if recurrent else [PaddedDecoder, EqualLengthDecoder]
    )
    return [*with_cache, RecomputingDecoder]


def _agrees(model: PeftModel, candidate: type[NextTokenDecoder]) -> bool:
    """Return whether a decoder gives the logits of `RecomputingDecoder`, for prompts of two lengths
    if it takes them, over steps in which rows leave.
    """
    base = base_of(model)
    vocab_size = cast(torch.nn.Embedding, base.get_input_embeddings()).num_embeddings
    lengths = (5, 5) if candidate.needs_equal_lengths else (2, 5)
    prompts = [[(7 * i + 3) % vocab_size for i in range(length)] for length in lengths]
    next_tokens = torch.tensor(
        [[(11 * i + 5 * k + 1) % vocab_size for i in range(4)] for k in range(3)],
        device=base.device,
    )
    try:
        with torch.no_grad(), autocast(base.device):
            logits = _trace(candidate, model, prompts, next_tokens)
            logits_of_prompts = [
                _trace(RecomputingDecoder, model, [prompt], next_tokens[:, 2 * i : 2 * i + 2])
                for i, prompt in enumerate(prompts)
            ]
    except LabError:
        raise
    except Exception:  # A cache of another design may raise anything: the decoder does not fit it.
        return False
    expected = [torch.cat(rows)[: len(actual)] for actual, *rows in zip(logits, *logits_of_prompts)]
    scale = max(part.abs().max() for part in expected)
    tolerance = LOGIT_TOLERANCE.get(base.dtype, 0.15)
    return all(((a - b).abs().max() <= tolerance * scale).item() for a, b in zip(logits, expected))


def _trace(
    decoder_class: type[NextTokenDecoder],
    model: PeftModel,
    prompts: list[list[int]],
    next_tokens: torch.Tensor,
) -> list[torch.Tensor]:
    """Return the logits after the prompts, in groups of two, and after each of `next_tokens`
    (steps, rows); before the last step all rows but the first two leave.
    """
    decoder = decoder_class(model, prompts, 2)
    logits = [decoder.prefill()]
    for token in next_tokens[:-1]:
        logits.append(decoder.step(token))
    decoder.keep_rows(torch.arange(2, device=next_tokens.device))
    logits.append(decoder.step(next_tokens[-1, :2]))
    return [step.float() for step in logits]
