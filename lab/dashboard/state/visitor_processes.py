"""Processes that a page starts for a visitor and waits for: at most one per session and two per
server. A process ends when its visitor leaves or asks for something else.
"""

import subprocess
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Sequence

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from lab.errors import LabError

MAX_PROCESSES = 2  # per server, so that a core stays free for the pages
TURN_TIMEOUT_SECONDS = 300.0
POLL_INTERVAL_SECONDS = 0.2  # between two checks of the process and of the visitor's presence
MAX_CACHED_RESULTS = 200
_turns = threading.BoundedSemaphore(MAX_PROCESSES)
_cache_lock = threading.Lock()


@st.cache_resource(show_spinner=False)
def _cached_results() -> OrderedDict[Hashable, subprocess.CompletedProcess[str]]:
    return OrderedDict()


def run_for_visitor(
    key: Hashable, command: Sequence[str], timeout_seconds: float, message: str
) -> subprocess.CompletedProcess[str]:
    """Run `command` while the page shows `message`, and return the completed process. A result that
    is cached for `key` is returned without a run.

    Raises `LabError` if the process takes longer than `timeout_seconds`, or if no turn comes within
    `TURN_TIMEOUT_SECONDS`. A session runs its script once at a time, so it has at most one process.
    Each check of the process writes to the page: there Streamlit ends the script of a visitor who
    has left or has asked for something else, and the process ends with the script.
    """
    results = _cached_results()
    if key in results:
        return results[key]
    placeholder = st.empty()
    with st.spinner(message):
        deadline = time.monotonic() + TURN_TIMEOUT_SECONDS
        while not _turns.acquire(timeout=POLL_INTERVAL_SECONDS):
            placeholder.caption(f"Waiting: {MAX_PROCESSES} other visitors are being served.")
            if time.monotonic() > deadline:
                raise LabError(
                    f"{MAX_PROCESSES} other visitors were being served for {TURN_TIMEOUT_SECONDS:g} s. Try again."
                )
        try:
            result = _run_watched(command, timeout_seconds, placeholder)
        finally:
            _turns.release()
    with _cache_lock:
        results[key] = result
        while len(results) > MAX_CACHED_RESULTS:
            results.popitem(last=False)
    return result


def clear_cached_results() -> None:
    """Forget all results, so that every command runs again."""
    _cached_results().clear()


def _run_watched(
    command: Sequence[str], timeout_seconds: float, placeholder: DeltaGenerator
) -> subprocess.CompletedProcess[str]:
    deadline = time.monotonic() + timeout_seconds
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as error_output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=error_output
        )
        try:
            while (code := _exit_code(process)) is None:
                placeholder.empty()
                if time.monotonic() > deadline:
                    raise LabError(f"This took more than {timeout_seconds:g} s and was stopped.")
        finally:
            process.kill()
            process.wait()
        texts = []
        for file in (output, error_output):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
    return subprocess.CompletedProcess(command, code, *texts)


def _exit_code(process: subprocess.Popen) -> int | None:
    """The exit code of a process if it ends within the poll interval, else None."""
    try:
        return process.wait(POLL_INTERVAL_SECONDS)
    except subprocess.TimeoutExpired:
        return None
