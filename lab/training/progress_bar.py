"""The progress of a run in a terminal: one bar that stays, or a plain line now and then where there
is no terminal.
"""

from typing import TextIO

from tqdm import tqdm

from lab.runs.records import Event, StepRecord
from lab.runs.states import EventKind
from lab.training.state import TrainState

EVAL_LABELS = {
    "gold/accuracy": "gold",
    "gold/reward_accuracy": "gold",
    "eval/loss": "held-out loss",
}  # What a line says of the last evaluation.
MAX_PLAIN_LINES = 20  # Plain lines of a whole run.


class Progress:
    """Shows each record of `lab.training.loop.train` as it comes."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._bar, self._gold = out, None, ""

    def show(self, record: StepRecord | Event, run: TrainState) -> None:
        """Advance the bar to the record's step, or say what happened."""
        if isinstance(record, Event):
            if record.kind == EventKind.NOTED:
                self._say(record.detail["message"])
            elif record.kind not in (EventKind.STARTED, EventKind.FINISHED):
                self._say(
                    f"step {record.step}: {record.kind}"
                    f" {record.detail.get('message') or record.detail or ''}".rstrip()
                )
            return
        if self._bar is None:
            self._bar = tqdm(
                total=run.config.steps,
                initial=record.step,
                file=self._out,
                disable=not self._out.isatty(),
                dynamic_ncols=True,
            )
        self._gold = next(
            (
                f"{word} {record.metrics[name]:.3g}"
                for name, word in EVAL_LABELS.items()
                if name in record.metrics
            ),
            self._gold,
        )
        text = self._line(record)
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(record.step - self._bar.n)
        if self._bar.disable and (
            record.step % max(1, run.config.steps // MAX_PLAIN_LINES) == 0
            or record.step == run.config.steps
        ):
            left = (
                sum(record.phases.values()) / record.step * (run.config.steps - record.step)
                if record.step
                else 0.0
            )
            self._say(f"step {record.step}/{run.config.steps}  {text}  {left:.0f} s left")

    def _line(self, record: StepRecord) -> str:
        metrics = record.metrics
        shown = [
            ("reward", "reward"),
            ("loss", "loss"),
            ("rewards/accuracies", "pair accuracy"),
            ("kl", "KL"),
        ]
        parts = [
            f"{label} {metrics[name]:.3g}"
            for name, label in shown
            if name in metrics and not (name == "loss" and "reward" in metrics)
        ]
        speed = (
            [f"{record.tokens / record.seconds:.0f} tokens/s"]
            if record.seconds and record.tokens
            else []
        )
        return "  ".join(([self._gold] if self._gold else []) + parts + speed)

    def _say(self, text: str) -> None:
        if self._bar is not None and not self._bar.disable:
            self._bar.write(text, file=self._out)
        else:
            print(text, file=self._out, flush=True)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
