"""Solutions of the exercises: folded text in a notebook, code while it is executed for the site, and a
module for learners who ask for them.

A notebook never runs a solution: its exercise's cell holds the learner's own function.
"""

import ast
import copy

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell

SOLUTION = "solution"
_OPENING = "<details><summary>Solution</summary>\n\n```python\n"
_CLOSING = "\n```\n\n</details>"


def is_solution(cell: nbformat.NotebookNode) -> bool:
    """Return whether a cell holds a solution."""
    return SOLUTION in cell.metadata.get("tags", [])


def solution_code(cell: nbformat.NotebookNode) -> str:
    """Return the code of a solution, without the call of `check` after it."""
    code = cell.source
    if cell.cell_type == "markdown":
        code = code.removeprefix(_OPENING).removesuffix(_CLOSING)
    return "\n".join(line for line in code.splitlines() if not line.startswith("check(")).strip()


def fold_solutions(notebook: nbformat.NotebookNode) -> None:
    """Replace solutions that are code by folded text, so that "Run all" does not run them."""
    for place, cell in enumerate(notebook.cells):
        if is_solution(cell) and cell.cell_type == "code":
            text = _OPENING + solution_code(cell) + _CLOSING
            folded = new_markdown_cell(text, metadata={"tags": [SOLUTION]}, id=cell.id)
            notebook.cells[place] = folded


def with_solutions_run(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return a copy whose folded solutions are code, each after its exercise, to be executed."""
    runnable = copy.deepcopy(notebook)
    for place, cell in enumerate(runnable.cells):
        if is_solution(cell):
            code = new_code_cell(solution_code(cell), metadata=cell.metadata, id=cell.id)
            runnable.cells[place] = code
    return runnable


def with_outputs_of(
    notebook: nbformat.NotebookNode, executed: nbformat.NotebookNode
) -> nbformat.NotebookNode:
    """Return a copy of `notebook` with the outputs of `executed`, its copy by `with_solutions_run`; the
    code cells are counted from 1.
    """
    filled, count = copy.deepcopy(notebook), 0
    for cell, source in zip(filled.cells, executed.cells, strict=True):
        if cell.cell_type == "code":
            count += 1
            cell.outputs, cell.execution_count = source.outputs, count
    return filled


def solutions_module(notebook: nbformat.NotebookNode, name: str) -> str:
    """Return a Python module with the solutions of a notebook and the imports that they need; empty if
    the notebook has none. `name` is the notebook's.
    """
    codes = [solution_code(cell) for cell in notebook.cells if is_solution(cell)]
    if not codes:
        return ""
    used = {node.id for node in ast.walk(ast.parse("\n".join(codes))) if isinstance(node, ast.Name)}
    imports = [
        line
        for cell in notebook.cells
        if cell.cell_type == "code"
        for node in ast.parse(cell.source).body
        if isinstance(node, ast.Import | ast.ImportFrom) and (line := _only(node, used))
    ]
    head = f'"""Solutions of notebook {name}. To use one: from solutions.{module_name(name)} import …"""'
    return "\n\n\n".join([f"{head}\n\n" + "\n".join(dict.fromkeys(imports)), *codes]).strip() + "\n"


def module_name(name: str) -> str:
    """Return the name of the module for a notebook: 03-dpo gives nb03_dpo."""
    return "nb" + name.replace("-", "_")


def _only(node: ast.Import | ast.ImportFrom, used: set[str]) -> str:
    """The import of those names that are used, or nothing."""
    names = [one for one in node.names if (one.asname or one.name).split(".")[0] in used]
    return ast.unparse(type(node)(**vars(node) | {"names": names})) if names else ""
