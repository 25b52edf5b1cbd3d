"""Executes notebooks in new environments that have only jupyter: the first cell of each installs the lab
from a wheel that is built here.

python scripts/try_bare_notebooks.py --python python3.11 --python python3.12 --whole 03 --whole 06

Each notebook is executed by itself with its solutions in place, and with LAB_FAST, so that a run has three
updates. The script itself runs where the lab is installed. With --whole the others are
executed up to their first code cell, and then have to import the lab. The first notebook finds an environment
without the lab. The script prints a line for each notebook and ends with an error if one fails. pip takes what
it needs from where it is set up to.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat

from lab.course.build_notebooks import read_notebook
from lab.course.solutions import with_solutions_run

ROOT = Path(__file__).resolve().parents[1]
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
BESIDE = ("lab", "static", "notebooks", ".streamlit", "docs/assets/katex")


def build_wheel(folder: Path) -> Path:
    """Return the wheel of the lab, built from a copy so that the clone stays as it is."""
    clone = folder / "clone"
    clone.mkdir()
    for name in BESIDE:
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in [*ROOT.glob("*.*"), ROOT / "LICENSE"]:
        if path.is_file():
            shutil.copy(path, clone / path.name)
    command = [sys.executable, "-W", "ignore", "-c", BUILD, str(folder)]
    subprocess.run(command, cwd=clone, check=True, stdout=subprocess.DEVNULL)
    return next(folder.glob("*.whl"))


def new_environment(folder: Path, python: str) -> Path:
    """Return the interpreter of a new environment that has only jupyter's server and kernel."""
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    inside = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    packages = ["nbconvert", "ipykernel", "jupyterlab"]
    subprocess.run([inside, "-m", "pip", "install", "--quiet", *packages], check=True)
    return inside


def solved(notebook: Path, folder: Path) -> Path:
    """Return a copy of a notebook whose solutions are executed, each after its exercise."""
    copy = folder / notebook.name
    nbformat.write(with_solutions_run(read_notebook(notebook)), copy)
    return copy


def beginning(notebook: Path, folder: Path) -> Path:
    """Return a copy of a notebook that ends with its first code cell and an import of the lab."""
    content = json.loads(notebook.read_text("utf-8"))
    kinds = [cell["cell_type"] for cell in content["cells"]]
    content["cells"] = content["cells"][: kinds.index("code") + 1]
    test = {"cell_type": "code", "id": "imports", "metadata": {}, "outputs": []}
    test |= {"execution_count": None, "source": "import lab.course.check\nprint(lab.__file__)"}
    content["cells"].append(test)
    copy = folder / notebook.name
    copy.write_text(json.dumps(content), "utf-8")
    return copy


def outcome(path: Path) -> str:
    """Return what an executed notebook shows, or its first error."""
    cells = [c for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    errors = [o for o in outputs if o["output_type"] == "error"]
    figures = sum("application/vnd.plotly.v1+json" in o.get("data", {}) for o in outputs)
    if errors:
        return f"FAILED: {errors[0]['ename']}: {errors[0]['evalue'][:300]}"
    return f"{len(cells)} cells, {figures} figures"


def execute(python: Path, notebook: Path, scratch: Path, wheel: Path) -> str:
    """Execute one notebook in the environment of `python` and return its outcome."""
    scratch.mkdir(exist_ok=True)
    settings = {
        "LAB_INSTALL": f"'{wheel}'",
        "LAB_FAST": "1",
        "LAB_PREDICTIONS": "first",
        "LAB_COURSE": "",
        "LAB_RUNS": str(scratch / "runs"),
        "OMP_NUM_THREADS": "1",
    }
    words = ["nbconvert", "--to", "notebook", "--execute", "--allow-errors"]
    words += ["--ExecutePreprocessor.timeout=3600", "--output-dir", str(scratch), str(notebook)]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | settings
    done = subprocess.run(
        [python, "-m", "jupyter", *words],
        env=environment,
        cwd=scratch,
        capture_output=True,
        text=True,
    )
    made = scratch / notebook.name
    return outcome(made) if made.is_file() else f"FAILED: {done.stderr[-500:]}"


def main() -> None:
    """Try every notebook with every interpreter."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--python", action="append", help="an interpreter; may be repeated")
    parser.add_argument("--only", action="append", help="number of a notebook; may be repeated")
    parser.add_argument(
        "--whole", action="append", help="of the notebooks only these as a whole; may be repeated"
    )
    parser.add_argument("--keep", type=Path, help="folder for the environments, to look at them")
    given = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        wheel = build_wheel(Path(temporary))
        paths = sorted(Path(temporary, "clone", "notebooks").glob("[0-9][0-9]-*.ipynb"))
        chosen = [p for p in paths if not given.only or p.name[:2] in given.only]
        begun = [p for p in chosen if given.whole and p.name[:2] not in given.whole]
        prepared = folder / "notebooks"
        prepared.mkdir(exist_ok=True)
        sources = {p: (beginning if p in begun else solved)(p, prepared) for p in chosen}
        for number, interpreter in enumerate(given.python or [sys.executable]):
            python = new_environment(folder / f"environment{number}", interpreter)
            for path, source in sources.items():
                start = time.perf_counter()
                text = execute(python, source, folder / f"work{number}", wheel)
                failed |= text.startswith("FAILED")
                print(
                    f"{interpreter} {path.name}: {text}, {time.perf_counter() - start:.0f} s",
                    flush=True,
                )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
