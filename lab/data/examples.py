"""What a data set consists of: preference pairs, unpaired completions, demonstrations, full texts
and prompts.

A text is plain, or a conversation: a list of messages {"role": …, "content": …}, which the model's
chat template renders later (`lab.data.chat_template`). Nothing here needs a model library.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]
"""A message of a conversation: its role and content, perhaps its tool_calls."""
Text = str | list[Message]


class Conversation(list[Message]):
    """The messages of a prompt. `template` holds what else the row gives the chat template:
    "tools", and each of its chat_template_kwargs.
    """

    def __init__(
        self, messages: Iterable[Message] = (), template: dict[str, Any] | None = None
    ) -> None:
        super().__init__(messages)
        self.template = template or {}

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) and self.template == template_of(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __repr__(self) -> str:
        messages = super().__repr__()
        return f"Conversation({messages}, {self.template!r})" if self.template else messages


def template_of(prompt: object) -> dict[str, Any]:
    """Returns what a prompt gives the chat template beside its messages; empty for plain text."""
    return prompt.template if isinstance(prompt, Conversation) else {}


def template_columns(prompt: object) -> dict[str, Any]:
    """Returns the columns of a data row that would give the chat template what `prompt` gives it."""
    options = dict(template_of(prompt))
    tools = {"tools": options.pop("tools")} if "tools" in options else {}
    return tools | ({"chat_template_kwargs": options} if options else {})


@dataclass(frozen=True)
class Pair:
    """Two completions of a prompt, one preferred."""

    prompt: Text
    chosen: Text
    rejected: Text

    def flipped(self) -> "Pair":
        """Returns the pair with the other completion preferred."""
        return Pair(self.prompt, self.rejected, self.chosen)


@dataclass(frozen=True)
class UnpairedExample:
    """One completion with a thumb up or down."""

    prompt: Text
    completion: Text
    desirable: bool

    def flipped(self) -> "UnpairedExample":
        """Returns the completion with the opposite label."""
        return UnpairedExample(self.prompt, self.completion, not self.desirable)


@dataclass(frozen=True)
class Demonstration:
    """A completion to imitate."""

    prompt: Text
    completion: Text


@dataclass(frozen=True)
class FullText:
    """A text or a conversation to imitate without a prompt.

    Of a conversation the assistant's words are imitated where the chat template marks them,
    otherwise all words.
    """

    text: Text


@dataclass(frozen=True)
class Prompt:
    """A prompt that a policy is to answer."""

    prompt: Text


Example = Pair | UnpairedExample | Demonstration | FullText | Prompt
OfflineExamples = list[Pair] | list[UnpairedExample] | list[Demonstration] | list[FullText]
"""What an offline method trains on: examples of one kind."""


def prompt_or_text(example: Example) -> Text:
    """Returns the prompt of an example, or its full text where it has no prompt."""
    return example.text if isinstance(example, FullText) else example.prompt


def plain_text(text: Text) -> str:
    """Returns the words of a text without roles, and the tool calls as JSON: for errors and
    counts.
    """
    if isinstance(text, str):
        return text
    lines = []
    for message in text:
        calls = message.get("tool_calls")
        words = message.get("content") or ""
        lines.append(words + (json.dumps(calls, ensure_ascii=False, default=str) if calls else ""))
    return "\n".join(lines)
