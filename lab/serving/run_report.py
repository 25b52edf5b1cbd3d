"""Writes the report of a run: report.md and report.html in its folder, and the Markdown as the model
card README.md beside its adapters, or its whole models.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.runs.folder import RunFolder
from lab.runs.states import RunState
from lab.serving.model_card import model_card
from lab.serving.run_facts import RunFacts, run_facts, trained_folders
from lab.serving.share import share_page
from lab.storage.checksums import replace_with_checksum
from lab.storage.jsonl import replace_file

REPORT_MARKDOWN, REPORT_PAGE, CARD = "report.md", "report.html", "README.md"


def write_report(folder: RunFolder, out: Path | None = None) -> list[Path]:
    """Write the report of a run as it is now to the folder `out`, by default its own, and the model
    card beside the weights that it has left; return the paths of the two files of the report.

    Raises `LabError` for a damaged run and where a file cannot be written.
    """
    to = out or folder.path
    card, page = model_card(folder), report_page(folder)
    paths = [to / REPORT_MARKDOWN, to / REPORT_PAGE]
    try:
        to.mkdir(parents=True, exist_ok=True)
        for path, text in zip(paths, (card, page)):
            replace_file(path, text.encode("utf-8", "replace"))
        for trained in trained_folders(folder) if out is None else ():
            replace_with_checksum(trained, CARD, card.encode("utf-8", "replace"))
    except OSError as error:
        raise LabError(f"{to}: {error.strerror or error}.") from error
    return paths


def report_page(folder: RunFolder) -> str:
    """Return the report of a run as one HTML file: the file of `share_page`, which has its curves and
    completions, with the rest of the report.
    """
    facts = run_facts(folder)
    # The first line of the page says itself that a run is finished.
    ending = [] if folder.state == RunState.FINISHED else [facts.ending]
    return share_page(folder, sections=_sections(facts, ending))


def _sections(facts: RunFacts, ending: list[str]) -> list[dict[str, Any]]:
    """The parts of the page: those with `top` stand above the curves, those with `folded` are closed
    at first.
    """
    steps = facts.examples[0].steps if facts.examples else ()
    sections: list[dict[str, Any]] = [
        {"title": "", "texts": ending, "top": True},
        {"title": "What the diagnosis says", "texts": facts.findings, "top": True},
        {
            "title": "Before and after",
            "head": ["prompt", *(f"update {step}" for step in dict.fromkeys(steps))],
            "rows": [
                [
                    example.prompt,
                    *map(_with_verdict, example.texts[: len({*steps})], example.verdicts),
                ]
                for example in facts.examples
            ],
        },
        {"title": "Cost", "rows": [list(row) for row in facts.cost]},
        {"title": "Changed while it trained", "rows": [list(row) for row in facts.changed]},
        {"title": "Notes", "texts": facts.notes},
        {"title": "Versions", "rows": [list(row) for row in facts.versions]},
        {"title": "Settings", "rows": [list(row) for row in facts.settings], "folded": True},
    ]
    return [part for part in sections if part.get("texts") or part.get("rows")]


def _with_verdict(text: str, verdict: str) -> str:
    return f"{text}   ({verdict})" if verdict else text


def report_at_end(folder: RunFolder) -> str:
    """Write the report of a run that has just ended; return what prevents it, empty if nothing does.

    The run stays as it is: its state and its records are not touched.
    """
    if not any(row["type"] == "step" for row in folder.history()):
        return ""  # It has ended before its first record.
    try:
        write_report(folder)
    except Exception as error:  # Nothing in a report may end a run.
        reason = str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
        return (
            f"The report could not be written ({' '.join(reason.split())[:300]}). The run itself is"
            f" {_state_in_words(folder)}. Write it later: python -m lab report {folder.path}"
        )
    return ""


def _state_in_words(folder: RunFolder) -> str:
    state = folder.state
    return f"{state} and complete" if state == RunState.FINISHED else str(state)


@contextmanager
def reported(folder: RunFolder) -> Iterator[None]:
    """Write the report of a run when the block that trains it ends, also with an error; what prevents
    it goes to stderr.
    """
    try:
        yield
    except Exception:
        say_if_unwritten(folder)
        raise
    say_if_unwritten(folder)


def say_if_unwritten(folder: RunFolder) -> None:
    """Write the report of a run that has ended, and print what prevents it to stderr."""
    if message := report_at_end(folder):
        print(message, file=sys.stderr, flush=True)
