"""Writes down the device of a run, the versions and the highest memory that it took."""

import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch

from lab.distributed import collectives
from lab.runs.machine import Machine, cpu_name, package_versions, read_machine, write_machine

if TYPE_CHECKING:
    from lab.training.state import TrainState


def note_machine(folder: Path, run: "TrainState") -> None:
    """Write the machine of a run that begins or resumes; on a full disk nothing is written."""
    device, before = run.device, read_machine(folder)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    machine = Machine(
        device.type,
        torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        collectives.world_size(),
        before.peak_memory if before and before.device == device.type else 0,
        package_versions(),
    )
    with suppress(OSError):
        write_machine(folder, machine)


def note_peak_memory(folder: Path, run: "TrainState") -> None:
    """Add the highest memory so far to the machine of the run; on a full disk nothing is written."""
    if machine := read_machine(folder):
        peak = max(machine.peak_memory, peak_memory(run.device))
        with suppress(OSError):
            write_machine(folder, replace(machine, peak_memory=peak))


def peak_memory(device: torch.device) -> int:
    """Return the highest memory in bytes: what torch has allocated on a GPU since its last reset,
    otherwise what this process has had since its start.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    if sys.platform == "linux":
        # Not getrusage: its figure begins with that of the process that started this one.
        status = Path("/proc/self/status").read_text("utf-8", "replace")
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    import resource  # Windows does not have it.

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
