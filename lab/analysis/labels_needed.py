"""The words for the recorded experiment "taste": how many labels each way to pick pairs needed."""

from collections.abc import Mapping
from typing import Any

from lab.analysis.statistics import SHARE, Interval

MEASURE_NAMES = {"agreement": "agreement with the rule", "gold": "gold accuracy of the policy"}
PICK_NAMES = {"random": "at random", "uncertain": "least sure"}


def goal_sentence(table: Mapping[str, Any]) -> str:
    """Returns whether the goal was met: the table's gold accuracy with so many of the least sure pairs, and
    without wrong labels.

    Text such as "With 50 labels of the least sure pairs, none of them wrong, gold accuracy is 0.78 ± 0.02.
    So the goal of 0.80 is not met on average."
    """
    goal_labels = table["goal_labels"]
    least_sure = dict(_rows(table, min(table["plan"]["noises"])))["uncertain"]
    place = table["plan"]["counts"].index(goal_labels)
    own = Interval(least_sure["gold"]["mean"][place], least_sure["gold"]["half"][place])
    needed = least_sure["needed/gold"]["mean"]
    is_met = needed is not None and needed <= goal_labels
    return (
        f"With {goal_labels} labels of the least sure pairs, none of them wrong, gold accuracy is"
        f" {own.text(2, SHARE)}. So the goal of {table['goal']:.2f} is {'' if is_met else 'not '}met on"
        " average."
    )


def needed_words(needed: Mapping[str, int | None], last: int) -> str:
    """Returns the labels needed by the mean, and in brackets by both ends of its 95 % intervals.

    Anchor: mean 100, least 50, most None of at most 200 gives "100 (50 to more than 200)".
    """
    mean, least, most = (_count(needed[name], last) for name in ("mean", "least", "most"))
    return mean if least == most else f"{mean} ({least} to {most})"


def _count(labels: int | None, last: int) -> str:
    return f"more than {last}" if labels is None else str(labels)


def experiment_sentence(table: Mapping[str, Any], noise: float) -> str:
    """Returns what the experiment measured for labellers with this noise."""
    return " ".join(
        [needed_sentence(table, noise, own) for own in MEASURE_NAMES]
        + [comparison_sentence(table, noise, own) for own in MEASURE_NAMES]
    )


def needed_sentence(table: Mapping[str, Any], noise: float, measure: str) -> str:
    """Returns how many labels each way to pick pairs needed for the goal."""
    last, name = table["plan"]["counts"][-1], MEASURE_NAMES[measure]
    words = [
        f"{PICK_NAMES[pick]} {needed_words(row[f'needed/{measure}'], last)}"
        for pick, row in _rows(table, noise)
    ]
    return f"Labels needed for {table['goal']:.2f} in {name}: {'; '.join(words)}."


def comparison_sentence(table: Mapping[str, Any], noise: float, measure: str) -> str:
    """Returns the numbers of labels at which the two ways are told apart."""
    rows = [
        row for row in table["comparisons"] if (row["measure"], row["noise"]) == (measure, noise)
    ]
    sure = [row for row in rows if row["word"] in ("better", "worse")]
    counts = ", ".join(str(row["labels"]) for row in rows)
    if not sure:
        return f"In {MEASURE_NAMES[measure]} the two ways are not told apart at {counts} labels."
    parts = [
        f"{row['word']} at {row['labels']} ({Interval(row['mean'], row['half']).signed()})"
        for row in sure
    ]
    rest = "" if len(sure) == len(rows) else " At the other numbers they are not told apart."
    return f"In {MEASURE_NAMES[measure]} the least sure pairs are {', '.join(parts)}.{rest}"


def _rows(table: Mapping[str, Any], noise: float) -> list[tuple[str, Mapping[str, Any]]]:
    """The rows of this noise by the way to pick pairs."""
    return [(row["pick"], row) for row in table["rows"] if row["noise"] == noise]
