"""Resumes a run: loads its checkpoint, and refuses to continue when no update is left to do, a file
is damaged, or settings or data differ from those at the start.
"""

import io
import json
from dataclasses import replace
from typing import Any

import torch

from lab.config.adapter_settings import trained_folder
from lab.config.json_format import from_dict, to_dict
from lab.config.run_config import OnlineConfig, RunConfig
from lab.config.sampler_settings import are_servers
from lab.errors import LabError
from lab.models import adapter_files
from lab.runs.damage import damage
from lab.runs.folder import RunFolder
from lab.runs.import_run import require_own
from lab.runs.states import EventKind, RunState
from lab.storage.checksums import require_intact, write_with_checksums
from lab.storage.jsonl import remove_partial_files, replace_file
from lab.storage.policy_folder import policy_config_file
from lab.training.data_identity import data_identities

CHECKPOINT_FILE, IDENTITY_FILE = "state.pt", "data.json"
MAX_NAMED_RANGES = 5  # Ranges of missing records that a message names.
State = dict[str, Any]


def load_checkpoint(folder: RunFolder) -> State | None:
    """Return the last checkpoint of a run, or None when it has none; raise `LabError` for a damaged
    one.
    """
    checkpoint_folder = folder.path / "checkpoint"
    path = checkpoint_folder / CHECKPOINT_FILE
    remedy = (
        "The run cannot continue from it; start a new run with the same settings, which"
        f" {folder.path / 'config.json'} holds. "
    )
    require_intact(checkpoint_folder, CHECKPOINT_FILE, remedy=remedy)
    if not path.is_file():
        return None
    try:
        saved = torch.load(path, weights_only=True, map_location="cpu")
        return saved | {"config": to_dict(from_dict(saved["config"])), "step": int(saved["step"])}
    except OSError as error:
        raise LabError(f"{path} cannot be read: {error.strerror}.") from error
    # torch raises many kinds of errors: for a zip archive cut short, a pickle that names code, an
    # object of another kind.
    except Exception as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise LabError(
            f"{path} is no checkpoint of this lab, or is damaged ({reason}). {remedy.strip()}"
        ) from error


def save_checkpoint(folder: RunFolder, state: State, started: RunConfig) -> None:
    """Replace the checkpoint; `started` is the content of config.json when the run was opened."""
    data = io.BytesIO()
    torch.save(state | {"started": to_dict(started)}, data)
    write_with_checksums(folder.path / "checkpoint", {CHECKPOINT_FILE: data.getvalue()})


_FROM_CONFIG_FILE = ("steps", "eval_every")


def open_for_training(folder: RunFolder, steps: int | None) -> tuple[RunConfig, State | None]:
    """Return the config with which the run continues and its checkpoint; the caller holds
    `folder.alone()`.

    A resumed run takes the number of updates from config.json, or `steps` if that is given, and from
    there also the updates between two evaluations, which do not change the training, and the address
    of a vLLM server; all other settings come from its checkpoint. Raises `LabError` when the run cannot continue.
    """
    require_own(folder)
    if reason := damage(folder):
        raise LabError(f"{folder.path} is damaged, so it cannot be trained: {reason}")
    for path in (
        folder.path,
        folder.path / "checkpoint",
        folder.path / trained_folder(folder.config),
    ):
        remove_partial_files(path)
    saved, on_disk = load_checkpoint(folder), folder.config
    total = on_disk.steps if steps is None else steps
    settings = from_dict(saved["config"]) if saved else on_disk
    config = replace(settings, steps=total, eval_every=on_disk.eval_every)
    if isinstance(config, OnlineConfig) and isinstance(on_disk, OnlineConfig):
        if are_servers(config.sampler, on_disk.sampler):
            config = replace(config, sampler=on_disk.sampler)
    if saved:
        if total < saved["step"]:
            raise LabError(
                f"steps is {total}, but {folder.path} has done {saved['step']} updates already. To"
                " extend it, give more."
            )
        _require_same_knobs(folder, saved, on_disk)
        is_finished = saved["step"] >= total and folder.state == RunState.FINISHED
        if is_finished and _has_policy(folder):
            raise LabError(
                f"{folder.path} has done all its {saved['step']} updates. To extend it, give more:"
                f" --steps {2 * saved['step']}"
            )
    _require_same_data(folder, config, has_begun=saved is not None)
    return config, saved


def _has_policy(folder: RunFolder) -> bool:
    """Whether the adapter or the model of a finished run exists and is intact; otherwise training writes
    it again from the checkpoint.
    """
    try:
        adapter_files.require_trained(folder.path / trained_folder(folder.config))
    except LabError:
        return False
    return policy_config_file(folder.path) is not None


def _require_same_knobs(folder: RunFolder, saved: State, on_disk: RunConfig) -> None:
    """Raise `LabError` when config.json was edited after the start: the checkpoint has a config of
    its own, so the edit would have no effect.
    """
    at_start = _knobs_at_start(folder, saved)
    now = to_dict(on_disk)
    edited = [
        knob
        for knob in now
        if knob not in _FROM_CONFIG_FILE
        and now[knob] != at_start.get(knob)
        and not (knob == "sampler" and are_servers(now[knob], str(at_start.get(knob))))
    ]
    if not edited:
        return
    differences = ", ".join(
        f"{knob} is {now[knob]!r} there, and was {at_start.get(knob)!r}" for knob in edited
    )
    hint = (
        "A live setting changes while the run trains: python -m lab control RUN SETTING=VALUE. "
        if at_start["method"] == now["method"]
        else ""
    )
    raise LabError(
        f"{folder.path / 'config.json'} was edited after the start ({differences}), but a resumed"
        f" run keeps the knobs that it began with. Put {'them' if len(edited) > 1 else 'it'} back."
        f" {hint}Other knobs take a new run: another --out."
    )


def _knobs_at_start(folder: RunFolder, saved: State) -> dict[str, Any]:
    """The knobs with which the run began.

    The checkpoint holds them; for an older checkpoint they are its config without the live changes.
    """
    if isinstance(saved.get("started"), dict):
        return to_dict(from_dict(saved["started"]))
    first: dict[str, Any] = {}
    for row in folder.history():
        if row["type"] == "event" and row["kind"] == EventKind.CHANGED:
            first.setdefault(row["detail"]["knob"], row["detail"]["from"])
    return to_dict(from_dict(saved["config"] | first))


def _require_same_data(folder: RunFolder, config: RunConfig, has_begun: bool) -> None:
    """Write the identity of the data into the run folder, or raise `LabError` when a run that has
    begun would continue with other data.

    A run that has begun without such a file continues.
    """
    now, path = data_identities(config), folder.path / IDENTITY_FILE
    before = _read_identities(folder) if has_begun else None
    for knob, old in (before or {}).items():
        new = now.get(knob)
        if new and isinstance(old, dict) and _digest(new) != _digest(old):
            raise LabError(
                f"The content of {new['source']} ({knob}) has changed since {folder.path} began"
                f" ({_describe(old)} then, {_describe(new)} now), and a resumed run continues with"
                " the content at its start. Put it back, or start a new run; to continue all the"
                f" same, remove {path}."
            )
    if before is None:
        replace_file(path, (json.dumps(now, indent=1) + "\n").encode())


def _read_identities(folder: RunFolder) -> dict[str, Any] | None:
    try:
        identities = json.loads((folder.path / IDENTITY_FILE).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return identities if isinstance(identities, dict) else None


def _digest(identity: dict[str, Any]) -> Any:
    return identity.get("sha256") or identity.get("fingerprint")


def _describe(identity: dict[str, Any]) -> str:
    return (
        f"SHA-256 {str(identity['sha256'])[:12]}…, {identity.get('bytes')} bytes"
        if identity.get("sha256")
        else f"fingerprint {str(identity.get('fingerprint'))[:16]}"
    )


def missing_records(folder: RunFolder, step: int) -> str:
    """Return the updates up to `step` that metrics.jsonl lacks, in one sentence; empty for none."""
    recorded = {row["step"] for row in folder.history() if row["type"] == "step"}
    missing = [number for number in range(step + 1) if number not in recorded]
    if not missing:
        return ""
    ranges = _ranges(missing)
    more = f" and {len(ranges) - MAX_NAMED_RANGES} more places" * (len(ranges) > MAX_NAMED_RANGES)
    return (
        f"metrics.jsonl lacks {len(missing)} of the records up to step {step}:"
        f" {', '.join(ranges[:MAX_NAMED_RANGES])}{more}. Their lines were lost or cannot be read;"
        " the training itself continues unchanged from the checkpoint."
    )


def _ranges(numbers: list[int]) -> list[str]:
    """Rising numbers as ranges. Anchor: 2, 3, 4, 7 are "2 to 4" and "7"."""
    texts, first = [], numbers[0]
    for number, following in zip(numbers, [*numbers[1:], numbers[-1] + 2]):
        if following != number + 1:
            texts.append(f"{first} to {number}" if number > first else str(number))
            first = following
    return texts
