"""Conversations as tokens, by the chat template that the model's tokenizer brings; transformers renders it in a sandbox."""

from collections.abc import Iterable

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from lab.errors import LabError
from lab.pairs import Text
from lab.tasks import Problem, Task

Ids = list[int]
SPARE = 8  # Tokens that a tokenizer may add to those of the characters of a text.


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


def exchange(tokenizer: PreTrainedTokenizerBase, problem: Problem, completion: str) -> tuple[Text, Text]:
    """A task's prompt and a completion of it as this model takes them: a conversation if the prompt stands for one, or both as text where that will do and
    the model has no chat template."""
    if problem.messages and (tokenizer.chat_template is not None or not problem.bare):
        return list(problem.messages), [{"role": "assistant", "content": completion}]
    return problem.prompt, completion


def posed(tokenizer: PreTrainedTokenizerBase, problems: Iterable[Problem]) -> list[str]:
    """What a task's problems say to the model; `LabError` for one that it cannot read."""
    texts = [prompt_text(tokenizer, exchange(tokenizer, p, "")[0], f"The prompt {p.prompt[:40]!r}") for p in problems]
    for text, ids in zip(texts, tokenizer(texts)["input_ids"] if texts else []):
        if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
            raise LabError(f"The model's vocabulary lacks something in the prompt {text[:60]!r}. Use another --task, or a --model that knows its words.")
    return texts


def keep_fitting(tokenizer: PreTrainedTokenizerBase, task: Task, room: int) -> str:
    """Leave out of a task of the user's own the prompts that have more than `room` tokens; returns a note on them, empty where there are none."""
    if not hasattr(task, "keep"):
        return ""

    def fits(problem: Problem) -> bool:
        text = prompt_text(tokenizer, exchange(tokenizer, problem, "")[0], f"The prompt {problem.prompt[:40]!r}")
        return len(text) < room - SPARE and text.isascii() or len(tokenizer(text)["input_ids"]) <= room

    count = task.keep(fits)
    return f"{count} prompts of {task.name} are left out: they have more than the {room} tokens that the model's positions leave for a prompt." if count else ""


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
