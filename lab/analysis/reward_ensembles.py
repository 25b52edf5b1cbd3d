"""Whether an ensemble of reward models keeps more gold accuracy than one reward model."""

from collections.abc import Mapping
from typing import Any

from lab.analysis.comparison_words import Judgement, judge, paired_difference
from lab.config.methods import METHODS

Table = Mapping[str, Any]


def is_ensemble(reward_model: str) -> bool:
    """Return whether a title such as "4 × 2,000 pairs, mean" names an ensemble."""
    return " × " in reward_model


def single_reward_model(ensemble: str) -> str:
    """Return the title of one member: "2,000 pairs" for "4 × 2,000 pairs, mean"."""
    return ensemble.partition(" × ")[2].rpartition(", ")[0]


def judged_ensembles(table: Table) -> dict[tuple[str, str], Judgement]:
    """Return for every method and ensemble of the experiment "overoptimisation" the gold accuracy at the
    end, minus that with one reward model of the same data. All are one family. They are compared seed
    by seed, because the one reward model is the ensemble's first member.
    """
    gold = {
        (row["method"], row["reward_model"]): [run["gold/accuracy"] for run in runs]
        for row, runs in zip(table["rows"], table["runs"].values(), strict=True)
    }
    pairs = {key: (key[0], single_reward_model(key[1])) for key in gold if is_ensemble(key[1])}
    judged = judge([paired_difference(gold[key], gold[single]) for key, single in pairs.items()])
    return dict(zip(pairs, judged))


def ensembles_sentence(table: Table) -> str:
    """Return whether the ensembles keep more gold accuracy, in numbers; empty if none is recorded."""
    judged = judged_ensembles(table)
    if not judged:
        return ""
    words = [judgement.word for judgement in judged.values()]
    listed = "; ".join(
        f"{METHODS[method].title} with {ensemble.rpartition(', ')[2]} {judgement.text()}"
        for (method, ensemble), judgement in judged.items()
    )
    return (
        "Gold accuracy at the end with an ensemble, minus that with one reward model of the same data:"
        f" {listed} ({table['seeds']} seeds, seed by seed). So the ensemble is better in"
        f" {words.count('better')} of {len(words)} cases and worse in {words.count('worse')}."
    )
