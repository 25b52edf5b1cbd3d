"""Imports point one way: a room (a package of lab) uses the rooms that stand before it in `ROOMS`,
never one behind it.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = [
    "errors",
    "config",
    "storage",
    "algorithms",
    "distributed",
    "models",
    "data",
    "tasks",
    "engine",
    "runs",
    "analysis",
    "training",
    "figures",
    "profiling",
    "serving",
    "api",
    "taste",
    "recipes",
    "course",
    "dashboard.state",
    "dashboard.components",
    "dashboard.pages",
    "site",
    "experiments",
    "benchmarks",
    "cli",
    "__main__",
]
LIGHT = [
    "__main__",
    "config",
    "storage",
    "errors",
    "analysis.diagnose",
    "analysis.claims",
    "runs",
    "data.readers",
    "data.examples",
    "cli",
    "figures",
    "dashboard",
]
HEAVY = ["torch", "transformers", "peft"]


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {f"lab.{path.stem}" for path in (ROOT / "lab").glob("*.py")}
MODULES = {module_name(path): path for path in sorted((ROOT / "lab").rglob("*.py"))}


def imports_of(path, annotations=True):
    """Every module that a file names in an import, those inside of functions too, and with
    `annotations` those that only its annotations need; `from a import b` is a.b where that is a
    module.
    """
    names, nodes = set(), [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if (
            not annotations
            and isinstance(node, ast.If)
            and ast.unparse(node.test) == "TYPE_CHECKING"
        ):
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name}, line {node.lineno}: a relative import"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else node.module for name in inside}
    return names


def room_of(module):
    """The room in which `lab.a.b` stands; None for the bare packages that hold rooms."""
    name = module.removeprefix("lab").removeprefix(".")
    return next((room for room in ROOMS if name == room or name.startswith(f"{room}.")), None)


IMPORTS = {module: imports_of(path) for module, path in MODULES.items()}
INSIDE = {module: {name for name in names if name in MODULES} for module, names in IMPORTS.items()}
OUTSIDE = {
    module: {name.split(".")[0] for name in names} - {"lab"} - sys.stdlib_module_names
    for module, names in IMPORTS.items()
}


def test_every_module_stands_in_a_room_and_every_room_has_a_module():
    assert {module for module in MODULES if room_of(module) is None} == {"lab", "lab.dashboard"}
    assert {room_of(module) for module in MODULES} - {None} == set(ROOMS)


@pytest.mark.parametrize("module", MODULES)
def test_nothing_imports_from_a_room_behind_its_own(module):
    own = room_of(module)
    assert (
        own is None
        or {
            name
            for name in INSIDE[module]
            if room_of(name) and ROOMS.index(room_of(name)) > ROOMS.index(own)
        }
        == set()
    )


def test_no_module_imports_itself_by_way_of_others():
    used_by = {module: imports_of(path, annotations=False) for module, path in MODULES.items()}
    left = {module: (used & set(MODULES)) - {module} for module, used in used_by.items()}
    while free := {module for module, used in left.items() if not used}:
        left = {module: used - free for module, used in left.items() if module not in free}
    assert left == {}


def test_every_module_of_lab_that_an_import_names_exists():
    assert {
        (m, name)
        for m, names in IMPORTS.items()
        for name in names
        if name.split(".")[0] == "lab" and name not in MODULES
    } == set()


def test_at_most_three_modules_lie_directly_in_lab():
    assert len([path for path in (ROOT / "lab").glob("*.py") if path.name != "__init__.py"]) <= 3


@pytest.mark.parametrize(
    "path",
    [
        p
        for p in (ROOT / "lab").rglob("__init__.py")
        if p.parent.name not in ("lab", "course", "exercises")  # `from lab import train` needs code
    ],
    ids=lambda p: p.parent.name,
)
def test_the_init_of_a_package_says_in_one_line_why_it_is_there_and_does_nothing_else(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert len(tree.body) == 1 and len((ast.get_docstring(tree) or "\n\n").splitlines()) == 1


def test_the_tests_mirror_the_packages():
    packages = {path.name for path in (ROOT / "lab").iterdir() if (path / "__init__.py").is_file()}
    assert {
        path.name
        for path in (ROOT / "tests").iterdir()
        if path.is_dir() and any(path.glob("test_*.py"))
    } <= packages | {"project"}


def test_the_runs_on_disk_know_only_what_a_run_is_made_of():
    assert {room_of(name) for name in INSIDE["lab.runs.folder"]} <= {
        "config",
        "runs",
        "errors",
        "storage",
    }


@pytest.mark.parametrize(
    "module", [module for module in MODULES if module.startswith("lab.algorithms.")]
)
def test_the_formulas_need_torch_and_nothing_else_from_outside(module):
    assert OUTSIDE[module] <= {"torch"}
    assert {room_of(name) for name in INSIDE[module]} <= {"errors", "algorithms"}


def test_figures_know_no_dashboard_and_the_dashboard_no_tensors():
    for module, outside in OUTSIDE.items():
        if module.startswith("lab.figures"):
            assert outside <= {"numpy", "plotly"}, module
        if module.startswith("lab.dashboard"):
            assert outside <= {"numpy", "pandas", "plotly", "segno", "streamlit"}, module


def test_streamlit_is_used_by_the_dashboard_alone_and_tyro_by_the_command_line_alone():
    assert {m.split(".")[1] for m, outside in OUTSIDE.items() if "streamlit" in outside} == {
        "dashboard"
    }
    assert {m.split(".")[1] for m, outside in OUTSIDE.items() if "tyro" in outside} == {"cli"}


@pytest.mark.parametrize("room", LIGHT)
def test_a_page_or_a_command_starts_without_loading_a_model_library(room):
    modules = [m for m in MODULES if f"{m}.".startswith(f"lab.{room}.")]
    script = (
        f"import sys, lab, {', '.join(modules)}; print(sorted(set({HEAVY}) & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_no_module_is_called_after_nothing_in_particular():
    vague = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert {module for module in MODULES if vague & set(module.split("."))} == set()


def test_app_py_is_short_and_uses_the_dashboard_alone():
    assert len((ROOT / "app.py").read_text(encoding="utf-8").splitlines()) < 80
    assert {name for name in imports_of(ROOT / "app.py") if name.split(".")[0] == "lab"} <= {
        m for m in MODULES if m.startswith("lab.dashboard")
    }


def test_the_page_on_the_architecture_lists_the_packages_in_their_order():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `lab/")]
    packages = list(dict.fromkeys(room.split(".")[0] for room in ROOMS if room != "__main__"))
    assert listed == [f"lab/{name}{'.py' * (f'lab.{name}' in FILES)}" for name in packages]
