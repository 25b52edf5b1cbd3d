"""Imports point one way: a module uses those on its own line of the table and the lines above, never a line below."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LAYERS = [  # A name is a module of lab, or a package with all that is in it.
    ["errors"],
    ["inputs", "config", "metrics", "control", "jsonl", "paths", "diagnosis", "presets", "results", "recommend", "intervals", "sweep", "formats", "pairs",
     "rows", "checksums", "pipes"],
    ["threads", "parallel", "shards", "tasks", "fetch", "chat", "encoding", "data", "logps", "models", "heads", "advantages", "objectives", "world",
     "derivation", "groups", "bounds", "corpus", "profiles", "vectors", "packing", "devices", "lora", "kernels", "decoder", "passes", "graphs", "chunked",
     "likelihood", "loop", "small_loop", "decoding", "compatibility", "generation", "sampler", "adapters"],
    ["evaluate", "rollout"],
    ["methods"],
    ["train"],
    ["base", "runs", "queue", "summary", "samples", "trash", "trained", "finished", "talk", "data_report", "progress", "resources",
     "damage"],
    ["estimate", "identity", "resume", "driver"],
    ["figures"],
    ["experiments"],
    ["course"],
    ["ui", "cli", "cli_arguments", "cli_measuring", "cli_own"],
    ["__main__"],
]
LAYER_OF = {name: number for number, layer in enumerate(LAYERS) for name in layer}
LIGHT = ["config", "metrics", "errors", "control", "jsonl", "paths", "diagnosis", "presets", "runs", "queue", "sweep", "formats", "pairs", "inputs", "cli",
         "cli_arguments", "cli_measuring", "cli_own", "figures", "ui.train", "ui.runs", "ui.talk"]
HEAVY = ["torch", "transformers", "peft"]


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted((ROOT / "lab").rglob("*.py"))}


def imports_of(path):
    """Every module that a file names in an import, those inside of functions too; `from a import b` is a.b where that is a module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name}, line {node.lineno}: a relative import"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in inside}
    return found


def layer_of(module):
    """The number of the layer of `lab.a.b`; the bare package is the floor that all stand on."""
    return -1 if module == "lab" else LAYER_OF[module.split(".")[1]]


IMPORTS = {module: imports_of(path) for module, path in MODULES.items()}
INSIDE = {module: {name for name in found if name in MODULES} for module, found in IMPORTS.items()}
OUTSIDE = {module: {name.split(".")[0] for name in found} - {"lab"} - sys.stdlib_module_names for module, found in IMPORTS.items()}


def test_every_module_has_its_place_in_the_table_and_the_table_names_nothing_else():
    assert {module.split(".")[1] for module in MODULES if module != "lab"} == set(LAYER_OF)
    assert len(LAYER_OF) == sum(map(len, LAYERS))


@pytest.mark.parametrize("module", MODULES)
def test_nothing_imports_from_a_layer_above_its_own(module):
    assert {name for name in INSIDE[module] if layer_of(name) > layer_of(module)} == set()


def test_no_module_imports_itself_by_way_of_others():
    left = {module: set(used) - {module} for module, used in INSIDE.items()}
    while free := {module for module, used in left.items() if not used}:
        left = {module: used - free for module, used in left.items() if module not in free}
    assert left == {}


def test_every_module_of_lab_that_an_import_names_exists():
    assert {(m, name) for m, found in IMPORTS.items() for name in found if name.split(".")[0] == "lab" and name not in MODULES} == set()


def test_the_runs_on_disk_know_only_what_a_run_is_made_of():
    assert INSIDE["lab.runs.folder"] <= {f"lab.{name}" for name in ("config", "control", "errors", "jsonl", "paths", "rows")}


@pytest.mark.parametrize("module", ["lab.algorithms.losses", "lab.algorithms.advantages", "lab.algorithms.logprobs"])
def test_the_formulas_need_torch_and_nothing_else_from_outside(module):
    assert OUTSIDE[module] == {"torch"}
    assert INSIDE[module] <= {"lab.errors", "lab.algorithms.logprobs"}


def test_figures_know_no_dashboard_and_the_dashboard_no_tensors():
    for module, outside in OUTSIDE.items():
        if module.startswith("lab.figures"):
            assert outside <= {"numpy", "plotly"}, module
        if module.startswith("lab.dashboard"):
            assert outside <= {"numpy", "pandas", "plotly", "streamlit"}, module


def test_streamlit_is_used_by_the_dashboard_alone_and_tyro_by_the_command_line_alone():
    assert {m.rpartition(".")[0] for m, outside in OUTSIDE.items() if "streamlit" in outside} == {"lab.dashboard"}
    assert {m for m, outside in OUTSIDE.items() if "tyro" in outside} == {"lab.cli.main", "lab.cli.arguments", "lab.cli.measure"}


@pytest.mark.parametrize("module", LIGHT)
def test_a_page_or_a_command_starts_without_loading_a_model_library(module):
    script = f"import sys, lab.{module}; print(sorted(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_no_module_is_called_after_nothing_in_particular():
    vague = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert {module for module in MODULES if vague & set(module.split("."))} == set()


def test_app_py_is_short_and_uses_the_dashboard_alone():
    assert len((ROOT / "app.py").read_text(encoding="utf-8").splitlines()) < 60
    assert {name for name in imports_of(ROOT / "app.py") if name.split(".")[0] == "lab"} <= {m for m in MODULES if m.startswith("lab.dashboard")}
