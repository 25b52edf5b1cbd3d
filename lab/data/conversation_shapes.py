"""Finds what a chat template writes around the messages of a conversation, so that the length of a
conversation can be bounded without rendering it.

Rendering a conversation takes longer than reading it from its file. Conversations with the same
roles in the same order differ in their contents alone, if the template copies the contents: this is
tried with a few words for each order of roles, and contents that the template may treat in another
way are left to it.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from lab.data.chat_template import prompt_text, render, whole_text
from lab.data.examples import Message, Text, template_of
from lab.errors import LabError
from lab.models.tokenizer import template_source

TRIAL_ROWS = 32
"""Rows with the same roles that are rendered before the next ones are bounded."""
TRIAL_CONTENTS = (("qa", "qb", "qc"), ("w x, y. z", "longer words 0123456789", "Wk"))
"""Contents of the messages, in turn, in the two conversations that try an order of roles."""
STRINGS = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"")
KEYS_AND_ROLES = re.compile(r"(?:\[\s*|\brole['\"\]\s]*[!=]=\s*)(['\"])(\w+)\1")
"""Strings of a template that name a key of a message, or a role."""
Roles = tuple[str, ...]


class Surroundings(NamedTuple):
    """The most tokens that a template adds to the messages of a prompt, and to the messages of the
    completion behind it.
    """

    prompt: int
    completion: int


class ConversationShapes:
    """Knows the `Surroundings` of each order of roles, from the rows of one data set."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._surroundings: dict[tuple[Roles, Roles], Surroundings | None] = {}
        self._trials: dict[tuple[Roles, Roles], int] = {}
        source = template_source(tokenizer)
        strings = {a or b for a, b in STRINGS.findall(source)}
        names = {name for _, name in KEYS_AND_ROLES.findall(source)}
        pieces = {piece.strip() for s in strings - names for piece in re.split(r"\\.", s)}
        treated = sorted(piece for piece in pieces if len(piece) > 1)
        self._treated = re.compile("|".join(map(re.escape, treated)) or r"(?!)")

    def surroundings(
        self, prompt: list[Message], completions: Sequence[Text | None]
    ) -> Surroundings | None:
        """Returns the surroundings of a prompt with each of its completions; None where nothing is
        known of them: for the first rows of an order of roles, for completions of different roles,
        for messages that hold more than text, and for templates that do not copy the contents of
        messages.
        """
        if template_of(prompt) or not all(map(self._is_copied, prompt)):
            return None
        behind: set[Roles] = set()
        for completion in completions:
            messages = [] if completion is None else completion
            if isinstance(messages, str) or not all(map(self._is_copied, messages)):
                return None
            behind.add(_roles(messages))
        roles = _roles(prompt), behind.pop()
        if behind:
            return None
        self._trials[roles] = self._trials.get(roles, 0) + 1
        if self._trials[roles] <= TRIAL_ROWS:
            return None
        if roles not in self._surroundings:
            self._surroundings[roles] = self._try(*roles)
        return self._surroundings[roles]

    def _is_copied(self, message: Message) -> bool:
        """Whether a template surely copies the content of a message. Templates strip space and look
        for their own strings.
        """
        content = message.get("content")
        return (
            len(message) == 2
            and isinstance(content, str)
            and content != ""
            and content == content.strip()
            and not self._treated.search(content)
        )

    def _try(self, prompt: Roles, completion: Roles) -> Surroundings | None:
        """The surroundings of these roles, if two conversations agree on what is written around
        their contents.
        """
        if completion and (not prompt or prompt[-1] == "assistant"):
            return None  # The template, or the lab, joins the messages.
        outcomes = set()
        for words in TRIAL_CONTENTS:
            contents = [words[i % len(words)] for i in range(len(prompt) + len(completion))]
            messages = [
                {"role": role, "content": content}
                for role, content in zip((*prompt, *completion), contents)
            ]
            try:
                outcomes.add(self._pieces(messages, contents, len(prompt), bool(completion)))
            except LabError:
                return None
        pieces = outcomes.pop()
        if outcomes or pieces is None:
            return None
        return Surroundings(*(sum(map(self._max_tokens, part)) for part in pieces))

    def _pieces(
        self, messages: list[Message], contents: list[str], length: int, completed: bool
    ) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """What is written around the contents of the first `length` messages and, where the others
        complete them, around those; None where contents are not copied once and in order, or where
        the whole does not begin with the prompt.
        """
        prompt, rest = messages[:length], messages[length:]
        if completed:
            start = prompt_text(self._tokenizer, prompt)
            whole = whole_text(self._tokenizer, prompt, rest, "The text")
        else:
            start = whole = render(self._tokenizer, prompt, "The text")
        before = _split_at(start, contents[:length])
        behind = _split_at(whole[len(start) :], contents[length:])
        if before is None or behind is None or not whole.startswith(start):
            return None
        return before, behind

    def _max_tokens(self, text: str) -> int:
        """The most tokens that a text can have: one for each special token, one a character."""
        special = [t.content for t in self._tokenizer.added_tokens_decoder.values()]
        count = 0
        for token in sorted(special, key=len, reverse=True):
            count += text.count(token)
            text = text.replace(token, "")
        return count + len(text.encode())


def _roles(messages: Sequence[dict[str, Any]]) -> Roles:
    return tuple([str(message.get("role")) for message in messages])


def _split_at(text: str, contents: Sequence[str]) -> tuple[str, ...] | None:
    """The pieces of `text` between the contents, each of which is there once; else None."""
    pieces = []
    for content in contents:
        before, found, text = text.partition(content)
        if not found:
            return None
        pieces.append(before)
    return (*pieces, text)
