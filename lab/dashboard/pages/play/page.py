"""Page Play: recorded runs that play by themselves, and a fork into a live run at the first move of a
slider.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from lab.config.methods import METHODS
from lab.config.schema import declared_settings
from lab.dashboard.components import glossary
from lab.dashboard.components.playground import feed_element, playground_element
from lab.dashboard.pages.play.data import METHODS_SHOWN, live_run, recordings, refresh_seconds
from lab.dashboard.pages.play.ranges import KNOBS
from lab.dashboard.state import actions, error_text
from lab.dashboard.state.run_cache import RunRecord, Snapshot, run_record
from lab.dashboard.state.url import url_parameters
from lab.errors import LabError
from lab.runs.catalogue import run_paths
from lab.runs.folder import RunFolder
from lab.runs.fork import RECORDINGS_FOLDER, origin_of
from lab.runs.queue import count_running
from lab.runs.records import is_change
from lab.runs.states import ACTIVE_STATES, WAITING_STATES
from lab.storage.paths import runs_root

KEY = "playground"
WORDS = (
    "fork",
    "gold accuracy",
    "margin",
    "KL",
    "nat",
    "held-out",
    "group",
    "completion",
    "scratchpad",
    "update",
    "policy",
    "reference",
)
TRAIN_PARAMETERS = {"run", "focus", "x", "smoothing", "guess"}
"""What the address of the page Train holds beside its form."""
MAX_UPDATES = {"grpo": 120, "ppo": 120, "dpo": 300, "ipo": 300}
"""By method, updates of a live run: about half a minute on one idle core."""


def page() -> None:
    """Show the page. At an address of the page Train, which was the first page once, show that."""
    if names := (TRAIN_PARAMETERS | url_parameters()) & set(st.query_params):
        query = {name: st.query_params.get_all(name) for name in names}
        st.switch_page(_train_page(), query_params=query)
    root = runs_root()
    method, name = _shown_method(), _shown_run(root)
    refusal = actions.refusal()
    record = run_record(str(root / name)) if name else None
    training = record is not None and _trains(root, record.folder.path.name)
    if not training:
        actions.prepare_training()
    playground_element(
        key=KEY,
        data={
            "methods": recordings(),
            "method": method,
            "live": name,
            "refusal": refusal,
            "problem": st.session_state.pop("play.problem", ""),
            "words": {word: glossary.WORDS[word] for word in WORDS},
        },
        on_command_change=_obey,
        on_method_change=_keep_method,
    )
    if record is not None:
        run_every = refresh_seconds(record.snapshot()) if training else None
        st.fragment(_feed, run_every=run_every)(root, record.folder.path, run_every)


def _train_page() -> Any:
    from lab.dashboard.pages.train.page import page as train

    return st.Page(train, title="Train", url_path="train")


def _feed(root: Path, path: Path, run_every: float | None) -> None:
    """Send the live run to the browser every `run_every` seconds, at about the pace of its updates,
    and stop sending when it has ended.
    """
    record = run_record(str(path))
    run = record.snapshot()
    data = live_run(record, run)
    if twin_name := _twin(record, run):
        twin = run_record(str(root / twin_name))
        data["twin"] = live_run(twin, twin.snapshot())
    if data["waiting"]:
        data["others"] = count_running(root)
    if data["state"] == "failed":
        data["problem"] = error_text.visible_failure(record.folder.status()["message"], run)
    feed_element(key="playground-feed", data=data)
    if run_every and not (_trains(root, path.name) and 0.5 < refresh_seconds(run) / run_every < 2):
        st.rerun()


def _trains(root: Path, name: str) -> bool:
    """Whether a live run or one of its twins trains or waits. On one core a twin trains after the run."""
    return any(
        RunFolder(path).state in ACTIVE_STATES + WAITING_STATES
        for path in run_paths(root)
        if path.name == name or path.name.startswith(f"{name}-before-")
    )


def _twin(record: RunRecord, run: Snapshot) -> str:
    """The name of the run that goes on without the last change, which this starts if the visitor may;
    empty while there is none. The recorded run is the twin of the first change.
    """
    origin = origin_of(record.folder.path)
    steps = [row["step"] for row in run.events if is_change(row)]
    if origin is None or not steps or steps[-1] <= origin.step:
        return ""
    name = f"{record.folder.path.name}-before-{steps[-1]}"
    if (record.folder.path.parent / name).exists():
        return name
    if actions.refusal():
        return ""
    try:
        _stop_twins(record.folder.path.parent, record.folder.path.name)
        return actions.start_twin(RECORDINGS_FOLDER / run.started["method"], record, steps[-1])
    except (LabError, OSError) as error:
        st.session_state["play.problem"] = str(error)
        return ""


def _shown_method() -> str:
    """The method of the recorded run: the visitor's choice, else that of the address, else the first."""
    method = st.session_state.get("play.method") or st.query_params.get("play")
    method = method if method in METHODS_SHOWN else METHODS_SHOWN[0]
    if method != METHODS_SHOWN[0]:
        st.query_params["play"] = method
    elif "play" in st.query_params:
        del st.query_params["play"]
    return method


def _shown_run(root: Path) -> str:
    """The name of the live run in the address, empty for none; only the runs of this page count."""
    name = st.query_params.get("live", "")
    if any(path.name == name and origin_of(path) for path in run_paths(root)):
        return name
    if name:
        del st.query_params["live"]
    return ""


def _keep_method() -> None:
    """Callback: store the method that the browser reports."""
    st.session_state["play.method"] = st.session_state[KEY].get("method")


def _obey() -> None:
    """Callback: do what the browser asks for: fork, set, pause, continue or leave."""
    command = st.session_state[KEY].get("command")
    if not isinstance(command, Mapping):
        return
    try:
        if command.get("action") == "fork":
            _fork(command)
        elif command.get("action") == "leave":
            if not actions.refusal():  # on a server that only shows, the run is somebody else's
                _stop_shown_run()
            st.query_params.pop("live", None)
        elif command.get("action") == "undo":
            _undo(command)
        else:
            _steer(command)
    except (LabError, OSError) as error:
        st.session_state["play.problem"] = str(error)


def _fork(command: Mapping[str, Any]) -> None:
    method, step = command.get("method"), command.get("step")
    if method not in METHODS_SHOWN or type(step) is not int:
        raise LabError(
            "The page asked for a recorded run that does not exist. Load the page again."
        )
    changes = command.get("changes")
    values = {
        knob: _as_setting(method, knob, value)
        for knob, value in (changes if isinstance(changes, Mapping) else {}).items()
    }
    _stop_shown_run()
    root = runs_root()
    name = actions.fork_run(root, RECORDINGS_FOLDER / method, step, values, MAX_UPDATES[method])
    st.session_state["play.method"] = method
    st.query_params["live"] = name


def _as_setting(method: str, knob: str, value: Any) -> Any:
    """A number of the browser, which knows one kind of number, as the kind that a setting takes."""
    if knob not in KNOBS or isinstance(value, bool) or not isinstance(value, int | float):
        raise LabError(f"{knob[:40]} cannot be changed here. Sliders: {', '.join(KNOBS)}.")
    settings = declared_settings(METHODS[method].config)
    return settings[knob].kind(value) if knob in settings else value


def _undo(command: Mapping[str, Any]) -> None:
    """Show, in place of the live run, its twin without the changes from an update on."""
    root, before = runs_root(), command.get("before")
    if not (name := _shown_run(root)) or type(before) is not int:
        return
    record = run_record(str(root / name))
    twin = actions.start_twin(
        RECORDINGS_FOLDER / record.snapshot().started["method"], record, before
    )
    _stop(root, name)
    st.query_params["live"] = twin


def _steer(command: Mapping[str, Any]) -> None:
    """Send a change, a pause or its end to the shown live run."""
    root = runs_root()
    if not (name := _shown_run(root)):
        return
    record = run_record(str(root / name))
    if record.state() not in ACTIVE_STATES:
        return
    if command.get("action") == "set":
        knob = str(command.get("knob"))
        value = _as_setting(record.snapshot().started["method"], knob, command.get("value"))
        actions.send_command(record, "set", knob, value)
    elif command.get("action") in ("pause", "continue"):
        actions.send_command(record, str(command["action"]))


def _stop_shown_run() -> None:
    """End the shown live run and its twins, whose records stay in their folders."""
    root = runs_root()
    if name := _shown_run(root):
        _stop(root, name)
        _stop_twins(root, name)


def _stop_twins(root: Path, name: str) -> None:
    for path in run_paths(root):
        if path.name.startswith(f"{name}-before-"):
            _stop(root, path.name)


def _stop(root: Path, name: str) -> None:
    """End a run that trains; move one that has not begun into the trash."""
    record = run_record(str(root / name))
    state = record.state()
    if state in ACTIVE_STATES:
        actions.send_command(record, "stop")
    elif state in WAITING_STATES:
        actions.withdraw_run(root, name)
