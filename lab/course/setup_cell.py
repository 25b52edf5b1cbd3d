"""The first code cell of every notebook: it installs the lab where it is missing, as on Colab, on Binder or
in a new environment.
"""

import nbformat
from nbformat.v4 import new_code_cell

REPOSITORY = ""
"""OWNER/NAME of the lab on GitHub, in this one place. While it is empty the lab has no public address: the
first cell then needs LAB_INSTALL, and the table of the notebooks has no badges.
"""
SETUP = "setup"
_SOURCE = """\
# @title Installs the lab where it is missing; does nothing where it is installed
import importlib.util, os, shlex, subprocess, sys

if importlib.util.find_spec("alab") is None:
    source = os.environ.get("LAB_INSTALL") or (  # LAB_INSTALL: a wheel, a folder or other words for pip
        "{source}"
    )
    assert source, "The lab is not installed. Set LAB_INSTALL to its wheel or folder and run this cell again."
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *shlex.split(source)], check=True)
    importlib.invalidate_caches()
if "google.colab" in sys.modules:  # Sliders and buttons need this there.
    from google.colab import output

    output.enable_custom_widget_manager()"""


def setup_source(repository: str = REPOSITORY) -> str:
    """Return the code of the cell. pip leaves a torch that is there."""
    source = f"git+https://github.com/{repository}"
    return _SOURCE.replace("{source}", source if repository else "")


def put_setup_cell(notebook: nbformat.NotebookNode) -> None:
    """Put the cell behind the title, in place of an older one. In a notebook that has been executed
    the cell counts as executed too: it shows nothing where the lab is installed.
    """
    cells = notebook.cells
    is_setup = [SETUP in cell.metadata.get("tags", []) for cell in cells]
    fast = notebook.metadata.get("lab", {}).get("fast")
    code = [place for place, cell in enumerate(cells) if cell.cell_type == "code"]
    if fast is not None and len(fast) == len(code):
        fast[:] = [[], *(f for place, f in zip(code, fast) if not is_setup[place])]
    executed = bool(code) and all(cells[place].execution_count for place in code)
    cell = new_code_cell(
        setup_source(),
        id="install-lab",
        metadata={"tags": [SETUP], "cellView": "form", "jupyter": {"source_hidden": True}},
    )
    notebook.cells = [c for c, old in zip(cells, is_setup) if not old]
    notebook.cells.insert(1, cell)
    if executed:
        for number, each in enumerate((c for c in notebook.cells if c.cell_type == "code"), 1):
            each.execution_count = number
