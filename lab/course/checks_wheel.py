"""A small package with the checks alone, for learners' computers that do not train: the modules of the lab
that `check` needs, and torch. It has neither dashboard nor JupyterLab, and no methods to train with.
"""

import base64
import hashlib
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

from lab.errors import LabError

NAME = "alignment-lab-checks"
LAB = Path(__file__).parents[1]
REQUIRED = ("torch", "numpy", "transformers", "peft", "filelock", "psutil")
"""The packages that the modules of the checks import. Each keeps the range that the lab allows."""
_LIST_MODULES = """
import contextlib, io, sys
import lab.course.check
from lab.course.checker import grade
from lab.course.exercises.registry import EXERCISES
for exercise in EXERCISES.values():
    assert grade(exercise, exercise.reference, 0).passed, exercise.name
    grade(exercise, lambda *arguments: 0.0, 0)
print("\\n".join(sorted(name for name in sys.modules if name.partition(".")[0] == "lab")))
"""


def build_checks_wheel(out: Path) -> Path:
    """Writes the wheel of the checks into the folder `out` and returns its path.

    Its modules are those that every exercise's check imports, found by running them in a process of
    its own. Raises `LabError` where the lab is not installed, since its version is not known then.
    """
    try:
        lab = metadata.distribution("alignment-lab")
    except metadata.PackageNotFoundError:
        raise LabError(
            "The checks take version and requirements from the installed lab, but it is not installed."
            " Install it: python -m pip install -e ."
        ) from None
    tag = f"{NAME.replace('-', '_')}-{lab.version}"
    files = {path.relative_to(LAB.parent).as_posix(): path.read_bytes() for path in _sources()}
    info = {
        "METADATA": _metadata(lab),
        "WHEEL": "Wheel-Version: 1.0\nGenerator: alab\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files |= {f"{tag}.dist-info/{name}": text.encode() for name, text in info.items()}
    record = f"{tag}.dist-info/RECORD"
    lines = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in files.items()]
    files[record] = "\n".join([*lines, f"{record},,", ""]).encode()
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{tag}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in files.items():
            wheel.writestr(name, data)
    return path


def _sources() -> list[Path]:
    """The files of the modules that the checks import, and the module alab beside the lab."""
    done = subprocess.run(
        [sys.executable, "-c", _LIST_MODULES], capture_output=True, text=True, cwd=LAB.parent
    )
    if done.returncode:
        raise LabError(f"The checks do not run here: {done.stderr.strip().splitlines()[-1]}")
    names = done.stdout.split()
    paths = [LAB.parent.joinpath(*name.split(".")) for name in names]
    files = [path / "__init__.py" if path.is_dir() else path.with_suffix(".py") for path in paths]
    return [LAB.parent / "alab.py", *files, LAB / "py.typed"]


def _metadata(lab: metadata.Distribution) -> str:
    requirements = [line for line in lab.requires or [] if "extra ==" not in line]
    wanted = [
        line
        for line in requirements
        if line.replace("<", ">").replace("=", ">").partition(">")[0].strip() in REQUIRED
    ]
    return "\n".join(
        [
            "Metadata-Version: 2.1",
            f"Name: {NAME}",
            f"Version: {lab.version}",
            "Summary: The checks of the alignment lab's exercises, without the lab. Not beside the lab itself.",
            f"Requires-Python: {lab.metadata['Requires-Python']}",
            *(f"Requires-Dist: {line}" for line in wanted),
            "",
        ]
    )


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
