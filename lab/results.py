"""Results of experiments that the lab ships: small JSON files, each with its command, device and versions."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "assets" / "compare"


def load_result(name: str) -> dict[str, Any]:
    """The table of a recorded comparison or experiment, as `lab.experiments` wrote it."""
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


def relative(table: dict[str, Any], measure: str, methods: dict[str, str], to: str) -> dict[str, dict[str, float]]:
    """A measure in percent of that of arm `to`: mean over seeds of the ratio, and the half width of its range over seeds.

    `methods` maps a name to the arm that stands for it.
    """
    found = {}
    for name, arm in methods.items():
        ratios = [100 * a[measure] / b[measure] for a, b in zip(table["runs"][arm], table["runs"][to])]
        found[name] = {"mean": sum(ratios) / len(ratios), "half": (max(ratios) - min(ratios)) / 2}
    return found
