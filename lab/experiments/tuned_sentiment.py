"""The comparison of `lab.experiments.tuned` with SmolLM2-135M on film reviews."""

from pathlib import Path
from typing import Any

from lab.experiments.protocol import Log
from lab.experiments.tuned import run_plan
from lab.experiments.tuned_plan import language_model_plan
from lab.experiments.tuned_report import render_report

__all__ = ["render_report", "run_experiment"]
PLAN = language_model_plan("sentiment")


def run_experiment(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Tune every method, train it with fresh seeds in three views, and tabulate (`ExperimentCode`)."""
    return run_plan("tuned_sentiment", PLAN, out, seeds, device, jobs, say)
