"""Results of experiments that the lab ships: small JSON files, each with its command, device and
versions.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.analysis.statistics import Interval

RESULTS_FOLDER = Path(__file__).parents[1] / "assets" / "results"


def load_result(name: str) -> dict[str, Any]:
    """The table of a recorded comparison or experiment, as `lab.experiments` wrote it."""
    return json.loads((RESULTS_FOLDER / f"{name}.json").read_text("utf-8"))


def recorded_result(name: str) -> dict[str, Any] | None:
    """The same, or None where nobody has recorded it yet."""
    return load_result(name) if (RESULTS_FOLDER / f"{name}.json").is_file() else None


def peak_memory_by_arm() -> dict[str, int]:
    """The measured peak of one update in bytes, by arm, on the first model of the recorded
    resources; empty until they are recorded.
    """
    rows = (recorded_result("resources") or {"rows": []})["rows"]
    return {row["arm"]: row["measured"] for row in rows if row["size"] == rows[0]["size"]}


class Comparison:
    """A recorded comparison, asked by arm and measure; the measure is gold accuracy unless another
    is named.
    """

    def __init__(self, table: dict[str, Any]) -> None:
        self.table, self.base, self.seeds = table, table["base"], table["plan"]["seeds"]
        self._rows = {row["method"]: row for row in table["methods"]}

    def title(self, arm: str) -> str:
        """The arm in words, such as "GRPO, rule"."""
        return self._rows[arm]["title"]

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

    def difference(self, first: str, second: str) -> Interval:
        """Gold accuracy of `first` minus `second`, seed by seed."""
        for row in self.table["differences in gold/accuracy"]:
            if {row["first"], row["second"]} == {first, second}:
                return Interval(row["mean"] if row["first"] == first else -row["mean"], row["half"])
        raise KeyError(f"{first} and {second} are not compared.")


def relative_cost(
    table: dict[str, Any], measure: str, methods: dict[str, str], to: str
) -> dict[str, dict[str, float]]:
    """A measure in percent of that of arm `to`: mean over seeds of the ratio, and the half width of
    its range over seeds.

    `methods` maps a name to the arm that stands for it.
    """
    found = {}
    for name, arm in methods.items():
        ratios = [
            100 * a[measure] / b[measure] for a, b in zip(table["runs"][arm], table["runs"][to])
        ]
        found[name] = {"mean": sum(ratios) / len(ratios), "half": (max(ratios) - min(ratios)) / 2}
    return found


def article_table(claims: Mapping[str, Mapping[str, float]]) -> str:
    """The article's bars beside the measured ones, as Markdown. `claims` maps models, memory and
    time to method → the article's number.
    """
    rows = {(row["size"], row["arm"]): row for row in load_result("resources")["rows"]}
    size = next(iter(rows))[0]
    comparison = load_result("chain-tokens")
    time = relative_cost(comparison, "seconds", {"ppo": "ppo", "dpo": "dpo", "grpo": "grpo"}, "ppo")
    whole = rows[size, "ppo.separate"]["measured"]
    lines = [
        "| | models: article | counted | memory: article | measured | time: article | measured |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for title, method, arm in (
        ("RLHF (PPO), four sets of weights", "ppo", "ppo.separate"),
        ("RLHF (PPO), one shared base", "ppo", "ppo.shared"),
        ("DPO", "dpo", "dpo"),
        ("GRPO", "grpo", "grpo"),
    ):
        row = rows[size, arm]
        lines.append(
            f"| {title} | {claims['models'][method]:g} | {len(row['models'])} |"
            f" {claims['memory'][method]:g} % | {100 * row['measured'] / whole:.0f} %"
            f" ({row['measured'] / 2**20:.0f} MiB) | {claims['time'][method]:g} % | "
            + ("– |" if arm == "ppo.separate" else f"{time[method]['mean']:.0f} % |")
        )
    return "\n".join(lines) + "\n"
