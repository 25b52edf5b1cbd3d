"""Prompts of a task's problems, as a model reads them."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from lab.data.chat_template import prompt_text
from lab.data.encoding import Ids, tokenize_texts, unknown_text
from lab.data.examples import Text
from lab.errors import LabError
from lab.tasks.base import Problem


def as_messages(
    tokenizer: PreTrainedTokenizerBase, problem: Problem, completion: str
) -> tuple[Text, Text]:
    """(prompt, completion) of a task's problem: as messages where the problem has messages and the
    model has a chat template (without one they are an error, unless the problem allows plain text),
    otherwise as plain text.
    """
    if problem.messages and (tokenizer.chat_template is not None or not problem.allow_plain_text):
        return (
            problem.messages if isinstance(problem.messages, list) else list(problem.messages)
        ), [{"role": "assistant", "content": completion}]
    return problem.prompt, completion


def render_prompts(tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem]) -> list[Ids]:
    """Ids of the prompts of a task's problems; `LabError` for one that the model cannot read."""
    texts = [as_messages(tokenizer, p, "")[0] for p in problems]
    shown = [
        prompt_text(tokenizer, text, f"The prompt {p.prompt[:40]!r}")
        for text, p in zip(texts, problems)
    ]
    found = tokenize_texts(tokenizer, shown, [isinstance(text, str) for text in texts])
    for text, ids in zip(shown, found):
        if unknown_text(tokenizer, ids, text):
            raise LabError(
                f"The model's vocabulary lacks something in the prompt {text[:60]!r}. Use another"
                " --task, or a --model that knows its words."
            )
    return found
