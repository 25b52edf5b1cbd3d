"""A worker that answers prompts for the dashboard, as a loop over lines of JSON."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lab.config.input_checks import TALK, require_text
from lab.errors import LabError, unknown
from lab.runs.folder import RunFolder
from lab.serving.one_prompt import OnePromptTrainer
from lab.serving.side_by_side import PolicyWithReference
from lab.storage.policy_folder import policy_config_file

ONE_PROMPT = {"prompt", "group_size", "reward", "seed", "updates"}
MAX_LOADED_POLICIES = 4
"""Policies that stay in memory; beyond it the policy that was used longest ago is dropped."""


def serve_requests(requests: Iterable[str], device: str = "auto") -> Iterator[dict[str, Any]]:
    """Answers requests in their order, with a JSON object for each.

    A request is a JSON object with "run" (a run folder) and arguments of
    `PolicyWithReference.answer`, or with "pairs", the argument of `PolicyWithReference.margins`, or
    with "one_prompt", the arguments of `OnePromptTrainer.answer`. An error is answered with
    {"error": …}, and the worker goes on.
    """
    policies: dict[tuple[str, int], PolicyWithReference] = {}
    trainer: OnePromptTrainer | None = None
    for line in requests:
        try:
            request = _parse_request(line)
            if "one_prompt" in request:
                trainer = trainer or OnePromptTrainer(device)
                yield trainer.answer(**request["one_prompt"])
                continue
            folder = RunFolder(Path(request.pop("run")))
            config = policy_config_file(folder.path)
            key = (str(folder.path), config.stat().st_mtime_ns if config else 0)
            policy = policies.pop(key, None) or PolicyWithReference.of(folder, device)
            policies[key] = policy  # The policy used last stands at the end.
            while len(policies) > MAX_LOADED_POLICIES:
                policies.pop(next(iter(policies)))
            yield policy.margins(**request) if "pairs" in request else policy.answer(**request)
        except LabError as error:
            yield {"error": str(error)}
        except Exception as error:  # After any error the next request may be answered.
            yield {"error": f"{type(error).__name__}: {error}"}


def _parse_request(line: str) -> dict[str, Any]:
    """A line of JSON as a request; raises `LabError` for any other line."""
    require_text("the request", line)
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:  # The latter for a line of [[[[…
        raise LabError(f"The request is not JSON ({error}).") from None
    if isinstance(request, dict) and isinstance(request.get("one_prompt"), dict):
        if extra := set(request["one_prompt"]) - ONE_PROMPT or set(request) - {"one_prompt"}:
            raise unknown("part of a request", sorted(extra)[0], sorted(ONE_PROMPT))
        return request
    if not isinstance(request, dict) or not isinstance(request.get("run"), str):
        raise LabError(
            'A request is a JSON object with the folder of a run, such as {"run": "runs/a",'
            ' "prompt": "1+2="}.'
        )
    known = {"run", "pairs"} if "pairs" in request else {"run", "prompt", *TALK}
    if extra := set(request) - known:
        raise unknown("part of a request", sorted(extra)[0], sorted(known))
    return request
