"""The command `alab`. It looks at the installation before it imports `lab`: another project has a package of
that name too, and pip puts both into one folder without a word.

This file also runs on a Python that is too old for the lab, to say so.
"""

from __future__ import annotations

import os
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

PROJECT = "alignment-lab"
OLDEST_PYTHON = (3, 11)


def main() -> None:
    """Run the command line. A broken installation is one line on stderr and exit code 2."""
    own = Path(__file__).resolve().parent / "lab"
    if problem := installation_problem(own) or shadowing_problem(own):
        _stop(problem)
    try:
        from lab.cli.main import main as run
    except ModuleNotFoundError as error:
        if (error.name or "lab").split(".")[0] == "lab":
            raise
        _stop(
            f"The package '{error.name}' is missing, which the lab needs. Install the lab, in its"
            " folder: python -m pip install -c constraints.txt ."
        )
    run()


def require_own_folder(folder: Path) -> None:
    """Raise `ImportError` when the package `lab` in `folder` cannot work; `python -m lab` ends with one
    line instead.
    """
    if problem := installation_problem(folder):
        if sys.argv[:1] == ["-m"]:  # Python looks for the module of `python -m lab`.
            _stop(problem)
        raise ImportError(problem)


def installation_problem(folder: Path) -> str:
    """Why the package in `folder` cannot work, with what to do; empty if it can.

    Looks for a Python that is too old, for files of another project in the folder, and for files that
    are missing since pip removed that other project. A clone is not compared with anything.
    """
    if sys.version_info < OLDEST_PYTHON:
        return (
            f"The lab needs Python 3.11 or newer, and this is {sys.version.split()[0]}. Install a newer"
            " one, and make an environment with it: python3.12 -m venv .venv"
        )
    try:
        installed = metadata.distribution(PROJECT)
    except metadata.PackageNotFoundError:
        return ""
    if Path(str(installed.locate_file("lab"))).resolve() != folder.resolve():
        return ""
    own = [file for file in installed.files or [] if file.parts[0] == "lab"]
    if not own:
        return ""
    foreign = set(os.listdir(folder)) - {file.parts[1] for file in own} - {"__pycache__"}
    if foreign:
        return _shared_folder(folder, sorted(foreign))
    missing = [
        file for file in own if file.suffix == ".py" and not Path(str(file.locate())).is_file()
    ]
    if missing:
        return (
            f"{missing[0]} is missing ({len(missing)} of {len(own)} files of the lab are). Install it"
            " again, in the lab's folder: python -m pip install --force-reinstall --no-deps ."
        )
    return ""


def shadowing_problem(own: Path) -> str:
    """Why `import lab` would import another package than the folder `own`; empty if it would not."""
    spec = find_spec("lab")
    origin = spec.origin if spec else None
    if origin and Path(origin).resolve().parent == own:
        return ""
    return (
        f"'import lab' finds {origin or 'no file'} and not {own / '__init__.py'}: another package has the"
        f" same name ({_owners()}). Make a new environment for the lab alone, in a new folder: python -m venv lab-env"
    )


def _shared_folder(folder: Path, foreign: list[str]) -> str:
    return (
        f"{folder} also holds {foreign[0]} of another package of the same name ({_owners()}), and each"
        " overwrites the other's files. Make a new environment for the lab alone, in a new folder: python -m venv"
        " lab-env"
    )


def _owners() -> str:
    """The other distributions that have files in `lab/`, with versions."""
    names = sorted(set(metadata.packages_distributions().get("lab", [])) - {PROJECT})
    return (
        ", ".join(f"{name} {metadata.distribution(name).version}" for name in names)
        or "not from pip"
    )


def _stop(problem: str) -> None:
    print(f"error: {problem}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
