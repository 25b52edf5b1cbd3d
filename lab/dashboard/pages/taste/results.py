"""The part of page Taste that trains on the labels and shows what the runs have learnt."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from lab.dashboard.components.layout import escape_markdown, page_link
from lab.dashboard.components.live_chart import live_curves
from lab.dashboard.pages.taste.label_set import Choices
from lab.dashboard.pages.taste.labelling import MARGINS_FILE
from lab.dashboard.state import actions, error_text
from lab.dashboard.state.inference_client import inference_worker
from lab.dashboard.state.run_cache import Snapshot, run_record
from lab.dashboard.state.run_selection import snapshot_curves
from lab.errors import LabError
from lab.figures.palette import METHOD_NAMES
from lab.runs.states import ACTIVE_STATES, WAITING_STATES, RunState
from lab.storage.jsonl import encode_row, read_bytes, replace_file
from lab.storage.paths import runs_root
from lab.taste.agreement import self_agreement
from lab.taste.labels import LabelSet
from lab.taste.next_pair import shuffled
from lab.taste.pools import pair_row
from lab.taste.training import (
    MIN_TRAIN_PAIRS,
    RUN_PREFIX,
    methods_of,
    noted_trainings,
    own_held_out,
    start_training,
    training_rows,
)

PANELS = ("agreement/own", "agreement/rule", "gold/accuracy")
REFRESH_SECONDS = 1.0
MAX_SHOWN_TRAININGS = 12
CHAT_CANDIDATES = 24
"""Pairs of texts that SmolLM2 scores before the next question; it takes seconds for each on a CPU."""


def training_section(choices: Choices) -> None:
    """Show the button that trains, and the curves and results of the trainings so far."""
    labels, root = choices.labels, runs_root()
    st.subheader("What do five methods learn from these labels?", anchor=False)
    train_button(labels, root)
    if problem := st.session_state.pop("taste.train_problem", ""):
        st.error(escape_markdown(error_text.visible_error(problem, {"model": labels.pool.model})))
    trainings = noted_trainings(labels)
    if not trainings:
        st.caption(
            "Each run trains on the labels that are not held out. Its curves appear here: agreement"
            " with your held-out labels, agreement with the rule, and gold accuracy."
        )
        return
    training = is_training(trainings[-1], root)
    st.fragment(curves, run_every=REFRESH_SECONDS if training else None)(labels, root, training)


def train_button(labels: LabelSet, root: Path) -> None:
    """Show the button that starts a run of every method on the labels."""
    methods, count = methods_of(labels), len(training_rows(labels))
    has_thumbs = len(labels.thumbs()) >= MIN_TRAIN_PAIRS and count < MIN_TRAIN_PAIRS
    ready = (count >= MIN_TRAIN_PAIRS or has_thumbs) and bool(own_held_out(labels))
    names = ", ".join(METHOD_NAMES[method] for method in methods)
    pressed = st.button(
        f"Train on {len(labels.thumbs()) if has_thumbs else count} labels",
        type="primary",
        key="taste.train",
        disabled=not ready or bool(actions.refusal()),
        help=f"One run of each method: {names}.",
    )
    if not ready:
        st.caption(
            "Training needs the first five labels: four to train on, and the fifth is held out."
        )
    if pressed:
        start(labels, root, methods)


def start(
    labels: LabelSet, root: Path, methods: Sequence[str], others: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Put a run of every method into the queue, and show the page again."""

    def put(method: str, settings: dict[str, Any]) -> str:
        return actions.start_runs(root, method, [settings], RUN_PREFIX)[0]

    try:
        start_training(labels, methods, put, root, others=others)
    except (LabError, OSError) as error:
        st.session_state["taste.train_problem"] = str(error)
    st.rerun()


def is_training(training: Mapping[str, Any], root: Path) -> bool:
    """Whether a run of a training waits or trains."""
    return any(
        run_record(str(root / name)).state() in ACTIVE_STATES + WAITING_STATES
        for name in training["runs"].values()
        if (root / name).is_dir()
    )


def curves(labels: LabelSet, root: Path, training: bool) -> None:
    """Show the runs of the last training and a table of all; refreshes while one of them trains."""
    trainings = noted_trainings(labels)
    last = trainings[-1]
    if training and not is_training(last, root):
        st.rerun()
    names = [name for name in last["runs"].values() if (root / name).is_dir()]
    records = {name: run_record(str(root / name)) for name in names}
    snapshots = {name: record.snapshot() for name, record in records.items()}
    drawn = {name: run for name, run in snapshots.items() if run.columns}
    if drawn:
        runs = snapshot_curves(drawn)
        panels = [own for own in PANELS if any(own in run.columns for run in runs)]
        live_curves(runs, drawn, panels, result_sentence(last, snapshots))
    st.markdown(result_sentence(last, snapshots))
    own = self_agreement(labels)
    if own.count:
        st.markdown(
            f"You agree with yourself on {own.hits} of {own.count} repeated pairs. A model that agrees"
            " with your labels more often than you do has also learnt your mistakes."
        )
    waits = [name for name, record in records.items() if record.state() in WAITING_STATES]
    if waits:
        st.caption(f"Waiting for a free core or for the reward model: {', '.join(waits)}.")
    for name, record in records.items():
        if record.state() == RunState.FAILED:
            text = error_text.visible_failure(record.folder.status()["message"], snapshots[name])
            st.error(escape_markdown(f"{name}: {text}"))
    if rows := training_table(trainings, root):
        with st.expander("All trainings on these labels"):
            st.dataframe(rows, hide_index=True, key="taste.trainings")
    if names:
        page_link("train", "Train", "Look at these runs on the page Train", run=names)


def last_value(run: Snapshot, metric: str) -> float | None:
    """The last value of a metric; None if the run does not measure it yet."""
    return run.columns[metric][1][-1] if metric in run.columns else None


def result_sentence(training: Mapping[str, Any], snapshots: Mapping[str, Snapshot]) -> str:
    """What the runs have reached, in words."""
    parts = []
    for method, name in training["runs"].items():
        run = snapshots.get(name)
        own = last_value(run, "agreement/own") if run else None
        if run is None or own is None or not run.step:
            continue
        gold = last_value(run, "gold/accuracy")
        text = f"{METHOD_NAMES[method]} {own * training['own']:g}"
        parts.append(text + (f" (gold accuracy {gold:.2f})" if gold is not None else ""))
    if not parts:
        return "The runs have not been measured yet."
    count = training["own"]
    return (
        f"Of your {count} held-out labels each method agrees with: {', '.join(parts)}."
        f" With {count} labels the share is uncertain by up to {0.98 / count**0.5:.2f}."
    )


def training_table(
    trainings: Sequence[Mapping[str, Any]], root: Path
) -> list[dict[str, int | float | str | None]]:
    """A row for each finished run of the latest trainings."""
    rows: list[dict[str, int | float | str | None]] = []
    for number, training in enumerate(trainings[-MAX_SHOWN_TRAININGS:], 1):
        for method, name in training["runs"].items():
            if not (root / name).is_dir():
                continue
            run = run_record(str(root / name)).snapshot()
            rows.append(
                {
                    "training": number,
                    "method": METHOD_NAMES[method],
                    "labels": training["trained"],
                    "people": training.get("people", 1),
                    "pairs picked": training["picked"],
                    "agreement, own labels": last_value(run, "agreement/own"),
                    "agreement, rule": last_value(run, "agreement/rule"),
                    "gold accuracy": last_value(run, "gold/accuracy"),
                }
            )
    return rows


def refresh_margins(choices: Choices) -> None:
    """Measure the margins of the unlabelled pairs under the last finished DPO run, where the next pair is
    picked by them and that was not done yet.
    """
    labels, root = choices.labels, runs_root()
    if choices.pick != "uncertain" or choices.mode != "pairs" or actions.refusal():
        return
    finished = [
        name
        for training in noted_trainings(labels)
        if (name := training["runs"].get("dpo"))
        and (root / name).is_dir()
        and run_record(str(root / name)).state() == RunState.FINISHED
    ]
    path = labels.folder / MARGINS_FILE
    if not finished or f'"run": "{finished[-1]}"'.encode() in read_bytes(path):
        return
    seen = {row["pair"] for row in labels.pairs()}
    pool = labels.pool_pairs()
    ids = [own for own in shuffled(pool, labels.name) if own not in seen]
    ids = ids[:CHAT_CANDIDATES] if labels.pool.is_chat else ids
    question = {
        "run": str((root / finished[-1]).resolve()),
        "pairs": [pair_row(labels.pool, pool[own], 0) for own in ids],
    }
    try:
        with st.spinner("Measuring where the model is least sure …"):
            margins = inference_worker().ask(question)["margins"]
    except LabError as error:
        st.session_state["taste.problem"] = str(error)
        return
    row = {"run": finished[-1], "margins": dict(zip(ids, margins))}
    replace_file(path, encode_row(row))
