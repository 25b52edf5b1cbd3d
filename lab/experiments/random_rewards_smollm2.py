"""Random rewards with an active clip on arithmetic with SmolLM2-135M: the code of
`lab.experiments.random_rewards` with another plan.
"""

from pathlib import Path
from typing import Any

from lab.experiments.protocol import Log
from lab.experiments.random_rewards import RandomPlan, render_report, run_plan

__all__ = ["render_report", "run_experiment"]

ARITHMETIC = {
    "model": "smollm2-135m",
    "task": "gym:chain_sum:min_terms=2,max_terms=2,min_digits=1,max_digits=2,truth=number",
    "group_size": 8,
    "batch_size": 128,
    "learning_rate": 3e-4,
}
"""Sums of two numbers with one or two digits, as in the experiment arithmetic."""
PLAN = RandomPlan(
    settings=ARITHMETIC | {"max_completion_tokens": 32}, updates=60, bin=6, test_prompts=(256, 768)
)


def run_experiment(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Train every arm on sums (`ExperimentCode`)."""
    return run_plan("random_rewards_smollm2", PLAN, out, seeds, device, jobs, say)
