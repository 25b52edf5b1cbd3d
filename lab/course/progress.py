"""The progress of a learner, one line for every check and prediction in a file beside the notebooks."""

import os
import time
from pathlib import Path
from typing import Any

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
