"""The wheel: a folder without the clone has the command, the dashboard and the notebooks; and a second
package of the name `lab` is an error that says what to do.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel that `pip install .` builds, from a folder whose name has a space and an umlaut."""
    clone = tmp_path_factory.mktemp("Ordner mit ä") / "lab"
    clone.mkdir()
    for name in ("lab", "static", "notebooks", ".streamlit"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.glob("*.*"):
        if path.is_file():
            shutil.copy(path, clone / path.name)
    shutil.copy(ROOT / "LICENSE", clone / "LICENSE")
    out = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BUILD, str(out)],
        cwd=clone,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


@pytest.fixture
def installed(wheel, tmp_path) -> Path:
    """A folder of packages that holds the unpacked wheel alone, as pip leaves it."""
    folder = tmp_path / "site packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def install_other_lab(folder: Path, version: str = "8.10") -> None:
    """Unpack another project's package `lab`, with the files that PyPI's package of that name has."""
    files = {
        "lab/__init__.py": "__version__ = '8.10'\n",
        "lab/experiment.py": "",
        "lab/tools.py": "",
    }
    info = f"lab-{version}.dist-info"
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: lab\nVersion: {version}\n"
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")


def python(installed: Path, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(installed), "LAB_RUNS": "", "PYTHONUTF8": "1"}
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd or installed.parent,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=240,
    )


def test_the_wheel_holds_what_lies_beside_the_package_in_a_clone(wheel):
    assert wheel.name == f"alignment_lab-{VERSION}-py3-none-any.whl"
    names = set(zipfile.ZipFile(wheel).namelist())
    beside = [ROOT / "app.py", ROOT / ".streamlit" / "config.toml"]
    beside += [*(ROOT / "static").iterdir(), *(ROOT / "notebooks").glob("0*.ipynb")]
    assert {f"lab/top_level/{path.relative_to(ROOT).as_posix()}" for path in beside} <= names
    package = [path for path in (ROOT / "lab").rglob("*") if path.suffix in (".py", ".js", ".css")]
    assert {path.relative_to(ROOT).as_posix() for path in package} | {"alab.py"} <= names
    assert {name.split("/")[0] for name in names} == {
        "alab.py",
        "lab",
        f"alignment_lab-{VERSION}.dist-info",
    }


def test_the_command_alab_is_declared(wheel):
    entry = zipfile.ZipFile(wheel).read(f"alignment_lab-{VERSION}.dist-info/entry_points.txt")
    assert entry.decode().split() == ["[console_scripts]", "alab", "=", "alab:main"]


def test_a_run_trains_in_an_empty_folder_and_lies_in_its_folder_runs(installed, tmp_path):
    folder = tmp_path / "leer ä"
    folder.mkdir()
    words = ("train", "dpo", "--steps", "1", "--eval-prompts", "8")
    done = python(installed, "-m", "lab", *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert [path.name.split("-")[0] for path in (folder / "runs").iterdir()] == ["dpo"]


def test_the_notebooks_are_copied_and_handed_out(installed, tmp_path):
    names = sorted(path.name for path in (ROOT / "notebooks").glob("0*.ipynb"))
    for order in ("copy", "handout"):
        done = python(installed, "-m", "alab", "course", order, f"{order} für alle")
        assert done.returncode == 0, done.stderr
        written = (tmp_path / f"{order} für alle").glob("*.ipynb")
        assert names == sorted(p.name for p in written if p.name.startswith("0"))
    work = tmp_path / "copy für alle" / names[0]
    work.write_text("a learner's work")
    again = python(installed, "-m", "alab", "course", "copy", "copy für alle")
    assert again.returncode == 0 and "nothing was changed" in again.stdout
    assert work.read_text() == "a learner's work"
    refused = python(installed, "-m", "alab", "course", "handout", "handout für alle")
    assert refused.returncode == 2 and "may hold a learner's work" in refused.stderr


def test_the_notebooks_of_an_installed_lab_are_not_executed_in_place(installed):
    done = python(installed, "-m", "alab", "course", "build")
    assert done.returncode == 2 and "make notebooks" in done.stderr


def test_alab_app_serves_the_dashboard_from_the_package(installed, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "alab", "app", "--server.port", str(port)]
    process = subprocess.Popen(
        [*command, "--server.headless", "true"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://localhost:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None
            try:
                urllib.request.urlopen(f"{url}/_stcore/health", timeout=5)
                break
            except OSError:
                time.sleep(0.1)
        bundle = next((ROOT / "static").glob("plotly-cartesian-*.js"))
        with urllib.request.urlopen(f"{url}/app/static/{bundle.name}", timeout=30) as response:
            assert response.read() == bundle.read_bytes()
            assert response.headers["x-frame-options"] == "SAMEORIGIN"  # the lab's own server
        busy = python(installed, *command[1:])
        assert busy.returncode == 2 and len(busy.stderr.splitlines()) == 1
        assert f"Port {port} is in use" in busy.stderr
    finally:
        process.terminate()
        process.wait(30)


def test_app_names_the_range_of_a_port(installed):
    done = python(installed, "-m", "alab", "app", "--server.port=http")
    assert done.returncode == 2 and "--server.port is 'http'" in done.stderr


# --- another package of the name lab


@pytest.mark.parametrize("order", ["ours first", "theirs first"])
@pytest.mark.parametrize("module", ["alab", "lab"])
def test_a_second_package_called_lab_is_one_line_in_either_order(wheel, tmp_path, order, module):
    folder = tmp_path / "site"
    if order == "theirs first":
        install_other_lab(folder)
    zipfile.ZipFile(wheel).extractall(folder)
    if order == "ours first":
        install_other_lab(folder)
    done = python(folder, "-m", module, "runs")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "lab 8.10" in done.stderr and "Make a new environment" in done.stderr


def test_an_import_beside_a_second_package_called_lab_is_an_error(wheel, tmp_path):
    install_other_lab(tmp_path / "site")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    done = python(tmp_path / "site", "-c", "import lab")
    assert done.stderr.splitlines()[-1].startswith("ImportError: ")
    assert "lab 8.10" in done.stderr and "Make a new environment" in done.stderr


def test_files_that_went_with_the_second_package_are_named(installed):
    (installed / "lab" / "__init__.py").unlink()
    done = python(installed, "-m", "alab", "runs")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "lab/__init__.py is missing" in done.stderr and "--force-reinstall" in done.stderr


def test_a_package_called_lab_in_front_of_the_clone_is_named(tmp_path):
    install_other_lab(tmp_path / "site")
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import alab; sys.path.pop(0); alab.main()"
    )
    done = python(tmp_path / "site", "-c", script)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "lab 8.10" in done.stderr and str(ROOT) in done.stderr


# --- the machine


def test_a_python_that_is_too_old_is_one_line():
    old = "import sys; sys.version_info = (3, 10, 4); sys.version = '3.10.4 (old)'; sys.argv = ['-m']; import lab"
    done = python(ROOT, "-c", old)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "Python 3.11 or newer" in done.stderr and "3.10.4" in done.stderr


def test_pip_on_an_old_python_says_so_before_it_downloads_anything():
    old = "import sys, runpy; sys.version_info = (3, 10, 4); runpy.run_path('setup.py')"
    done = python(ROOT, "-c", old, cwd=ROOT)
    assert done.returncode == 1 and "The lab needs Python 3.11 or newer" in done.stderr


def test_a_dependency_that_is_missing_is_one_line():
    hidden = "import sys; sys.modules['tyro'] = None; import alab; alab.main()"
    done = python(ROOT, "-c", hidden)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "'tyro' is missing" in done.stderr and "pip install" in done.stderr


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_folder_that_may_not_be_written_is_one_line(installed, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    for words in (("train", "dpo", "--steps", "1"), ("course", "copy", "here")):
        done = python(installed, "-m", "alab", *words, cwd=closed)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
