"""The progress of a run in a terminal: one bar, or a plain line now and then where the output is no
terminal.
"""

from typing import NoReturn, TextIO

from tqdm import tqdm

from lab.runs.records import Event, StepRecord
from lab.runs.states import EventKind
from lab.training.state import TrainState

EVAL_LABELS = {
    "gold/accuracy": "gold",
    "gold/reward_accuracy": "gold",
    "eval/loss": "held-out loss",
}
"""The labels of the metrics of the last evaluation."""
MAX_PLAIN_LINES = 20  # Plain lines of a whole run.
SHOWN_METRICS = {
    "reward": "reward",
    "loss": "loss",
    "rewards/accuracies": "pair accuracy",
    "kl": "KL",
}
"""The labels of the metrics of an update."""


class Progress:
    """Shows the records of `lab.training.loop.train` one by one."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._evaluation = out, ""
        self._bar: tqdm[NoReturn] | None = None

    def show(self, record: StepRecord | Event, run: TrainState) -> None:
        """Advance the bar to the record's step, or print the event."""
        if isinstance(record, Event):
            if record.kind == EventKind.NOTED:
                self._print(record.detail["message"])
            elif record.kind not in (EventKind.STARTED, EventKind.FINISHED):
                self._print(
                    f"step {record.step}: {record.kind}"
                    f" {record.detail.get('message') or record.detail or ''}".rstrip()
                )
            return
        bar = self._bar = self._bar or self._new_bar(record.step, run.config.steps)
        self._evaluation = next(
            (
                f"{label} {record.metrics[name]:.3g}"
                for name, label in EVAL_LABELS.items()
                if name in record.metrics
            ),
            self._evaluation,
        )
        text = self._line(record)
        bar.set_postfix_str(text, refresh=False)
        bar.update(record.step - bar.n)
        if bar.disable and (
            record.step % max(1, run.config.steps // MAX_PLAIN_LINES) == 0
            or record.step == run.config.steps
        ):
            line = f"step {record.step}/{run.config.steps}  {text}"
            if record.step:
                seconds = sum(record.phases.values()) / record.step
                line += f"  {seconds * (run.config.steps - record.step):.0f} s left"
            self._print(line)

    def _new_bar(self, step: int, steps: int) -> "tqdm[NoReturn]":
        return tqdm(
            total=steps,
            initial=step,
            file=self._out,
            disable=not self._out.isatty(),
            dynamic_ncols=True,
        )

    def _line(self, record: StepRecord) -> str:
        """The last evaluation, the metrics of an update and the speed, in one line."""
        metrics = record.metrics
        texts = [
            f"{label} {metrics[name]:.3g}"
            for name, label in SHOWN_METRICS.items()
            if name in metrics and not (name == "loss" and "reward" in metrics)
        ]
        speed = (
            [f"{record.tokens / record.seconds:.0f} tokens/s"]
            if record.seconds and record.tokens
            else []
        )
        return "  ".join(([self._evaluation] if self._evaluation else []) + texts + speed)

    def _print(self, text: str) -> None:
        if self._bar is not None and not self._bar.disable:
            self._bar.write(text, file=self._out)
        else:
            print(text, file=self._out, flush=True)

    def close(self) -> None:
        """Close the bar and leave it on the screen."""
        if self._bar is not None:
            self._bar.close()
