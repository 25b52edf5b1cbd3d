"""How many lines of code a learner writes in a notebook, and how many of them train a model."""

import ast
from dataclasses import dataclass

import nbformat

from lab.config.methods import METHODS
from lab.course.build_notebooks import has_tag
from lab.course.handout import STUB
from lab.course.solutions import is_solution, solution_code

OWN_LOOP = "update"
"""The function that makes an update where a notebook trains in its own loop."""


@dataclass(frozen=True)
class LearnerLines:
    """Lines in the bodies of the functions that a learner writes; `training` are those of functions that
    a run calls. `blank` are the lines of the cells that are empty with `--blank`, beside them.
    """

    written: int
    training: int
    blank: int = 0


def learner_lines(notebook: nbformat.NotebookNode) -> LearnerLines:
    """Count the lines of a notebook's solutions, and of functions `my_…` in its other cells, which hold
    an example for the learner to change. Blank lines, comments and the lines with `def` do not count.

    A function trains if it is passed to `train` at the place of one of a method's functions, by name or
    in a dictionary; where the notebook has a loop of its own, if any cell but its own calls it.
    """
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    codes = [solution_code(cell) for cell in notebook.cells if is_solution(cell)]
    rest = [
        cell.source for cell in cells if not has_tag(cell, "exercise") and not is_solution(cell)
    ]
    bodies: dict[str, int] = {}
    for code in [*codes, *rest]:
        for node in ast.parse(code).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("my_"):
                bodies[node.name] = _body_lines(node, code)
    trees = [ast.parse(source) for source in rest]
    used = _called(trees) if _has_own_loop(trees) else _passed_to_train(trees)
    training = sum(lines for name, lines in bodies.items() if name in used)
    return LearnerLines(sum(bodies.values()), training, sum(map(_blank_lines, cells)))


def _blank_lines(cell: nbformat.NotebookNode) -> int:
    """The lines of a cell that its stub does not have; 0 for a cell without a stub."""
    if STUB not in cell.metadata:
        return 0
    given = {line.strip() for line in cell.metadata[STUB].splitlines()}
    return sum(line.strip() not in given for line in cell.source.splitlines() if line.strip())


def _body_lines(function: ast.FunctionDef, code: str) -> int:
    lines = code.splitlines()[function.body[0].lineno - 1 : function.end_lineno]
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in lines)


def _has_own_loop(trees: list[ast.Module]) -> bool:
    return any(
        isinstance(node, ast.FunctionDef) and node.name == OWN_LOOP
        for tree in trees
        for node in tree.body
    )


def _called(trees: list[ast.Module]) -> set[str]:
    return {
        node.func.id
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }


def _passed_to_train(trees: list[ast.Module]) -> set[str]:
    """The names that stand at a hook: as a keyword of a call, as a value of a dictionary, in a loop over
    functions, or as a function that `repeat_run` trains.
    """
    hooks = {hook.name for method in METHODS.values() for hook in method.hooks} | {"scored_by"}
    found = set()
    for tree in trees:
        loops = {
            node.target.id if isinstance(node.target, ast.Name) else "": node.iter
            for node in ast.walk(tree)
            if isinstance(node, ast.comprehension)
        }
        for node in ast.walk(tree):
            values: list[ast.expr] = []
            if isinstance(node, ast.Call):
                values = [word.value for word in node.keywords if word.arg in hooks]
                if isinstance(node.func, ast.Name) and node.func.id == "repeat_run":
                    values += node.args[1:]
            elif isinstance(node, ast.Dict):
                values = [
                    value
                    for key, value in zip(node.keys, node.values)
                    if isinstance(key, ast.Constant) and key.value in hooks
                ]
            for value in values:
                if isinstance(value, ast.Name):
                    found |= {value.id} | _names(loops.get(value.id))
        found |= {
            name
            for node in ast.walk(tree)
            if isinstance(node, ast.For) and "train" in _called([tree])
            for name in _names(node.iter)
        }
    return found


def _names(node: ast.AST | None) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)} if node else set()
