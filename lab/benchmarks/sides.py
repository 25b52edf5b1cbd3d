"""The sides of a work, and the order in which they are measured.

On a CPU all sides of a work take turns, because the speed of a shared machine changes from minute to
minute. On a GPU one side is measured after another, so that each has the device to itself and a
model of 8 billion weights fits.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from lab.benchmarks import foreign_process, trl_settings
from lab.benchmarks.lab_side import lab_steps
from lab.benchmarks.plans import Piece
from lab.benchmarks.side_process import InProcess, SeparateProcess
from lab.benchmarks.trl_peer import trl_steps
from lab.benchmarks.turns import Side, take_turn, warm_up
from lab.benchmarks.workload import Work

LAB_CHECKPOINTING = {"off": (False,), "on": (True,), "both": (False, True)}


def lab_sides(work: Work, piece: Piece, where: torch.device, separate: bool) -> list[Side]:
    """Returns the lab's sides of a work, each in a process of its own if `separate`."""
    kind = SeparateProcess if separate else InProcess
    trains = work.method and not work.name.startswith("padding")
    return [
        Side(
            "lab",
            "checkpointing" if checkpointing else "",
            checkpointing=checkpointing,
            work=work,
            open=partial(kind, partial(lab_steps, work, where, checkpointing), where),
        )
        for checkpointing in (LAB_CHECKPOINTING[piece.checkpointing] if trains else (False,))
    ]


def peer_sides(work: Work, piece: Piece, where: torch.device) -> list[Side]:
    """Returns one side for each setting of the peer that the piece asks for."""
    if not piece.peer:
        return []
    if piece.peer == "trl":
        return _trl_sides(work, piece, where, trl_settings.settings_of(work, where))
    sides = []
    for name, setting in foreign_process.foreign_settings(piece.peer, work).items():
        checkpointing = bool(setting.get("checkpointing"))
        if _asked_for(work, piece, name, checkpointing):
            opened = partial(
                foreign_process.ForeignProcess, piece.peer_python, work, piece.peer, setting, where
            )
            sides.append(
                Side(
                    piece.peer,
                    name,
                    error=foreign_process.too_long(work, setting),
                    checkpointing=checkpointing,
                    work=work,
                    open=opened,
                )
            )
    return sides


def fallback_sides(work: Work, piece: Piece, where: torch.device) -> list[Side]:
    """Returns the sides that are tried when every setting of the peer has failed."""
    settings = trl_settings.FALLBACK_SETTINGS.get(work.name, {})
    whole = replace(piece, checkpointing="both", settings=())
    return _trl_sides(work, whole, where, settings) if piece.peer == "trl" else []


def _trl_sides(
    work: Work, piece: Piece, where: torch.device, settings: dict[str, dict[str, Any]]
) -> list[Side]:
    """A setting that this machine cannot try gets the reason as its error."""
    return [
        Side(
            "trl",
            name,
            error=trl_settings.unavailable(knobs),
            checkpointing=trl_settings.has_checkpointing(work, knobs),
            work=work,
            open=partial(SeparateProcess, partial(trl_steps, work, knobs, where), where),
        )
        for name, knobs in settings.items()
        if _asked_for(work, piece, name, trl_settings.has_checkpointing(work, knobs))
    ]


def _asked_for(work: Work, piece: Piece, setting: str, checkpointing: bool) -> bool:
    if piece.settings:
        return setting in piece.settings
    return (
        setting == "default"
        or not work.method
        or checkpointing in LAB_CHECKPOINTING[piece.checkpointing]
    )


def measured(sides: list[Side], rounds: int, one_at_a_time: bool) -> Iterator[Side]:
    """Measures sides and yields each when it has its numbers.

    With `one_at_a_time` a side warms up, takes all its turns and ends before the next one begins;
    as many processes as there are cores import their libraries beforehand, side by side. Otherwise
    all sides warm up, and then take one turn in every round.
    """
    together = (os.cpu_count() or 1) if one_at_a_time else max(1, len(sides))
    for start in range(0, len(sides), together):
        started = sides[start : start + together]
        try:
            for side in started:
                side.start()
            for side in started:
                if side.player is not None:
                    side.versions = side.player.wait_until_ready()
            for group in [[side] for side in started] if one_at_a_time else [started]:
                warm_up(group)
                for _ in range(rounds):
                    for side in group:
                        take_turn(side, side.lead, side.repeat)
                for side in group:
                    side.stop()
                yield from group
        finally:
            for side in started:
                side.stop()
