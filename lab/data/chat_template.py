"""Conversations as text, by the chat template that the model's tokenizer brings; transformers renders it in a sandbox."""

import re
from collections.abc import Iterable
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from lab.data.examples import Text, template_of
from lab.errors import LabError
from lab.tasks.registry import Problem


def render(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]], where: str, template: dict[str, Any] | None = None, **options: bool) -> str:
    """The text of a conversation, special tokens included; `LabError` when the model has no template, or one that refuses these messages.

    `template` is what the data gives the template beside messages: tools, and options that go before those of the run.
    """
    if tokenizer.chat_template is None:
        raise LabError(f"{where} is a conversation, but the model has no chat template. Use an instruct model, or data in plain text.")
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, **options, **(run_options(tokenizer) | (template or {})))
    except (TemplateError, TypeError, ValueError) as error:
        raise LabError(f"{where}: the model's chat template refuses the conversation ({error}). Correct its roles, or use another --model.") from None


def run_options(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The options of the chat template that the run names in `template_options`."""
    return getattr(tokenizer, "template_options", {})


def with_options(tokenizer: PreTrainedTokenizerBase, options: dict[str, Any]) -> PreTrainedTokenizerBase:
    """The tokenizer, whose chat template is given `options` from now on; `LabError` for one that the template does not read."""
    if options and tokenizer.chat_template is None:
        raise LabError(f"template_options is given, but the model has no chat template that could read {', '.join(options)}. Leave it out.")
    if silent := unread(tokenizer, options):
        raise LabError(f"template_options names {silent[0]}, which the model's chat template does not read. Correct the name, or leave it out.")
    tokenizer.template_options = options
    return tokenizer


def marks_assistant(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template marks the assistant's words with {% generation %}."""
    return tokenizer.is_fast and re.search(r"\{%-?\s*generation\s*-?%\}", _source(tokenizer)) is not None


def assistant_mask(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]]) -> list[bool]:
    """Which tokens of a conversation the template marks as the assistant's."""
    options = run_options(tokenizer) | template_of(messages)
    found = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, **options)
    return [bool(mine) for mine in found["assistant_masks"]]


def _source(tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of the chat template; of several, all of them."""
    template = tokenizer.chat_template
    return "\n".join(template.values()) if isinstance(template, dict) else template or ""


def unread(tokenizer: PreTrainedTokenizerBase, names: Iterable[str]) -> list[str]:
    """Those of `names` that the chat template never mentions, so that their values reach no text."""
    return [name for name in names if not re.search(rf"\b{re.escape(name)}\b", _source(tokenizer))]


def prompt_text(tokenizer: PreTrainedTokenizerBase, prompt: Text, where: str = "The prompt") -> str:
    """The text of a prompt as the model reads it: a conversation up to the mark behind which the assistant speaks, special tokens of the template included.

    A conversation that ends with words of the assistant is continued.
    """
    if isinstance(prompt, str):
        return prompt
    goes_on = continues(prompt)
    return render(tokenizer, prompt, where, template_of(prompt), add_generation_prompt=not goes_on, continue_final_message=goes_on)


def whole_text(tokenizer: PreTrainedTokenizerBase, prompt: Text, completion: Text, where: str) -> str:
    """A prompt and its completion as one text. Words of the assistant that end a prompt and those that begin the completion are one message,
    because `prompt_text` lets the policy continue them."""
    if isinstance(prompt, str):
        return prompt + completion
    messages = [*prompt, *completion]
    if continues(prompt) and completion and completion[0]["role"] == "assistant":
        joined = prompt[-1] | completion[0] | {"content": prompt[-1]["content"] + (completion[0].get("content") or "")}
        messages = [*prompt[:-1], joined, *completion[1:]]
    return render(tokenizer, messages, where, template_of(prompt))


def continues(prompt: list[dict[str, Any]]) -> bool:
    """Whether a conversation ends with words of the assistant, which a completion goes on from."""
    return bool(prompt) and prompt[-1]["role"] == "assistant" and bool(prompt[-1].get("content")) and not prompt[-1].get("tool_calls")


def exchange(tokenizer: PreTrainedTokenizerBase, problem: Problem, completion: str) -> tuple[Text, Text]:
    """(prompt, completion) of a task's problem: as messages where the problem has messages and the model has a chat template (without one they are an error,
    unless the problem allows plain text), otherwise as plain text."""
    if problem.messages and (tokenizer.chat_template is not None or not problem.bare):
        return (problem.messages if isinstance(problem.messages, list) else list(problem.messages)), [{"role": "assistant", "content": completion}]
    return problem.prompt, completion
