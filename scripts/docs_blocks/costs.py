"""Blocks on memory: how far the estimates of `lab estimate` lie from what was measured."""

from docs_blocks.markdown import markdown_table, signed, with_source
from lab.analysis.recorded_results import load_result

ARMS = {
    "dpo": "DPO",
    "kto": "KTO",
    "grpo": "GRPO",
    "ppo.shared": "PPO, one shared base",
    "ppo.separate": "PPO, four sets",
}


def estimates(record: str) -> str:
    """Return the estimated peak over the measured one, by size and method."""
    table = load_result(record)
    errors: dict[str, dict[str, float]] = {}
    for row in table["rows"]:
        errors.setdefault(row["size"], {})[row["arm"]] = row["error"]
    rows = [
        [size, *(f"{signed(100 * error[arm], 0)} %" for arm in ARMS)]
        for size, error in errors.items()
    ]
    heads = ["estimate − measurement", *ARMS.values()]
    return with_source(markdown_table(heads, rows), table, record)


BLOCKS = {
    "estimates-cpu": lambda: estimates("resources"),
    "estimates-h100": lambda: estimates("resources-h100"),
}
