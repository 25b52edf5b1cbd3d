"""The process that loads models for the dashboard and answers prompts, one for all sessions; the
server itself loads no model.
"""

import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from lab.errors import LabError

COMMAND = (sys.executable, "-m", "lab", "talk", "--serve")
SECONDS = 90.0  # that an answer may take, loading included
IDLE = 600.0  # seconds without a question after which the process ends


class Worker:
    """Starts the process when it is wanted, asks one question at a time, ends it when it hangs or
    when nobody asks any more.
    """

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self._command, self._turn, self._process, self._answers = (
            tuple(command),
            threading.Lock(),
            None,
            queue.SimpleQueue(),
        )
        self._starting, self._bell, self._said = threading.Lock(), None, None

    def warm(self) -> None:
        """Start the process, unless it runs, so that it has loaded its libraries when the first
        question comes; returns at once.
        """
        with self._starting:
            if self._process and self._process.poll() is None:
                return
            if self._said:
                self._said.close()
            self._said = tempfile.TemporaryFile()  # noqa: SIM115  # What it prints of itself; read when it ends before its time.
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said
            )
            self._answers = queue.SimpleQueue()
            threading.Thread(target=_read, args=(self._process, self._answers), daemon=True).start()
            self._ring_in(IDLE)

    def ask(self, question: Mapping[str, Any], seconds: float = SECONDS) -> dict[str, Any]:
        """The answer to one question. Raises `LabError` with what the process says, when it dies,
        and when it takes longer than `seconds`.
        """
        until = time.monotonic() + seconds
        if not self._turn.acquire(timeout=seconds):
            raise LabError(f"Others are asking: no turn came within {seconds:g} s. Try again.")
        try:
            self.warm()
            try:
                self._process.stdin.write((json.dumps(question) + "\n").encode())
                self._process.stdin.flush()
                line = self._answers.get(timeout=max(0.1, until - time.monotonic()))
            except OSError:
                line = None
            except queue.Empty:
                self.close()
                raise LabError(
                    f"No answer came within {seconds:g} s, so the process that loads the model was"
                    " ended. Try again, or a smaller model."
                ) from None
            if line is None:
                words = self._last_words()
                self.close()
                raise LabError(f"The process that loads the model ended. {words}".strip())
            answer = json.loads(line)
            if "error" in answer:
                raise LabError(answer["error"])
            return answer
        finally:
            self._ring_in(IDLE)
            self._turn.release()

    def close(self) -> None:
        """End the process."""
        with self._starting:
            if self._process and self._process.poll() is None:
                self._process.kill()
            if self._process:
                self._process.wait()
                self._process.stdin.close()
            self._process = None
            if self._said:
                self._said.close()

    def _ring_in(self, seconds: float) -> None:
        if self._bell:
            self._bell.cancel()
        self._bell = threading.Timer(seconds, self.close)
        self._bell.daemon = True
        self._bell.start()

    def _last_words(self) -> str:
        if self._said.closed:
            return ""
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").strip().splitlines()
        return f"It said last: {lines[-1][:300]}" if lines else ""


def _read(process: subprocess.Popen, answers: queue.SimpleQueue) -> None:
    """Pass on every line that the process prints, and None when it has ended."""
    with process.stdout as lines:
        for line in lines:
            answers.put(line)
    process.wait()
    answers.put(None)


@st.cache_resource(show_spinner=False)
def worker() -> Worker:
    """The one worker of this server."""
    return Worker()
