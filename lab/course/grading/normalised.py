"""The code of a function without what a copier changes first: names, comments, layout, annotations."""

import ast
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lab.course.code_hash import Plain
from lab.course.grading.submissions import Program, bound_names

PIECE = 4
"""Parts of the code that make up a piece."""


@dataclass(frozen=True)
class Form:
    """A function's code with its helpers and constants. `text` has the learner's names, `pieces` and
    `normalised` have placeholders for them. `parts` counts the nodes of the syntax tree. `own_names`
    counts the variables that the learner has named.
    """

    text: str
    normalised: str
    pieces: Counter[tuple[str, ...]]
    parts: int
    own_names: int


def form_of(program: Program) -> Form:
    """Return the form of a program's function and its helpers.

    Comments, layout, docstrings, annotations and the names of imports go. In the normalised code the
    names of variables, arguments, helpers and attributes that the code itself binds are v0, v1, … in
    the order of their use, and helpers stand in that order. Numbers, texts and the names of torch's
    functions stay.
    """
    tree = Plain().visit(ast.parse(program.source))
    body = [s for s in tree.body if not isinstance(s, ast.Import | ast.ImportFrom)]
    nodes = [node for statement in body for node in ast.walk(statement)]
    stored = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    arguments = {node.arg for node in nodes if isinstance(node, ast.arg)}
    normal = _normal(tree, program)
    parts = [part for node in ast.walk(normal) for part in _parts(node)]
    pieces = Counter(tuple(parts[i : i + PIECE]) for i in range(max(1, len(parts) - PIECE + 1)))
    text = ast.unparse(ast.Module(body, []))
    return Form(text, ast.unparse(normal), pieces, len(parts), len(stored - arguments))


def _parts(node: ast.AST) -> list[str]:
    match node:
        case ast.Load() | ast.Store() | ast.Module() | ast.arguments() | ast.Expr():
            return []
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return [name]
        case ast.Constant(value=value):
            return [repr(value)]
    return [type(node).__name__]


def _normal(tree: ast.Module, program: Program) -> ast.Module:
    """The normalised code of a program, whose tree stays as it is."""
    simple = _Simple(_imported(tree))
    body = [simple.visit(statement) for statement in ast.parse(ast.unparse(tree)).body]
    first = set(bound_names(ast.parse(program.statement).body[0]))
    module = ast.Module(_in_order_of_use([s for s in body if s is not None], first), [])
    _Renamed(module).visit(module)
    return module


def _imported(tree: ast.AST) -> dict[str, str]:
    """By the name that an import binds, the dotted name of what it imports."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                found[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def _in_order_of_use(body: Sequence[ast.stmt], first: set[str]) -> list[ast.stmt]:
    """The statement that binds the names `first`, then those that it uses in the order of their use,
    then the others.
    """
    places = {name: i for i, statement in enumerate(body) for name in bound_names(statement)}
    todo = [*(places[name] for name in first if name in places), *range(len(body))]
    order: list[int] = []
    while todo:
        place = todo.pop(0)
        if place not in order:
            order.append(place)
            used = [n.id for n in ast.walk(body[place]) if isinstance(n, ast.Name)]
            todo = [*(places[name] for name in used if name in places), *todo]
    return [body[place] for place in order]


class _Simple(ast.NodeTransformer):
    """Writes out imported names; removes imports, annotations and statements without effect."""

    def __init__(self, imports: dict[str, str]) -> None:
        self._imports = imports
        self._packages = {dotted.split(".")[0] for dotted in imports.values()}

    def visit_Name(self, node: ast.Name) -> ast.AST:  # noqa: N802
        """Write `th` out as `torch` where that is what it imports."""
        return ast.Name(self._imports.get(node.id, node.id), node.ctx)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:  # noqa: N802
        """Write `F.logsigmoid` as one name, so that it equals the imported `logsigmoid`."""
        value = self.visit(node.value)
        if isinstance(value, ast.Name) and value.id.split(".")[0] in self._packages:
            return ast.Name(f"{value.id}.{node.attr}", node.ctx)
        return ast.Attribute(value, node.attr, node.ctx)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:  # noqa: N802
        """Keep the assignment without its annotation."""
        self.generic_visit(node)
        return ast.Assign([node.target], node.value, lineno=0) if node.value else None

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:  # noqa: N802
        """Remove a statement that is a constant, such as a text in place of a comment."""
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:  # noqa: N802
        """Remove an import."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:  # noqa: N802
        """Remove an import."""


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_SCOPES = (*_FUNCTIONS, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def _nodes_of_scope(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes inside of a node, but not those inside of a function or comprehension in it."""
    for inner in ast.iter_child_nodes(node):
        yield inner
        if not isinstance(inner, _SCOPES):
            yield from _nodes_of_scope(inner)


def _names_of_scope(node: ast.AST) -> Iterator[str]:
    """The names that a function, a comprehension or the whole code binds."""
    for inner in _nodes_of_scope(node):
        match inner:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield name
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                yield name


class _Renamed(ast.NodeTransformer):
    """Gives the names that the code binds the names v0, v1, … in the order of their use, in every
    function anew.
    """

    def __init__(self, module: ast.Module) -> None:
        self._count = 0
        self._scopes = [dict.fromkeys(_names_of_scope(module), "")]
        own = (n for n in ast.walk(module) if isinstance(n, ast.Attribute))
        self._attributes = dict.fromkeys((n.attr for n in own if isinstance(n.ctx, ast.Store)), "")
        self._helpers = {n.name for n in ast.walk(module) if isinstance(n, ast.FunctionDef)}

    def _placeholder(self, names: dict[str, str], name: str) -> str:
        if not names[name]:
            names[name], self._count = f"v{self._count}", self._count + 1
        return names[name]

    def _new(self, name: str) -> str:
        scope = next((names for names in reversed(self._scopes) if name in names), None)
        return name if scope is None else self._placeholder(scope, name)

    def visit(self, node: ast.AST) -> ast.AST:
        """Rename what a node binds or uses, and go on inside of it."""
        match node:
            case ast.Name(id=name):
                node.id = self._new(name)
            case ast.arg(arg=name):
                node.arg = self._new(name)
            case ast.Attribute(attr=name) if name in self._attributes:
                node.attr = self._placeholder(self._attributes, name)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                node.name = self._new(name)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                node.name = self._new(name)
            case ast.Call(func=ast.Name(id=name)) if name in self._helpers:
                for keyword in node.keywords:  # The names of a helper's arguments.
                    keyword.arg = None if keyword.arg is None else "argument"
        if not isinstance(node, _SCOPES):
            return self.generic_visit(node)
        self._scopes.append(dict.fromkeys(_names_of_scope(node), ""))
        self.generic_visit(node)
        self._scopes.pop()
        return node
