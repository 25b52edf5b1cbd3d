"""Turns the prompts of a task's problems into what a model reads."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from lab.data.chat_template import prompt_text
from lab.data.encoding import TokenIds, tokenize_texts, unknown_text
from lab.data.examples import Text
from lab.errors import LabError
from lab.tasks.base import Problem


def as_messages(
    tokenizer: PreTrainedTokenizerBase, problem: Problem, completion: str
) -> tuple[Text, Text]:
    """Returns (prompt, completion) as chat messages if the model has a chat template and the
    problem has messages, otherwise as plain text.

    Where the problem does not allow plain text, it comes as messages even for a model without a
    chat template; rendering them then raises `LabError`.
    """
    if problem.messages and (tokenizer.chat_template is not None or not problem.allow_plain_text):
        # A `Conversation` stays one: it also holds the tools of the chat template.
        prompt = problem.messages if isinstance(problem.messages, list) else list(problem.messages)
        return prompt, [{"role": "assistant", "content": completion}]
    return problem.prompt, completion


def render_prompts(
    tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem]
) -> list[TokenIds]:
    """Returns the token ids of the prompts of a task's problems; raises `LabError` for a prompt that
    the model cannot read.
    """
    texts = [as_messages(tokenizer, p, "")[0] for p in problems]
    rendered = [
        prompt_text(tokenizer, text, f"The prompt {p.prompt[:40]!r}")
        for text, p in zip(texts, problems)
    ]
    token_ids = tokenize_texts(tokenizer, rendered, [isinstance(text, str) for text in texts])
    for text, ids in zip(rendered, token_ids):
        if unknown_text(tokenizer, ids, text):
            raise LabError(
                f"The model's vocabulary lacks something in the prompt {text[:60]!r}. Use another"
                " --task, or a --model that knows its words."
            )
    return token_ids
