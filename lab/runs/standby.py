"""Keeps one training process ready: it has loaded the libraries and the embedded model, and waits for the
path of a run. A run that it gets makes its first update about three seconds earlier.
"""

import subprocess
import sys
import threading
import time
from pathlib import Path

STANDBY_COMMAND = (sys.executable, "-m", "lab.cli.standby")
IDLE_SECONDS = 600.0
"""A process without a run ends after this time."""
HANDOVER_SECONDS = 10.0  # A process this near to its end gets no run.


class Standby:
    """Starts the waiting process and gives it a run."""

    def __init__(self, command: tuple[str, ...] = STANDBY_COMMAND) -> None:
        self._command = command
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._timer: threading.Timer | None = None

    def warm(self) -> None:
        """Start the process if none waits; return at once. It ends with this process, unless it got a
        run.
        """
        with self._lock:
            if self._is_ready():
                return
            try:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except OSError:  # A run then starts in a new process, which says why it cannot.
                return
            self._started = time.monotonic()

    def warm_later(self, seconds: float) -> None:
        """Call `warm` after some seconds; return at once. While a process or an earlier call waits,
        nothing happens.
        """
        with self._lock:
            if self._is_ready() or (self._timer is not None and self._timer.is_alive()):
                return
            self._timer = threading.Timer(seconds, self.warm)
            self._timer.daemon = True
            self._timer.start()

    def take(self, path: Path) -> subprocess.Popen[bytes] | None:
        """Let the waiting process train the run at `path`, and return the process; None if none waits.
        It outlives this one.
        """
        with self._lock:
            if not self._is_ready():
                return None
            process, self._process = self._process, None
        assert process is not None and process.stdin is not None  # It was started with a pipe.
        try:
            process.stdin.write(f"{path.resolve()}\n".encode())
            process.stdin.close()
        except OSError:  # It ended meanwhile.
            return None
        return process

    def _is_ready(self) -> bool:
        """Whether a process waits; one that has ended, or soon will, is let go."""
        if self._process is None:
            return False
        age = time.monotonic() - self._started
        if self._process.poll() is None and age < IDLE_SECONDS - HANDOVER_SECONDS:
            return True
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process = None
        return False


STANDBY = Standby()
"""The waiting process of this program."""
