"""Predictions: asked before a run, made by the learner, and then set beside the outcome.

While a prediction is asked and not made, neither `outcome` nor `train` shows anything, and
`lab.course.waiting` keeps back the later cells that need them. The setting
LAB_PREDICTIONS=first makes every prediction its first option, for an execution without a reader.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ipywidgets
from IPython.display import display

from lab.course.outcomes import Answer
from lab.course.progress import record_progress, recorded_prediction
from lab.course.waiting import PredictFirst, watch_cells
from lab.errors import LabError

WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
SETTING = "LAB_PREDICTIONS"


@dataclass
class Prediction:
    """A question that is asked before a run.

    `value` is the option that was picked, or None. `is_set` says that LAB_PREDICTIONS picked it. `close`
    ends the choice, once the outcome is known.
    """

    question: str
    options: tuple[str, ...]
    value: str | None = None
    is_set: bool = False
    close: Callable[[], None] = lambda: None


_asked: dict[str, Prediction] = {}
_grades: dict[str, bool | None] = {}
"""Of each question whose outcome is known: whether the first prediction was right, or None where the
numbers did not decide.
"""


def predict(question: str, options: Sequence[str]) -> Prediction:
    """Ask a question before a run, with one button for each option. Pass the result to `outcome` after
    the run.

    A prediction that was made before, in this kernel or by the records of progress.jsonl, is picked
    already. Raises `LabError` for another value of LAB_PREDICTIONS than "first".
    """
    prediction = Prediction(question, tuple(options))
    before = _asked.get(question)
    _asked[question] = prediction
    text = f"{question}  [{' | '.join(options)}]"
    if (setting := os.environ.get(SETTING, "")) not in ("", "first"):
        raise LabError(f"{SETTING} is {setting!r}, but takes 'first', or nothing to be asked.")
    if setting:
        prediction.value, prediction.is_set = prediction.options[0], True
        display({"text/plain": text}, raw=True)
        return prediction
    earlier = before.value if before is not None else recorded_prediction(question)
    prediction.value = earlier if earlier in prediction.options else None
    watch_cells()
    box = _buttons(prediction)
    display({WIDGET_MIME: box._repr_mimebundle_()[WIDGET_MIME], "text/plain": text}, raw=True)
    return prediction


def _buttons(prediction: Prediction) -> ipywidgets.VBox:
    buttons = ipywidgets.ToggleButtons(
        options=list(prediction.options), value=prediction.value, style={"button_width": "auto"}
    )

    def pick(change: dict[str, Any]) -> None:
        prediction.value = change["new"]
        record_progress({"prediction": prediction.question, "value": prediction.value})

    def close() -> None:
        buttons.disabled = True

    prediction.close = close
    if prediction.question in _grades:
        close()
    buttons.observe(pick, "value")
    return ipywidgets.VBox([ipywidgets.HTML(f"<b>{prediction.question}</b>"), buttons])


def require_predictions() -> None:
    """Raise `PredictFirst` when a question is asked that has no prediction yet."""
    waiting = [f'"{one.question}"' for one in _asked.values() if one.value is None]
    if waiting:
        more = f" and {len(waiting) - 2} more" if len(waiting) > 2 else ""
        raise PredictFirst(
            f"Predict first. Pick an answer above to {', '.join(waiting[:2])}{more}. Then run this cell"
            " again."
        )


def outcome(
    prediction: Prediction, answer: str | Answer, text: str, noise: float | None = None
) -> None:
    """Print the prediction beside the result, and how many predictions of this notebook were right.

    `answer` is the right option, computed from the run; `text` gives the numbers behind it. A text
    answer is exact or was judged by an interval, and is always graded. An `Answer` of
    `lab.course.outcomes` is graded only if it is apart by more than `noise`, which it requires. Only
    the first outcome of a question counts. Raises `PredictFirst` before the prediction is made, so
    that the cell shows nothing.
    """
    require_predictions()
    option, apart = (answer, None) if isinstance(answer, str) else answer
    if option not in prediction.options or (apart is not None and noise is None):
        raise LabError(
            f"answer is {answer!r} with noise {noise}. It takes one of {', '.join(prediction.options)};"
            " an answer from numbers takes their noise too."
        )
    if prediction.value is None:
        raise PredictFirst(f"Predict first: {prediction.question}")
    is_close = apart is not None and noise is not None and not apart > noise
    right = None if is_close else prediction.value == option
    verdict = {None: "Not graded.", True: "Right.", False: "The result is different."}[right]
    who = "The first option" if prediction.is_set else "You said"
    print(
        f"{prediction.question}\n{who}: {prediction.value}. Measured: {option}. {verdict} {text}".rstrip()
    )
    if is_close:
        print(f"Too close to grade: apart by {apart:.2g}, and the noise is {noise:.2g}.")
    if prediction.is_set:
        return
    if prediction.question not in _grades:
        row = {"outcome": prediction.question, "value": prediction.value, "answer": option}
        record_progress(row | {"graded": not is_close})
    _grades.setdefault(prediction.question, right)
    prediction.close()
    print(score())


def score() -> str:
    """Return how many predictions of this notebook were right, of those that were graded."""
    graded = [right for right in _grades.values() if right is not None]
    close = len(_grades) - len(graded)
    return f"Your predictions in this notebook: {sum(graded)} of {len(graded)} right" + (
        f", {close} too close to grade." if close else "."
    )
