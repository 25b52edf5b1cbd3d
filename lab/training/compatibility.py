"""Checks of a model at the start of a run: it refuses a model that cannot be trained, and notes the
limits of one that can.
"""

import os
from typing import cast

import torch
from peft import PeftModel
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from lab.config.run_config import OnlineConfig, RunConfig
from lab.data.chat_template import prompt_text
from lab.data.encoding import prompt_ids
from lab.distributed.launcher import launcher_notes
from lab.engine.decode_any_model import base_of
from lab.engine.llama import decoder_of
from lab.errors import LabError
from lab.models import lora
from lab.models.context_length import context_length
from lab.models.device import autocast, capability, has_bfloat16
from lab.models.loading import backbone_of
from lab.tasks.base import Problem, Task
from lab.tasks.prompt_file import PromptTask
from lab.tasks.prompting import as_messages, render_prompts

MAX_CHECKED_PROMPTS = 2000
"""Prompts of the training data whose length is checked at the start; a longer prompt behind them
stops the run when its turn comes.
"""
TOKENIZER_EXTRA_TOKENS = 8  # Tokens that a tokenizer may add to one token per character of a text.


def drop_overlong_prompts(
    tokenizer: PreTrainedTokenizerBase, task: Task, model: PreTrainedConfig
) -> list[str]:
    """Remove from the user's own prompts those that leave no position of the model for a
    completion; return a note on them, or an empty list.
    """
    length, _ = context_length(model)
    if not hasattr(task, "keep") or length is None:
        return []
    limit = length - 1

    def fits(problem: Problem) -> bool:
        text = as_messages(tokenizer, problem, "")[0]
        rendered = prompt_text(tokenizer, text, f"The prompt {problem.prompt[:40]!r}")
        return (
            len(rendered) < limit - TOKENIZER_EXTRA_TOKENS
            and rendered.isascii()
            or len(prompt_ids(tokenizer, [text])[0]) <= limit
        )

    count = task.keep(fits)
    return [
        f"{count} prompts of {task.name} are left out: they have more than the {limit} tokens that"
        " the model's positions leave for a prompt."
    ] * bool(count)


def longest_prompts(
    tokenizer: PreTrainedTokenizerBase, task: Task, config: RunConfig
) -> tuple[int, int]:
    """Return the tokens of the longest held-out prompt, and of the longest of the first training
    prompts (0 for a method that samples none).
    """
    training: list[Problem] = []
    if isinstance(config, OnlineConfig):
        count = config.batch_size // getattr(config, "group_size", 1)
        if isinstance(task, PromptTask):
            count = max(count, MAX_CHECKED_PROMPTS)
        problems = task.train_problems(count, config.seed, 1)
        training = list({problem.prompt: problem for problem in problems}.values())
    return _longest(tokenizer, task.held_out(config.eval_prompts)), _longest(tokenizer, training)


def _longest(tokenizer: PreTrainedTokenizerBase, problems: list[Problem]) -> int:
    """The tokens of the longest prompt, 0 for no prompts."""
    return max(map(len, render_prompts(tokenizer, problems)), default=0) if problems else 0


@torch.no_grad()
def require_causal(model: PeftModel, name: str) -> None:
    """Raise `LabError` for a model that is not causal, or that needs other inputs than token ids.

    It is causal if the hidden states of 7 tokens do not change with the eighth, but for rounding:
    1e-4 of the largest state in float32, 0.03 in 16 bits. Architectures with a fast path are known
    to be causal.
    """
    if decoder_of(model) is not None:
        return
    base = base_of(model)
    size = cast(torch.nn.Embedding, base.get_input_embeddings()).num_embeddings
    ids = torch.arange(8, device=base.device).repeat(2, 1).mul_(3).add_(2) % size
    ids[1, -1] = (ids[1, -1] + 1) % size
    try:
        with autocast(base.device):
            states = backbone_of(base)(input_ids=ids, use_cache=False).last_hidden_state.float()
    except Exception as error:  # Every kind of model raises errors of its own for missing inputs.
        reason = " ".join(str(error).split())[:200]
        raise LabError(
            f"'{name}' is of type '{base.config.model_type}', which fails on token ids alone"
            f" ({type(error).__name__}: {reason}). Give a causal language model."
        ) from error
    tolerance = 1e-4 if base.dtype == torch.float32 and not has_bfloat16(base.device) else 0.03
    if (states[0, :-1] - states[1, :-1]).abs().max() > tolerance * states.abs().max():
        raise LabError(
            f"'{name}' is of type '{base.config.model_type}', and its output for a token depends on"
            " later tokens, so it cannot write. Give a causal language model."
        )


def compatibility_notes(
    model: PeftModel, config: RunConfig, device: torch.device, prompt: int
) -> list[str]:
    """Return notes for the start of a run; `prompt` counts the tokens of the longest held-out
    prompt.
    """
    notes = launcher_notes(os.environ)
    if isinstance(model, PeftModel):
        notes += lora.lora_notes(model)
    length, _ = context_length(base_of(model).config)
    if length is not None and prompt < length < prompt + config.max_completion_tokens:
        notes.append(
            f"Completions of held-out prompts end after {length - prompt} tokens instead of"
            f" max_completion_tokens {config.max_completion_tokens}: the model takes {length} in"
            " all."
        )
    if device.type == "cuda" and not has_bfloat16(device):
        number = ".".join(map(str, capability(device.index or 0)))
        notes.append(
            f"This GPU has compute capability {number}: bfloat16 and the fast kernels need 8.0, so"
            " the model is held and trained in float32, in twice the memory. --quantization 4bit"
            " takes less."
        )
    return notes
