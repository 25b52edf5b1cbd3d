"""Renders conversations as text with the chat template of the model's tokenizer.

transformers renders a template in a sandbox.
"""

from typing import Any, cast

from jinja2 import TemplateError
from transformers import BatchEncoding, PreTrainedTokenizerBase

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
    """Returns the text of a conversation, special tokens included.

    Args:
        tokenizer: its chat template renders the text.
        messages: the conversation.
        where: the name of the conversation in errors.
        template: what the data gives the template beside messages: tools, and options that override
            those of the run.
        options: transformers' own options of `apply_chat_template`.

    Raises:
        LabError: the model has no template, or its template refuses these messages.
    """
    if tokenizer.chat_template is None:
        raise LabError(
            f"{where} is a conversation, but the model has no chat template. Use an instruct model,"
            " or data in plain text."
        )
    try:
        template_options: dict[str, Any] = run_options(tokenizer) | (template or {})
        text = tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            **options,  # type: ignore[arg-type]  # mypy takes options for every parameter.
            **template_options,
        )
        return cast(str, text)
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise LabError(
            f"{where}: the model's chat template refuses the conversation ({error}). Correct its"
            " roles, or use another --model."
        ) from None


def assistant_mask(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]]
) -> list[bool]:
    """Returns for each token of a conversation whether the template marks it as the assistant's."""
    options: dict[str, Any] = run_options(tokenizer) | template_of(messages)
    encoded = tokenizer.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, **options
    )
    assert isinstance(encoded, BatchEncoding)
    return [bool(flag) for flag in encoded["assistant_masks"]]


def prompt_text(tokenizer: PreTrainedTokenizerBase, prompt: Text, where: str = "The prompt") -> str:
    """Returns the text of a prompt as the model reads it.

    Of a conversation this is the text up to the mark behind which the assistant speaks, special
    tokens of the template included; a conversation that ends with words of the assistant is
    continued. `where` names the prompt in errors.
    """
    if isinstance(prompt, str):
        return prompt
    continued = ends_with_assistant(prompt)
    return render(
        tokenizer,
        prompt,
        where,
        template_of(prompt),
        add_generation_prompt=not continued,
        continue_final_message=continued,
    )


def whole_text(
    tokenizer: PreTrainedTokenizerBase, prompt: Text, completion: Text, where: str
) -> str:
    """Returns a prompt and its completion as one text; both are plain or both are messages.

    Words of the assistant at the end of the prompt and at the beginning of the completion become
    one message, because `prompt_text` lets the policy continue them. `where` names the text in
    errors.
    """
    if isinstance(prompt, str) and isinstance(completion, str):
        return prompt + completion
    assert isinstance(prompt, list) and isinstance(completion, list)
    messages = [*prompt, *completion]
    if ends_with_assistant(prompt) and completion and completion[0]["role"] == "assistant":
        joined = (
            prompt[-1]
            | completion[0]
            | {"content": prompt[-1]["content"] + (completion[0].get("content") or "")}
        )
        messages = [*prompt[:-1], joined, *completion[1:]]
    return render(tokenizer, messages, where, template_of(prompt))


def ends_with_assistant(prompt: list[dict[str, Any]]) -> bool:
    """Returns whether a conversation ends with words of the assistant, which a completion would
    continue.
    """
    return (
        bool(prompt)
        and prompt[-1]["role"] == "assistant"
        and bool(prompt[-1].get("content"))
        and not prompt[-1].get("tool_calls")
    )
