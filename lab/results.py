"""Results of experiments that the lab ships: small JSON files, each with its command, device and versions."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "assets" / "compare"


def load_result(name: str) -> dict[str, Any]:
    """The table of a recorded comparison or experiment, as `lab.experiments` wrote it."""
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


def recorded_result(name: str) -> dict[str, Any] | None:
    """The same, or None where nobody has recorded it yet."""
    return load_result(name) if (FOLDER / f"{name}.json").is_file() else None


@dataclass(frozen=True)
class Difference:
    """A paired difference over seeds; `half` is half the width of its 95 % interval."""

    mean: float
    half: float

    def signed(self) -> str:
        """Such as "+0.19 ± 0.14"."""
        return f"{self.mean:+.2f} ± {self.half:.2f}".replace("-", "−")

    def sure(self) -> bool | None:
        """Whether it is above zero; None where the interval holds zero."""
        return None if abs(self.mean) <= self.half else self.mean > 0


class Comparison:
    """A recorded comparison, asked by arm and measure; the measure is gold accuracy unless another is named."""

    def __init__(self, table: dict[str, Any]) -> None:
        self.table, self.base, self.seeds = table, table["base"], table["plan"]["seeds"]
        self._rows = {row["method"]: row for row in table["methods"]}

    def mean(self, arm: str, measure: str = "gold/accuracy") -> float:
        """Mean over seeds."""
        return self._rows[arm][measure]["mean"]

    def half(self, arm: str, measure: str = "gold/accuracy") -> float:
        """Half the width of the 95 % interval."""
        return self._rows[arm][measure]["half"]

    def text(self, arm: str, measure: str = "gold/accuracy") -> str:
        """Such as "0.93 ± 0.02"."""
        return f"{self.mean(arm, measure):.2f} ± {self.half(arm, measure):.2f}"

    def spread(self, arm: str, measure: str = "gold/accuracy") -> float:
        """Highest minus lowest over the seeds."""
        values = [run[measure] for run in self.table["runs"][arm]]
        return max(values) - min(values)

    def difference(self, first: str, second: str) -> Difference:
        """Gold accuracy of `first` minus `second`, seed by seed."""
        for row in self.table["differences in gold/accuracy"]:
            if {row["first"], row["second"]} == {first, second}:
                return Difference(row["mean"] if row["first"] == first else -row["mean"], row["half"])
        raise KeyError(f"{first} and {second} are not compared.")


def relative(table: dict[str, Any], measure: str, methods: dict[str, str], to: str) -> dict[str, dict[str, float]]:
    """A measure in percent of that of arm `to`: mean over seeds of the ratio, and the half width of its range over seeds.

    `methods` maps a name to the arm that stands for it.
    """
    found = {}
    for name, arm in methods.items():
        ratios = [100 * a[measure] / b[measure] for a, b in zip(table["runs"][arm], table["runs"][to])]
        found[name] = {"mean": sum(ratios) / len(ratios), "half": (max(ratios) - min(ratios)) / 2}
    return found
