"""Results of many processes, each cached in a file, and the table that is made from them."""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from lab.analysis.statistics import interval
from lab.experiments.arms import cached_json
from lab.experiments.protocol import Log
from lab.storage.jsonl import replace_file

SIGNIFICANT_DIGITS = 4  # Of a number in a table of curves.


def map_cached(
    out: Path,
    work: Callable[..., dict[str, Any]],
    arguments: Mapping[str, tuple[Any, ...]],
    jobs: int,
    say: Log,
) -> dict[str, dict[str, Any]]:
    """Returns `work(*arguments)` for every name, computed in `jobs` processes at a time.

    Each result is cached in `out`/NAME.json, so that a second call continues an interrupted one.
    """
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = {
            name: pool.submit(_cached_result, out / f"{name}.json", work, values)
            for name, values in arguments.items()
        }
        results = {}
        for name, future in futures.items():
            results[name] = future.result()
            say(f"{name} is done")
    return results


def _cached_result(
    path: Path, work: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]
) -> dict[str, Any]:
    return cached_json(path, lambda: work(*arguments))


def round_significant(value: Any, digits: int = SIGNIFICANT_DIGITS) -> Any:
    """Returns `value` with every float in it rounded to `digits` significant digits: 0.123456 becomes
    0.1235.
    """
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, Mapping):
        return {name: round_significant(item, digits) for name, item in value.items()}
    return (
        [round_significant(item, digits) for item in value]
        if isinstance(value, list | tuple)
        else value
    )


def mean_over_seeds(curves: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    """Returns the mean of the seeds' curves, and half the 95 % interval, at every point."""
    points = [asdict(interval(values)) for values in zip(*curves, strict=True)]
    return {name: [point[name] for point in points] for name in ("mean", "half")}


def write_table(out: Path, table: Mapping[str, Any], report: str) -> None:
    """Writes table.json, with one line for each row, and report.md."""
    head = [
        f"{json.dumps(name)}: {json.dumps(value)}"
        for name, value in table.items()
        if name != "rows"
    ]
    rows = ",\n".join(
        json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in table["rows"]
    )
    replace_file(
        out / "table.json", ("{" + ",\n".join([*head, f'"rows": [\n{rows}\n]']) + "}\n").encode()
    )
    replace_file(out / "report.md", report.encode())
