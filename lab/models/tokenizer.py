"""The tokenizer of a model: its end tokens, its vocabulary, and the options of its chat template."""

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from lab.config.template_options import read_template_options
from lab.errors import LabError
from lab.models.sources import load_pretrained


def run_options(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The options of the chat template that the run names in `template_options`."""
    return getattr(tokenizer, "template_options", {})


def with_options(
    tokenizer: PreTrainedTokenizerBase, options: dict[str, Any]
) -> PreTrainedTokenizerBase:
    """The tokenizer, whose chat template is given `options` from now on; `LabError` for one that
    the template does not read.
    """
    if options and tokenizer.chat_template is None:
        raise LabError(
            "template_options is given, but the model has no chat template that could read"
            f" {', '.join(options)}. Leave it out."
        )
    if silent := unread(tokenizer, options):
        raise LabError(
            f"template_options names {silent[0]}, which the model's chat template does not read."
            " Correct the name, or leave it out."
        )
    tokenizer.template_options = options
    return tokenizer


def marks_assistant(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template marks the assistant's words with {% generation %}."""
    return (
        tokenizer.is_fast
        and re.search(r"\{%-?\s*generation\s*-?%\}", _source(tokenizer)) is not None
    )


def _source(tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of the chat template; of several, all of them."""
    template = tokenizer.chat_template
    return "\n".join(template.values()) if isinstance(template, dict) else template or ""


def unread(tokenizer: PreTrainedTokenizerBase, names: Iterable[str]) -> list[str]:
    """Those of `names` that the chat template never mentions, so that their values reach no text."""
    return [name for name in names if not re.search(rf"\b{re.escape(name)}\b", _source(tokenizer))]


VOCABULARY = "vocabulary.json"  # In an adapter's folder: what `vocabulary` says of its base.


def load_tokenizer(name: str, template_options: str = "") -> PreTrainedTokenizerBase:
    """The tokenizer of a model, with a pad token (its end token where it has none); its chat
    template is given `template_options`, as a run names them.
    """
    tokenizer = load_pretrained(AutoTokenizer, name)
    if tokenizer.eos_token_id is None:
        raise LabError(
            f"The tokenizer of '{name}' has no end-of-sequence token, so completions could not end."
            " Choose another model."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return with_options(tokenizer, read_template_options(template_options))


def end_token_ids(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token that ends a completion: the tokenizer's end token and all that the model
    declares, as in TRL and transformers' generate.

    A model declares one or several in its generation config, or else in its config; those outside
    of its vocabulary are never sampled and left out.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    declared = (
        getattr(config, "eos_token_id", None)
        for config in (getattr(base, "generation_config", None), base.config.get_text_config())
    )
    ends = next((found for found in declared if found is not None), [])
    known = range(base.get_input_embeddings().num_embeddings)
    return list(
        dict.fromkeys(
            [
                tokenizer.eos_token_id,
                *(i for i in ([ends] if isinstance(ends, int) else ends) if i in known),
            ]
        )
    )


def vocabulary(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What identifies the tokens that a model reads and writes: how many, and a SHA-256 over each
    with its id.
    """
    known = sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0]))
    return {"tokens": len(known), "sha256": hashlib.sha256(json.dumps(known).encode()).hexdigest()}
