"""The progress of a learner, one line for every check and prediction in a file beside the notebooks;
and a sheet of a whole class.
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
    """Return the file for the progress of this process: LAB_COURSE, or progress.jsonl in the working
    directory, which is the folder of the notebook. Returns None when LAB_COURSE is empty.
    """
    setting = os.environ.get("LAB_COURSE")
    if setting is None:
        return Path.cwd() / PROGRESS_FILE
    return Path(setting) if setting else None


def record_progress(row: dict[str, Any]) -> None:
    """Append a row. If the file cannot be written, print a message: a learner should not be stopped."""
    path = progress_file()
    if path is None:
        return
    try:
        append_rows(path, [{"time": time.strftime("%Y-%m-%dT%H:%M:%S")} | row])
    except OSError as error:
        print(f"(This could not be recorded in {path}: {error.strerror}.)")


def recorded_prediction(question: str) -> str | None:
    """Return the prediction that the file holds for a question: the one that its first outcome was set
    beside, or else the last one; None if there is none.
    """
    path = progress_file()
    if path is None or not path.is_file():
        return None
    rows = [row for row in read_jsonl(path)[0] if isinstance(row.get("value"), str)]
    shown = [row["value"] for row in rows if row.get("outcome") == question]
    made = [row["value"] for row in rows if row.get("prediction") == question]
    return shown[0] if shown else made[-1] if made else None


def progress_sheet(folder: Path, exercises: list[str]) -> str:
    """Return CSV with one row for every progress file under `folder`: its path, the number of checks
    passed, the result of each check, and when it was last used.

    The cell of a check is empty if it was never called, "passed (n)" with the number of calls up to
    the first pass, or the last mistake with the number of calls. Raises `LabError` when there is no
    progress file.
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
