"""The environment is the same everywhere: pyproject.toml, constraints.txt, environment.yml, the
Makefile and .ci/run agree.
"""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
ASKED = [
    Requirement(text)
    for text in PROJECT["dependencies"] + EXTRAS["test"] + EXTRAS["dev"] + EXTRAS["docs"]
]  # what `make env` installs
PIN_LINES = [
    line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
]
PINS = dict(line.split("==") for line in PIN_LINES)
INSTALLED = {canonicalize_name(package.name): package for package in distributions()}

# constraints.txt is written for this platform; others need a few packages more or fewer (torch's
# CUDA libraries, colorama)
REFERENCE = {
    "python_version": "3.11",
    "python_full_version": "3.11.7",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "os_name": "posix",
}
NAMES_A_PLATFORM = re.compile(r"platform|os_name")


def closure() -> set[str]:
    """Names of all packages that the project asks for and that those ask for, on the reference
    platform.
    """
    seen: set[tuple[str, str]] = set()
    queue = list(ASKED)
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras} - {extra for known, extra in seen if known == name}:
            seen.add((name, extra))
            package = INSTALLED.get(
                name
            )  # missing when it is pinned for another Python than this one
            for child in map(Requirement, package and package.requires or []):
                wanted = child.marker is None or child.marker.evaluate(REFERENCE | {"extra": extra})
                cuda = canonicalize_name(child.name) not in PINS and NAMES_A_PLATFORM.search(
                    str(child.marker)
                )
                if wanted and not cuda:
                    queue.append(child)
    return {name for name, _ in seen}


def tracked() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git clone")
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def tracked_text() -> dict[Path, str]:
    content = {path: path.read_bytes() for path in tracked()}
    return {
        path: data.decode()
        for path, data in content.items()
        if b"\0" not in data and path != Path(__file__).resolve()
    }


# --- versions
# ---------------------------------------------------------------------------------------------------------


def test_constraints_pin_one_exact_version_a_line_in_order():
    assert [
        line for line in PIN_LINES if not re.fullmatch(r"[a-z0-9-]+==[0-9][a-z0-9.]*", line)
    ] == []
    assert list(PINS) == sorted(PINS) and len(PINS) == len(PIN_LINES)


def test_every_dependency_of_the_project_is_pinned_within_its_range():
    for requirement in ASKED:
        assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)]), (
            requirement
        )


def test_constraints_pin_everything_that_the_dependencies_bring_in_and_nothing_else():
    assert sorted(closure()) == list(PINS)


def test_the_tests_run_with_the_pinned_versions():
    here = {name: Version(INSTALLED[name].version).public for name in PINS if name in INSTALLED}
    assert here == {name: PINS[name] for name in here}


def test_conda_installs_what_the_makefile_installs_from_the_same_constraints():
    *conda, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    python, installer = map(Requirement, (text.replace("=", "==") for text in conda))
    assert (python.name, installer.name) == ("python", "pip"), (
        "a package from conda would escape constraints.txt"
    )
    assert all(
        SpecifierSet(PROJECT["requires-python"]).contains(str(s.version)) for s in python.specifier
    )
    line = re.search(r"pip install (.*?) \|\|", (ROOT / "Makefile").read_text()).group(1)
    assert (
        [word for entry in pip["pip"] for word in shlex.split(entry)]
        == shlex.split(line)
        == ["-c", "constraints.txt", "-e", ".[test,dev,docs]"]
    )


def test_python_older_than_3_11_is_excluded():
    assert not SpecifierSet(PROJECT["requires-python"]).contains("3.10.13")
    assert SpecifierSet(PROJECT["requires-python"]).contains("3.11.0")


# --- make
# -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder in which `make env` has run: the files that it reads, then its stamp."""
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
        os.utime(tmp_path / name, (1_000, 1_000))
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".installed").touch()
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True)


def test_a_second_make_installs_nothing(made):
    assert make(made, "-q", "env").returncode == 0
    for target, command in {
        "app": "streamlit run app.py",
        "test": "pytest",
        "lab": "jupyterlab course",
        "notebooks": "lab course build",
        "docs": "mkdocs build --strict",
        "site": "mkdocs build --strict",
    }.items():
        dry_run = make(made, "-n", target).stdout
        assert command in dry_run and "pip" not in dry_run and "-m venv" not in dry_run


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_changed_dependency_makes_make_install_again(made, name):
    later = (made / ".venv" / ".installed").stat().st_mtime + 10
    os.utime(made / name, (later, later))
    assert make(made, "-q", "env").returncode == 1
    assert "pip install -c constraints.txt" in make(made, "-n", "test").stdout


def interpreter(folder: Path, body: str) -> str:
    """An executable in `folder` that stands for the machine's python3."""
    path = folder / "python-of-the-test"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return f"PYTHON={path}"


def test_make_names_the_version_it_needs_when_python_is_too_old(made):
    (made / ".venv" / ".installed").unlink()
    old = (
        f'[ "$1" = --version ] && echo "Python 3.10.4" && exit; exec {sys.executable} -c "import'
        ' sys; sys.version_info = (3, 10, 4); $2"'
    )
    result = make(made, "env", interpreter(made, old))
    assert (
        result.returncode != 0
        and "needs Python 3.11 or newer" in result.stderr
        and "Python 3.10.4" in result.stderr
    )
    assert "-m venv" not in result.stdout


def test_make_says_what_to_install_when_python_has_no_venv_module(made):
    (made / ".venv" / ".installed").unlink()
    bare = f"exec {sys.executable} -c \"import sys; sys.modules['ensurepip'] = None; $2\""
    result = make(made, "env", interpreter(made, bare))
    assert (
        result.returncode != 0
        and "python3-venv" in result.stderr
        and "-m venv" not in result.stdout
    )


def test_make_says_what_to_do_when_the_environment_cannot_be_made(made):
    (made / ".venv" / ".installed").unlink()
    failing = f'[ "$1" = -m ] && exit 1; exec {sys.executable} "$@"'
    result = make(made, "env", interpreter(made, failing))
    assert result.returncode != 0 and "a folder that you may write" in result.stderr


def test_make_says_what_to_do_when_pip_fails(made):
    (made / ".venv" / ".installed").unlink()
    (made / ".venv" / "bin").mkdir()
    interpreter(made / ".venv" / "bin", "exit 1")
    (made / ".venv" / "bin" / "python-of-the-test").rename(made / ".venv" / "bin" / "python")
    makes_nothing = f'[ "$1" = -m ] && exit 0; exec {sys.executable} "$@"'
    result = make(made, "env", interpreter(made, makes_nothing))
    assert result.returncode != 0 and "Without a network, connect to one" in result.stderr
    assert not (made / ".venv" / ".installed").exists()


def test_make_says_so_when_there_is_no_python(made):
    (made / ".venv" / ".installed").unlink()
    result = make(made, "env", "PYTHON=python-that-nobody-has")
    assert result.returncode != 0 and "Install Python 3.11 or newer" in result.stderr


# --- the repository
# ---------------------------------------------------------------------------------------------------


def test_ci_run_is_an_executable_bash_script_that_stops_at_a_failure():
    path = ROOT / ".ci" / "run"
    assert os.access(path, os.X_OK)
    assert (
        path.read_text().startswith("#!/usr/bin/env bash\n")
        and "set -euo pipefail" in path.read_text()
    )
    assert subprocess.run(["bash", "-n", str(path)]).returncode == 0


def test_no_tracked_file_names_a_folder_of_a_developer_or_a_package_index():
    folders = [r"(?<![\w.}>])/(?:home|Users|root)/\w", r"\b[A-Z]:\\+Users\\"]
    folders += [re.escape(str(path)) + r"\b" for path in (ROOT, Path.home()) if len(path.parts) > 2]
    index = [
        r"--(?:extra-)?index-url",
        r"--find-links",
        r"pypi\.org/simple",
        r"files\.pythonhosted",
        r"download\.pytorch\.org",
    ]
    forbidden = re.compile("|".join(folders + index))
    found = [
        f"{path.relative_to(ROOT)}: {hit.group()}"
        for path, text in tracked_text().items()
        for hit in forbidden.finditer(text)
    ]
    assert found == []


def test_no_tracked_file_is_larger_than_4_megabytes():
    assert [path.name for path in tracked() if path.stat().st_size > 4_000_000] == []


def test_ruff_has_nothing_to_say():
    if not shutil.which("ruff", path=str(Path(sys.executable).parent)):
        pytest.skip("ruff is not installed")
    result = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_tests_cannot_reach_another_machine():
    with socket.socket() as outside, pytest.raises(OSError, match="run offline"):
        outside.connect(("192.0.2.1", 80))
    with (
        socket.create_server(("127.0.0.1", 0)) as here,
        socket.create_connection(here.getsockname()) as client,
    ):
        assert client.getpeername() == here.getsockname()
