"""A learner's function in a process of its own, which a check can call like any other function."""

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from lab.course.grading import child
from lab.errors import LabError

LAB = Path(child.__file__).parents[2]
BESIDE = ("notebooks", "tests", "docs", "build")
"""Folders of a clone that hold answers."""
START_SECONDS = 900.0
PATIENCE = 6.0
"""A function may take this many times its limit by the clock, since a busy machine is not its fault; its
processor time is limited where the system can do that.
"""
MAX_LINE = 64 * 2**20
TASK_FILES = ("errors.py", "__init__.py", "tasks/__init__.py", "tasks/base.py", "tasks/chain.py")
REGISTRY = "from lab.tasks.chain import ChainTask\n\nTASKS = {'chain': ChainTask()}\n"


class LearnerError(Exception):
    """An exception inside a learner's function; its type has the name of the original's."""


class OutOfTimeError(LearnerError):
    """The function took longer than its limit."""


class ProcessEndedError(LearnerError):
    """The function ended its process, for example because it used too much memory."""


@dataclass(frozen=True)
class Limits:
    """Limits for one exercise of one learner: seconds of processor time for all calls, and memory beyond
    that of torch.
    """

    seconds: float = 10.0
    memory_mib: int = 1024

    def __post_init__(self) -> None:
        if not 0.1 <= self.seconds <= 3600 or not 16 <= self.memory_mib <= 2**20:
            raise LabError(
                f"The limits are {self.seconds:g} s and {self.memory_mib} MiB, but take 0.1 to 3600"
                " seconds and 16 to 1048576 MiB."
            )


class LearnerProcess:
    """The process of one learner. `with_task` gives it the lab's task chain, which an exercise may use;
    nothing else of the lab can be imported there.
    """

    def __init__(self, limits: Limits, *, with_task: bool = False) -> None:
        self._limits, self._with_task = limits, with_task
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str] = queue.Queue()
        self._folder = Path()
        self.note = ""
        """What could not be limited on this system."""
        self.left = limits.seconds * PATIENCE
        """Seconds by the clock that are left to the function."""
        self._before = 0.0
        self.cpu_seconds = 0.0
        """Processor time that the function has taken in all calls so far."""

    @property
    def _too_slow(self) -> str:
        return f"took longer than {self._limits.seconds:g} s"

    def define(self, source: str, name: str) -> None:
        """Give the process the code of the next function. Raises `LearnerError` if it fails."""
        if self._process is None or self._process.poll() is not None:
            self._start()
        self.left, self.cpu_seconds = self._limits.seconds * PATIENCE, 0.0
        self._before = self._processor_time()
        request = {
            "source": source,
            "name": name,
            "memory": self._limits.memory_mib,
            "seconds": self._limits.seconds,
        }
        self.note = str(self._ask(request).get("note", ""))

    def __call__(self, *inputs: Any) -> Any:
        """Call the function that is defined."""
        if self._process is None:
            raise ProcessEndedError("the process has ended")
        reply = self._ask({"call": [child.encode(value) for value in inputs]})
        try:
            return child.decode(reply.get("value"))
        except (ValueError, TypeError, RuntimeError, OverflowError) as error:
            raise LearnerError(f"the answer cannot be read: {error}") from None

    def _processor_time(self) -> float:
        """Seconds of processor time that the process has taken since it began."""
        with contextlib.suppress(psutil.Error):
            assert self._process is not None
            return float(sum(psutil.Process(self._process.pid).cpu_times()[:2]))
        return 0.0

    def _ran_out_of_time(self) -> bool:
        """Whether the process has ended because of its limit of processor time."""
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            return hasattr(signal, "SIGXCPU") and self._process.wait(10) == -signal.SIGXCPU
        return False

    def close(self) -> None:
        """End the process and delete its folder."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
            shutil.rmtree(self._folder, ignore_errors=True)
            self._process = None

    def _start(self) -> None:
        self.close()
        self._folder = Path(tempfile.mkdtemp(prefix="alignment-lab-grade-"))
        if self._with_task:
            _write_task(self._folder / "lab")
        denied = [LAB, *(LAB.parent / name for name in BESIDE)]
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("LAB_", "PYTHON"))}
        self._process = subprocess.Popen(
            [sys.executable, "-E", "-P", child.__file__, self._folder, *denied],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            env=keep | {"OMP_NUM_THREADS": "1", "TMPDIR": str(self._folder)},
        )
        self._lines = queue.Queue()
        assert self._process.stdout is not None
        threading.Thread(
            target=_read, args=(self._process.stdout, self._lines), daemon=True
        ).start()
        self.left = START_SECONDS
        self._ask({"source": "def ready(): ...", "name": "ready", "memory": 64, "seconds": 9})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process is not None and self._process.stdin is not None
        start = time.monotonic()
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=max(0.0, self.left))
        except queue.Empty:
            self.cpu_seconds = self._processor_time() - self._before
            self.close()
            raise OutOfTimeError(self._too_slow) from None
        except OSError:
            line = ""
        self.left -= time.monotonic() - start
        try:
            reply = json.loads(line)
        except (ValueError, RecursionError):
            reply = None
        if not isinstance(reply, dict):
            too_slow = not line and self._ran_out_of_time()
            self.close()
            if too_slow:
                self.cpu_seconds = self._limits.seconds
                raise OutOfTimeError(self._too_slow)
            raise ProcessEndedError("ended its process: too much memory, too much time, or an exit")
        self.cpu_seconds += float(reply.get("cpu", 0.0))
        if "error" in reply:
            raise _as_exception(str(reply["error"]), str(reply.get("message", "")))
        return reply


def _read(pipe: IO[str], lines: "queue.Queue[str]") -> None:
    with contextlib.suppress(ValueError, OSError):
        while line := pipe.readline(MAX_LINE):
            lines.put(line)
    lines.put("")


def _as_exception(name: str, message: str) -> Exception:
    if name == "NotImplementedError":
        return NotImplementedError(message)
    return type(name if name.isidentifier() else "Exception", (LearnerError,), {})(message)


def _write_task(package: Path) -> None:
    """Write the lab's task chain, and nothing that an exercise asks for, as a package `lab`."""
    for name in TASK_FILES:
        target = package / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("" if name.endswith("__init__.py") else (LAB / name).read_text("utf-8"))
    (package / "tasks" / "registry.py").write_text(REGISTRY)
