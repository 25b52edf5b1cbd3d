"""Change a module in one spot at a time, and count how many of these mutants its own tests notice.

    python tests/mutants.py lab/algorithms/losses.py              # runs tests/algorithms/test_losses.py
    python tests/mutants.py lab/runs/folder.py tests/runs/test_folder.py tests/runs/test_runs.py
    python tests/mutants.py lab/data/batching.py --sample 20 --seed 1
    python tests/mutants.py lab/data/batching.py --lines 79 230   # again, after a test was written

A mutant that no test notices survives: a test is missing, or the code is not needed. The tests run
in a scratch copy of the repository, one mutant after the other, each in a process of its own. A
mutant that takes much longer than the unchanged module counts as killed. Messages of errors,
docstrings and annotations are left as they are. The exit code is 1 when fewer mutants than
--at-least die.
"""

import argparse
import ast
import copy
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[1]
PRELOADED = ("torch", "numpy", "transformers", "peft", "psutil", "filelock")
"""Packages that every test process would import anew; a fork of this process has them."""
PYTEST = ("-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
NO_MUTANTS = (ast.Raise, ast.JoinedStr, ast.ImportFrom, ast.Import, ast.AnnAssign)
"""Nodes whose inside is left alone; dropping a whole `raise` is a mutant all the same."""


@dataclass(frozen=True)
class Mutant:
    """A module's source with one change; `line` and `change` say where and which."""

    line: int
    change: str
    source: str


def _replacements(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes that may stand in place of `node`."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        yield ast.Compare(
            node.left, [COMPARISONS[type(node.ops[0])](), *node.ops[1:]], node.comparators
        )
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.Invert):
        yield node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.Return) and node.value and not _is_none(node.value):
        yield ast.Return(ast.Constant(None))
    elif isinstance(node, ast.AugAssign | ast.Raise):
        yield ast.Pass()
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield ast.Pass()


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _fields(node: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """Every node below `node` that may be replaced: its parent, the parent's field, its index in it."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases"):
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST):
                yield node, name, index, child
                if not isinstance(child, NO_MUTANTS):
                    yield from _fields(child)


def mutants(source: str) -> list[Mutant]:
    """Every mutant of a module, in the order of its lines."""
    tree = ast.parse(source)
    result = []
    for parent, name, index, child in _fields(tree):
        for replacement in _replacements(child):
            fixed = ast.copy_location(copy.deepcopy(replacement), child)
            _put(parent, name, index, fixed)
            changed = ast.unparse(ast.fix_missing_locations(tree))
            _put(parent, name, index, child)
            before, after = (ast.unparse(node).splitlines()[0] for node in (child, fixed))
            line = getattr(child, "lineno", 0)
            result.append(Mutant(line, f"`{before:.70}` → `{after:.70}`", changed))
    return sorted(result, key=lambda mutant: mutant.line)


def _put(parent: ast.AST, name: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, name, node)
    else:
        getattr(parent, name)[index] = node


def own_tests(module: Path) -> list[Path]:
    """The test files of a module: tests/a/test_b.py and tests/a/test_b_*.py for lab/a/b.py."""
    folder = Path("tests") / module.parent.relative_to("lab")
    paths = [
        ROOT / folder / f"test_{module.name}",
        *(ROOT / folder).glob(f"test_{module.stem}_*.py"),
    ]
    return sorted(path.relative_to(ROOT) for path in paths if path.exists())


def _become_pytest(scratch: Path, tests: list[Path], write_bytecode: bool) -> NoReturn:
    """Run pytest in this process, its output in scratch/pytest.log, and end with its exit code."""
    os.setsid()
    os.chdir(scratch)
    log = os.open("pytest.log", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    sys.dont_write_bytecode = not write_bytecode
    os.environ["PYTHONDONTWRITEBYTECODE"] = "" if write_bytecode else "1"
    os.environ["PYTHONPATH"] = str(scratch)
    foreign = ("", str(ROOT), str(ROOT / "tests"))
    sys.path[:] = [str(scratch), *(path for path in sys.path if path not in foreign)]
    code = 1
    try:
        code = int(pytest.main([*PYTEST, *map(str, tests)]))
    finally:
        sys.stdout.flush()
        os._exit(code)


def run_tests(scratch: Path, tests: list[Path], seconds: float, write_bytecode: bool) -> int | None:
    """The exit code of pytest on `tests` in a fork of this process; None after `seconds`."""
    child = os.fork()
    if not child:
        _become_pytest(scratch, tests, write_bytecode)
    deadline = time.monotonic() + seconds
    ended = False
    try:
        while time.monotonic() < deadline:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                ended = True
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.05)
        return None
    finally:
        if not ended:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)


def copy_repository(scratch: Path) -> None:
    """Copies what the tests read into the folder `scratch`."""
    without_bytecode = shutil.ignore_patterns("__pycache__")
    for name in ("lab", "tests", "notebooks", "docs", "static"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, scratch / name, ignore=without_bytecode)
    for path in ROOT.glob("*.*"):
        if path.is_file():
            shutil.copy2(path, scratch / path.name)


def survivors(module: Path, tests: list[Path], tried: list[Mutant]) -> list[Mutant]:
    """Returns the mutants among `tried` that the tests do not notice, and prints each of them."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        scratch = Path(folder)
        copy_repository(scratch)
        began = time.monotonic()
        code = run_tests(scratch, tests, 600, write_bytecode=True)
        seconds = time.monotonic() - began
        if code != 0:
            print((scratch / "pytest.log").read_text()[-3000:])
            raise SystemExit(f"The tests fail on the unchanged module, with exit code {code}.")
        # The next processes must not find bytecode of the unchanged module.
        for stale in (scratch / module.parent / "__pycache__").glob(f"{module.stem}.*"):
            stale.unlink()
        living = []
        for mutant in tried:
            (scratch / module).write_text(mutant.source, "utf-8")
            if run_tests(scratch, tests, 20 + 4 * seconds, write_bytecode=False) == 0:
                living.append(mutant)
                print(f"{module}:{mutant.line}: {mutant.change}", flush=True)
    return living


def chosen_mutants(module: Path, lines: list[int], sample: int, seed: int) -> list[Mutant]:
    """Returns the mutants of these lines (all without lines), or `sample` of them by `seed`."""
    candidates = mutants((ROOT / module).read_text("utf-8"))
    if lines:
        candidates = [mutant for mutant in candidates if mutant.line in lines]
    if sample and sample < len(candidates):
        candidates = random.Random(seed).sample(candidates, sample)
    return sorted(candidates, key=lambda mutant: mutant.line)


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("module", type=Path, help="a module, such as lab/algorithms/losses.py")
    parser.add_argument(
        "tests", type=Path, nargs="*", help="its test files; left out, those of its name"
    )
    parser.add_argument("--lines", type=int, nargs="*", default=[], help="mutants of these lines")
    parser.add_argument(
        "--sample", type=int, default=0, help="how many mutants, picked at random; 0: all"
    )
    parser.add_argument("--seed", type=int, default=0, help="which mutants are picked")
    parser.add_argument(
        "--at-least", type=float, default=0.0, help="share that must be killed, such as 0.95"
    )
    return parser.parse_args()


def main() -> None:
    """Tests the mutants of one module and prints the survivors and the share killed."""
    arguments = parse_arguments()
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    for name in PRELOADED:
        importlib.import_module(name)
    module, tests = arguments.module, arguments.tests or own_tests(arguments.module)
    tried = chosen_mutants(module, arguments.lines, arguments.sample, arguments.seed)
    if not tried:
        raise SystemExit(f"{module} has no mutants in these lines.")
    killed = len(tried) - len(survivors(module, tests, tried))
    print(f"{module}: killed {killed} of {len(tried)} ({killed / len(tried):.0%})")
    raise SystemExit(int(killed / len(tried) < arguments.at_least))


if __name__ == "__main__":
    main()
