"""Conversations as text, by the chat template that the model's tokenizer brings; transformers
renders it in a sandbox.
"""

from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from lab.data.examples import Text, template_of
from lab.errors import LabError
from lab.models.tokenizer import run_options


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict[str, Any]],
    where: str,
    template: dict[str, Any] | None = None,
    **options: bool,
) -> str:
    """The text of a conversation, special tokens included; `LabError` when the model has no
    template, or one that refuses these messages.

    `template` is what the data gives the template beside messages: tools, and options that go
    before those of the run.
    """
    if tokenizer.chat_template is None:
        raise LabError(
            f"{where} is a conversation, but the model has no chat template. Use an instruct model,"
            " or data in plain text."
        )
    try:
        return tokenizer.apply_chat_template(
            messages, tokenize=False, **options, **(run_options(tokenizer) | (template or {}))
        )
    except (TemplateError, TypeError, ValueError) as error:
        raise LabError(
            f"{where}: the model's chat template refuses the conversation ({error}). Correct its"
            " roles, or use another --model."
        ) from None


def assistant_mask(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]]
) -> list[bool]:
    """Which tokens of a conversation the template marks as the assistant's."""
    options = run_options(tokenizer) | template_of(messages)
    found = tokenizer.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, **options
    )
    return [bool(mine) for mine in found["assistant_masks"]]


def prompt_text(tokenizer: PreTrainedTokenizerBase, prompt: Text, where: str = "The prompt") -> str:
    """The text of a prompt as the model reads it: a conversation up to the mark behind which the
    assistant speaks, special tokens of the template included.

    A conversation that ends with words of the assistant is continued.
    """
    if isinstance(prompt, str):
        return prompt
    goes_on = continues(prompt)
    return render(
        tokenizer,
        prompt,
        where,
        template_of(prompt),
        add_generation_prompt=not goes_on,
        continue_final_message=goes_on,
    )


def whole_text(
    tokenizer: PreTrainedTokenizerBase, prompt: Text, completion: Text, where: str
) -> str:
    """A prompt and its completion as one text. Words of the assistant that end a prompt and those
    that begin the completion are one message, because `prompt_text` lets the policy continue them.
    """
    if isinstance(prompt, str):
        return prompt + completion
    messages = [*prompt, *completion]
    if continues(prompt) and completion and completion[0]["role"] == "assistant":
        joined = (
            prompt[-1]
            | completion[0]
            | {"content": prompt[-1]["content"] + (completion[0].get("content") or "")}
        )
        messages = [*prompt[:-1], joined, *completion[1:]]
    return render(tokenizer, messages, where, template_of(prompt))


def continues(prompt: list[dict[str, Any]]) -> bool:
    """Whether a conversation ends with words of the assistant, which a completion goes on from."""
    return (
        bool(prompt)
        and prompt[-1]["role"] == "assistant"
        and bool(prompt[-1].get("content"))
        and not prompt[-1].get("tool_calls")
    )
