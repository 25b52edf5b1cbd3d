"""Cells that wait for a prediction, and the later cells that need their names.

A cell that stops with `PredictFirst` leaves the names undone that it would have given from there on. A
later cell that reads one of them is not run: it says in one line that the prediction comes first, instead
of a NameError or a result from an older value. Every other error stays as it is.
"""

import ast
import symtable
from typing import Any

from IPython.core.error import InputRejected
from IPython.core.getipython import get_ipython

from lab.errors import LabError

SCOPES = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class PredictFirst(LabError, InputRejected):  # noqa: N818  It asks; nothing is wrong.
    """A cell waits for a prediction. A notebook shows the sentence alone, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def watch_cells() -> None:
    """From the next cell on, let cells that need a waiting cell wait too; nothing outside of IPython."""
    shell = get_ipython()  # type: ignore[no-untyped-call]
    if shell is not None and not any(isinstance(own, _Watch) for own in shell.ast_transformers):
        watch = _Watch()
        shell.ast_transformers.append(watch)
        shell.events.register("post_run_cell", watch.after)


class _Watch(ast.NodeTransformer):
    """The names that wait, kept up to date before and after every cell."""

    def __init__(self) -> None:
        self.waiting: set[str] = set()
        self.cell = ast.Module([], [])

    def visit_Module(self, cell: ast.Module) -> ast.Module:
        """IPython calls it with every cell before it runs. Raises `PredictFirst` for one that must wait."""
        self.cell = cell
        reads, _ = names_of(cell.body)
        if needed := sorted(reads & self.waiting):
            raise PredictFirst(
                f"Predict first. This cell needs {', '.join(needed)}, which a cell above gives after its"
                " prediction."
            )
        return cell

    def after(self, result: Any) -> None:
        """IPython calls it with the result of every cell."""
        body, self.cell = self.cell.body, ast.Module([], [])
        error = result.error_before_exec or result.error_in_exec
        line = _line(error) if isinstance(error, PredictFirst) else None
        if error is None:
            self.waiting -= names_of(body)[1]
        elif line is not None:
            self.waiting -= names_of([own for own in body if _end(own) < line])[1]
            self.waiting |= names_of([own for own in body if _end(own) >= line])[1]


def _end(statement: ast.stmt) -> int:
    return statement.end_lineno or statement.lineno


def _line(error: BaseException) -> int:
    """The line of the cell that raised the error; 0 for a cell that was not run."""
    line, frames = 0, error.__traceback__
    while frames is not None:
        frame = frames.tb_frame
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == "__main__":
            line = frames.tb_lineno
        frames = frames.tb_next
    return line


def names_of(statements: list[ast.stmt]) -> tuple[set[str], set[str]]:
    """Return the names that statements take from the cells before them, and those that they give or change.

    A name that a function takes from outside counts as taken where the function is defined.
    """
    found = _Names()
    for statement in statements:
        found.visit(statement)
    return found.reads, found.writes


class _Names(ast.NodeVisitor):
    """Reads and writes in the order in which Python executes them."""

    def __init__(self) -> None:
        self.reads: set[str] = set()
        self.bound: set[str] = set()
        self.changed: set[str] = set()

    @property
    def writes(self) -> set[str]:
        return self.bound | self.changed

    def generic_visit(self, node: ast.AST) -> None:
        if isinstance(node, SCOPES):
            self.reads |= _outer_names(node) - self.bound
            self.bound |= {
                own.target.id for own in ast.walk(node) if isinstance(own, ast.NamedExpr)
            }
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self.reads |= _outer_names(node) - self.bound - {node.name}
            self.bound.add(node.name)
        else:
            super().generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self.bound.add(node.id)
        elif node.id not in self.bound:
            self.reads.add(node.id)

    def visit_Assign(self, node: ast.Assign) -> None:
        self._in_order(node.value, *node.targets)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._in_order(node.value, node.target)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self.visit(ast.Name(node.target.id, ast.Load()))
        self._in_order(node.value, node.target)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self._in_order(node.value, node.target)

    def visit_For(self, node: ast.For) -> None:
        self._in_order(node.iter, node.target, *node.body, *node.orelse)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self.bound.add(node.name)
        self.generic_visit(node)

    def visit_alias(self, node: ast.alias) -> None:
        self.bound.add(node.asname or node.name.split(".")[0])

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self._part(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._part(node)

    def _part(self, node: ast.Subscript | ast.Attribute) -> None:
        """A value that is written into a part of an object changes the object."""
        owner: ast.expr = node
        while isinstance(owner, ast.Subscript | ast.Attribute):
            owner = owner.value
        if isinstance(node.ctx, ast.Store) and isinstance(owner, ast.Name):
            self.changed.add(owner.id)
        self.generic_visit(node)

    def _in_order(self, *nodes: ast.AST) -> None:
        for node in nodes:
            self.visit(node)


def _outer_names(node: ast.AST) -> set[str]:
    """The names that a scope of its own takes from outside."""
    top = symtable.symtable(ast.unparse(node), "<cell>", "exec")
    names = {own.get_name() for own in top.get_symbols() if own.is_referenced()}
    tables = list(top.get_children())
    while tables:
        table = tables.pop()
        tables += table.get_children()
        names |= {own.get_name() for own in table.get_symbols() if own.is_global()}
    return names
