"""The process of a side in an environment of its own: another interpreter runs `peer_worker`.

Unsloth and vLLM ask for versions that the lab's environment does not have. The work travels as a
JSON file, so that the other environment needs nothing of the lab.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from lab.benchmarks.side_process import EXIT_GRACE_SECONDS, Turn
from lab.benchmarks.workload import BENCH_LORA_RANK, Work
from lab.data.encoding import prompt_ids
from lab.data.examples import Text
from lab.models.device import compute_dtype
from lab.models.sources import model_source

WORKER = Path(__file__).with_name("peer_worker.py")
FOREIGN_SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "unsloth": {
        "no checkpointing": {},
        "no checkpointing, CUDA graphs": {"environment": {"UNSLOTH_BLOCK_CUDAGRAPHS": "1"}},
        "reference precomputed": {"knobs": {"precompute_ref_log_probs": True}},
        "checkpointing": {"checkpointing": True},
    },
    "vllm": {"default": {}},
}
"""The settings of each peer that has an environment of its own."""
FOREIGN_WORKS = {"unsloth": ("dpo", "ipo", "grpo"), "vllm": ("decode",)}
HASHED_BYTES = 8 * 2**30
"""Unsloth's TRL hashes all weights before it computes the reference: minutes for a larger model."""


def foreign_settings(peer: str, work: Work) -> dict[str, dict[str, Any]]:
    """Returns the settings of a peer that apply to a work; none for a work that it does not do."""
    if work.name not in FOREIGN_WORKS[peer]:
        return {}
    return {
        name: setting
        for name, setting in FOREIGN_SETTINGS[peer].items()
        if work.pairs or "knobs" not in setting
    }


def job_of(
    work: Work, peer: str, setting: dict[str, Any], where: torch.device, folder: str
) -> dict[str, Any]:
    """Returns the job that `peer_worker` reads. The trainer writes into `folder`."""
    texts: list[Text] = [*work.prompts]
    prompts = prompt_ids(work.tokenizer, texts)
    longest = [p + c for p, c in work.trained] + [len(ids) + work.longest for ids in prompts]
    return {
        "peer": peer,
        "method": work.method,
        "model": model_source(work.model),
        "pairs": [vars(pair) for pair in work.pairs],
        "prompts": work.prompts,
        "prompt_ids": prompts,
        "group": work.group,
        "longest": work.longest,
        "max_length": max(longest),
        "rank": BENCH_LORA_RANK,
        "device": str(where),
        "dtype": str(compute_dtype(where)).removeprefix("torch."),
        "checkpointing": setting.get("checkpointing", False),
        "knobs": setting.get("knobs", {}),
        "folder": folder,
    }


def too_long(work: Work, setting: dict[str, Any]) -> str:
    """Says why a setting takes too long to be tried; empty when it does not."""
    precomputed = "precompute_ref_log_probs" in setting.get("knobs", {})
    size = sum(path.stat().st_size for path in Path(model_source(work.model)).glob("*.safetensors"))
    return (
        "skipped: it hashes all weights first, which takes minutes"
        if precomputed and size > HASHED_BYTES
        else ""
    )


class ForeignProcess:
    """Takes the turns of one side in a process of the interpreter `python`."""

    def __init__(
        self, python: str, work: Work, peer: str, setting: dict[str, Any], where: torch.device
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        folder = Path(self._folder.name)
        job = job_of(work, peer, setting, where, str(folder))
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        self._log = folder / "log.txt"
        # The lab's own folders would mix the two environments.
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
        with self._log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [python, str(WORKER), str(folder / "job.json")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                env=environment | setting.get("environment", {}),
                cwd=folder,
                start_new_session=True,  # Ctrl-C is for the benchmark, which then ends this process.
            )
        self._first: dict[str, Any] | None = None

    def wait_until_ready(self) -> str:
        """Waits until the libraries are imported, and returns their versions."""
        if self._first is None:
            self._first = self._answer()
        return self._first.get("ready", "")

    def take(self, lead: int, repeat: int) -> Turn:
        """Takes a turn in the other process."""
        self.wait_until_ready()
        assert self._first is not None and self._process.stdin is not None
        if "error" in self._first:
            return Turn(error=self._first["error"])
        with suppress(OSError):  # A process that has ended gives no answer.
            print(json.dumps([lead, repeat]), file=self._process.stdin, flush=True)
        return Turn(**self._answer())

    def close(self) -> None:
        """Ends the process: at once when it waits, otherwise after its present step."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()

    def join(self) -> None:
        """Waits until the closed process has ended; kills it after `EXIT_GRACE_SECONDS`. Kills the
        processes that it started and left: vLLM's engine is one, and it keeps the GPU's memory.
        """
        try:
            self._process.wait(EXIT_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if sys.platform != "win32":
            # Where no process is left, macOS says that it is not permitted.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._folder.cleanup()

    def _answer(self) -> dict[str, Any]:
        """Returns the next message; the end of the process is an error with its last line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        code = self._process.wait()
        written = self._log.read_text("utf-8", errors="replace").strip().splitlines()
        last = f": {written[-1]}" if written else ""
        return {"error": f"ended with exit code {code}{last}"}
