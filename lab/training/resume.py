"""What a run goes on from, and what forbids that it does: nothing left to do, a damaged file, knobs
or data that are not those it began with.
"""

import io
import json
from dataclasses import replace
from typing import Any

import torch

from lab.config.json_format import from_dict, to_dict
from lab.config.run_config import RunConfig
from lab.errors import LabError
from lab.models import adapter_files
from lab.runs.damage import damage
from lab.runs.folder import RunFolder
from lab.storage.checksums import require_sound, write
from lab.storage.jsonl import replace as replace_file
from lab.storage.jsonl import sweep
from lab.training.data_identity import identities

STATE, DATA = "state.pt", "data.json"
State = dict[str, Any]


def load_checkpoint(folder: RunFolder) -> State | None:
    """The last checkpoint of a run, or None when it has none; `LabError` for one that is damaged."""
    place = folder.path / "checkpoint"
    start_again = (
        "The run cannot go on from it; start a new one with the same knobs, which"
        f" {folder.path / 'config.json'} holds. "
    )
    require_sound(place, STATE, remedy=start_again)
    if not (place / STATE).is_file():
        return None
    try:
        held = torch.load(place / STATE, weights_only=True, map_location="cpu")
        return held | {"config": to_dict(from_dict(held["config"])), "step": int(held["step"])}
    except OSError as error:
        raise LabError(f"{place / STATE} cannot be read: {error.strerror}.") from error
    # Whatever torch raises: a zip archive cut short, a pickle that names code, an object of another
    # kind.
    except Exception as error:
        said = " ".join(str(error).split())[:120] or type(error).__name__
        raise LabError(
            f"{place / STATE} is no checkpoint of this lab, or is damaged ({said})."
            f" {start_again.strip()}"
        ) from error


def save_checkpoint(folder: RunFolder, state: State, started: RunConfig) -> None:
    """Replace the checkpoint; `started` is what config.json said when the run was opened."""
    data = io.BytesIO()
    torch.save(state | {"started": to_dict(started)}, data)
    write(folder.path / "checkpoint", {STATE: data.getvalue()})


def opened(folder: RunFolder, steps: int | None) -> tuple[RunConfig, State | None]:
    """The config that the run goes on with and its checkpoint, once nothing forbids that it does.
    Whoever calls it is `alone` with the folder.

    Of config.json a resumed run takes the number of updates, `steps` if they are given; all else is
    its checkpoint's.
    """
    if reason := damage(folder):
        raise LabError(f"{folder.path} is damaged, so it cannot be trained: {reason}")
    for place in (folder.path, folder.path / "checkpoint", folder.path / "adapter"):
        sweep(place)
    held, asked = load_checkpoint(folder), folder.config
    wanted = asked.steps if steps is None else steps
    config = replace(from_dict(held["config"]) if held else asked, steps=wanted)
    if held:
        if wanted < held["step"]:
            raise LabError(
                f"steps is {wanted}, but {folder.path} has done {held['step']} updates already. To"
                " extend it, give more."
            )
        _require_same_knobs(folder, held, asked)
        if held["step"] >= wanted and folder.state == "finished" and _has_adapter(folder):
            raise LabError(
                f"{folder.path} has done all its {held['step']} updates. To extend it, give more:"
                f" --steps {2 * held['step']}"
            )
    _require_same_data(folder, config, begun=held is not None)
    return config, held


def _has_adapter(folder: RunFolder) -> bool:
    """Whether the adapter of a finished run is there and sound; otherwise its checkpoint can write
    it again.
    """
    try:
        adapter_files.require(folder.path / "adapter")
    except LabError:
        return False
    return (folder.path / "adapter" / adapter_files.SHAPE).is_file()


def _require_same_knobs(folder: RunFolder, held: State, asked: RunConfig) -> None:
    """Raise `LabError` when config.json was edited after the start: the checkpoint has a config of
    its own, so the edit would do nothing.
    """
    began = _began(folder, held)
    given = to_dict(asked)
    edited = [knob for knob in given if knob != "steps" and given[knob] != began.get(knob)]
    if not edited:
        return
    said = ", ".join(
        f"{knob} is {given[knob]!r} there, and was {began.get(knob)!r}" for knob in edited
    )
    live = (
        "A live knob changes while the run trains: python -m lab control RUN KNOB=VALUE. "
        if began["method"] == given["method"]
        else ""
    )
    raise LabError(
        f"{folder.path / 'config.json'} was edited after the start ({said}), but a resumed run"
        f" keeps the knobs that it began with. Put {'them' if len(edited) > 1 else 'it'} back."
        f" {live}Other knobs take a new run: another --out."
    )


def _began(folder: RunFolder, held: State) -> dict[str, Any]:
    """The knobs with which the run began: as the checkpoint says, or in an older one its config
    without the live changes since.
    """
    if isinstance(held.get("started"), dict):
        return to_dict(from_dict(held["started"]))
    first: dict[str, Any] = {}
    for row in folder.history():
        if row["type"] == "event" and row["kind"] == "changed":
            first.setdefault(row["detail"]["knob"], row["detail"]["from"])
    return to_dict(from_dict(held["config"] | first))


def _require_same_data(folder: RunFolder, config: RunConfig, begun: bool) -> None:
    """Note what identifies the data, or raise `LabError` when a run that has begun would go on with
    other data; one without such a note goes on.
    """
    now, path = identities(config), folder.path / DATA
    before = _noted(folder) if begun else None
    for knob, was in (before or {}).items():
        found = now.get(knob)
        if found and isinstance(was, dict) and _content(found) != _content(was):
            raise LabError(
                f"The content of {found['source']} ({knob}) has changed since {folder.path} began"
                f" ({_said(was)} then, {_said(found)} now), and a resumed run goes on with what it"
                " began with. Put it back, or start a new run; to go on all the same, remove"
                f" {path}."
            )
    if before is None:
        replace_file(path, (json.dumps(now, indent=1) + "\n").encode())


def _noted(folder: RunFolder) -> dict[str, Any] | None:
    try:
        noted = json.loads((folder.path / DATA).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return noted if isinstance(noted, dict) else None


def _content(one: dict[str, Any]) -> Any:
    return one.get("sha256") or one.get("fingerprint")


def _said(one: dict[str, Any]) -> str:
    return (
        f"SHA-256 {str(one['sha256'])[:12]}…, {one.get('bytes')} bytes"
        if one.get("sha256")
        else f"fingerprint {str(one.get('fingerprint'))[:16]}"
    )


def gaps(folder: RunFolder, step: int) -> str:
    """Which updates up to `step` metrics.jsonl lacks, in one line; empty when it has them all."""
    there = {row["step"] for row in folder.history() if row["type"] == "step"}
    missing = [s for s in range(step + 1) if s not in there]
    if not missing:
        return ""
    parts, first = [], missing[0]
    for one, after in zip(missing, [*missing[1:], None]):
        if after != one + 1:
            parts.append(f"{first} to {one}" if one > first else str(one))
            first = after
    shown = ", ".join(parts[:5]) + (f" and {len(parts) - 5} more places" if len(parts) > 5 else "")
    return (
        f"metrics.jsonl lacks {len(missing)} of the records up to step {step}: {shown}. Their lines"
        " were lost or cannot be read; the training itself goes on unchanged from the checkpoint."
    )
