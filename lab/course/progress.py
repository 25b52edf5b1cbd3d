"""What a learner has done so far: one line for every check and prediction, in a file beside the
notebooks; and the sheet of a whole class.
"""

import csv
import io
import os
import time
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.storage.jsonl import append_rows, read_jsonl

PROGRESS_FILE = "progress.jsonl"


def progress_file() -> Path | None:
    """Where this process records: the file LAB_COURSE, or progress.jsonl in the working directory,
    which for a notebook is its own folder; None when LAB_COURSE is empty.
    """
    named = os.environ.get("LAB_COURSE")
    return Path.cwd() / PROGRESS_FILE if named is None else Path(named) if named else None


def record_progress(row: dict[str, Any]) -> None:
    """Append a row. A file that cannot be written is no reason to stop a learner: the row is lost,
    and the learner is told.
    """
    path = progress_file()
    if path is None:
        return
    try:
        append_rows(path, [{"time": time.strftime("%Y-%m-%dT%H:%M:%S")} | row])
    except OSError as error:
        print(f"(This could not be recorded in {path}: {error.strerror}.)")


def progress_sheet(folder: Path, exercises: list[str]) -> str:
    """CSV: one row for every progress file under `folder`, with its place, how many checks passed,
    what each took, and when it was last used.

    A check's cell is empty if it was never called, "passed (n)" with the calls up to the first
    pass, or the last mistake with the number of calls.
    """
    files = sorted(folder.rglob(PROGRESS_FILE))
    if not files:
        raise LabError(
            f"There is no {PROGRESS_FILE} under {folder}. It appears beside a notebook when its first check is called."
        )
    out = io.StringIO()
    sheet = csv.writer(out, lineterminator="\n")
    sheet.writerow(["folder", "passed", "of", "predictions", "last used", *exercises])
    for path in files:
        rows = [row for row in read_jsonl(path)[0] if isinstance(row.get("time"), str)]
        checks = {name: [r for r in rows if r.get("check") == name] for name in exercises}
        cells = [_cell(calls) for calls in checks.values()]
        predictions = {r["prediction"] for r in rows if isinstance(r.get("prediction"), str)}
        sheet.writerow(
            [
                path.parent.relative_to(folder).as_posix(),
                sum(cell.startswith("passed") for cell in cells),
                len(exercises),
                len(predictions),
                max((r["time"] for r in rows), default=""),
                *cells,
            ]
        )
    return out.getvalue()


def _cell(calls: list[dict[str, Any]]) -> str:
    for number, call in enumerate(calls, 1):
        if call.get("passed") is True:
            return f"passed ({number})"
    return f"{calls[-1].get('mistake') or 'other'} ({len(calls)})" if calls else ""
