"""Sliders and buttons that act on a running run. A change takes effect when the trainer has
answered the command.

A browser reports the values of its widgets with every message. After a visitor leaves a page and
returns, the server has forgotten these values, and Streamlit calls every slider changed. Therefore
a report counts as a user's change only if it differs from the slider's last report.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from lab.config.changes import mutable_settings
from lab.config.json_format import from_dict
from lab.config.number_text import number_text
from lab.dashboard.components.config_widgets import (
    MAIN_KNOBS,
    full_range_toggle,
    knob_fields,
    knob_label,
    knob_slider,
    slider_options,
)
from lab.dashboard.components.layout import escape_markdown
from lab.dashboard.state import actions
from lab.dashboard.state.run_cache import RunRecord, Snapshot
from lab.errors import LabError
from lab.runs.queue import can_resume
from lab.runs.states import EventKind, RunState


def live_controls(
    record: RunRecord, run: Snapshot, state: str, message_column: DeltaGenerator
) -> None:
    """Show the live controls of one run at its present values and, in `message_column`, the
    trainer's last answer.
    """
    if reason := actions.refusal():
        message_column.caption(reason)
        return
    name = record.folder.path.name
    # By (run, knob or action): id and text of a command that is not answered yet.
    pending = st.session_state.setdefault("waiting", {})
    answers = st.session_state.setdefault("answers", {})
    for key in [key for key in pending if key[0] == name and pending[key]["id"] in run.echoes]:
        answers[name] = run.echoes[pending.pop(key)["id"]]
    config = from_dict(dict(run.config))
    knobs = [knob for knob in MAIN_KNOBS if knob in mutable_settings(config)]
    columns = st.columns([*[4] * len(knobs), 2, 2, 3], vertical_alignment="bottom")
    with columns[-1]:
        full_range = full_range_toggle(f"{name}.full-range")
    for knob, column in zip(knobs, columns):
        with column:
            live_slider(record, run, knob, (name, knob) in pending, full_range)
    action = "continue" if state == "paused" else "pause"
    for column, button in zip(columns[-3:-1], (action, "stop")):
        column.button(
            button.capitalize(),
            key=f"{name}.{button}",
            width="stretch",
            disabled=(name, button) in pending,
            on_click=send_live_command,
            args=(record, button),
        )
    texts = [command["text"] for key, command in pending.items() if key[0] == name]
    answer_line(message_column, texts, answers.get(name))


def resume_button(root: Path, record: RunRecord) -> None:
    """Show a button that lets a stopped run go on as the same run; nothing for a run that cannot."""
    folder = record.folder
    if actions.refusal() or not can_resume(folder):
        return
    row = st.container(horizontal=True, vertical_alignment="center", gap="medium")
    status = folder.status()
    place = f" from step {status['step']}" if status["state"] == RunState.STOPPED else ""
    if row.button(f"Continue{place}", key=f"{folder.name}.resume"):
        try:
            actions.resume_run(root, folder.name)
        except (LabError, OSError) as error:
            st.error(escape_markdown(str(error)))
            return
        st.session_state.get("answers", {}).pop(folder.name, None)  # It answered before it stopped.
        st.rerun()
    row.caption(
        "The same run goes on from its checkpoint, with the settings that it has now.",
        width="content",
    )


def live_slider(
    record: RunRecord, run: Snapshot, knob: str, is_pending: bool, full_range: bool
) -> None:
    """Show the slider of one live knob, around the value with which the run began. While no command
    is pending it shows the run's value.

    If the value was changed elsewhere, a new slider with that value as its default replaces the old
    one. A value written into an existing slider can be lost on its way to a slow browser, which
    would then report the old value as if the user had moved the slider.
    """
    name, current = record.folder.path.name, run.config[knob]
    prefix = f"{name}.live.{knob}"
    version, default = st.session_state.setdefault(f"{prefix} shown", (0, current))
    if not is_pending and st.session_state.get(f"{prefix}.{version}", default) != current:
        version, default = st.session_state[f"{prefix} shown"] = version + 1, current
    key = f"{prefix}.{version}"
    field = knob_fields(run.config["method"])[knob]
    start = run.started[knob]
    options = slider_options(field, start, [default], run.config.get("batch_size"), full_range) or [
        default
    ]
    # A browser tells options apart by their text, so other options with the default's text go.
    options = [
        option
        for option in options
        if option == default or number_text(option) != number_text(default)
    ]
    reported = st.session_state.setdefault("reported", {})
    reported[key] = knob_slider(
        f"{knob_label(knob)} of this run",
        sorted({*options, default}),
        default,
        start,
        key=key,
        help=field.help,
        on_change=set_knob,
        args=(record, knob, key),
    )


def set_knob(record: RunRecord, knob: str, key: str) -> None:
    """Callback of a slider: send its value to the trainer if the user has changed it."""
    reported, value = st.session_state.setdefault("reported", {}), st.session_state[key]
    last_report, reported[key] = reported.get(key, value), value
    if value != last_report:
        send_live_command(record, "set", knob, value)


def send_live_command(record: RunRecord, action: str, knob: str = "", value: Any = None) -> None:
    """Send a command to a run and remember it as pending. An error counts as a rejecting answer."""
    name = record.folder.path.name
    try:
        command_id = actions.send_command(record, action, knob, value)
    except (LabError, OSError) as error:
        st.session_state.setdefault("answers", {})[name] = {
            "kind": EventKind.REJECTED,
            "detail": {"message": str(error)},
        }
        return
    if command_id:
        text = f"{knob_label(knob)} = {number_text(value)}" if knob else action
        st.session_state.setdefault("waiting", {})[name, knob or action] = {
            "id": command_id,
            "text": text,
        }


def answer_line(
    column: DeltaGenerator, pending: list[str], answer: Mapping[str, Any] | None
) -> None:
    """Show the texts of the pending commands or, if there are none, the trainer's last answer."""
    if pending:
        column.caption(
            f"Sent: {', '.join(pending)}. The run reads it between two steps and then answers."
        )
    elif answer and answer["kind"] == EventKind.REJECTED:
        column.warning(answer["detail"]["message"])
    elif answer and answer["kind"] == EventKind.CHANGED:
        detail = answer["detail"]
        column.caption(
            f"The run answered: {knob_label(detail['knob'])} {number_text(detail['from'])} →"
            f" {number_text(detail['to'])} from step {answer['step'] + 1} on."
        )
    elif answer:
        column.caption(f"The run answered: {answer['kind']} at step {answer['step']}.")
    else:
        column.caption(
            "Move a slider: when you release it, the run uses the value from its next step."
        )
