"""A running vLLM server as an engine: it gets the policy's adapter before it samples."""

import os
import shutil
import tempfile
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from lab.data.batching import TokenBatch
from lab.distributed import collectives
from lab.engine.completions import Completions, completions_of, with_logps
from lab.engine.generate import DecodeOptions
from lab.engine.samplers.base import SamplingRequest
from lab.engine.samplers.vllm_client import Choice, VLLMServer
from lab.engine.token_logprobs import token_statistics
from lab.errors import LabError
from lab.models.adapter_files import write_adapter
from lab.models.sources import model_source

REQUESTS_AT_ONCE = 64
CHECKED_COMPLETIONS = 8
MAX_DIFFERENCE = 0.3
"""Mean difference of the log-probabilities in nats, over the tokens of the checked completions, above
which the server samples from another policy. Rounding to 16 bits makes some hundredths.
"""


class VLLMSampler:
    """Samples from `server`, whose base is the model `model`.

    Every call writes the adapter to `folder`, which the server has to see under the same path, and
    loads it under a new name: under an old name vLLM may take keys and values from the prefix cache
    of the adapter before. None for `folder` means a temporary one. In a run of several processes
    rank 0 does so, and each process asks for the completions of its own prompts.
    """

    def __init__(self, server: VLLMServer, model: str, folder: Path | None = None) -> None:
        self.server, self.model = server, model
        self._temporary = None if folder else tempfile.TemporaryDirectory(prefix="alab-sampler-")
        self.folder = folder or Path(self._temporary.name if self._temporary else "")
        self._prefix, self._pushed, self._loaded = f"alab-{uuid.uuid4().hex[:12]}", 0, ""

    def require_model(self) -> None:
        """Raise `LabError` unless the server can be reached and serves the base model."""
        source = model_source(self.model)
        models = self.server.base_models()
        names = [str(model[key]) for model in models for key in ("id", "root") if model.get(key)]
        if not any(_is_same_model(name, own) for name in names for own in (self.model, source)):
            raise LabError(
                f"{self.server.name} serves {', '.join(dict.fromkeys(names)) or 'no model'}, but the"
                f" model of this run is '{self.model}' ({source}). Serve that one."
            )

    def sample(
        self, model: PeftModel, tokenizer: PreTrainedTokenizerBase, request: SamplingRequest
    ) -> Completions:
        """Return the completions of `request`, with the log-probabilities that the server sampled with.

        Raises `LabError` where the server is lost, refuses, or samples from another policy.
        """
        options = request.options(model, tokenizer)
        name = collectives.broadcast_object(lambda: self._push(model, tokenizer))
        choices = self._complete(name, request, options)
        truncated = torch.tensor([choice.truncated for choice in choices], device=request.device)
        rows = [choice.token_ids for choice in choices]
        completions = completions_of(tokenizer, request.prompts, options, rows, truncated)
        completions = with_logps(completions, [choice.logps for choice in choices])
        self._require_same_policy(model, completions, request)
        return completions

    def _push(self, model: PeftModel, tokenizer: PreTrainedTokenizerBase) -> str:
        """Load the adapter as it is now under a new name, in place of the last one; return the name."""
        if not self._pushed:
            shutil.rmtree(self.folder, ignore_errors=True)  # An adapter of a run that was killed.
        self._pushed += 1
        name = f"{self._prefix}-{self._pushed}"
        write_adapter(model, tokenizer, self.folder / name)
        if self._loaded:
            self.server.unload_adapter(self._loaded)
            shutil.rmtree(self.folder / self._loaded, ignore_errors=True)
        self.server.load_adapter(name, str((self.folder / name).absolute()))
        self._loaded = name
        return name

    def _complete(
        self, name: str, request: SamplingRequest, options: DecodeOptions
    ) -> list[Choice]:
        """Ask for all completions, many prompts at a time, each with its own seed."""
        settings = _settings(options)

        def complete(prompt: int) -> list[Choice]:
            own = settings | {"seed": request.seed_of(prompt)}
            choices = self.server.complete(name, request.prompts[prompt], own)
            if len(choices) != options.group_size:
                raise LabError(
                    f"{self.server.name} gave {len(choices)} completions of a prompt, but"
                    f" {options.group_size} were asked for."
                )
            return choices

        with ThreadPoolExecutor(min(REQUESTS_AT_ONCE, len(request.prompts))) as threads:
            try:
                answers = list(threads.map(complete, range(len(request.prompts))))
            except LabError:
                threads.shutdown(wait=False, cancel_futures=True)
                raise
        return [choice for choices in answers for choice in choices]

    @torch.no_grad()
    def _require_same_policy(
        self, model: PeftModel, completions: Completions, request: SamplingRequest
    ) -> None:
        """Raise `LabError` where the server's log-probabilities of the first completions are not those of
        the policy.
        """
        assert completions.logps is not None
        some = slice(CHECKED_COMPLETIONS)
        mask = completions.completion_mask[some]
        own = token_statistics(
            model,
            TokenBatch(completions.ids[some], mask),
            temperature=request.temperature,
            truncation=request.truncation,
        ).logps
        difference = (completions.logps[some] - own)[mask].abs().nanmean().item()
        if difference > MAX_DIFFERENCE:
            raise LabError(
                f"{self.server.name} samples from other weights than those that are trained: its"
                f" log-probabilities differ by {difference:.2f} nats a token from the policy's, where"
                f" rounding makes less than {MAX_DIFFERENCE}. It has to serve '{self.model}', to apply"
                " adapters, and to run with --logprobs-mode processed_logprobs."
            )


def _settings(options: DecodeOptions) -> dict[str, Any]:
    """The settings of a request: all of them, since a server takes those that are missing from the
    model's own generation config.
    """
    truncation = options.truncation
    return {
        "n": options.group_size,
        "max_tokens": options.max_tokens,
        "temperature": options.temperature,
        "top_k": truncation.top_k if truncation else 0,
        "top_p": truncation.top_p if truncation else 1.0,
        "min_p": truncation.min_p if truncation else 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "stop_token_ids": options.end_ids,
    }


def _is_same_model(served: str, own: str) -> bool:
    """Whether two names are one hub id or one folder, or end alike, as a folder does that another
    machine holds elsewhere.
    """
    if os.path.isdir(served) and os.path.isdir(own):
        return os.path.samefile(served, own)
    return Path(served).name == Path(own).name
