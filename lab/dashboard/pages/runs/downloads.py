"""Downloads of a run: its metrics, its config, its adapter, and the command that repeats it."""

import csv
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import streamlit as st

from lab.config.adapter_settings import MODEL_FOLDER
from lab.dashboard.components import text
from lab.dashboard.components.layout import folded_commands
from lab.dashboard.state.run_cache import Snapshot
from lab.dashboard.state.run_selection import display_name
from lab.runs.folder import RunFolder
from lab.runs.summary import Summary


def downloads(runs: Mapping[str, Summary], snapshots: Mapping[str, Snapshot]) -> None:
    """Show, folded, the downloads of one of the shown runs and the commands of all of them."""
    with st.expander("Download"):
        names = list(runs)
        if st.session_state.get("take") not in names:
            st.session_state["take"] = names[0]
        run = runs[st.selectbox("Run to download", names, key="take", format_func=display_name)]
        adapter = run.path / "adapter"
        has_adapter = (adapter / "adapter_config.json").is_file()
        row = st.container(horizontal=True, gap="small")
        row.download_button(
            "Metrics, CSV",
            lambda: metrics_csv(run.path),
            f"{run.name}.csv",
            "text/csv",
            key="csv",
            on_click="ignore",
        )
        row.download_button(
            "Settings, JSON",
            json.dumps(dict(run.config), indent=1),
            f"{run.name}.json",
            "application/json",
            key="config",
            on_click="ignore",
        )
        row.download_button(
            "Adapter, zip",
            lambda: zip_folder(adapter),
            f"{run.name}-adapter.zip",
            "application/zip",
            key="adapter",
            on_click="ignore",
            disabled=not has_adapter,
            help=(
                "The adapter has PEFT's format: PeftModel.from_pretrained(base, folder) loads it."
                if has_adapter
                else (
                    f"This run trained the whole model, which lies in {run.path / MODEL_FOLDER}."
                    if (run.path / MODEL_FOLDER).is_dir()
                    else "A run writes its adapter when it finishes or is stopped. Of the recorded"
                    " runs, only the one of GRPO has its adapter here."
                )
            ),
        )
        st.caption("The button “Save picture” above the figure saves it.")
    folded_commands(
        "The same runs from the command line",
        lambda: [
            text.train_command(snapshots[name].started, f"runs/{run.name}")
            for name, run in runs.items()
        ],
        "commands",
    )


def metrics_csv(path: Path) -> str:
    """Every step of a run as CSV: step, seconds, tokens, then its metrics. A metric that was not
    measured at a step is empty.
    """
    rows = [row for row in RunFolder(path).history() if row["type"] == "step"]
    names = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["step", "seconds", "tokens", *names])
    writer.writerows(
        [row["step"], row["seconds"], row["tokens"], *(row["metrics"].get(name) for name in names)]
        for row in rows
    )
    return buffer.getvalue()


def zip_folder(folder: Path) -> bytes:
    """The files directly in a folder as a zip archive, without subfolders and symbolic links."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            if path.is_file() and not path.is_symlink():
                archive.write(path, f"adapter/{path.name}")
    return buffer.getvalue()
