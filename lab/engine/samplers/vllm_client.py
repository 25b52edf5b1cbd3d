"""Talks to a running vLLM server over HTTP: its models, adapters that are loaded at run time, and
completions with token ids and log-probabilities.

vLLM's fields and addresses are those of its OpenAI server; TRL 1.16 uses the same for completions.
"""

import http.client
import json
import os
from dataclasses import dataclass
from typing import Any

from lab.errors import LabError

START = (
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve MODEL --enable-lora --max-lora-rank RANK"
    " --logprobs-mode processed_logprobs"
)
"""The command that starts a server for training."""
RESUME = (
    "The last checkpoint is intact: start the server, then python -m lab train --resume --out RUN, with"
    " --sampler vllm://HOST:PORT if it has another address."
)


@dataclass(frozen=True)
class Choice:
    """One completion: `token_ids`, the end token included, and a log-probability for each, NaN where
    the server gave none; `truncated` where it reached a limit of tokens.
    """

    token_ids: list[int]
    logps: list[float]
    truncated: bool


@dataclass(frozen=True)
class VLLMServer:
    """A vLLM server at `host`:`port`. A request that takes longer than `seconds` fails.

    The environment variable VLLM_API_KEY is sent as its key, as vLLM's own --api-key reads it.
    """

    host: str
    port: int
    seconds: float

    @property
    def name(self) -> str:
        """The server in an error."""
        return f"The vLLM server at {self.host}:{self.port}"

    def base_models(self) -> list[dict[str, Any]]:
        """Return the models that it serves, without adapters: each with `id` and `root`, its source."""
        answer = self._ask("GET", "/v1/models")
        models = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(models, list) or not all(isinstance(m, dict) for m in models):
            raise LabError(f"{self.name} names no models, so it is no vLLM server. {_start()}")
        return [model for model in models if not model.get("parent")]

    def load_adapter(self, name: str, folder: str) -> None:
        """Load the adapter in `folder`, which the server has to see under the same path, as `name`."""
        try:
            self._ask("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": folder})
        except _RefusedError as error:
            if error.status in (404, 405) and folder not in str(error):
                raise LabError(
                    f"{self.name} loads no adapters while it runs ({error}). {_start()}"
                ) from None
            raise LabError(
                f"{self.name} does not load the adapter in {folder} ({error}). It has to see this"
                f" folder under the same path, and to allow the adapter's rank. {_start()}"
            ) from None

    def unload_adapter(self, name: str) -> None:
        """Forget the adapter `name`; a server that has started anew does not know it."""
        try:
            self._ask("POST", "/v1/unload_lora_adapter", {"lora_name": name})
        except _RefusedError:
            pass

    def complete(self, model: str, prompt: list[int], settings: dict[str, Any]) -> list[Choice]:
        """Return the completions of one prompt by `model`, the name of an adapter."""
        request = {"model": model, "prompt": prompt, "logprobs": 0, "return_token_ids": True}
        try:
            answer = self._ask("POST", "/v1/completions", request | settings)
        except _RefusedError as error:
            raise LabError(
                f"{self.name} refuses a prompt of {len(prompt)} tokens ({error})."
            ) from None
        try:
            return [_choice(choice) for choice in answer["choices"]]
        except (KeyError, TypeError, ValueError) as error:
            raise LabError(
                f"{self.name} gives completions without token ids and log-probabilities"
                f" ({type(error).__name__}: {error}). It has to be vLLM 0.22 or newer."
            ) from error

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return what the server answers, JSON or text; raise `LabError` where there is no answer, and
        `_RefusedError` for an error of the server's own.
        """
        connection = http.client.HTTPConnection(self.host, self.port, timeout=self.seconds)
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("VLLM_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            text = response.read().decode("utf-8", "replace")
        except TimeoutError:
            raise LabError(
                f"{self.name} has not answered {path} within sampler_seconds, {self.seconds:g} s, so the"
                f" training stopped. {RESUME}"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            raise LabError(
                f"{self.name} cannot be reached ({reason}), so the training stopped. {RESUME}"
            ) from None
        finally:
            connection.close()
        try:
            answer = json.loads(text)
        except ValueError:
            answer = text
        if response.status != 200:
            raise _RefusedError(response.status, _message(answer))
        return answer


class _RefusedError(Exception):
    """The server answered with an error: its status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


def _start() -> str:
    return f"Start one with: {START}"


def _message(answer: Any) -> str:
    """The message of an error of the server, in one line."""
    inner = answer.get("error", answer) if isinstance(answer, dict) else answer
    text = inner.get("message", inner) if isinstance(inner, dict) else inner
    return " ".join(str(text).split())[:300]


def _choice(choice: dict[str, Any]) -> Choice:
    ids, logps = choice["token_ids"], choice["logprobs"]["token_logprobs"]
    if not ids or len(ids) != len(logps):
        raise ValueError(f"{len(ids)} token ids and {len(logps)} log-probabilities")
    return Choice(
        [int(token) for token in ids],
        [float("nan") if logp is None else float(logp) for logp in logps],
        choice["finish_reason"] == "length",
    )
