"""Loads the tokenizer of a model: its end tokens, its vocabulary, the options of its chat template."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, cast

import torch
from peft import PeftModel
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from lab.config.template_options import read_template_options
from lab.errors import LabError
from lab.models.sources import load_pretrained


def run_options(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Returns the options of the chat template that the run names in `template_options`."""
    return getattr(tokenizer, "template_options", {})


def set_template_options(
    tokenizer: PreTrainedTokenizerBase, options: dict[str, Any]
) -> PreTrainedTokenizerBase:
    """Returns the tokenizer, whose chat template gets `options` from now on; raises `LabError` for
    an option that the template does not read.
    """
    if options and tokenizer.chat_template is None:
        raise LabError(
            "template_options is given, but the model has no chat template that could read"
            f" {', '.join(options)}. Leave it out."
        )
    if unread := unread_options(tokenizer, options):
        raise LabError(
            f"template_options names {unread[0]}, which the model's chat template does not read."
            " Correct the name, or leave it out."
        )
    tokenizer.template_options = options
    return tokenizer


def marks_assistant(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Returns whether the chat template marks the assistant's words with {% generation %}."""
    return (
        tokenizer.is_fast
        and re.search(r"\{%-?\s*generation\s*-?%\}", template_source(tokenizer)) is not None
    )


def template_source(tokenizer: PreTrainedTokenizerBase) -> str:
    """Returns the text of the chat template; of several, all of them."""
    template = tokenizer.chat_template
    return "\n".join(template.values()) if isinstance(template, dict) else template or ""


def unread_options(tokenizer: PreTrainedTokenizerBase, names: Iterable[str]) -> list[str]:
    """Returns the names that the chat template never mentions, so that their values change no
    text.
    """
    return [
        name
        for name in names
        if not re.search(rf"\b{re.escape(name)}\b", template_source(tokenizer))
    ]


VOCABULARY_FILE = "vocabulary.json"
"""The file in an adapter's folder that holds the `vocabulary_identity` of its base."""


def load_tokenizer(name: str, template_options: str = "") -> PreTrainedTokenizerBase:
    """Returns the tokenizer of a model, with a pad token (its end token where it has none); its
    chat template gets `template_options`, as a run names them.
    """
    tokenizer = load_pretrained(AutoTokenizer, name)
    if tokenizer.eos_token_id is None:
        raise LabError(
            f"The tokenizer of '{name}' has no end-of-sequence token, so completions could not end."
            " Choose another model."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return set_template_options(tokenizer, read_template_options(template_options))


def end_token_ids(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Returns every token that ends a completion: the tokenizer's end token and all end tokens that
    the model declares, as in TRL and transformers' generate.

    A model declares one or several in its generation config, or else in its config; tokens outside
    of its vocabulary are never sampled, so they are left out.
    """
    base = cast(PreTrainedModel, model.get_base_model() if isinstance(model, PeftModel) else model)
    declared: Iterator[int | list[int] | None] = (
        getattr(config, "eos_token_id", None)
        for config in (getattr(base, "generation_config", None), base.config.get_text_config())
    )
    ends = next((ids for ids in declared if ids is not None), [])
    vocabulary = cast(torch.nn.Embedding, base.get_input_embeddings())
    known = range(vocabulary.num_embeddings)
    in_vocabulary = [i for i in ([ends] if isinstance(ends, int) else ends) if i in known]
    return list(dict.fromkeys([tokenizer.eos_token_id, *in_vocabulary]))


def vocabulary_identity(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Returns what identifies the tokens that a model reads and writes: their number, and a SHA-256
    over each with its id.
    """
    known = sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0]))
    return {"tokens": len(known), "sha256": hashlib.sha256(json.dumps(known).encode()).hexdigest()}
