"""What learners hand in: their notebooks, and in them the code of each exercise."""

import ast
import builtins
import symtable
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

from lab.course.progress import PROGRESS_FILE
from lab.errors import LabError

OWN_PACKAGES = ("lab", "alab", "solutions")
"""The lab, and the folder of solutions that lies beside copies of the notebooks."""
MAX_NOTEBOOK_BYTES = 50_000_000


@dataclass(frozen=True)
class Submission:
    """One learner: a name or student id, which is that of the folder or the file, and files. `problem`
    says why there are no notebooks.
    """

    learner: str
    notebooks: tuple[Path, ...]
    progress: tuple[Path, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Program:
    """The code of one exercise: `statement` defines the function, `source` also has the imports,
    constants and other functions that it uses. `from_lab` names what it imports from the lab.
    `problem` says why there is no such code.
    """

    source: str = ""
    statement: str = ""
    from_lab: tuple[str, ...] = ()
    problem: str = ""


def submissions(folder: Path) -> list[Submission]:
    """Return the learners in a folder, in the order of their names: a subfolder each, or a notebook, or
    an empty file. A learner without a notebook has a `problem`.

    Raises `LabError` when nobody has handed in a notebook.
    """
    if not folder.is_dir():
        raise LabError(
            f"{folder} is no folder. Name the folder that holds what learners handed in."
        )
    found = [made for path in _hand_ins(folder) if (made := _submission(path)) is not None]
    if not any(submission.notebooks or submission.progress for submission in found):
        raise LabError(
            f"There are no notebooks in {folder}. It takes one subfolder for each learner, with the"
            " learner's notebooks in it, or one notebook for each learner."
        )
    return found


def left_out(folder: Path) -> str:
    """Return which files in a folder are no hand-in, in words, or ""."""
    names = [path.name for path in _hand_ins(folder) if _submission(path) is None]
    return f"no notebook and left out: {', '.join(names)}" if names else ""


def _hand_ins(folder: Path) -> list[Path]:
    """The files and folders in a folder, without hidden files and without the tables of an earlier grading."""
    paths = (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    return [path for path in paths if not (path / "gradescope").is_dir()]


def _submission(path: Path) -> Submission | None:
    if path.is_dir():
        files = tuple(f for f in sorted(path.rglob("*.ipynb")) if _counts(f, path))
        progress = tuple(sorted(path.rglob(PROGRESS_FILE)))
        return Submission(path.name, files, progress, "" if files else _no_notebook(path))
    if path.suffix == ".ipynb":
        return Submission(path.stem, (path,))
    empty = path.is_file() and not path.stat().st_size
    return Submission(path.stem, (), (), f"{path.name} is an empty file") if empty else None


def _no_notebook(folder: Path) -> str:
    names = [path.name for path in sorted(folder.rglob("*")) if path.is_file()]
    if not names:
        return "the folder is empty"
    more = f" and {len(names) - 3} more files" if len(names) > 3 else ""
    return f"the folder has no notebook, but {', '.join(names[:3])}{more}"


def _counts(file: Path, folder: Path) -> bool:
    parts = file.relative_to(folder).parts
    return not any(part.startswith(".") for part in parts)


@dataclass(frozen=True)
class Cells:
    """The statements of a notebook's code cells, in order, and the cells that are no Python."""

    statements: tuple[ast.stmt, ...]
    broken: tuple[str, ...]


def cells_of(path: Path) -> Cells:
    """Return the code of a notebook without cells tagged "solution"; raise `LabError` for a file that
    is no notebook.
    """
    try:
        if path.is_symlink():
            raise ValueError("it is a link to another file, which is not followed")
        if not path.stat().st_size:
            raise ValueError("it is an empty file")
        if path.stat().st_size > MAX_NOTEBOOK_BYTES:
            raise ValueError(f"{path.stat().st_size:,} bytes are too many")
        notebook = nbformat.read(path, as_version=4)
        sources = [
            cell.source + ""  # A source that is no text is an error.
            for cell in notebook.cells
            if cell.cell_type == "code" and "solution" not in cell.metadata.get("tags", [])
        ]
    except (
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
        RecursionError,
        nbformat.ValidationError,
    ) as error:
        raise LabError(f"{path.name} is no notebook that can be read: {error}") from None
    statements: list[ast.stmt] = []
    broken = []
    for source in sources:
        try:
            statements += ast.parse(TransformerManager().transform_cell(source)).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            broken.append(source)
    return Cells(tuple(statements), tuple(broken))


def program_of(cells: Cells, name: str) -> Program:
    """Return the code of the exercise `name` in a notebook: the last definition counts, as it does when
    the notebook runs.
    """
    places = _definitions(cells.statements)
    if name not in places:
        if any(name in source for source in cells.broken):
            return Program(problem="syntax error")
        return Program(problem="missing")
    wanted, todo = set(), [name]
    while todo:
        place = places.get(todo.pop(), -1)
        if place >= 0 and place not in wanted:
            wanted.add(place)
            todo += _globals_of(cells.statements[place])
    stars = {i for i, s in enumerate(cells.statements) if _is_star(s)}
    chosen = [cells.statements[i] for i in sorted(wanted | stars)]
    try:
        source = "\n".join(map(ast.unparse, chosen))
        statement = ast.unparse(cells.statements[places[name]])
    except RecursionError:
        return Program(problem="nested too deeply")
    from_lab = tuple(dict.fromkeys(n for one in chosen for n in _from_lab(one)))
    return Program(source, statement, from_lab)


def _definitions(statements: Sequence[ast.stmt]) -> dict[str, int]:
    """By name, the place of the last statement that binds it; an import from the lab or from the
    solutions, with which a learner may go on, does not replace the learner's own.
    """
    imports = [
        place
        for place, statement in enumerate(statements)
        if isinstance(statement, ast.Import | ast.ImportFrom) and any(_from_lab(statement))
    ]
    order = [*imports, *(i for i in range(len(statements)) if i not in imports)]
    return {name: place for place in order for name in bound_names(statements[place])}


def bound_names(statement: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement of a cell binds."""
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield statement.name
        case ast.Import() | ast.ImportFrom():
            for alias in statement.names:
                yield alias.asname or alias.name.split(".")[0]
        case ast.Assign() | ast.AnnAssign():
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for node in (n for target in targets for n in ast.walk(target)):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    yield node.id


def _globals_of(statement: ast.stmt) -> list[str]:
    """Return the names that a statement, and the functions in it, take from the notebook."""
    try:
        tables = [symtable.symtable(ast.unparse(statement), "cell", "exec")]
    except (SyntaxError, ValueError, RecursionError):
        return []
    names = set()
    while tables:
        table = tables.pop()
        tables += table.get_children()
        for symbol in table.get_symbols():
            top = table.get_type() == "module"
            if symbol.is_referenced() and (top or symbol.is_global()):
                names.add(symbol.get_name())
    return sorted(names - set(dir(builtins)))


def _is_star(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*"


def _from_lab(statement: ast.stmt) -> Iterator[str]:
    """Yield what a statement imports from the lab, inside of functions too."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] in OWN_PACKAGES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OWN_PACKAGES:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
