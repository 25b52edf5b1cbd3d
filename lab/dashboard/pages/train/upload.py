"""Upload of a preference file: it is only read as data, and stored in the runs folder under a name
made from its content.
"""

import hashlib
import sys
import tempfile
from pathlib import Path

import streamlit as st

from lab.config.data_files import ENDINGS, PACKED
from lab.dashboard.components.config_widgets import knob_fields
from lab.dashboard.components.layout import escape_markdown
from lab.dashboard.state import actions, error_text, visitor_processes
from lab.data.parsing import read_examples
from lab.data.readers import parse_file, unpacked
from lab.data.row_fields import ROW_FORMAT
from lab.data.rows import file_extension
from lab.errors import LabError
from lab.storage.jsonl import replace_file
from lab.storage.paths import require_space

UPLOADS_FOLDER = ".uploads"  # no run has a name that begins with a dot
# A browser's file dialog knows files by the last part of their ending.
DIALOG_ENDINGS = list(dict.fromkeys(suffix.rpartition(".")[2] for suffix in ENDINGS))
MAX_FILE_BYTES = 16 * 2**20  # equal to maxUploadSize in .streamlit/config.toml
MAX_UNPACKED_UPLOAD_BYTES = 64 * 2**20  # of a .gz file after unpacking
MAX_UPLOADS = 200  # stored files
MAX_UPLOADS_BYTES = 1024 * 2**20  # of all stored files together
REPORT_TIMEOUT_SECONDS = 120  # a report takes about 3 s, most of them to import the tokenizer


@actions.requires_permission
def store_upload(root: Path, data: bytes, name: str, method: str) -> tuple[Path, int]:
    """Check that `data` is in a format that `method` learns from, and store it; returns the path
    and the number of rows. `name` is the file's name in errors; its ending decides the format.
    """
    path = root / UPLOADS_FOLDER / (hashlib.sha256(data).hexdigest()[:16] + file_extension(name))
    require_upload_space(path, data, name)
    examples = read_examples(parse_file(data, name, MAX_UNPACKED_UPLOAD_BYTES), name, method)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        replace_file(path, data)
    return path, len(examples)


def upload_widget(root: Path, method: str) -> None:
    """Show the upload field and a report on the file; a valid file becomes the knob `data` of the
    form.
    """
    file = st.file_uploader(
        "Your own data: JSONL, JSON, CSV or Parquet",
        type=DIALOG_ENDINGS,
        key=f"{method}.upload",
        on_change=store_uploaded_file,
        args=(root, method),
        help=(
            f"{ROW_FORMAT[0].upper()}{ROW_FORMAT[1:]}. The embedded model knows 20 tokens; for"
            " other text give a model of your own."
        ),
    )
    if message := st.session_state.get(f"{method}.uploaded"):  # "!" marks an error
        (st.error if message.startswith("!") else st.caption)(message.removeprefix("!"))
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
    """Raise `LabError` if a file is too large, or too large beside the stored uploads."""
    if len(data) > MAX_FILE_BYTES:
        raise LabError(
            f"{name} has {len(data) / 2**20:.1f} MiB, and an upload may have"
            f" {MAX_FILE_BYTES / 2**20:.0f} MiB. Train on it from the command line: --data FILE."
        )
    require_space(path.parent)
    sizes = [file.stat().st_size for file in path.parent.iterdir()] if path.parent.is_dir() else []
    if not path.exists() and (
        len(sizes) >= MAX_UPLOADS or sum(sizes) + len(data) > MAX_UPLOADS_BYTES
    ):
        raise LabError(
            f"{path.parent} holds {len(sizes)} uploads of {sum(sizes) / 2**20:.0f} MiB, and takes"
            f" at most {MAX_UPLOADS} of {MAX_UPLOADS_BYTES / 2**20:.0f} MiB. Delete those that no"
            " run needs."
        )


def file_report(
    data: bytes, name: str, model: str, max_length: int, template_options: str = ""
) -> str:
    """The report of `python -m lab data` on a file called `name`, made in a separate process:
    counts, lengths in tokens of `model`, and each problem with its lines.
    """
    try:
        text = unpacked(data, name, MAX_UNPACKED_UPLOAD_BYTES)
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
            process = visitor_processes.run_for_visitor(
                (hashlib.sha256(data).hexdigest(), kind, model, max_length, template_options),
                command,
                REPORT_TIMEOUT_SECONDS,
                "Reading the file …",
            )
        except LabError as error:
            return f"There is no report on {name}. {error}"
    report = (
        process.stdout.strip()
        or error_text.visible_error(process.stderr.strip()[-500:], {"model": model})
        or "The report failed without a word."
    )
    # A report may come from the cache; the path in it is that of the process that made it.
    return report.replace(process.args[4], name)


def store_uploaded_file(root: Path, method: str) -> None:
    """Callback: check and store the uploaded file, and set the form to train on all of its rows."""
    file, message_key = st.session_state[f"{method}.upload"], f"{method}.uploaded"
    st.session_state[message_key] = ""
    if file is None:
        st.session_state[f"{method}.data"] = ""
        return
    try:
        path, count = store_upload(root, file.getvalue(), file.name, method)
    except (LabError, OSError) as error:
        st.session_state[message_key] = "!" + escape_markdown(str(error))
        return
    st.session_state[f"{method}.data"], st.session_state[f"{method}.pairs"] = str(path), 0
    st.session_state[message_key] = (
        f"{count} rows from {escape_markdown(file.name)} are kept in {escape_markdown(str(path))}."
    )
