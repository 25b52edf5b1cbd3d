"""The machine of a run: machine.json names its device, the versions of its packages and the highest
memory that it took.
"""

import json
import platform
import re
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lab.storage.jsonl import read_text, replace_file

MACHINE_FILE = "machine.json"
PACKAGES = ("alignment-lab", "torch", "transformers", "peft")


@dataclass(frozen=True)
class Machine:
    """The machine on which a run was trained last.

    `peak_memory` is in bytes: of a GPU what torch has allocated on it, otherwise all memory of the
    process; 0 until it is known. `processes` counts those that trained together.
    """

    device: str
    device_name: str
    processes: int = 1
    peak_memory: int = 0
    versions: dict[str, str] = field(default_factory=dict)


def write_machine(folder: Path, machine: Machine) -> None:
    """Replace machine.json of a run."""
    replace_file(
        folder / MACHINE_FILE, (json.dumps(asdict(machine), indent=1) + "\n").encode(), False
    )


def read_machine(folder: Path) -> Machine | None:
    """Return the machine of a run; None for a run of an earlier version of the lab, and for a file that
    cannot be read.
    """
    try:
        row: Any = json.loads(read_text(folder / MACHINE_FILE))
        return Machine(
            str(row["device"]),
            str(row["device_name"]),
            int(row["processes"]),
            int(row["peak_memory"]),
            {str(name): str(text) for name, text in row["versions"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide about a run's numbers."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # The lab may run from a clone that is not installed.
            continue
    return versions


def cpu_name() -> str:
    """Return the name of the processor, such as "AMD EPYC 7B13"."""
    try:
        match = re.search(
            r"^model name\s*:\s*(.+)$", read_text(Path("/proc/cpuinfo")), re.MULTILINE
        )
    except (OSError, UnicodeError):
        match = None
    return match[1].strip() if match else platform.processor() or platform.machine()
