"""Real runs from a notebook, in the folder whose runs the dashboard shows."""

import copy
import inspect
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from IPython.display import display

from lab.config.json_format import to_dict
from lab.config.methods import make_config, method_of
from lab.course.widgets import bundle
from lab.errors import LabError
from lab.figures.palette import METHOD_NAMES
from lab.figures.training_curves import RunCurves, training_curves
from lab.profiling.out_of_memory import expected_memory
from lab.runs.folder import RunFolder, create, safe_name
from lab.runs.metrics import Event, StepRecord, columns_of
from lab.storage.paths import anchored, runs_root
from lab.tasks.registry import Problem, Task, task_of
from lab.training.driver import drive
from lab.training.state import TrainState

FAST = {"steps": 3, "eval_prompts": 8, "batch_size": 16}
"""What LAB_FAST makes of a run: enough to pass through every line, too little to learn anything."""
PAUSE = 1.0  # Seconds between two drawings of a running run.


def fast() -> bool:
    """Whether this is a test that only wants every cell to run: the environment variable LAB_FAST
    is set.
    """
    return bool(os.environ.get("LAB_FAST"))


def runs_folder() -> Path:
    """Where runs go: LAB_RUNS if it is set; else `runs` of the nearest folder above that has an
    app.py, so that a notebook and the dashboard meet.
    """
    here = Path.cwd()
    home = next((folder for folder in (here, *here.parents) if (folder / "app.py").is_file()), here)
    return runs_root() if "LAB_RUNS" in os.environ else home / "runs"


def train(
    method: str, name: str = "", scored_by: Callable[[str, str], float] | None = None, **knobs: Any
) -> RunFolder:
    """Train while its curves are drawn, and return the run's folder. A finished run of the same
    name and config is taken as it is.

    `name` is by default made of the method and the knobs, such as course-dpo-beta0.5.
    `scored_by(completion, answer)` is a reward of the learner's own, for a method that samples; its
    source is kept in the folder's reward.py. Raises `LabError` if another run has that name.
    """
    name = name or "-".join(
        [
            "course",
            method,
            *(f"{knob.replace('_', '')}{_value(value)}" for knob, value in sorted(knobs.items())),
        ]
    )
    config = make_config(method, _shortened(method, knobs) if fast() else knobs)
    path = runs_folder() / safe_name(name)
    folder = RunFolder(path) if path.exists() else create(path, config)
    if to_dict(folder.config) != to_dict(anchored(config)):
        raise LabError(
            f"{path} is a run of another config. Delete that folder, or give this run another name:"
            f" train({method!r}, name=…)."
        )
    task = None if scored_by is None else _with_reward(folder, scored_by)
    shown = display({"text/plain": f"{name} …"}, raw=True, display_id=True)
    if folder.state != "finished":
        drive(folder, report=Live(folder, shown).draw, task=task, expected_memory=expected_memory)
    sentence = f"{name}: {METHOD_NAMES[method]}, {config.steps} updates. {_last(folder)}"
    if shown is None:
        print(sentence)
    else:
        shown.update({"text/plain": sentence}, raw=True)
    return folder


def _with_reward(folder: RunFolder, reward: Callable[[str, str], float]) -> Task:
    """The run's task with `reward` in place of the rule that its config names; gold accuracy stays
    what it is.
    """
    source, kept = inspect.getsource(reward), folder.path / "reward.py"
    if not kept.is_file():
        kept.write_text(source, "utf-8")
    if kept.read_text("utf-8") != source:
        raise LabError(
            f"{folder.path} was trained with another reward, which is in its reward.py. Delete that"
            " folder, or give this run another name."
        )

    def score(problems: list[Problem], completions: list[str], *, seed: int) -> list[float]:
        return [
            float(reward(text, problem.answer))
            for problem, text in zip(problems, completions, strict=True)
        ]

    task = copy.copy(task_of(folder.config))
    task.rewards = {**task.rewards, getattr(folder.config, "reward", "answer"): score}
    return task


def _shortened(method: str, knobs: Mapping[str, Any]) -> dict[str, Any]:
    own = make_config(method, dict(knobs))
    short = {
        knob: min(value, getattr(own, knob)) for knob, value in FAST.items() if hasattr(own, knob)
    }
    return {**knobs, **short} | (
        {"group_size": min(own.group_size, 8)} if hasattr(own, "group_size") else {}
    )


def _value(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else Path(str(value)).name
    return "".join(c if c.isalnum() or c in ".-" else "-" for c in text)


class Live:
    """Draws a run while it trains, at most once in `PAUSE` seconds, in the output that `shown`
    updates; outside of a notebook that is None.
    """

    def __init__(self, folder: RunFolder, shown: Any) -> None:
        self._folder, self._shown, self._drawn = folder, shown, time.monotonic()

    def draw(self, record: StepRecord | Event, run: TrainState) -> None:
        """Redraw if it is time."""
        if self._shown is not None and time.monotonic() - self._drawn > PAUSE and run.step:
            self._shown.update(
                bundle(
                    curves({self._folder.name: self._folder}),
                    f"update {run.step} of {run.config.steps}",
                ),
                raw=True,
            )
            self._drawn = time.monotonic()


def _last(folder: RunFolder) -> str:
    columns = columns_of(folder.history())
    measures = {
        "gold/accuracy": "Gold accuracy",
        "gold/reward_accuracy": "Ranking accuracy",
        "gold/reward": "Gold reward",
        "eval/loss": "Loss",
        "gold/mean_length": "Length",
    }
    name = next((name for name in measures if name in columns), "")
    if not name:
        return "Nothing was held out to measure on."
    words, values = measures[name], columns[name][1]
    return f"{words} on held-out prompts {values[0]:.2f} → {values[-1]:.2f}."


def curves(
    folders: Mapping[str, RunFolder], panels: Sequence[str] | None = None, columns: int = 3
) -> go.Figure:
    """`lab.figures.training_curves.training_curves` of run folders; the keys label them."""
    seen: dict[str, int] = {}
    shown = []
    for label, folder in folders.items():
        method, rows = method_of(folder.config), folder.history()
        seen[method] = seen.get(method, -1) + 1
        events = [row for row in rows if row["type"] == "event"]
        shown.append(
            RunCurves(
                folder.name,
                method,
                label,
                columns_of(rows),
                events,
                seen[method],
                folder.config.steps,
            )
        )
    return training_curves(shown, panels, columns=columns)
