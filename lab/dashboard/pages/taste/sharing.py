"""The part of page Taste with the files of labels: take them away, compare them with another person's, and
train on both.
"""

from pathlib import Path
from typing import Any

import streamlit as st

from lab.dashboard.components.layout import escape_markdown
from lab.dashboard.pages.taste.label_set import Choices, name_form
from lab.dashboard.pages.taste.results import start
from lab.dashboard.state import actions
from lab.data.readers import parse_file_lenient
from lab.data.row_fields import format_of
from lab.errors import LabError
from lab.storage.jsonl import read_bytes
from lab.storage.paths import runs_root
from lab.taste.agreement import agreement_of, parse_label_rows, read_label_file
from lab.taste.labels import THUMBS, LabelSet

MAX_FILE_BYTES = 4 * 2**20
SOURCE = (
    "κ = (p_o − p_e) / (1 − p_e), where p_o is the share of equal judgements and p_e the share that chance"
    " alone would give (Cohen 1960, Educational and Psychological Measurement 20, 37-46). 1 is full"
    " agreement, and 0 is chance."
)


def sharing_section(choices: Choices) -> None:
    """Show, folded, the files of labels and the comparison with another person."""
    labels = choices.labels
    with st.expander("Keep, share and compare labels"):
        name_form(labels)
        downloads(labels)
        file = st.file_uploader(
            "Labels of another person: their labels.jsonl or thumbs.jsonl",
            type=["jsonl"],
            key="taste.upload",
            help="A file in TRL's preference or unpaired preference format.",
        )
        if file is not None:
            compare(labels, file.getvalue(), file.name)


def downloads(labels: LabelSet) -> None:
    """Show a button for each file of labels that is not empty."""
    row = st.container(horizontal=True)
    for path in (labels.pairs_path, labels.folder / THUMBS):
        if data := read_bytes(path):
            row.download_button(
                f"Download {path.name}",
                data,
                f"{labels.name}-{labels.pool.name}-{path.name}",
                "application/jsonl",
                key=f"taste.download.{path.name}",
            )


def compare(labels: LabelSet, data: bytes, name: str) -> None:
    """Show Cohen's κ between the visitor's labels and a file, and a button that trains on both."""
    try:
        rows, text = compared(labels, data, name)
    except LabError as error:
        st.error(escape_markdown(str(error)))
        return
    st.markdown(f"You and {escape_markdown(name)}: {text}.")
    st.caption(SOURCE)
    if format_of(rows[0]) == "unpaired preference":
        return
    if st.button(
        f"Train DPO on both: yours and these {len(rows)}",
        key="taste.both",
        disabled=bool(actions.refusal()),
        help="Where you contradict each other, both labels count. Your held-out labels stay held out.",
    ):
        start(labels, runs_root(), ("dpo",), rows)


def compared(labels: LabelSet, data: bytes, name: str) -> tuple[list[dict[str, Any]], str]:
    """The rows of a file, and the agreement with the visitor's labels in words.

    Raises `LabError` for a file that is too large or holds no labels, and where both have no item in
    common.
    """
    if len(data) > MAX_FILE_BYTES:
        raise LabError(
            f"{name} has {len(data) / 2**20:.1f} MiB, but a file of labels may have at most"
            f" {MAX_FILE_BYTES / 2**20:.0f}."
        )
    theirs = parse_label_rows(parse_file_lenient(data, name), name)
    own: Path = labels.folder / THUMBS
    if format_of(theirs.rows[0]) != "unpaired preference":
        own = labels.pairs_path
    if not read_bytes(own):
        raise LabError(
            f"You have no labels of this kind yet, so {name} cannot be compared with them."
        )
    mine = read_label_file(own)
    skipped = [theirs.skipped_text(name), mine.skipped_text(f"your {own.name}")]
    kappa = agreement_of(mine.judgements, theirs.judgements).text()
    return theirs.rows, ". ".join([kappa, *filter(None, skipped)]).removesuffix(".")
