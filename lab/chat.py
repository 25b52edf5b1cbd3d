"""Conversations as text, by the chat template that the model's tokenizer brings; transformers renders it in a sandbox."""

from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from lab.errors import LabError
from lab.pairs import Text
from lab.tasks import Problem


def render(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]], where: str, **options: bool) -> str:
    """The text of a conversation, special tokens included; `LabError` when the model has no template, or one that refuses these messages."""
    if tokenizer.chat_template is None:
        raise LabError(f"{where} is a conversation, but the model has no chat template. Use an instruct model, or data in plain text.")
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, **options)
    except (TemplateError, TypeError, ValueError) as error:
        raise LabError(f"{where}: the model's chat template refuses the conversation ({error}). Correct its roles, or use another --model.") from None


def prompt_text(tokenizer: PreTrainedTokenizerBase, prompt: Text, where: str = "The prompt") -> str:
    """What the model reads of a prompt: a conversation up to the mark behind which the assistant speaks, special tokens of the template included.

    A conversation that ends with words of the assistant is continued.
    """
    if isinstance(prompt, str):
        return prompt
    goes_on = continues(prompt)
    return render(tokenizer, prompt, where, add_generation_prompt=not goes_on, continue_final_message=goes_on)


def whole_text(tokenizer: PreTrainedTokenizerBase, prompt: Text, completion: Text, where: str) -> str:
    """A prompt and its completion as one text. Words of the assistant that end a prompt and those that begin the completion are one message,
    because `prompt_text` lets the policy continue them."""
    if isinstance(prompt, str):
        return prompt + completion
    messages = [*prompt, *completion]
    if continues(prompt) and completion and completion[0]["role"] == "assistant":
        joined = prompt[-1] | completion[0] | {"content": prompt[-1]["content"] + (completion[0].get("content") or "")}
        messages = [*prompt[:-1], joined, *completion[1:]]
    return render(tokenizer, messages, where)


def continues(prompt: list[dict[str, Any]]) -> bool:
    """Whether a conversation ends with words of the assistant, which a completion goes on from."""
    return bool(prompt) and prompt[-1]["role"] == "assistant" and bool(prompt[-1].get("content")) and not prompt[-1].get("tool_calls")


def exchange(tokenizer: PreTrainedTokenizerBase, problem: Problem, completion: str) -> tuple[Text, Text]:
    """(prompt, completion) of a task's problem: as messages where the problem has messages and the model has a chat template (without one they are an error,
    unless the problem allows plain text), otherwise as plain text."""
    if problem.messages and (tokenizer.chat_template is not None or not problem.bare):
        return list(problem.messages), [{"role": "assistant", "content": completion}]
    return problem.prompt, completion
