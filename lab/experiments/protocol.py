"""What the module of every experiment defines."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

Log = Callable[[str], None]
"""Gets one line of text for every finished run."""


class ExperimentCode(Protocol):
    """The functions that the module of every experiment defines."""

    def run_experiment(
        self, out: Path, seeds: int, device: str, jobs: int, say: Log = ...
    ) -> dict[str, Any]:
        """Trains and measures, `jobs` runs at a time, and writes table.json and report.md in `out`.

        Returns the table. `say` gets a line for each finished run. An interrupted experiment
        continues when it is called again. Raises `LabError` when `out` holds another experiment or
        the number of seeds does not suit this one.
        """

    def render_report(self, table: dict[str, Any]) -> str:
        """Returns the table as Markdown."""
