"""Checks of a model before training: a model that cannot be trained is refused at the start, and its limits are said there."""

from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from lab.config.methods import OfflineConfig, OnlineConfig, RunConfig
from lab.data.chat_template import exchange, prompt_text
from lab.data.encoding import posed, prompt_ids
from lab.engine.llama import decoder_of
from lab.errors import LabError
from lab.models import lora
from lab.models.device import capability, modern
from lab.models.loading import autocast, trunk_of
from lab.tasks.prompt_file import PromptTask
from lab.tasks.registry import Problem, Task

PROMPTS = 2000  # Prompts of the training data whose length is looked at before a run; a longer one behind them stops it when it comes.
SPARE = 8  # Tokens that a tokenizer may add to those of the characters of a text.
LENGTHS = ("max_position_embeddings", "max_seq_len", "context_length")
"""How configs call the number of positions."""


def context_length(config: PreTrainedConfig) -> tuple[int | None, str]:
    """The longest sequence (tokens) for which a model has positions, and the name of that number in its config; None where there is no end.

    Scaling that is the same for all lengths (linear, yarn) stretches it. With longrope or dynamic NTK it is the length up to which angles are the same for all:
    beyond it they depend on the longest row of a batch, and with them every log-probability.
    """
    text = config.get_text_config(decoder=True)
    if text.model_type == "bloom" or getattr(text, "alibi", False):
        return None, ""
    name = next((name for name in LENGTHS if getattr(text, name, None)), "")
    if not name:
        return None, ""
    length = getattr(text, name)
    for rope in _ropes(text):
        kind, before = rope.get("rope_type", "default"), rope.get("original_max_position_embeddings")
        if kind in ("linear", "yarn"):
            length = max(length, int((before or length) * (rope.get("factor") or 1)))
        elif kind == "longrope" and before and before < length:
            length, name = before, "original_max_position_embeddings, beyond which its longrope angles depend on the longest row of a batch"
        elif kind == "dynamic":
            name = "max_position_embeddings, beyond which its dynamic angles depend on the longest row of a batch"
    return length, name


def _ropes(config: PreTrainedConfig) -> list[dict[str, Any]]:
    """The rotary settings of a config, which may have some for each type of layer."""
    found = getattr(config, "rope_parameters", None) or {}
    return [found] if "rope_type" in found else [part for part in found.values() if isinstance(part, dict)]


def room(config: PreTrainedConfig, prompt: int, max_tokens: int) -> int:
    """How many of `max_tokens` tokens can follow a prompt of so many; `LabError` where there is room for none."""
    length, name = context_length(config)
    if length is not None and prompt >= length:
        raise LabError(f"A prompt has {prompt} tokens, but the model takes {length} in all ({name}). Shorten the prompt, or give another --model.")
    return max_tokens if length is None else min(max_tokens, length - prompt)


def require_room(config: RunConfig, model: PreTrainedConfig, prompt: int) -> None:
    """Raise `LabError` where what a run trains on may be longer than the model takes; `prompt` are the tokens of the longest prompt that it samples from."""
    length, name = context_length(model)
    if length is None:
        return
    if isinstance(config, OfflineConfig) and config.max_length > length:
        raise LabError(f"max_length is {config.max_length}, but the model takes {length} tokens ({name}). "
                       f"Set --max-length {length} or less, or give another --model.")
    if isinstance(config, OnlineConfig) and prompt + config.max_completion_tokens > length:
        left = f"Set --max-completion-tokens {length - prompt} or less" if prompt < length else "Shorten the prompts"
        raise LabError(f"A prompt of {prompt} tokens and max_completion_tokens {config.max_completion_tokens} make {prompt + config.max_completion_tokens}, "
                       f"but the model takes {length} ({name}). {left}, or give another --model.")


def keep_fitting(tokenizer: PreTrainedTokenizerBase, task: Task, model: PreTrainedConfig) -> list[str]:
    """Leave out of prompts of the user's own those that fill the model's positions alone; returns a note on them, or none."""
    length, _ = context_length(model)
    if not hasattr(task, "keep") or length is None:
        return []
    left = length - 1

    def fits(problem: Problem) -> bool:
        text = exchange(tokenizer, problem, "")[0]
        shown = prompt_text(tokenizer, text, f"The prompt {problem.prompt[:40]!r}")
        return len(shown) < left - SPARE and shown.isascii() or len(prompt_ids(tokenizer, [text])[0]) <= left

    count = task.keep(fits)
    return [f"{count} prompts of {task.name} are left out: they have more than the {left} tokens that the model's positions leave for a prompt."] * bool(count)


def longest(tokenizer: PreTrainedTokenizerBase, task: Task, config: RunConfig) -> tuple[int, int]:
    """Tokens of the longest held-out prompt, and of the longest of the first prompts to train on, 0 for a method that samples none."""
    shown, asked = task.held_out(config.eval_prompts), []
    if isinstance(config, OnlineConfig):
        rollout = config.batch_size // getattr(config, "group_size", 1)
        drawn = task.train_problems(max(rollout, PROMPTS) if isinstance(task, PromptTask) else rollout, config.seed, 1)
        asked = list({problem.prompt: problem for problem in drawn}.values())
    return tuple(max((len(ids) for ids in posed(tokenizer, problems)), default=0) if problems else 0 for problems in (shown, asked))


@torch.no_grad()
def require_causal(model: PeftModel, name: str) -> None:
    """Raise `LabError` for a model that cannot be read token by token: one that looks at later tokens, or that takes more than token ids.

    Architectures with a fast path are known to be causal.
    """
    if decoder_of(model) is not None:
        return
    base = model.get_base_model()
    size = base.get_input_embeddings().num_embeddings
    ids = torch.arange(8, device=base.device).repeat(2, 1).mul_(3).add_(2) % size
    ids[1, -1] = (ids[1, -1] + 1) % size
    try:
        with autocast(base.device):
            states = trunk_of(base)(input_ids=ids, use_cache=False).last_hidden_state.float()
    except Exception as error:  # Whatever a model of another kind says of inputs that it misses.
        said = " ".join(str(error).split())[:200]
        raise LabError(f"'{name}' is of type '{base.config.model_type}', which fails on token ids alone ({type(error).__name__}: {said}). "
                       "Give a causal language model.") from error
    if (states[0, :-1] - states[1, :-1]).abs().max() > 0.03 * states.abs().max():  # 0.03: bfloat16.
        raise LabError(f"'{name}' is of type '{base.config.model_type}', and what it says of a token depends on later ones, so it cannot write. "
                       "Give a causal language model.")


def notes(model: PeftModel, config: RunConfig, device: torch.device, prompt: int) -> list[str]:
    """Notes for the start of a run; `prompt` are the tokens of the longest held-out prompt."""
    found = lora.notes(model)
    length, _ = context_length(model.get_base_model().config)
    if length is not None and prompt < length < prompt + config.max_completion_tokens:
        found.append(f"Completions of held-out prompts end after {length - prompt} tokens instead of max_completion_tokens {config.max_completion_tokens}: "
                     f"the model takes {length} in all.")
    if device.type == "cuda" and not modern(device):
        number = ".".join(map(str, capability(device.index or 0)))
        found.append(f"This GPU has compute capability {number}: bfloat16 and the fast kernels need 8.0, so the model is held and trained in float32, "
                     "in twice the memory. --quantization 4bit takes less.")
    return found
