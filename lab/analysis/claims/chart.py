"""Claims of the article's chart of memory and training time."""

from lab.analysis.claims.claim import Claim, Measurement, Verdict
from lab.analysis.claims.records import Records
from lab.analysis.claims.selection import SECTION
from lab.analysis.recorded_results import relative_cost
from lab.config.methods import METHODS

CHART_TOLERANCE = 5.0
"""A bar of the article's chart agrees with a measurement that is at most this many points away."""
ARTICLE_MEMORY = {"dpo": 40.0, "grpo": 60.0}
ARTICLE_TIME = {"dpo": 30.0, "grpo": 60.0}


def _memory_percentages(records: Records) -> dict[str, float]:
    """Peak memory of 1.2 billion weights in percent of RLHF with four sets of weights."""
    full = records.peak_gib("ppo.separate")
    return {name: 100 * records.peak_gib(name) / full for name in ARTICLE_MEMORY}


def memory_order(records: Records) -> Measurement:
    """Order the methods by peak memory."""
    found = _memory_percentages(records)
    return Measurement(
        Verdict.HOLDS_HERE if found["dpo"] < found["grpo"] < 100 else Verdict.FAILS_HERE,
        f"Peak memory of an update with 1.2 billion weights, RLHF with four sets of weights = 100 %: DPO"
        f" {found['dpo']:.0f} %, GRPO {found['grpo']:.0f} %.",
    )


def _bar(name: str, article: float, found: float, what: str) -> Measurement:
    near = abs(found - article) <= CHART_TOLERANCE
    return Measurement(
        Verdict.HOLDS_HERE if near else Verdict.FAILS_HERE,
        f"{what}, in percent of RLHF: {METHODS[name].title} {found:.0f} %; the article says"
        f" {article:.0f} %.",
    )


def _memory_bar(records: Records, name: str) -> Measurement:
    found = _memory_percentages(records)[name]
    return _bar(name, ARTICLE_MEMORY[name], found, "Peak memory with 1.2 billion weights")


def _time_bar(records: Records, name: str) -> Measurement:
    costs = relative_cost(dict(records["chain-tokens"]), "seconds", {name: name}, "ppo")
    return _bar(
        name,
        ARTICLE_TIME[name],
        costs[name]["mean"],
        f"Training time at equal tokens ({records.times_from})",
    )


def dpo_memory(records: Records) -> Measurement:
    """The chart's bar for the memory of DPO."""
    return _memory_bar(records, "dpo")


def grpo_memory(records: Records) -> Measurement:
    """The chart's bar for the memory of GRPO."""
    return _memory_bar(records, "grpo")


def dpo_time(records: Records) -> Measurement:
    """The chart's bar for the time of DPO."""
    return _time_bar(records, "dpo")


def grpo_time(records: Records) -> Measurement:
    """The chart's bar for the time of GRPO."""
    return _time_bar(records, "grpo")


CLAIMS = (
    Claim(
        "memory-order",
        SECTION,
        "DPO lightest (no RM/Critic), GRPO medium (no Critic but online gen), RLHF heaviest.",
        memory_order,
        ("resources-h100",),
        ("ppo", "dpo", "grpo"),
    ),
    Claim(
        "memory-dpo",
        SECTION,
        "GPU memory: DPO 40 % of RLHF.",
        dpo_memory,
        ("resources-h100",),
        ("dpo",),
    ),
    Claim(
        "memory-grpo",
        SECTION,
        "GPU memory: GRPO 60 % of RLHF.",
        grpo_memory,
        ("resources-h100",),
        ("grpo",),
    ),
    Claim(
        "time-dpo",
        SECTION,
        "Training time: DPO 30 % of RLHF.",
        dpo_time,
        ("chain-tokens",),
        ("dpo",),
    ),
    Claim(
        "time-grpo",
        SECTION,
        "Training time: GRPO 60 % of RLHF.",
        grpo_time,
        ("chain-tokens",),
        ("grpo",),
    ),
)
