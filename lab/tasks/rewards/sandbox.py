"""Runs a reward function of the user in a process of its own, with a time limit.

The training process uses `RewardProcess`; the other process runs `serve_reward`. They exchange
pickles over pipes, so that nothing the function changes, prints or breaks reaches the training.
"""

import asyncio
import faulthandler
import importlib
import inspect
import math
import os
import pickle
import re
import signal
import subprocess
import sys
import sysconfig
import tempfile
import traceback
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lab.storage.pipes import TolerantStream

IMPORT_SECONDS = 120.0
"""Time that importing the user's module may take."""
NO_REWARD = math.nan
STACK_FRAME = re.compile(r'^  File "(?P<file>.+)", line (?P<line>\d+) in ', re.MULTILINE)


@dataclass
class TrainerState:
    """What a reward function is told of the training, under the names of transformers'
    TrainerState: updates made, and updates in all.
    """

    global_step: int
    max_steps: int


class RewardProcess:
    """A process that has imported `function` (module:name) and scores completions with it.

    `seconds` is the time limit of one call. The process ends itself when a call takes longer.
    """

    def __init__(self, function: str, seconds: float) -> None:
        descriptor, name = tempfile.mkstemp(prefix="alignment-lab-reward-", suffix=".txt")
        os.close(descriptor)
        self._stack_dump = Path(name)
        search_path = [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from lab.tasks.rewards.sandbox import serve_reward; serve_reward()",
                function,
                str(seconds),
                name,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, search_path))},
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self._requests, self._answers = self.process.stdin, self.process.stdout
        self._end = weakref.finalize(self, _end, self.process, self._stack_dump)

    def import_error(self) -> str:
        """Waits for the import; returns why the function cannot be used, empty when it can."""
        try:
            return pickle.load(self._answers)
        except EOFError:
            where = self.last_position()
            return (
                f"could not be imported within {IMPORT_SECONDS:g} s{where}, or ended its process"
                f" (exit code {self.close()})"
            )

    def ask(
        self, arguments: dict[str, list[Any]], state: TrainerState
    ) -> tuple[str, Any, dict[str, float]]:
        """Calls the function once; returns (kind, value, means of the logged metrics).

        The kinds are "values" (a list of floats, NaN for no reward), "unfit" (the function returned
        something else, and the value says what) and "raised" (the value says what was raised).
        Raises EOFError or OSError when the process has ended.
        """
        pickle.dump((arguments, state), self._requests)
        self._requests.flush()
        return pickle.load(self._answers)

    def last_position(self) -> str:
        """The file and line of the user's code at which the time limit ended the process, as
        " (file, line N)"; empty when no limit ended it.
        """
        try:
            dump = self._stack_dump.read_text("utf-8", "replace")
        except OSError:
            return ""
        own_code = [
            f" ({Path(frame['file']).name}, line {frame['line']})"
            for frame in STACK_FRAME.finditer(dump)
            if _is_user_file(frame["file"])
        ]
        return own_code[0] if own_code else ""

    def close(self) -> int:
        """Ends the process and returns its exit code."""
        return self._end() or 0


def _is_user_file(file: str) -> bool:
    standard_library = sysconfig.get_paths()["stdlib"]
    return file != __file__ and not file.startswith(("<", standard_library))


def _end(process: subprocess.Popen[bytes], stack_dump: Path) -> int:
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.close()
    except OSError:  # The process has ended, and what was left to send is lost.
        pass
    try:
        process.wait(timeout=0.5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
    stack_dump.unlink(missing_ok=True)
    return process.returncode


def serve_reward() -> None:
    """The main function of the other process: imports the function that the first argument names,
    then answers requests until the pipe closes.

    The second argument is the time limit of a call in seconds, the third the file for the stack
    dump of a call that takes longer.
    """
    name, seconds, stack_dump = sys.argv[1], float(sys.argv[2]), open(sys.argv[3], "w")
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # What the function prints goes where errors go, or nowhere once nobody reads it.
    sys.stdout, sys.stderr = TolerantStream(sys.stdout), TolerantStream(sys.stderr)
    # Ctrl-C is for the training, which ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.dump_traceback_later(IMPORT_SECONDS, exit=True, file=stack_dump)
    try:
        function, problem = _import_function(name), ""
    except (Exception, SystemExit) as error:
        function, problem = None, f"cannot be used: {_error_line(error)}"
    faulthandler.cancel_dump_traceback_later()
    _send(answers, problem)
    # One loop serves all calls: what an async function keeps open belongs to its loop.
    loop = asyncio.new_event_loop()
    while function:
        try:
            arguments, state = pickle.load(requests)
        except EOFError:
            return
        # This timer runs outside of Python: it ends the process whatever the function does.
        faulthandler.dump_traceback_later(seconds, exit=True, file=stack_dump)
        texts = [_text_of(completion) for completion in arguments["completions"]]
        try:
            values, metrics = _call(function, arguments | {"trainer_state": state}, loop)
            answer = (*_checked_values(values, texts), metrics)
        except BaseException as error:  # A KeyboardInterrupt of the function's own, too.
            answer = "raised", _error_line(error), {}
        faulthandler.cancel_dump_traceback_later()
        _send(answers, answer)


def _text_of(completion: Any) -> str:
    return completion if isinstance(completion, str) else completion[0]["content"]


def _call(
    function: Any, arguments: dict[str, Any], loop: asyncio.AbstractEventLoop
) -> tuple[Any, dict[str, float]]:
    """What the function returns, and the means of what it logs."""
    logged: dict[str, list[float]] = {}

    def log_metric(name: str, value: float) -> None:
        logged.setdefault(str(name), []).append(float(value))

    values = function(**arguments, log_extra=lambda column, values: None, log_metric=log_metric)
    if inspect.isawaitable(values):
        values = loop.run_until_complete(_await(values))
    return values, {name: sum(numbers) / len(numbers) for name, numbers in logged.items()}


async def _await(values: Any) -> Any:
    return await values


def _send(answers: IO[bytes], message: Any) -> None:
    pickle.dump(message, answers)
    answers.flush()


def _import_function(name: str) -> Any:
    module, _, function_name = name.partition(":")
    function = getattr(importlib.import_module(module), function_name, None)
    if not callable(function):
        raise TypeError(f"module {module} has no function {function_name}")
    return function


def _error_line(error: BaseException) -> str:
    """An exception in one line, with the file and line of the user's code that raised it."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and not frame.filename.startswith("<frozen")
    ]
    return " ".join(f"{type(error).__name__}: {error}".split()) + (
        f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    )


def _checked_values(values: Any, texts: Sequence[str]) -> tuple[str, Any]:
    """("values", one float per completion, with NaN for None), or ("unfit", what is wrong)."""
    if isinstance(values, str | bytes | Mapping) or not hasattr(values, "__iter__"):
        return "unfit", f"returned {type(values).__name__}, not a list"
    values = list(values)
    if len(values) != len(texts):
        return "unfit", f"returned {len(values)} values for {len(texts)} completions"
    rewards = []
    for value, text in zip(values, texts):
        try:
            reward = NO_REWARD if value is None else _as_float(value)
        except (TypeError, ValueError):
            reward = math.inf
        if not math.isfinite(reward) and value is not None:
            return "unfit", f"returned {value!r:.60} for the completion {text[:60]!r}"
        rewards.append(reward)
    return "values", rewards


def _as_float(value: Any) -> float:
    """A number as a float; text raises ValueError even where it spells a number."""
    if isinstance(value, str | bytes):
        raise ValueError
    return float(value)
