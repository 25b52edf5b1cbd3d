"""A reward of the user's own, named as module:function and called with TRL's signature.

`lab.tasks.rewards.sandbox` runs it in a process of its own, which the first call starts. Only the
command line may name code; `lab.config.methods.require_offered` keeps it out of every form.
"""

import importlib.util
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.tasks.base import Problem
from lab.tasks.rewards.sandbox import NO_REWARD, RewardProcess, TrainerState

MAX_FAILED_CALLS = 3
"""Calls in a row without a single reward, after which the run ends."""
RESERVED_COLUMNS = (
    "prompt",
    "prompts",
    "completion",
    "completions",
    "completion_ids",
    "trainer_state",
    "log_extra",
    "log_metric",
)
"""Names that a column of the data cannot have when it is handed to a reward."""


class UserReward:
    """`function(prompts=…, completions=…, completion_ids=…, **columns)` → a float, or None for no
    reward, per completion; all arguments by keyword.

    It is called as TRL calls it. Each argument is a list with one value per completion: where the
    data's prompts are conversations, a prompt is its messages and a completion a list of one
    message, otherwise both are text; `completion_ids` are the sampled tokens, the end token
    included; a column of the data comes by its name, a task's gold answers as `answer`. Beside them
    come `trainer_state` (`TrainerState`), `log_metric(name, value)`, whose means are in `metrics`
    after the call, and `log_extra(column, values)`, which accepts its arguments and drops them. An
    async function is awaited. The function may change the lists: it gets copies.

    When a call raises, every completion is tried alone, so that only those that raise again go
    without a reward. A call that takes longer than `seconds` leaves all of its completions without
    a reward. A missing reward is NaN here: GRPO leaves it out of the group's mean and std and gives
    the completion advantage 0. `LabError` is raised at once for values that are not finite numbers,
    and for too few or too many of them; also for a function that never answered, or that did not
    answer in `MAX_FAILED_CALLS` calls in a row. None counts as an answer, as in TRL.
    """

    def __init__(self, name: str, seconds: float, steps: int = 0) -> None:
        self.name, self.seconds, self.steps = name, seconds, steps
        self.metrics: dict[str, float] = {}
        self._process: RewardProcess | None = None
        self._has_answered, self._failed_calls, self._last_failure = False, 0, ""
        self._printed_failures: set[str] = set()

    def find(self) -> None:
        """Raises `LabError` when the module is neither in the current folder nor installed.

        The module is not imported, but the packages that contain it are.
        """
        module, folder = self.name.partition(":")[0], str(Path.cwd())
        sys.path.insert(0, folder)
        try:
            spec = importlib.util.find_spec(module)
        except ImportError:
            spec = None
        finally:
            sys.path.remove(folder)
        if spec is None:
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
        """Returns one float per completion, NaN for a missing reward. `ids` are the tokens of each
        completion, `step` is the number of updates made so far.
        """
        self.metrics = {}
        state = TrainerState(step, self.steps)
        arguments = _arguments(problems, completions, ids)
        rewards = self._ask(arguments, state)
        # A call that raised leaves its process running; a call that took too long does not.
        if rewards is None and len(completions) > 1 and self._process:
            rewards = self._ask_one_by_one(problems, completions, ids, state)
        answered = rewards is not None
        rewards = rewards or [NO_REWARD] * len(completions)
        self._report_missing(rewards)
        self._failed_calls = 0 if answered else self._failed_calls + 1
        self._has_answered = self._has_answered or answered
        if self._failed_calls >= (MAX_FAILED_CALLS if self._has_answered else 1):
            raise LabError(
                f"reward {self.name} gave no reward to any of {len(rewards)}"
                f" completions{' again' * (self._failed_calls > 1)}: {self._last_failure}. It is"
                f" called with {', '.join(f'{name}=' for name in arguments)} each a list,"
                " trainer_state=, log_extra= and log_metric=."
            )
        return rewards

    def _report_missing(self, rewards: list[float]) -> None:
        """Print a line for completions without a reward, once for each reason."""
        missing = sum(map(math.isnan, rewards))
        if missing and self._last_failure not in self._printed_failures:
            self._printed_failures.add(self._last_failure)
            print(
                f"reward {self.name}: no reward for {missing} of {len(rewards)} completions:"
                f" {self._last_failure}",
                file=sys.stderr,
                flush=True,
            )

    def _ask_one_by_one(
        self,
        problems: Sequence[Problem],
        completions: Sequence[str],
        ids: Sequence[list[int]] | None,
        state: TrainerState,
    ) -> list[float] | None:
        """Calls the function for each completion alone, as long as one call may take; the rest go
        without a reward. Returns None when no call was answered.
        """
        deadline = time.monotonic() + self.seconds
        answers = []
        for i, (problem, text) in enumerate(zip(problems, completions, strict=True)):
            arguments = _arguments([problem], [text], None if ids is None else [ids[i]])
            answers.append(self._ask(arguments, state) if time.monotonic() < deadline else None)
        if not any(answers):
            return None
        return [NO_REWARD if answer is None else answer[0] for answer in answers]

    def _ask(self, arguments: dict[str, list[Any]], state: TrainerState) -> list[float] | None:
        """The rewards of one call, or None when it raised or took too long."""
        if self._process is None:
            self._start()
        assert self._process is not None
        try:
            kind, value, metrics = self._process.ask(arguments, state)
        except (EOFError, OSError):
            self._last_failure = self._why_ended()
            return None
        except BaseException:  # Ctrl-C, twice: no process may stay behind.
            self._end()
            raise
        if kind == "unfit":
            raise LabError(
                f"reward {self.name} {value}. It takes a list with one finite number, or None, for"
                " each completion."
            )
        if kind == "raised":
            self._last_failure = value
            return None
        self.metrics = metrics
        if any(map(math.isnan, value)):
            self._last_failure = "it returned None"
        return value

    def _start(self) -> None:
        self._process = RewardProcess(self.name, self.seconds)
        if problem := self._process.import_error():
            self._end()
            raise LabError(f"reward {self.name} {problem}.")

    def _why_ended(self) -> str:
        assert self._process is not None
        position = self._process.last_position()
        code = self._end()
        if code == 1:
            return f"it took longer than the {self.seconds:g} s of reward_seconds{position}"
        return f"its process ended with exit code {code}"

    def _end(self) -> int:
        """Ends the process, if there is one, and returns its exit code."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        return process.close()


def _arguments(
    problems: Sequence[Problem], completions: Sequence[str], ids: Sequence[list[int]] | None
) -> dict[str, list[Any]]:
    """The lists that the function is called with, by argument name."""
    names = dict.fromkeys(name for problem in problems for name in problem.columns)
    columns = {
        name: [p.columns.get(name) for p in problems]
        for name in names
        if name not in RESERVED_COLUMNS
    }
    has_answers = "answer" not in columns and any(p.answer for p in problems)
    answers = {"answer": [p.answer for p in problems]} if has_answers else {}
    conversational = [bool(p.messages) and not p.allow_plain_text for p in problems]
    texts: dict[str, list[Any]] = {
        "prompts": [
            list(p.messages) if is_conversation else p.prompt
            for p, is_conversation in zip(problems, conversational)
        ],
        "completions": [
            [{"role": "assistant", "content": text}] if is_conversation else text
            for text, is_conversation in zip(completions, conversational, strict=True)
        ],
    }
    return texts | columns | answers | ({} if ids is None else {"completion_ids": list(ids)})
