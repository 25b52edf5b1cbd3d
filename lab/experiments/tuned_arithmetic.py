"""The comparison of `lab.experiments.tuned` with SmolLM2-135M on sums of two numbers."""

from pathlib import Path
from typing import Any

from lab.experiments.protocol import Log
from lab.experiments.tuned import run_plan
from lab.experiments.tuned_plan import language_model_plan
from lab.experiments.tuned_report import render_report

__all__ = ["render_report", "run_experiment"]
TASK = "gym:chain_sum:min_terms=2,max_terms=2,min_digits=1,max_digits=2,truth=number"
PLAN = language_model_plan(TASK, test_prompts=(96, 512))


def run_experiment(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Tune every method, train it with fresh seeds in three views, and tabulate (`ExperimentCode`)."""
    return run_plan("tuned_arithmetic", PLAN, out, seeds, device, jobs, say)
