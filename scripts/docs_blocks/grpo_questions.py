"""Blocks on three questions about GRPO: sharpening, the length of answers, and random rewards."""

from docs_blocks.markdown import with_source
from lab.analysis.answer_length import KINDS, length_sentence
from lab.analysis.pass_at_k import CURVES, curve_sentence
from lab.analysis.random_rewards import REWARDS, reward_sentence
from lab.analysis.recorded_results import is_recorded, load_result
from lab.experiments.answer_length_report import comparison_table as length_comparisons
from lab.experiments.answer_length_report import length_table
from lab.experiments.pass_at_k_report import curve_table, diversity_table
from lab.experiments.random_rewards import arm_table, comparison_table


def pass_curves(name: str) -> str:
    """Return pass@k of all policies on one set of chains, for both counts."""
    table = load_result("pass_at_k")
    parts = [
        f"{curve_sentence(table, name, curve)}\n\n{curve_table(table, name, curve)}"
        for curve in CURVES
    ]
    return with_source("\n".join(parts), table, "pass_at_k")


def diversity() -> str:
    """Return diversity, entropy, KL and length of all policies on default chains."""
    table = load_result("pass_at_k")
    return with_source(diversity_table(table, "default"), table, "pass_at_k")


def lengths(record: str) -> str:
    """Return lengths at the end of training, and their comparisons."""
    table = load_result(record)
    sentences = "\n\n".join(length_sentence(table, kind) for kind in reversed(KINDS))
    return with_source(
        f"{sentences}\n\n{length_table(table)}\n{length_comparisons(table)}", table, record
    )


def random_rewards(record: str) -> str:
    """Return gold accuracy of all arms, and the comparisons."""
    table = load_result(record)
    sentences = "\n\n".join(reward_sentence(table, reward) for reward in REWARDS)
    return with_source(
        f"{sentences}\n\n{arm_table(table)}\n{comparison_table(table)}", table, record
    )


_BLOCKS = {
    "pass_at_k": {
        "pass-at-k-default": lambda: pass_curves("default"),
        "pass-at-k-harder": lambda: pass_curves("harder"),
        "pass-at-k-diversity": diversity,
    },
    "answer_length": {"answer-length": lambda: lengths("answer_length")},
    "answer_length_smollm2": {"answer-length-smollm2": lambda: lengths("answer_length_smollm2")},
    "random_rewards": {"random-rewards": lambda: random_rewards("random_rewards")},
    "random_rewards_smollm2": {
        "random-rewards-smollm2": lambda: random_rewards("random_rewards_smollm2")
    },
}
BLOCKS = {
    name: block
    for record, blocks in _BLOCKS.items()
    if is_recorded(record)
    for name, block in blocks.items()
}
