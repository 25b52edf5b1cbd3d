"""Functions that look alike: near-duplicates between learners."""

import ast
import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from lab.course.code_hash import Plain
from lab.course.grading.submissions import Program

ALIKE = 0.95
"""Functions that have at least this share of their pieces in common are near-duplicates."""
PIECE = 4
"""Parts of the code that make up a piece."""
MIN_PARTS = 45
"""A shorter function can hardly be written in another way; only its hash is compared."""
SAME_TEXT = "same text"
Alike = Mapping[str, str]
"""By learner, how alike a function is."""
USUAL_SHARE = 0.2
"""A form that more than this share of a class hands in is usual, and not marked."""


class _Renamed(ast.NodeTransformer):
    """Gives the names that a function binds the names v0, v1, … in the order in which they occur."""

    def __init__(self, bound: set[str]) -> None:
        self._bound, self._names = bound, dict[str, str]()

    def _new(self, name: str) -> str:
        if name not in self._bound:
            return name
        return self._names.setdefault(name, f"v{len(self._names)}")

    def visit_Name(self, node: ast.Name) -> ast.AST:  # noqa: N802
        """Rename a variable."""
        node.id = self._new(node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        """Rename an argument."""
        node.arg = self._new(node.arg)
        return node


@dataclass(frozen=True)
class Form:
    """A function's code without comments and layout: `text` has its own names, `pieces` have none.
    `own_names` counts the variables that the learner has named.
    """

    text: str
    pieces: Counter[tuple[str, ...]]
    parts: int
    own_names: int

    @property
    def is_long(self) -> bool:
        """Whether another learner would hardly write the same by chance."""
        return self.parts >= MIN_PARTS


def form_of(program: Program) -> Form:
    """Return the form of a program's function and its helpers, without its imports."""
    tree = Plain().visit(ast.parse(program.source))
    tree.body = [s for s in tree.body if not isinstance(s, ast.Import | ast.ImportFrom)]
    arguments = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    stored = {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    text = ast.unparse(tree)
    renamed = _Renamed(arguments | stored).visit(copy.deepcopy(tree))
    parts = [part for node in ast.walk(renamed) for part in _parts(node)]
    pieces = Counter(tuple(parts[i : i + PIECE]) for i in range(max(1, len(parts) - PIECE + 1)))
    return Form(text, pieces, len(parts), len(stored - arguments))


def _parts(node: ast.AST) -> list[str]:
    match node:
        case ast.Load() | ast.Store() | ast.Module() | ast.arguments() | ast.Expr():
            return []
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return [name]
        case ast.Constant(value=value):
            return [repr(value)]
    return [type(node).__name__]


def similarity(one: Form, other: Form) -> float:
    """Return the share of pieces that two functions have in common: 1 for the same code."""
    common = (one.pieces & other.pieces).total()
    return common / max(1, (one.pieces | other.pieces).total())


def near_duplicates(forms: Mapping[str, Form], usual: Form | None = None) -> dict[str, Alike]:
    """Return, by learner, the learners whose function is nearly the same, with how alike they are: a
    share, or `SAME_TEXT`.

    Short functions, and those like the form `usual` or like more than `USUAL_SHARE` of the class, are
    left out, except where the variables that the learners have named are the same too.
    """
    alike: dict[str, dict[str, float]] = {name: {} for name in forms}
    for name, form in forms.items():
        for other, that in forms.items():
            if name < other and form.is_long and that.is_long:
                share = similarity(form, that)
                if share >= ALIKE:
                    alike[name][other] = alike[other][name] = share
    few = max(2.0, USUAL_SHARE * len(forms))
    found: dict[str, Alike] = {}
    for name, others in alike.items():
        form = forms[name]
        is_usual = len(others) >= few or usual is not None and similarity(form, usual) >= ALIKE
        found[name] = {
            other: SAME_TEXT if forms[other].text == form.text else f"{share:.2f}"
            for other, share in sorted(others.items())
            if not is_usual or forms[other].text == form.text and form.own_names >= 2
        }
    return found


def suspicious_pairs(
    forms: Mapping[str, Mapping[str, Form]], alike: Mapping[str, Mapping[str, Alike]]
) -> set[frozenset[str]]:
    """Return the pairs of learners to look at: the same text with the same own variables in one
    exercise, or near-duplicates in at least two and in half of the long functions that both wrote.
    """
    near, strong = Counter[frozenset[str]](), set()
    for exercise, learners in alike.items():
        for name, others in learners.items():
            for other, how in others.items():
                pair = frozenset((name, other))
                near[pair] += 1  # Once for each of the two.
                if how == SAME_TEXT and forms[exercise][name].own_names >= 2:
                    strong.add(pair)
    return strong | {p for p, n in near.items() if n >= 4 and n >= _long_of_both(forms, p)}


def _long_of_both(forms: Mapping[str, Mapping[str, Form]], pair: frozenset[str]) -> int:
    return sum(
        all(name in learners and learners[name].is_long for name in pair)
        for learners in forms.values()
    )


def is_copy(form: Form, solution: Form | None) -> bool:
    """Whether a function is the lab's solution with its very variables."""
    return (
        solution is not None and form.is_long and form.own_names >= 2 and form.text == solution.text
    )
