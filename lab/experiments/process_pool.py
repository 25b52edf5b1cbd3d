"""Pieces of work in processes of their own, each kept in a file, and the table that is made of
them.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from lab.analysis.statistics import interval
from lab.experiments.arms import Log, cached
from lab.storage.jsonl import replace_file

DIGITS = 4  # Significant ones of a number in a table of curves.


def map_cached(
    out: Path,
    work: Callable[..., dict[str, Any]],
    arguments: Mapping[str, tuple[Any, ...]],
    jobs: int,
    say: Log,
) -> dict[str, dict[str, Any]]:
    """`work(*arguments)` of every name, `jobs` at a time; kept in `out`/NAME.json, so that a second
    call goes on where the first stopped.
    """
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        waiting = {
            name: pool.submit(_kept, out / f"{name}.json", work, given)
            for name, given in arguments.items()
        }
        found = {}
        for name, done in waiting.items():
            found[name] = done.result()
            say(f"{name} is done")
    return found


def _kept(
    path: Path, work: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]
) -> dict[str, Any]:
    return cached(path, lambda: work(*arguments))


def rounded(value: Any, digits: int = DIGITS) -> Any:
    """`value` with every number in it cut to `digits` significant ones: 0.123456 becomes 0.1235."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, Mapping):
        return {name: rounded(part, digits) for name, part in value.items()}
    return [rounded(part, digits) for part in value] if isinstance(value, list | tuple) else value


def over_seeds(curves: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    """Curves of several seeds as one: mean and half the 95 % interval at every point."""
    points = [asdict(interval(values)) for values in zip(*curves, strict=True)]
    return {part: [point[part] for point in points] for part in ("mean", "half")}


def write_table(out: Path, table: Mapping[str, Any], report: str) -> None:
    """table.json, a row a line, and report.md."""
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
