"""A preference file of the user's own: read as data and nothing else, kept in the runs folder under a name made from its content."""

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import streamlit as st

from lab.errors import LabError
from lab.formats import ENDINGS, PACKED, ending, parse, unpacked
from lab.jsonl import replace
from lab.pairs import FORMAT, read_examples
from lab.ui.knobs import declared
from lab.ui.page import plain

FOLDER = ".uploads"  # A name with a dot is never that of a run.
LAST_PARTS = list(dict.fromkeys(kind.rpartition(".")[2] for kind in ENDINGS))  # A browser's dialog knows files by the last part of their ending.
UNPACKED = 64 * 2**20  # Bytes that a .gz may hold; maxUploadSize in .streamlit/config.toml limits the file itself.
SECONDS = 120  # that a report may take; most of the three of a small file are spent on loading the tokenizer's library


def keep(root: Path, data: bytes, name: str, method: str) -> tuple[Path, int]:
    """Check that `data` holds what `method` learns from and keep it; returns where and how many rows. Errors call it `name`, whose ending says what it is."""
    examples = read_examples(parse(data, name, UNPACKED), name, method)
    path = root / FOLDER / (hashlib.sha256(data).hexdigest()[:16] + ending(name))
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        replace(path, data)
    return path, len(examples)


def upload(root: Path, method: str) -> None:
    """The place where a file is dropped; a good one becomes the knob `data` of the form."""
    file = st.file_uploader(
        "Your own data: JSONL, JSON, CSV or Parquet", type=LAST_PARTS, key=f"{method}.upload", on_change=take, args=(root, method),
        help=f"{FORMAT[0].upper()}{FORMAT[1:]}. The embedded model knows 20 tokens; for other text give a model of your own.")
    if said := st.session_state.get(f"{method}.uploaded"):
        (st.error if said.startswith("!") else st.caption)(said.removeprefix("!"))
    if file is not None:
        with st.expander("What is in the file", expanded=True):
            model, max_length, options = (st.session_state.get(f"{method}.{name}", declared(method)[name].default)
                                          for name in ("model", "max_length", "template_options"))
            st.code(report(file.getvalue(), file.name, model, max_length, options), language=None, wrap_lines=True)


@st.cache_data(show_spinner="Reading the file …", max_entries=50)
def report(data: bytes, name: str, model: str, max_length: int, template_options: str = "") -> str:
    """What `python -m lab data` says of a file called `name`, from a process of its own: counts, lengths in tokens of `model`, each problem with its lines."""
    try:
        text = unpacked(data, name, UNPACKED)
    except LabError as error:
        return str(error)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"data{ending(name).removesuffix(PACKED)}"
        path.write_bytes(text)
        command = [sys.executable, "-m", "lab", "data", str(path), "--quick", f"--model={model}", f"--max-length={max_length}",
                   f"--template-options={template_options}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return f"The report on {name} took more than {SECONDS} s and was stopped."
    return (done.stdout.strip() or done.stderr.strip()[-500:] or "The report failed without a word.").replace(str(path), name)


def take(root: Path, method: str) -> None:
    """Callback: check the file that has just come, and train on all of its pairs."""
    file, said = st.session_state[f"{method}.upload"], f"{method}.uploaded"
    st.session_state[said] = ""
    if file is None:
        st.session_state[f"{method}.data"] = ""
        return
    try:
        path, count = keep(root, file.getvalue(), file.name, method)
    except (LabError, OSError) as error:
        st.session_state[said] = "!" + plain(str(error))
        return
    st.session_state[f"{method}.data"], st.session_state[f"{method}.pairs"] = str(path), 0
    st.session_state[said] = f"{count} rows from {plain(file.name)} are kept in {plain(str(path))}."
