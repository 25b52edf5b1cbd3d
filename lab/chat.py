"""Conversations as tokens, by the chat template that the model's tokenizer brings; transformers renders it in a sandbox."""

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from lab.errors import LabError
from lab.pairs import Text
from lab.tasks import Problem

Ids = list[int]


def render(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], where: str, **options: bool) -> str:
    """The text of a conversation, special tokens included; `LabError` when the model has no template, or one that refuses these messages."""
    if tokenizer.chat_template is None:
        raise LabError(f"{where} is a conversation, but the model has no chat template. Use an instruct model, or data in plain text.")
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, **options)
    except (TemplateError, TypeError, ValueError) as error:
        raise LabError(f"{where}: the model's chat template refuses the conversation ({error}). Correct its roles, or use another --model.") from None


def prompt_text(tokenizer: PreTrainedTokenizerBase, prompt: Text, where: str = "The prompt") -> str:
    """What a prompt says to the model: a conversation up to the mark behind which the assistant speaks, without the start token that the tokenizer adds.

    A conversation that ends with the assistant's words is continued.
    """
    if isinstance(prompt, str):
        return prompt
    goes_on = bool(prompt) and prompt[-1]["role"] == "assistant"
    text = render(tokenizer, prompt, where, add_generation_prompt=not goes_on, continue_final_message=goes_on)
    added = tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
    return text.removeprefix(tokenizer.bos_token) if added else text


def asked(tokenizer: PreTrainedTokenizerBase, problem: Problem) -> str:
    """What a problem says to the model: its prompt, or its conversation as the chat template renders it."""
    return prompt_text(tokenizer, problem.messages or problem.prompt, repr(problem.prompt[:60]))


def conversation_ids(tokenizer: PreTrainedTokenizerBase, texts: list[tuple[Text, Text]], where: str) -> list[tuple[Ids, Ids]]:
    """Token ids of prompts and of their completions, both conversations, as TRL cuts them.

    The completion begins where the tokens of the whole conversation depart from those of the prompt and the assistant's mark; what the
    template writes at the end stays, and no end token is added.
    """
    starts = [render(tokenizer, prompt, f"{where} {number}", add_generation_prompt=True) for number, (prompt, _) in enumerate(texts, 1)]
    wholes = [render(tokenizer, prompt + completion, f"{where} {number}") for number, (prompt, completion) in enumerate(texts, 1)]
    found = []
    for start, whole in zip(*(tokenizer(rendered, add_special_tokens=False)["input_ids"] for rendered in (starts, wholes))):
        cut = next((i for i, (a, b) in enumerate(zip(start, whole)) if a != b), min(len(start), len(whole)))
        found.append((whole[:cut], whole[cut:]))
    return found
