"""Client of the process that loads models and answers prompts. All sessions share one such process;
the server itself loads no model.
"""

import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any

import streamlit as st

from lab.errors import LabError

SERVE_COMMAND = (sys.executable, "-m", "lab", "talk", "--serve")
ANSWER_TIMEOUT_SECONDS = 90.0  # includes the time to load the model
WARM_DELAY_SECONDS = 1.0  # a browser draws its page in this time, which takes all of a core
IDLE_SECONDS = 600.0  # the process ends after so long without a question


class InferenceWorker:
    """Starts the process on demand, asks it one question at a time, and ends it when it hangs or is
    idle.
    """

    def __init__(self, command: Sequence[str] = SERVE_COMMAND) -> None:
        self._command = tuple(command)
        self._ask_lock = threading.Lock()  # one question at a time
        self._process_lock = threading.Lock()  # one start or end of the process at a time
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._error_output: IO[bytes] | None = None
        self._idle_timer: threading.Timer | None = None
        self._warm_timer: threading.Timer | None = None

    def warm(self) -> None:
        """Start the process a little later if it does not run, so that its libraries are loaded before
        the first question; returns at once.
        """
        with self._process_lock:
            if self._warm_timer is None or not self._warm_timer.is_alive():
                self._warm_timer = threading.Timer(WARM_DELAY_SECONDS, self._running_process)
                self._warm_timer.daemon = True
                self._warm_timer.start()

    def _running_process(self) -> subprocess.Popen[bytes]:
        """The process, which this starts if it does not run."""
        with self._process_lock:
            if self._process and self._process.poll() is None:
                return self._process
            if self._error_output:
                self._error_output.close()
            # Read only if the process ends unexpectedly.
            self._error_output = tempfile.TemporaryFile()  # noqa: SIM115
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._error_output,
            )
            self._answers = queue.SimpleQueue()
            threading.Thread(
                target=_read_answers, args=(self._process, self._answers), daemon=True
            ).start()
            self._restart_idle_timer()
            return self._process

    def ask(
        self, question: Mapping[str, Any], timeout_seconds: float = ANSWER_TIMEOUT_SECONDS
    ) -> dict[str, Any]:
        """The answer to one question. Raises `LabError` if the process reports an error, ends, or
        takes longer than `timeout_seconds`.
        """
        deadline = time.monotonic() + timeout_seconds
        if not self._ask_lock.acquire(timeout=timeout_seconds):
            raise LabError(
                "Other visitors are using the model. It was not free within"
                f" {timeout_seconds:g} s. Try again."
            )
        try:
            process = self._running_process()
            assert process.stdin is not None  # it was started with a pipe
            try:
                process.stdin.write((json.dumps(question) + "\n").encode())
                process.stdin.flush()
                line = self._answers.get(timeout=max(0.1, deadline - time.monotonic()))
            except OSError:
                line = None
            except queue.Empty:
                self.close()
                raise LabError(
                    f"No answer came within {timeout_seconds:g} s, so the process that loads the model was"
                    " stopped. Try again, or use a smaller model."
                ) from None
            if line is None:
                last_line = self._last_error_line()
                self.close()
                raise LabError(f"The process that loads the model has ended. {last_line}".strip())
            answer = json.loads(line)
            if "error" in answer:
                raise LabError(answer["error"])
            return answer
        finally:
            self._restart_idle_timer()
            self._ask_lock.release()

    def close(self) -> None:
        """End the process."""
        with self._process_lock:
            if self._warm_timer:
                self._warm_timer.cancel()
            if self._process:
                if self._process.poll() is None:
                    self._process.kill()
                self._process.wait()
                assert self._process.stdin is not None  # it was started with a pipe
                self._process.stdin.close()
            self._process = None
            if self._error_output:
                self._error_output.close()

    def _restart_idle_timer(self) -> None:
        if self._idle_timer:
            self._idle_timer.cancel()
        self._idle_timer = threading.Timer(IDLE_SECONDS, self.close)
        self._idle_timer.daemon = True
        self._idle_timer.start()

    def _last_error_line(self) -> str:
        if self._error_output is None or self._error_output.closed:
            return ""
        self._error_output.seek(0)
        lines = self._error_output.read().decode("utf-8", "replace").strip().splitlines()
        return f"Its last message: {lines[-1][:300]}" if lines else ""


def _read_answers(
    process: subprocess.Popen[bytes], answers: "queue.SimpleQueue[bytes | None]"
) -> None:
    """Put every line that the process prints into `answers`, then None when the process has ended."""
    assert process.stdout is not None  # it was started with a pipe
    with process.stdout as lines:
        for line in lines:
            answers.put(line)
    process.wait()
    answers.put(None)


@st.cache_resource(show_spinner=False)
def inference_worker() -> InferenceWorker:
    """The worker that all sessions of this server share."""
    return InferenceWorker()
