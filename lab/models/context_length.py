"""Finds the longest sequence that a model takes, and checks a run against it."""

from typing import Any

from transformers import PreTrainedConfig

from lab.config.run_config import OfflineConfig, OnlineConfig, RunConfig
from lab.errors import LabError

POSITION_COUNT_KEYS = ("max_position_embeddings", "max_seq_len", "context_length")
"""The names that configs have for the number of positions."""


def context_length(config: PreTrainedConfig) -> tuple[int | None, str]:
    """Returns the longest sequence (tokens) for which a model has positions, and the name of that
    number in its config; (None, "") where the model has no limit.

    Scaling that is equal for all lengths (linear, yarn) raises the number. With longrope or dynamic
    NTK the number is the length up to which the angles are equal for all sequences: beyond it the
    angles, and with them every log-probability, depend on the longest row of a batch.
    """
    text = config.get_text_config(decoder=True)
    if text.model_type == "bloom" or getattr(text, "alibi", False):
        return None, ""
    name = next((name for name in POSITION_COUNT_KEYS if getattr(text, name, None)), "")
    if not name:
        return None, ""
    length = getattr(text, name)
    for rope in _ropes(text):
        kind, before = (
            rope.get("rope_type", "default"),
            rope.get("original_max_position_embeddings"),
        )
        if kind in ("linear", "yarn"):
            length = max(length, int((before or length) * (rope.get("factor") or 1)))
        elif kind == "longrope" and before and before < length:
            length, name = (
                before,
                (
                    "original_max_position_embeddings, beyond which its longrope angles depend on"
                    " the longest row of a batch"
                ),
            )
        elif kind == "dynamic":
            name = (
                "max_position_embeddings, beyond which its dynamic angles depend on the longest row"
                " of a batch"
            )
    return length, name


def _ropes(config: PreTrainedConfig) -> list[dict[str, Any]]:
    """The rotary settings of a config; there may be one for each type of layer."""
    settings = getattr(config, "rope_parameters", None) or {}
    if "rope_type" in settings:
        return [settings]
    return [value for value in settings.values() if isinstance(value, dict)]


def max_new_tokens(config: PreTrainedConfig, prompt: int, max_tokens: int) -> int:
    """Returns how many of `max_tokens` tokens can follow a prompt of `prompt` tokens; raises
    `LabError` where no token can.
    """
    length, name = context_length(config)
    if length is not None and prompt >= length:
        raise LabError(
            f"A prompt has {prompt} tokens, but the model takes {length} in all ({name}). Shorten"
            " the prompt, or give another --model."
        )
    return max_tokens if length is None else min(max_tokens, length - prompt)


def require_positions(config: RunConfig, model: PreTrainedConfig, prompt: int) -> None:
    """Raises `LabError` where the sequences of a run may be longer than the model takes; `prompt`
    is the number of tokens of its longest prompt.
    """
    length, name = context_length(model)
    if length is None:
        return
    if isinstance(config, OfflineConfig) and config.max_length > length:
        raise LabError(
            f"max_length is {config.max_length}, but the model takes {length} tokens ({name}). Set"
            f" --max-length {length} or less, or give another --model."
        )
    if isinstance(config, OnlineConfig) and prompt + config.max_completion_tokens > length:
        remedy = (
            f"Set --max-completion-tokens {length - prompt} or less"
            if prompt < length
            else "Shorten the prompts"
        )
        raise LabError(
            f"A prompt of {prompt} tokens and max_completion_tokens {config.max_completion_tokens}"
            f" make {prompt + config.max_completion_tokens}, but the model takes {length} ({name})."
            f" {remedy}, or give another --model."
        )
