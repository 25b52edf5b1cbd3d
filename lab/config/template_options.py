"""Options of a chat template, as a setting or a command line writes them."""

import json
from typing import Any

from lab.errors import LabError

NO_OPTIONS = (
    "conversation",
    "messages",
    "chat_template",
    "add_generation_prompt",
    "continue_final_message",
    "tokenize",
    "padding",
    "truncation",
    "max_length",
    "return_tensors",
    "return_dict",
    "return_assistant_tokens_mask",
    "tokenizer_kwargs",
    "processor_kwargs",
)
"""Arguments of transformers' apply_chat_template that are no options of a template."""


def read_template_options(text: str) -> dict[str, Any]:
    """The options of a chat template that `text` names: name=value, separated by commas, or one
    JSON object. A value is JSON, or else text.

    Anchor: "enable_thinking=false,effort=low" is {"enable_thinking": False, "effort": "low"}.
    """
    try:
        options = (
            json.loads(text)
            if text.lstrip().startswith("{")
            else dict(_option(part) for part in text.split(",") if part.strip())
        )
        wrong = [
            name for name in options if not name.isidentifier() or name in (*NO_OPTIONS, "tools")
        ]
    except ValueError:
        wrong = [text]
    if wrong:
        raise LabError(
            f"template_options has '{wrong[0]}', but takes options of the model's chat template,"
            " such as enable_thinking=false,effort=low, or one JSON object."
        )
    return options


def _option(part: str) -> tuple[str, Any]:
    name, equals, value = map(str.strip, part.partition("="))
    if not equals:
        raise ValueError(part)
    words = {"true": True, "false": False, "none": None}
    try:
        return name, words[value.lower()] if value.lower() in words else json.loads(value)
    except ValueError:
        return name, value
