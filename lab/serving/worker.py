"""TODO: one line."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lab.config.input_checks import TALK, require_text
from lab.errors import LabError, unknown
from lab.runs.folder import RunFolder
from lab.serving.side_by_side import PolicyWithReference

MAX_LOADED_POLICIES = 4  # policies that the worker keeps loaded


def serve_requests(requests: Iterable[str], device: str = "auto") -> Iterator[dict[str, Any]]:
    """Answer requests, each a JSON object with "run" (a run folder) and arguments of
    `Talker.answer`, in their order, one object each.

    What goes wrong comes back as {"error": …}; the worker goes on.
    """
    loaded: dict[tuple[str, int], PolicyWithReference] = {}
    for line in requests:
        try:
            asked = _request(line)
            folder = RunFolder(Path(asked.pop("run")))
            made = folder.path / "adapter" / "adapter_config.json"
            key = (str(folder.path), made.stat().st_mtime_ns if made.is_file() else 0)
            talker = loaded.pop(key, None) or PolicyWithReference.of(folder, device)
            loaded[key] = talker  # the policy used last stands at the end
            while len(loaded) > MAX_LOADED_POLICIES:
                loaded.pop(next(iter(loaded)))
            yield talker.answer(**asked)
        except LabError as error:
            yield {"error": str(error)}
        except Exception as error:  # whatever it is, the next request may be answered
            yield {"error": f"{type(error).__name__}: {error}"}


def _request(line: str) -> dict[str, Any]:
    """A line of JSON as a request; raise `LabError` for anything else."""
    require_text("the request", line)
    try:
        asked = json.loads(line)
    except (ValueError, RecursionError) as error:  # The latter for a line of [[[[…
        raise LabError(f"The request is not JSON ({error}).") from None
    if not isinstance(asked, dict) or not isinstance(asked.get("run"), str):
        raise LabError(
            'A request is a JSON object with the folder of a run, such as {"run": "runs/a",'
            ' "prompt": "1+2="}.'
        )
    if extra := set(asked) - {"run", "prompt", *TALK}:
        raise unknown("part of a request", sorted(extra)[0], ["run", "prompt", *TALK])
    return asked
