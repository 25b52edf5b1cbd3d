"""The memory that the estimator expects of a run, for the message when memory runs out."""

from lab.config.adapter_settings import FULL_RANK
from lab.config.methods import METHODS, estimated_methods, method_of
from lab.config.run_config import OfflineConfig, OnlineConfig
from lab.engine.decode_any_model import base_of
from lab.models.device import has_bfloat16
from lab.models.fused_weights import FAST_PATH_ARCHITECTURES
from lab.profiling.estimate import UpdateSettings, estimate_shape_memory
from lab.training.state import TrainState

ASSUMED_PROMPT_TOKENS = 64
"""Tokens of a prompt in the estimate for an online method."""
SHAPE_KEYS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "tie_word_embeddings",
)


def expected_memory(run: TrainState) -> str:
    """Return a sentence with the estimated memory of an update of `run` whose sequences all have the
    maximum length; an empty text if the method or the architecture cannot be estimated.
    """
    config, model_config = run.config, base_of(run.model).config
    method = method_of(config)
    if config.lora_rank == FULL_RANK:
        return ""  # Without the fast path the estimator's update is not the run's.
    if method not in estimated_methods() or model_config.model_type not in FAST_PATH_ARCHITECTURES:
        return ""
    assert isinstance(config, (OfflineConfig, OnlineConfig))
    batch_size = config.batch_size
    if isinstance(config, OnlineConfig):
        prompt_tokens, completion_tokens = ASSUMED_PROMPT_TOKENS, config.max_completion_tokens
        prompts = f" with prompts of {ASSUMED_PROMPT_TOKENS} tokens"
    else:
        prompt_tokens, completion_tokens, prompts = 1, config.max_length - 1, ""
        if config.tokens_per_batch:
            row_tokens = METHODS[method].rows_per_example * config.max_length
            batch_size = max(1, config.tokens_per_batch // row_tokens)
    estimate = estimate_shape_memory(
        config.model,
        {key: getattr(model_config, key) for key in SHAPE_KEYS},
        method,
        UpdateSettings(
            batch_size=batch_size,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            group_size=getattr(config, "group_size", 1),
            lora_rank=config.lora_rank,
            bf16=has_bfloat16(run.device),
            checkpointing=config.gradient_checkpointing,
            layout=getattr(config, "model_layout", "shared"),
            micro_batches=min(config.micro_batches, batch_size),
        ),
    )
    return f" The estimator expects {estimate.peak / 2**30:.1f} GiB for an update of the longest sequences{prompts}."
