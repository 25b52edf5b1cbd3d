"""A preference file of the user's own: read as data and nothing else, kept in the runs folder under
a name made from its content.
"""

import hashlib
import sys
import tempfile
from pathlib import Path

import streamlit as st

from lab.config.data_files import ENDINGS
from lab.dashboard.components.config_widgets import knob_fields
from lab.dashboard.components.layout import escape_markdown
from lab.dashboard.state import actions, error_text, visitor_processes
from lab.data.parsing import read_examples
from lab.data.readers import PACKED, parse_file, unpacked
from lab.data.row_fields import ROW_FORMAT
from lab.data.rows import file_extension
from lab.errors import LabError
from lab.storage.jsonl import replace_file
from lab.storage.paths import require_space

UPLOADS_FOLDER = ".uploads"  # A name with a dot is never that of a run.
DIALOG_ENDINGS = list(
    dict.fromkeys(kind.rpartition(".")[2] for kind in ENDINGS)
)  # A browser's dialog knows files by the last part of their ending.
MAX_UNPACKED_BYTES = (
    64 * 2**20
)  # Bytes that a .gz may hold; maxUploadSize in .streamlit/config.toml limits the file itself.
MAX_UPLOADS, MAX_UPLOADS_BYTES = 200, 1024 * 2**20  # files, and bytes of them all
MAX_FILE_BYTES = 16 * 2**20  # of one file, as in .streamlit/config.toml
# that a report may take; most of the three of a small file are spent on loading the tokenizer's
# library
REPORT_TIMEOUT_SECONDS = 120


@actions.requires_permission
def store_upload(root: Path, data: bytes, name: str, method: str) -> tuple[Path, int]:
    """Check that `data` holds what `method` learns from and keep it; returns where and how many
    rows. Errors call it `name`, whose ending says what it is.
    """
    path = root / UPLOADS_FOLDER / (hashlib.sha256(data).hexdigest()[:16] + file_extension(name))
    require_upload_space(path, data, name)
    examples = read_examples(parse_file(data, name, MAX_UNPACKED_BYTES), name, method)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        replace_file(path, data)
    return path, len(examples)


def upload_widget(root: Path, method: str) -> None:
    """The place where a file is dropped; a good one becomes the knob `data` of the form."""
    file = st.file_uploader(
        "Your own data: JSONL, JSON, CSV or Parquet",
        type=DIALOG_ENDINGS,
        key=f"{method}.upload",
        on_change=store_uploaded_file,
        args=(root, method),
        help=(
            f"{ROW_FORMAT[0].upper()}{ROW_FORMAT[1:]}. The embedded model knows 20 tokens; for other text give a model of your own."
        ),
    )
    if said := st.session_state.get(f"{method}.uploaded"):
        (st.error if said.startswith("!") else st.caption)(said.removeprefix("!"))
    if file is not None:
        with st.expander("What is in the file", expanded=True):
            model, max_length, options = (
                st.session_state.get(f"{method}.{name}", knob_fields(method)[name].default)
                for name in ("model", "max_length", "template_options")
            )
            st.code(
                file_report(file.getvalue(), file.name, model, max_length, options),
                language=None,
                wrap_lines=True,
            )


def require_upload_space(path: Path, data: bytes, name: str) -> None:
    """Raise `LabError` for a file that is too large, or too much beside those that are kept."""
    if len(data) > MAX_FILE_BYTES:
        raise LabError(
            f"{name} has {len(data) / 2**20:.1f} MiB, and an upload may have {MAX_FILE_BYTES / 2**20:.0f} MiB. Train on it from the command line: --data FILE."
        )
    require_space(path.parent)
    kept = [file.stat().st_size for file in path.parent.iterdir()] if path.parent.is_dir() else []
    if not path.exists() and (
        len(kept) >= MAX_UPLOADS or sum(kept) + len(data) > MAX_UPLOADS_BYTES
    ):
        raise LabError(
            f"{path.parent} holds {len(kept)} uploads of {sum(kept) / 2**20:.0f} MiB, and takes at most {MAX_UPLOADS} of {MAX_UPLOADS_BYTES / 2**20:.0f} MiB. Delete those that no run needs."
        )


def file_report(
    data: bytes, name: str, model: str, max_length: int, template_options: str = ""
) -> str:
    """What `python -m lab data` says of a file called `name`, from a process of its own: counts,
    lengths in tokens of `model`, each problem with its lines.
    """
    try:
        text = unpacked(data, name, MAX_UNPACKED_BYTES)
    except LabError as error:
        return str(error)
    kind = file_extension(name).removesuffix(PACKED)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"data{kind}"
        path.write_bytes(text)
        command = [
            sys.executable,
            "-m",
            "lab",
            "data",
            str(path),
            "--quick",
            f"--model={model}",
            f"--max-length={max_length}",
            f"--template-options={template_options}",
        ]
        try:
            done = visitor_processes.run_for_visitor(
                (hashlib.sha256(data).hexdigest(), kind, model, max_length, template_options),
                command,
                REPORT_TIMEOUT_SECONDS,
                "Reading the file …",
            )
        except LabError as error:
            return f"There is no report on {name}. {error}"
    said = (
        done.stdout.strip()
        or error_text.visible_error(done.stderr.strip()[-500:], {"model": model})
        or "The report failed without a word."
    )
    return said.replace(
        done.args[4], name
    )  # A report is kept, and the path in it is that of when it was made.


def store_uploaded_file(root: Path, method: str) -> None:
    """Callback: check the file that has just come, and train on all of its pairs."""
    file, said = st.session_state[f"{method}.upload"], f"{method}.uploaded"
    st.session_state[said] = ""
    if file is None:
        st.session_state[f"{method}.data"] = ""
        return
    try:
        path, count = store_upload(root, file.getvalue(), file.name, method)
    except (LabError, OSError) as error:
        st.session_state[said] = "!" + escape_markdown(str(error))
        return
    st.session_state[f"{method}.data"], st.session_state[f"{method}.pairs"] = str(path), 0
    st.session_state[said] = (
        f"{count} rows from {escape_markdown(file.name)} are kept in {escape_markdown(str(path))}."
    )
