"""The longest sequence that a model takes."""

from typing import Any

from transformers import PreTrainedConfig

from lab.config.run_config import OfflineConfig, OnlineConfig, RunConfig
from lab.errors import LabError

LENGTHS = ("max_position_embeddings", "max_seq_len", "context_length")
"""How configs call the number of positions."""


def context_length(config: PreTrainedConfig) -> tuple[int | None, str]:
    """The longest sequence (tokens) for which a model has positions, and the name of that number in
    its config; None where there is no end.

    Scaling that is the same for all lengths (linear, yarn) stretches it. With longrope or dynamic
    NTK it is the length up to which angles are the same for all: beyond it they depend on the
    longest row of a batch, and with them every log-probability.
    """
    text = config.get_text_config(decoder=True)
    if text.model_type == "bloom" or getattr(text, "alibi", False):
        return None, ""
    name = next((name for name in LENGTHS if getattr(text, name, None)), "")
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
    """The rotary settings of a config, which may have some for each type of layer."""
    found = getattr(config, "rope_parameters", None) or {}
    return (
        [found]
        if "rope_type" in found
        else [part for part in found.values() if isinstance(part, dict)]
    )


def room(config: PreTrainedConfig, prompt: int, max_tokens: int) -> int:
    """How many of `max_tokens` tokens can follow a prompt of so many; `LabError` where there is
    room for none.
    """
    length, name = context_length(config)
    if length is not None and prompt >= length:
        raise LabError(
            f"A prompt has {prompt} tokens, but the model takes {length} in all ({name}). Shorten"
            " the prompt, or give another --model."
        )
    return max_tokens if length is None else min(max_tokens, length - prompt)


def require_room(config: RunConfig, model: PreTrainedConfig, prompt: int) -> None:
    """Raise `LabError` where what a run trains on may be longer than the model takes; `prompt` are
    the tokens of the longest prompt that it samples from.
    """
    length, name = context_length(model)
    if length is None:
        return
    if isinstance(config, OfflineConfig) and config.max_length > length:
        raise LabError(
            f"max_length is {config.max_length}, but the model takes {length} tokens ({name}). "
            f"Set --max-length {length} or less, or give another --model."
        )
    if isinstance(config, OnlineConfig) and prompt + config.max_completion_tokens > length:
        left = (
            f"Set --max-completion-tokens {length - prompt} or less"
            if prompt < length
            else "Shorten the prompts"
        )
        raise LabError(
            f"A prompt of {prompt} tokens and max_completion_tokens {config.max_completion_tokens}"
            f" make {prompt + config.max_completion_tokens}, but the model takes {length} ({name})."
            f" {left}, or give another --model."
        )
