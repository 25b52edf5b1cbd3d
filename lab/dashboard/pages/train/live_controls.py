"""Sliders and buttons that act on a running run. A value counts when the trainer has echoed the
command.

A browser reports the values of its widgets with every message, and a page that is left and come
back to has lost what the server knew of them: Streamlit then calls every slider changed. So a
report counts as the work of a hand only where it differs from the slider's last one.
"""

from typing import Any

import streamlit as st

from lab.config.changes import mutable_settings
from lab.config.json_format import from_dict
from lab.config.number_text import number_text
from lab.dashboard.components.config_widgets import FIRST, declared, label, options_of
from lab.dashboard.state import actions
from lab.dashboard.state.run_cache import RunRecord, Snapshot
from lab.errors import LabError


def steer(record: RunRecord, run: Snapshot, state: str, said: Any) -> None:
    """The live controls of one run, seeded from its last state, and on `said` (a place of the page)
    what has been heard back.
    """
    if reason := actions.refusal():
        said.caption(reason)
        return
    name = record.folder.path.name
    waiting = st.session_state.setdefault(
        "waiting", {}
    )  # (run, what) → id and text of a command that is not answered yet
    answers = st.session_state.setdefault("answers", {})
    for what in [w for w in waiting if w[0] == name and waiting[w]["id"] in run.echoes]:
        answers[name] = run.echoes[waiting.pop(what)["id"]]
    config = from_dict(dict(run.config))
    knobs = [k for k in FIRST if k in mutable_settings(config)]
    places = st.columns([*[4] * len(knobs), 2, 2], vertical_alignment="bottom")
    for knob, place in zip(knobs, places):
        with place:
            slider(record, run, knob, (name, knob) in waiting)
    paused = state == "paused"
    action = "continue" if paused else "pause"
    places[-2].button(
        action.capitalize(),
        key=f"{name}.{action}",
        width="stretch",
        disabled=(name, action) in waiting,
        on_click=send,
        args=(record, action),
    )
    places[-1].button(
        "Stop",
        key=f"{name}.stop",
        width="stretch",
        disabled=(name, "stop") in waiting,
        on_click=send,
        args=(record, "stop"),
    )
    say(said, [w["text"] for key, w in waiting.items() if key[0] == name], answers.get(name))


def slider(record: RunRecord, run: Snapshot, knob: str, waits: bool) -> None:
    """One live knob. While no command is on its way the slider shows what the run uses.

    Where the run's value was changed elsewhere, a new slider takes the old one's place, with that
    value as its default. A value put into a slider that is there can be lost on its way to a slow
    browser, which would then send the old one as if a hand had moved it.
    """
    name, current = record.folder.path.name, run.config[knob]
    place = f"{name}.live.{knob}"
    number_of, start = st.session_state.setdefault(f"{place} shown", (0, current))
    if not waits and st.session_state.get(f"{place}.{number_of}", start) != current:
        number_of, start = st.session_state[f"{place} shown"] = number_of + 1, current
    key = f"{place}.{number_of}"
    field = declared(run.config["method"])[knob]
    options = options_of(field, [start], run.config.get("batch_size")) or [start]
    options = [
        option for option in options if option == start or number_text(option) != number_text(start)
    ]  # A browser tells options apart by their text.
    reported = st.session_state.setdefault("reported", {})
    reported[key] = st.select_slider(
        f"{label(knob)}, live",
        sorted({*options, start}),
        start,
        key=key,
        format_func=number_text,
        help=field.help,
        on_change=set_knob,
        args=(record, knob, key),
    )


def set_knob(record: RunRecord, knob: str, key: str) -> None:
    """Callback of a slider: ask the trainer for the new value, if it is one."""
    reported, value = st.session_state.setdefault("reported", {}), st.session_state[key]
    before, reported[key] = reported.get(key, value), value
    if value != before:
        send(record, "set", knob, value)


def send(record: RunRecord, action: str, knob: str = "", value: Any = None) -> None:
    """Append a command to the run's control file and remember that its echo is awaited."""
    name = record.folder.path.name
    try:
        sent = actions.send(record, action, knob, value)
    except (LabError, OSError) as error:
        st.session_state.setdefault("answers", {})[name] = {
            "kind": "rejected",
            "detail": {"message": str(error)},
        }
        return
    if sent:
        text = f"{label(knob)} = {number_text(value)}" if knob else action
        st.session_state.setdefault("waiting", {})[name, knob or action] = {
            "id": sent,
            "text": text,
        }


def say(said: Any, waiting: list[str], answer: dict[str, Any] | None) -> None:
    """One line: what is on its way, or what the trainer answered last."""
    if waiting:
        said.caption(
            f"Sent: {', '.join(waiting)}. It counts when the trainer has read it, between two"
            " steps."
        )
    elif answer and answer["kind"] == "rejected":
        said.warning(answer["detail"]["message"])
    elif answer and answer["kind"] == "changed":
        detail = answer["detail"]
        said.caption(
            f"The trainer answered: {label(detail['knob'])} {number_text(detail['from'])} →"
            f" {number_text(detail['to'])} from step {answer['step'] + 1} on."
        )
    elif answer:
        said.caption(f"The trainer answered: {answer['kind']} at step {answer['step']}.")
    else:
        said.caption("A slider acts on this run at its next step, when you let it go.")
