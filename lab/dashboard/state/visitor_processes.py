"""Processes that a page starts for a visitor and waits for: one a session, two a server, ended when
the visitor leaves or asks for something else.
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

MOST = 2  # processes on the server: a visitor is to find a free core
PATIENCE = 300.0  # seconds that a session waits for its turn
PAUSE = 0.2  # seconds between two looks at the process and at whether the visitor is still there
KEPT = 200  # of what processes printed
_turns = threading.BoundedSemaphore(MOST)
_keeping = threading.Lock()


@st.cache_resource(show_spinner=False)
def _known() -> OrderedDict[Hashable, subprocess.CompletedProcess[str]]:
    return OrderedDict()


def run(
    key: Hashable, command: Sequence[str], seconds: float, doing: str
) -> subprocess.CompletedProcess[str]:
    """What `command` printed when it was last run for `key`, or run it while the page says `doing`.

    Raises `LabError` when it takes longer than `seconds`, or no turn comes. A session runs its
    script once at a time, so it has one process at most. Every look writes to the page, at which
    Streamlit ends the script of a visitor who has left, or who has asked for something else; the
    process ends with it.
    """
    known = _known()
    if key in known:
        return known[key]
    spot = st.empty()
    with st.spinner(doing):
        until = time.monotonic() + PATIENCE
        while not _turns.acquire(timeout=PAUSE):
            spot.caption(f"{MOST} others are served first.")
            if time.monotonic() > until:
                raise LabError(f"{MOST} others were served for {PATIENCE:g} s. Try again.")
        try:
            done = _watched(command, seconds, spot)
        finally:
            _turns.release()
    with _keeping:
        known[key] = done
        while len(known) > KEPT:
            known.popitem(last=False)
    return done


def forget() -> None:
    """Run everything anew."""
    _known().clear()


def _watched(
    command: Sequence[str], seconds: float, spot: DeltaGenerator
) -> subprocess.CompletedProcess[str]:
    until = time.monotonic() + seconds
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        try:
            while (code := _ended(process)) is None:
                spot.empty()
                if time.monotonic() > until:
                    raise LabError(f"It took more than {seconds:g} s and was stopped.")
        finally:
            process.kill()
            process.wait()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
    return subprocess.CompletedProcess(command, code, *texts)


def _ended(process: subprocess.Popen) -> int | None:
    """The exit code of a process that ends soon, else None."""
    try:
        return process.wait(PAUSE)
    except subprocess.TimeoutExpired:
        return None
