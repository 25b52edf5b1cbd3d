"""Where prompts, gold answers and rewards come from."""

from lab.tasks.chain import ChainTask
from lab.tasks.problem import Problem, Score, Task

TASKS: dict[str, Task] = {"chain": ChainTask()}

__all__ = ["TASKS", "Problem", "Score", "Task"]
