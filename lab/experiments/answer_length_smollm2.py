"""The length of right and wrong answers on arithmetic with SmolLM2-135M, whose free text may ramble: the
code of `lab.experiments.answer_length` with another plan.
"""

from pathlib import Path
from typing import Any

from lab.experiments.answer_length import LengthPlan, render_report, run_plan
from lab.experiments.protocol import Log
from lab.experiments.random_rewards_smollm2 import ARITHMETIC

__all__ = ["render_report", "run_experiment"]

PLAN = LengthPlan(
    operations=None, settings=ARITHMETIC, max_tokens=128, updates=120, bin=10, middle=60
)


def run_experiment(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Train GRPO on sums with every reduction and seed (`ExperimentCode`)."""
    return run_plan("answer_length_smollm2", PLAN, out, seeds, device, jobs, say)
