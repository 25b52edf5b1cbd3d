"""Training runs from a notebook, in the folder of runs that the dashboard shows."""

import copy
import inspect
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from IPython.display import display

from lab.analysis.diagnose import MetricColumn
from lab.config.json_format import to_dict
from lab.config.methods import make_config, method_of
from lab.course.widgets import bundle
from lab.errors import LabError
from lab.figures.palette import METHOD_NAMES
from lab.figures.run_curves import RunCurves
from lab.figures.training_curves import training_curves
from lab.profiling.out_of_memory import expected_memory
from lab.runs.folder import RunFolder, create
from lab.runs.records import Event, StepRecord, columns_of
from lab.runs.run_names import safe_name
from lab.runs.states import RunState
from lab.storage.paths import runs_root, with_absolute_paths
from lab.tasks.base import Problem, Task
from lab.tasks.registry import task_of
from lab.training.driver import drive
from lab.training.state import TrainState

_FAST_KNOBS = {"steps": 3, "eval_prompts": 8, "batch_size": 16}
"""Upper limits of a run under LAB_FAST: enough to execute every line, too little to learn."""
_REDRAW_SECONDS = 1.0


def is_fast() -> bool:
    """Return whether the environment variable LAB_FAST is set: a test that only executes every
    cell.
    """
    return bool(os.environ.get("LAB_FAST"))


def runs_folder() -> Path:
    """Return the folder of runs: LAB_RUNS if it is set, else `runs` in the nearest folder above
    that has an app.py, so that the dashboard shows the runs of a notebook.
    """
    here = Path.cwd()
    home = next((folder for folder in (here, *here.parents) if (folder / "app.py").is_file()), here)
    return runs_root() if "LAB_RUNS" in os.environ else home / "runs"


def train(
    method: str, name: str = "", scored_by: Callable[[str, str], float] | None = None, **knobs: Any
) -> RunFolder:
    """Train, draw the curves meanwhile, and return the folder of the run. A finished run with the
    same name and config is reused.

    `name` is by default made of the method and the knobs, such as course-dpo-beta0.5.
    `scored_by(completion, answer)` is a reward by the learner, for a method that samples; its
    source is stored in reward.py in the folder. Raises `LabError` if a run of another config has
    the name.
    """
    name = name or "-".join(
        [
            "course",
            method,
            *(f"{knob.replace('_', '')}{_value(value)}" for knob, value in sorted(knobs.items())),
        ]
    )
    config = make_config(method, _shortened(method, knobs) if is_fast() else knobs)
    path = runs_folder() / safe_name(name)
    folder = RunFolder(path) if path.exists() else create(path, config)
    if to_dict(folder.config) != to_dict(with_absolute_paths(config)):
        raise LabError(
            f"{path} is a run of another config. Delete that folder, or give this run another name:"
            f" train({method!r}, name=…)."
        )
    task = None if scored_by is None else _with_reward(folder, scored_by)
    output = display({"text/plain": f"{name} …"}, raw=True, display_id=True)
    if folder.state != RunState.FINISHED:
        drive(folder, report=Live(folder, output).draw, task=task, expected_memory=expected_memory)
    sentence = f"{name}: {METHOD_NAMES[method]}, {config.steps} updates. {_last_measure(folder)}"
    if output is None:
        print(sentence)
    else:
        output.update({"text/plain": sentence}, raw=True)
    return folder


def _with_reward(folder: RunFolder, reward: Callable[[str, str], float]) -> Task:
    """Return the task of the run with `reward` in place of the rule in its config; the gold
    accuracy does not change.
    """
    source, path = inspect.getsource(reward), folder.path / "reward.py"
    if not path.is_file():
        path.write_text(source, "utf-8")
    if path.read_text("utf-8") != source:
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
    config = make_config(method, dict(knobs))
    short = {
        knob: min(value, getattr(config, knob))
        for knob, value in _FAST_KNOBS.items()
        if hasattr(config, knob)
    }
    return {**knobs, **short} | (
        {"group_size": min(config.group_size, 8)} if hasattr(config, "group_size") else {}
    )


def _value(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else Path(str(value)).name
    return "".join(c if c.isalnum() or c in ".-" else "-" for c in text)


class Live:
    """Draws a run while it trains, at most once in `_REDRAW_SECONDS` seconds. `output` is the
    display to update, or None outside of a notebook.
    """

    def __init__(self, folder: RunFolder, output: Any) -> None:
        self._folder, self._output, self._last_draw = folder, output, time.monotonic()

    def draw(self, record: StepRecord | Event, run: TrainState) -> None:
        """Redraw if enough time has passed."""
        if (
            self._output is not None
            and time.monotonic() - self._last_draw > _REDRAW_SECONDS
            and run.step
        ):
            self._output.update(
                bundle(
                    curves({self._folder.name: self._folder}),
                    f"update {run.step} of {run.config.steps}",
                ),
                raw=True,
            )
            self._last_draw = time.monotonic()


def _last_measure(folder: RunFolder) -> str:
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
        return "There were no held-out prompts to measure on."
    words, values = measures[name], columns[name][1]
    return f"{words} on held-out prompts {values[0]:.2f} → {values[-1]:.2f}."


def curves(
    folders: Mapping[str, RunFolder], panels: Sequence[str] | None = None, columns: int = 3
) -> go.Figure:
    """Return `lab.figures.training_curves.training_curves` of run folders; the keys label them."""
    orders: dict[str, int] = {}
    runs = []
    for label, folder in folders.items():
        method, rows = method_of(folder.config), folder.history()
        orders[method] = orders.get(method, -1) + 1
        runs.append(
            RunCurves(
                folder.name,
                method,
                label,
                _without_ties(method, columns_of(rows)),
                [row for row in rows if row["type"] == "event"],
                orders[method],
                folder.config.steps,
            )
        )
    return training_curves(runs, panels, columns=columns)


def _without_ties(method: str, columns: Mapping[str, MetricColumn]) -> dict[str, MetricColumn]:
    """Return the columns without the pair accuracy of the first update of DPO or IPO. The policy is
    still the reference there, so both rewards of a pair are 0 and rounding decides which is higher.
    """
    columns, name = dict(columns), "rewards/accuracies"
    if method in ("dpo", "ipo") and name in columns:
        steps, values = columns[name]
        columns[name] = steps[1:], values[1:]
    return columns
