"""The best evaluation of a run: keeps its adapter, or its whole model, and says when to stop early."""

import json
import math
from contextlib import suppress
from pathlib import Path

from lab.config.adapter_settings import trained_folder
from lab.config.run_config import RunConfig
from lab.errors import LabError, unknown
from lab.models import adapter_files
from lab.runs.folder import RunFolder
from lab.runs.records import StepRecord
from lab.storage.checksums import CHECKSUM_FILE, write_with_checksums
from lab.storage.jsonl import replace_file
from lab.training.state import TrainState
from lab.training.trained_model import save_adapter

BEST_FILE = "best.json"
DEFAULT_METRICS = ("gold/accuracy", "gold/reward_accuracy", "eval/loss")
"""The first of these that an evaluation has says which is best, unless `best_metric` does."""
BEST_WHEN_LOW = ("loss", "perplexity", "kl", "repetition", "empty")
"""Last parts of names of metrics that should fall."""


def is_better(metric: str, value: float, best: float | None) -> bool:
    """Return whether `value` improves on `best`; NaN never does, and a tie is no improvement."""
    if math.isnan(value):
        return False
    if best is None:
        return True
    return value < best if metric.rpartition("/")[2] in BEST_WHEN_LOW else value > best


def best_folder(trained: Path) -> Path:
    """Return where the best weights of a run are kept while it trains, beside its folder `trained`."""
    return trained.with_name(f"{trained.name}-best")


class BestAdapter:
    """The best evaluation of the run in `folder` so far, which `best.json` holds for a resumed run.

    `step` and `value` are those of the best evaluation; `since` counts the evaluations after it, anew
    when a run resumes.
    """

    def __init__(self, folder: RunFolder, config: RunConfig) -> None:
        self._folder, self._config = folder, config
        self._saved = folder.path / trained_folder(config)
        self._best, self._all = best_folder(self._saved), folder.path / f"{self._saved.name}s"
        self.metric, self.step, self.since = config.best_metric, 0, 0
        self.value: float | None = None
        with suppress(OSError, ValueError, KeyError, TypeError):
            best = json.loads((folder.path / BEST_FILE).read_text("utf-8"))
            self.metric, self.step, self.value = best["metric"], best["step"], best["value"]

    @property
    def is_needed(self) -> bool:
        """Whether a setting asks for the best evaluation."""
        return self._config.keep != "last" or bool(self._config.patience)

    @property
    def is_exhausted(self) -> bool:
        """Whether `patience` evaluations in a row were no better than the best."""
        return 0 < self._config.patience <= self.since

    def see(self, record: StepRecord, run: TrainState) -> None:
        """Take note of a record; keep the adapter of an evaluation as `keep` says.

        Raises `LabError` at the first evaluation that does not have the metric.
        """
        if not self.is_needed or not (names := _held_out(record.metrics)):
            return
        if record.step == 0 and self.metric and self.metric not in names:
            raise unknown("best_metric", self.metric, names)
        self.metric = self.metric or next((m for m in DEFAULT_METRICS if m in names), "")
        if not self.metric:
            raise LabError(
                "keep and patience need a metric, and the evaluations of this run have none of"
                f" {', '.join(DEFAULT_METRICS)}. Name one: --best-metric {' or '.join(names)}"
            )
        if self._config.keep == "all":
            save_adapter(run, self._all / f"step-{record.step}")
        value = record.metrics.get(self.metric, math.nan)
        if not is_better(self.metric, value, self.value):
            self.since += record.step > self.step  # A resumed run may repeat an evaluation.
            return
        self.step, self.value, self.since = record.step, value, 0
        if self._config.keep == "best":
            save_adapter(run, self._best)
        best = {"metric": self.metric, "step": self.step, "value": self.value}
        replace_file(self._folder.path / BEST_FILE, (json.dumps(best) + "\n").encode())

    def finish(self, run: TrainState) -> str:
        """Make the best adapter that of the run, if `keep` is best; return a note on the best
        evaluation, empty where none is needed.
        """
        if not self.is_needed or self.value is None:
            return ""
        note = f"{self.metric} was best at update {self.step}: {self.value:.4g}."
        if self.is_exhausted and run.step < run.config.steps:
            note += f" {self.since} evaluations after it were no better, so the run stopped early."
        if self._config.keep == "best" and self._best.is_dir():
            adapter_files.require_trained(self._best)
            files = {
                p.name: p.read_bytes() for p in self._best.iterdir() if p.name != CHECKSUM_FILE
            }
            write_with_checksums(self._saved, files)
            note += f" {self._saved.name}/ is that of this update."
        return note


def _held_out(metrics: dict[str, float]) -> list[str]:
    return [name for name in metrics if name.startswith(("gold/", "eval/", "agreement/"))]
