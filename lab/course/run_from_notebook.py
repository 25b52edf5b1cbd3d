"""Training runs from a notebook, in the folder of runs that the dashboard shows."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from IPython.display import display

from lab.analysis.diagnose import MetricColumn
from lab.config.hooks import REWARD
from lab.config.json_format import to_dict
from lab.config.methods import METHODS, make_config, method_of
from lab.config.run_config import RunConfig
from lab.course.predictions import require_predictions
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
from lab.runs.trash import discard
from lab.storage.paths import runs_root, with_absolute_paths
from lab.tasks.registry import check_task
from lab.training.driver import drive
from lab.training.own_functions import OwnFunctions, function_name, noted_functions, require_hooks
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

    A knob that is a function replaces the lab's in the training loop: `train("dpo", loss=my_dpo_loss)`,
    `train("grpo", advantages=…, reduction=…, reward=…)`. Each takes and returns what its exercise
    says. `scored_by` is another word for `reward`. Such a run always trains anew, since the function
    may have changed; the run of the same name before it goes to the trash. An error of a run shows no
    frames of the lab: they are in the run's log.txt.

    `name` is by default made of the method, the functions and the knobs, such as
    course-dpo-my_dpo_loss-beta0.5. Raises `LabError` if a run of another kind has the name, and
    `PredictFirst` while a question of the notebook has no prediction yet.
    """
    require_predictions()
    if scored_by is not None:
        knobs["reward"] = scored_by
    own = {knob: value for knob, value in knobs.items() if _is_own(method, knob, value)}
    knobs = {knob: value for knob, value in knobs.items() if knob not in own}
    config = make_config(method, _shortened(method, knobs) if is_fast() else knobs)
    require_hooks(config, own)
    _require_task(config, knobs)
    name = safe_name(name or _name_of(method, own, knobs))
    folder = _folder(name, config, own, f"train({method!r}, name=…)")
    output = display({"text/plain": f"{name} …"}, raw=True, display_id=True)
    if folder.state != RunState.FINISHED:
        try:
            drive(
                folder, report=Live(folder, output).draw, own=own, expected_memory=expected_memory
            )
        except LabError as error:
            raise error.with_traceback(None) from error.__cause__
    with_own = f" with {label_of(folder)}" if own and scored_by is None else ""
    sentence = (
        f"{name}: {METHOD_NAMES[method]}{with_own}, {config.steps} updates. {_last_measure(folder)}"
    )
    if output is None:
        print(sentence)
    else:
        output.update({"text/plain": sentence}, raw=True)
    return folder


def _is_own(method: str, knob: str, value: Any) -> bool:
    """Whether a knob stands for a function of the learner: it is one, or it has the place of one and
    is no setting.
    """
    hooks = {hook.name for hook in METHODS[method].hooks} if method in METHODS else ()
    is_setting = isinstance(value, str) and knob == REWARD.name
    return callable(value) or (knob in hooks and not is_setting)


def _require_task(config: RunConfig, knobs: Mapping[str, Any]) -> None:
    try:
        check_task(config)
    except LabError as error:
        name = knobs.get(REWARD.name, "")
        if not name.isidentifier() or repr(name) not in str(error):
            raise
        raise LabError(
            f"{error} A function of your own stands without quotes: reward={name}."
        ) from None


def _name_of(method: str, own: OwnFunctions, knobs: Mapping[str, Any]) -> str:
    functions = [function_name(function) for _, function in sorted(own.items())]
    values = [f"{knob.replace('_', '')}{_value(value)}" for knob, value in sorted(knobs.items())]
    return "-".join(["course", method, *functions, *values])


def _folder(name: str, config: RunConfig, own: OwnFunctions, call: str) -> RunFolder:
    """Return the folder of the run: a new one, or the one that has the name, if it fits."""
    path = runs_folder() / name
    if not path.exists():
        return create(path, config)
    folder = RunFolder(path)
    same = to_dict(folder.config) == to_dict(with_absolute_paths(config))
    if bool(own) != bool(noted_functions(folder)) or not own and not same:
        raise LabError(
            f"{path} is a run of another config. Delete that folder, or give this run another name:"
            f" {call}."
        )
    if not own:
        return folder
    discard(path.parent, name)
    return create(path, config)


def label_of(folder: RunFolder) -> str:
    """Return the name of a run in a figure: those of the learner's functions that train it, or that
    of its folder.
    """
    return ", ".join(noted_functions(folder).values()) or folder.name


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
                    curves({label_of(self._folder): self._folder}),
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
    folders: Mapping[str, RunFolder] | Sequence[RunFolder] | RunFolder,
    panels: Sequence[str] | None = None,
    columns: int = 3,
) -> go.Figure:
    """Return `lab.figures.training_curves.training_curves` of one run folder or several. The keys label
    them; without keys `label_of` does.
    """
    if isinstance(folders, RunFolder):
        folders = [folders]
    if not isinstance(folders, Mapping):
        labels = [label_of(folder) for folder in folders]
        folders = {
            label if labels.count(label) == 1 else folder.name: folder
            for label, folder in zip(labels, folders)
        }
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
