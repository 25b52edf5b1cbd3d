"""A reward of the user's own: module:function with the signature that TRL uses, called here and
nowhere else.

It runs in a process of its own, which the first call starts: so a time limit holds whatever the
function does, and what it prints or breaks does not touch the training. Naming code is for the
command line alone; `lab.config.methods.require_offered` keeps it out of every form.
"""

import asyncio
import faulthandler
import importlib
import importlib.util
import inspect
import math
import os
import pickle
import signal
import subprocess
import sys
import time
import traceback
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.storage.pipes import TolerantStream
from lab.tasks.base import Problem

IMPORT_SECONDS = 120.0  # that importing the user's module may take
PATIENCE = 3  # calls in a row without a single reward, after which the run ends
NONE = math.nan
RESERVED = (
    "prompt",
    "prompts",
    "completion",
    "completions",
    "completion_ids",
    "trainer_state",
    "log_extra",
    "log_metric",
)  # No columns of the data.


@dataclass
class TrainerState:
    """What a reward is told of the training, under the names of transformers' TrainerState: updates
    made, and updates in all.
    """

    global_step: int
    max_steps: int


class UserReward:
    """`function(prompts=…, completions=…, completion_ids=…, **columns)` → a float, or None for no
    reward, per completion; all arguments by keyword.

    It is called as TRL calls it. Each argument is a list with one value per completion: where the
    data's prompts are conversations, a prompt is its messages and a completion a list of one
    message, otherwise both are text; `completion_ids` are the sampled tokens, the end token
    included; a column of the data comes by its name, a task's gold answers as `answer`. Beside them
    come `trainer_state` (`TrainerState`), `log_metric(name, value)`, whose means are in `metrics`
    after the call, and `log_extra(column, values)`, which is taken and dropped. An async function
    is awaited.

    When a call raises, every completion is tried alone, so that only those that raise again go
    without a reward; a call that takes longer than `seconds` leaves all of its completions without
    one. No reward is NaN here: GRPO leaves it out of the group's mean and std and gives the
    completion advantage 0. Values that are no finite numbers, or too few or too many, raise
    `LabError` at once, and so does a function that has never answered, or not in `PATIENCE` calls
    in a row. None is an answer, as in TRL.
    """

    def __init__(self, name: str, seconds: float, steps: int = 0) -> None:
        self.name, self.seconds, self.steps = name, seconds, steps
        self.metrics: dict[str, float] = {}
        self._worker: subprocess.Popen | None = None
        self._worked, self._failed, self._last, self._said = False, 0, "", set[str]()

    def find(self) -> None:
        """Raise `LabError` when the module is neither in the current folder nor installed; it is
        not imported, its packages are.
        """
        module, folder = self.name.partition(":")[0], str(Path.cwd())
        sys.path.insert(0, folder)
        try:
            there = importlib.util.find_spec(module)
        except ImportError:
            there = None
        finally:
            sys.path.remove(folder)
        if there is None:
            raise LabError(
                f"reward is '{self.name}', but there is no module '{module}' in {folder}, nor is"
                f" one installed. Write {module.replace('.', '/')}.py there, with a function"
                f" {self.name.partition(':')[2]}."
            )

    def __call__(
        self,
        problems: Sequence[Problem],
        completions: Sequence[str],
        *,
        seed: int = 0,
        ids: Sequence[list[int]] | None = None,
        step: int = 0,
    ) -> list[float]:
        """One float per completion, NaN for none. `ids` are the tokens of each completion, `step`
        the updates made so far.
        """
        self.metrics = {}
        state = TrainerState(step, self.steps)
        arguments = [
            _arguments([p], [text], None if ids is None else [ids[i]])
            for i, (p, text) in enumerate(zip(problems, completions, strict=True))
        ]
        together = _arguments(problems, completions, ids)
        values = self._ask(together, state)
        if (
            values is None and len(completions) > 1 and self._worker
        ):  # It raised; when it took too long, its process is gone.
            values = self._alone(arguments, state)
        answered = values is not None
        values = values or [NONE] * len(completions)
        left_out = sum(map(math.isnan, values))
        if left_out and self._last not in self._said:
            self._said.add(self._last)
            print(
                f"reward {self.name}: no reward for {left_out} of {len(values)} completions:"
                f" {self._last}",
                file=sys.stderr,
                flush=True,
            )
        self._failed = 0 if answered else self._failed + 1
        self._worked = self._worked or answered
        if self._failed >= (PATIENCE if self._worked else 1):
            raise LabError(
                f"reward {self.name} gave no reward to any of {len(values)}"
                f" completions{' again' * (self._failed > 1)}: {self._last}. It is called with"
                f" {', '.join(f'{name}=' for name in together)} each a list, trainer_state=,"
                " log_extra= and log_metric=."
            )
        return values

    def _alone(
        self, arguments: list[dict[str, list[Any]]], state: TrainerState
    ) -> list[float] | None:
        """Each completion in a call of its own, as long as one call may take; the rest go without.
        None when no call was answered.
        """
        until, found = time.monotonic() + self.seconds, []
        for alone in arguments:
            found.append(self._ask(alone, state) if time.monotonic() < until else None)
        return [NONE if values is None else values[0] for values in found] if any(found) else None

    def _ask(self, arguments: dict[str, list[Any]], state: TrainerState) -> list[float] | None:
        """What the function returned, or None when it raised or took too long."""
        try:
            kind, found, logged = self._exchange(arguments, state)
        except (EOFError, OSError):
            code = self._end()
            self._last = (
                f"it took longer than the {self.seconds:g} s of reward_seconds"
                if code == 1
                else f"its process ended with exit code {code}"
            )
            return None
        except BaseException:  # Ctrl-C, twice: nothing may be left running.
            self._end()
            raise
        if kind == "unfit":
            raise LabError(
                f"reward {self.name} {found}. It takes a list with one finite number, or None, for"
                " each completion."
            )
        if kind == "raised":
            self._last = found
            return None
        self.metrics = logged
        if any(map(math.isnan, found)):
            self._last = "it returned None"
        return found

    def _exchange(
        self, arguments: dict[str, list[Any]], state: TrainerState
    ) -> tuple[str, Any, dict[str, float]]:
        if self._worker is None:
            self._start()
        pickle.dump((arguments, state), self._worker.stdin)
        self._worker.stdin.flush()
        return pickle.load(self._worker.stdout)

    def _start(self) -> None:
        paths = os.pathsep.join(
            filter(None, [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
        )
        self._worker = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from lab.tasks.rewards.user_reward import serve; serve()",
                self.name,
                str(self.seconds),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": paths},
        )
        self._close = weakref.finalize(self, _close, self._worker)
        try:
            problem = pickle.load(self._worker.stdout)
        except EOFError:
            problem = (
                f"could not be imported within {IMPORT_SECONDS:g} s, or ended its process (exit"
                f" code {self._end()})"
            )
        if problem:
            self._end()
            raise LabError(f"reward {self.name} {problem}.")

    def _end(self) -> int:
        """End the process, if there is one, and return its exit code."""
        if self._worker is None:
            return 0
        worker, self._worker = self._worker, None
        self._close.detach()
        return _close(worker)


def _close(worker: subprocess.Popen) -> int:
    worker.stdin.close() if not worker.stdin.closed else None
    try:
        worker.wait(timeout=0.5)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()
    worker.stdout.close()
    return worker.returncode


def _arguments(
    problems: Sequence[Problem], completions: Sequence[str], ids: Sequence[list[int]] | None
) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for problem in problems for name in problem.columns)
    columns = {
        name: [p.columns.get(name) for p in problems] for name in names if name not in RESERVED
    }
    answers = (
        {}
        if "answer" in columns or not any(p.answer for p in problems)
        else {"answer": [p.answer for p in problems]}
    )
    talks = [bool(p.messages) and not p.bare for p in problems]
    said = {
        "prompts": [list(p.messages) if talk else p.prompt for p, talk in zip(problems, talks)],
        "completions": [
            [{"role": "assistant", "content": text}] if talk else text
            for text, talk in zip(completions, talks, strict=True)
        ],
    }
    return said | columns | answers | ({} if ids is None else {"completion_ids": list(ids)})


def serve() -> None:
    """The other process: import the function that the first argument names, then answer until there
    is nobody to answer.
    """
    name, seconds = sys.argv[1], float(sys.argv[2])
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # What the function prints goes where errors go, or nowhere once nobody reads it.
    sys.stdout, sys.stderr = TolerantStream(sys.stdout), TolerantStream(sys.stderr)
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for the training, which ends this process.
    faulthandler.dump_traceback_later(IMPORT_SECONDS, exit=True)
    try:
        function, problem = _load(name), ""
    except (Exception, SystemExit) as error:
        function, problem = None, f"cannot be used: {_where(error)}"
    faulthandler.cancel_dump_traceback_later()
    _send(answers, problem)
    loop = (
        asyncio.new_event_loop()
    )  # One for all calls, as what an async function keeps open belongs to its loop.
    while function:
        try:
            arguments, state = pickle.load(requests)
        except EOFError:
            return
        faulthandler.dump_traceback_later(
            seconds, exit=True
        )  # A watchdog outside of Python: it says where the time went, and ends the process.
        try:
            values, logged = _called(function, arguments | {"trainer_state": state}, loop)
            answer = (*_checked(values, arguments["completions"]), logged)
        except (Exception, SystemExit) as error:
            answer = "raised", _where(error), {}
        faulthandler.cancel_dump_traceback_later()
        _send(answers, answer)


def _called(
    function: Any, arguments: dict[str, Any], loop: asyncio.AbstractEventLoop
) -> tuple[Any, dict[str, float]]:
    """What the function returns, and the means of what it logs."""
    logged: dict[str, list[float]] = {}

    def log_metric(name: str, value: float) -> None:
        logged.setdefault(str(name), []).append(float(value))

    values = function(**arguments, log_extra=lambda column, values: None, log_metric=log_metric)
    if inspect.isawaitable(values):
        values = loop.run_until_complete(_awaited(values))
    return values, {name: sum(numbers) / len(numbers) for name, numbers in logged.items()}


async def _awaited(values: Any) -> Any:
    return await values


def _send(answers: Any, what: Any) -> None:
    pickle.dump(what, answers)
    answers.flush()


def _load(name: str) -> Any:
    module, _, function = name.partition(":")
    found = getattr(importlib.import_module(module), function, None)
    if not callable(found):
        raise TypeError(f"module {module} has no function {function}")
    return found


def _where(error: BaseException) -> str:
    """An exception in one line, with the place that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame
        for frame in frames
        if frame.filename != __file__ and not frame.filename.startswith("<frozen")
    ]
    return f"{type(error).__name__}: {error}" + (
        f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    )


def _checked(values: Any, completions: Sequence[Any]) -> tuple[str, Any]:
    """The values as floats, None as NaN; or what is wrong with them."""
    if isinstance(values, str | bytes | Mapping) or not hasattr(values, "__iter__"):
        return "unfit", f"returned {type(values).__name__}, not a list"
    values, found = list(values), []
    if len(values) != len(completions):
        return "unfit", f"returned {len(values)} values for {len(completions)} completions"
    for value, text in zip(values, completions):
        try:
            number = (
                NONE
                if value is None
                else float("text" if isinstance(value, str | bytes) else value)
            )
        except (TypeError, ValueError):
            number = math.inf
        if not math.isfinite(number) and value is not None:
            return (
                "unfit",
                (
                    f"returned {value!r:.60} for the completion"
                    f" {(text if isinstance(text, str) else text[0]['content'])[:60]!r}"
                ),
            )
        found.append(number)
    return "values", found
