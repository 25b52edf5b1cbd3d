"""Checks of a model before training: a model that cannot be trained is refused at the start, and
its limits are said there.
"""

import torch
from peft import PeftModel
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from lab.config.run_config import OnlineConfig, RunConfig
from lab.data.chat_template import prompt_text
from lab.data.encoding import prompt_ids
from lab.engine.llama import decoder_of
from lab.errors import LabError
from lab.models import lora
from lab.models.context_length import context_length
from lab.models.device import capability, has_bfloat16
from lab.models.loading import autocast, backbone_of
from lab.tasks.prompt_file import PromptTask
from lab.tasks.prompting import as_messages, render_prompts
from lab.tasks.registry import Problem, Task

# Prompts of the training data whose length is looked at before a run; a longer one behind them
# stops it when it comes.
PROMPTS = 2000
SPARE = 8  # Tokens that a tokenizer may add to those of the characters of a text.


def keep_fitting(
    tokenizer: PreTrainedTokenizerBase, task: Task, model: PreTrainedConfig
) -> list[str]:
    """Leave out of prompts of the user's own those that fill the model's positions alone; returns a
    note on them, or none.
    """
    length, _ = context_length(model)
    if not hasattr(task, "keep") or length is None:
        return []
    left = length - 1

    def fits(problem: Problem) -> bool:
        text = as_messages(tokenizer, problem, "")[0]
        shown = prompt_text(tokenizer, text, f"The prompt {problem.prompt[:40]!r}")
        return (
            len(shown) < left - SPARE
            and shown.isascii()
            or len(prompt_ids(tokenizer, [text])[0]) <= left
        )

    count = task.keep(fits)
    return [
        f"{count} prompts of {task.name} are left out: they have more than the {left} tokens that"
        " the model's positions leave for a prompt."
    ] * bool(count)


def longest(tokenizer: PreTrainedTokenizerBase, task: Task, config: RunConfig) -> tuple[int, int]:
    """Tokens of the longest held-out prompt, and of the longest of the first prompts to train on, 0
    for a method that samples none.
    """
    shown, asked = task.held_out(config.eval_prompts), []
    if isinstance(config, OnlineConfig):
        rollout = config.batch_size // getattr(config, "group_size", 1)
        drawn = task.train_problems(
            max(rollout, PROMPTS) if isinstance(task, PromptTask) else rollout, config.seed, 1
        )
        asked = list({problem.prompt: problem for problem in drawn}.values())
    return tuple(
        max((len(ids) for ids in render_prompts(tokenizer, problems)), default=0) if problems else 0
        for problems in (shown, asked)
    )


@torch.no_grad()
def require_causal(model: PeftModel, name: str) -> None:
    """Raise `LabError` for a model that cannot be read token by token: one that looks at later
    tokens, or that takes more than token ids.

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
            states = backbone_of(base)(input_ids=ids, use_cache=False).last_hidden_state.float()
    except Exception as error:  # Whatever a model of another kind says of inputs that it misses.
        said = " ".join(str(error).split())[:200]
        raise LabError(
            f"'{name}' is of type '{base.config.model_type}', which fails on token ids alone"
            f" ({type(error).__name__}: {said}). Give a causal language model."
        ) from error
    if (states[0, :-1] - states[1, :-1]).abs().max() > 0.03 * states.abs().max():  # 0.03: bfloat16.
        raise LabError(
            f"'{name}' is of type '{base.config.model_type}', and what it says of a token depends"
            " on later ones, so it cannot write. Give a causal language model."
        )


def notes(model: PeftModel, config: RunConfig, device: torch.device, prompt: int) -> list[str]:
    """Notes for the start of a run; `prompt` are the tokens of the longest held-out prompt."""
    found = lora.notes(model)
    length, _ = context_length(model.get_base_model().config)
    if length is not None and prompt < length < prompt + config.max_completion_tokens:
        found.append(
            f"Completions of held-out prompts end after {length - prompt} tokens instead of"
            f" max_completion_tokens {config.max_completion_tokens}: the model takes {length} in"
            " all."
        )
    if device.type == "cuda" and not has_bfloat16(device):
        number = ".".join(map(str, capability(device.index or 0)))
        found.append(
            f"This GPU has compute capability {number}: bfloat16 and the fast kernels need 8.0, so"
            " the model is held and trained in float32, in twice the memory. --quantization 4bit"
            " takes less."
        )
    return found
