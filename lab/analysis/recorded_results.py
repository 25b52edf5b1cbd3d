"""Results of experiments that the lab ships: small JSON files, each with its command, device and
versions.
"""

import json
from pathlib import Path
from typing import Any

from lab.analysis.statistics import Interval

RESULTS_FOLDER = Path(__file__).parents[1] / "assets" / "results"


def load_result(name: str) -> dict[str, Any]:
    """Return the table of a recorded comparison or experiment, as `lab.experiments` wrote it."""
    return json.loads((RESULTS_FOLDER / f"{name}.json").read_text("utf-8"))


def recorded_result(name: str) -> dict[str, Any] | None:
    """Return the table of a recorded experiment, or None if it has not been recorded."""
    return load_result(name) if (RESULTS_FOLDER / f"{name}.json").is_file() else None


def peak_memory_by_arm() -> dict[str, int]:
    """Return the measured peak of one update in bytes, by arm, for the first model of the recorded
    resources; the result is empty if they have not been recorded.
    """
    rows = (recorded_result("resources") or {"rows": []})["rows"]
    return {row["arm"]: row["measured"] for row in rows if row["size"] == rows[0]["size"]}


class Comparison:
    """A recorded comparison. Its methods take an arm and a measure, by default gold accuracy."""

    def __init__(self, table: dict[str, Any]) -> None:
        self.table, self.base, self.seeds = table, table["base"], table["plan"]["seeds"]
        self._rows = {row["method"]: row for row in table["methods"]}

    def title(self, arm: str) -> str:
        """Return the title of an arm, such as "GRPO, rule"."""
        return self._rows[arm]["title"]

    def mean(self, arm: str, measure: str = "gold/accuracy") -> float:
        """Return the mean over seeds."""
        return self._rows[arm][measure]["mean"]

    def half(self, arm: str, measure: str = "gold/accuracy") -> float:
        """Return half the width of the 95 % interval."""
        return self._rows[arm][measure]["half"]

    def text(self, arm: str, measure: str = "gold/accuracy") -> str:
        """Return text such as "0.93 ± 0.02"."""
        return f"{self.mean(arm, measure):.2f} ± {self.half(arm, measure):.2f}"

    def spread(self, arm: str, measure: str = "gold/accuracy") -> float:
        """Return the highest minus the lowest value over the seeds."""
        values = [run[measure] for run in self.table["runs"][arm]]
        return max(values) - min(values)

    def difference(self, first: str, second: str) -> Interval:
        """Return the interval of the gold accuracy of `first` minus that of `second`, seed by seed.

        Raises `KeyError` when the two arms are not compared.
        """
        for row in self.table["differences in gold/accuracy"]:
            if {row["first"], row["second"]} == {first, second}:
                return Interval(row["mean"] if row["first"] == first else -row["mean"], row["half"])
        raise KeyError(f"{first} and {second} are not compared.")


def relative_cost(
    table: dict[str, Any], measure: str, methods: dict[str, str], to: str
) -> dict[str, dict[str, float]]:
    """Return a measure in percent of that of arm `to`: the mean over seeds of the ratio, and half of
    its range over seeds. `methods` maps a name to its arm.
    """
    percentages = {}
    for name, arm in methods.items():
        ratios = [
            100 * a[measure] / b[measure] for a, b in zip(table["runs"][arm], table["runs"][to])
        ]
        percentages[name] = {
            "mean": sum(ratios) / len(ratios),
            "half": (max(ratios) - min(ratios)) / 2,
        }
    return percentages
