"""How the command line reads a command: what its signature declares is checked before the command
runs, and every slip is one line.
"""

import contextlib
import inspect
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

from lab.cli.program import MODULE, program
from lab.config.input_checks import Range, require_device, require_text, require_writable
from lab.errors import LabError, unknown

MAX_MESSAGE_LENGTH = (
    2000  # characters of a message; of a longer one the beginning and the end are shown
)


@dataclass(frozen=True)
class Output:
    """Declares a path that the command writes: a file, or a folder; `new` if nothing may be there
    yet.
    """

    folder: bool
    new: bool = False

    def check(self, name: str, value: Path | None) -> None:
        """Raise `LabError` where `value` cannot be written."""
        if value is not None:
            require_writable(name, value, folder=self.folder, new=self.new)


@dataclass(frozen=True)
class TypeFrom:
    """Declares an argument whose type `build` makes when the command is read, since it depends on
    the methods that are registered then.
    """

    build: Callable[[], Any]


class _Device:
    @staticmethod
    def check(name: str, value: str) -> None:
        require_device(value)


class _Run:
    @staticmethod
    def check(name: str, value: str) -> None:
        if not value.strip():
            raise LabError(
                f"{name} is empty, but takes the name or folder of a run. List them: python -m lab"
                " runs"
            )


Run = Annotated[str, _Run()]
Device = Annotated[str, _Device()]
OutFile = Annotated[Path | None, Output(folder=False)]
OutFolder = Annotated[Path | None, Output(folder=True)]
NewFolder = Annotated[Path, Output(folder=True, new=True)]


class _RefusedError(Exception):
    """Carries a `LabError` past tyro, which would draw any ValueError in a box of its own."""


def _passing(read: Callable[[str], Any]) -> Callable[[list[str]], Any]:
    def read_one(texts: list[str]) -> Any:
        try:
            return read(texts[0])
        except LabError as error:
            raise _RefusedError from error

    return read_one


def number(
    name: str, accepted: Range, shown: bool = True
) -> tyro.constructors.PrimitiveConstructorSpec:
    """How tyro reads the number `name`; with `shown` the help has its range."""
    kind = "INT" if accepted.kind is int else "FLOAT"
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{kind} {accepted.low:.10g}..{accepted.high:.10g}" if shown else kind,
        instance_from_str=_passing(partial(accepted.read, name)),
        is_instance=lambda value: isinstance(value, int | float),
        str_from_instance=lambda value: [str(value)],
    )


def _path(name: str, metavar: str) -> tyro.constructors.PrimitiveConstructorSpec:
    def read(text: str) -> Path:
        if not text:
            raise LabError(f"{name} is empty, but takes the path of a file or folder.")
        return Path(text)

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=_passing(read),
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda value: [str(value)],
    )


def _declared(name: str, hint: Any, positional: bool) -> Any:
    """A parameter's annotation as tyro takes it; raise `TypeError` for a number without a range,
    which would let any number in.
    """
    kinds = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    for rule in kinds[1:]:
        if isinstance(rule, TypeFrom):
            hint = rule.build()
            kinds = (hint,)
    words = [tyro.conf.Positional, tyro.conf.arg(metavar=name.upper())] if positional else []
    for rule in kinds[1:]:
        if isinstance(rule, Range):
            return Annotated[(hint, number(name, rule), *words[:1])]
        if isinstance(rule, Output):
            return Annotated[(hint, _path(name, "FOLDER" if rule.folder else "FILE"), *words)]
    plain = {kinds[0], *get_args(kinds[0])}
    if plain & {int, float}:
        raise TypeError(
            f"{name} is a number without a range: declare it as Annotated[int, Range(int, low,"
            " high)]."
        )
    if Path in plain:
        return Annotated[(hint, _path(name, "PATH"), *words)]
    return (
        Annotated[(hint, *words[: 1 if get_origin(kinds[0]) is Literal else None])]
        if positional
        else hint
    )


def checked_command(command: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """`command` as tyro takes it: a call checks every argument, the defaults too, and returns the
    command bound to them, which has not run yet.
    """
    hints, declared = get_type_hints(command, include_extras=True), inspect.signature(command)

    @wraps(command)
    def bind(*args: Any, **options: Any) -> Callable[[], None]:
        given = declared.bind(*args, **options)
        given.apply_defaults()
        for name, value in given.arguments.items():
            for rule in get_args(hints[name])[1:] if get_origin(hints[name]) is Annotated else ():
                if hasattr(rule, "check") and value is not None:
                    rule.check(name, value)
        return partial(command, *given.args, **given.kwargs)

    del bind.__wrapped__  # Or tyro would read the annotations of `command`.
    signature = declared.replace(
        parameters=[
            p.replace(
                annotation=_declared(
                    name, hints[name], p.kind in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL)
                )
            )
            for name, p in declared.parameters.items()
        ]
    )
    vars(bind)["__signature__"] = signature
    bind.__annotations__ = {name: p.annotation for name, p in signature.parameters.items()}
    return bind


@contextlib.contextmanager
def one_line(prog: str) -> Iterator[None]:
    """Within it tyro's boxes about bad usage become one `LabError`."""
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            yield
    except _RefusedError as refused:
        assert refused.__cause__ is not None
        raise refused.__cause__ from None
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise LabError(f"{_sentence(box.getvalue())} All options: {prog} --help") from None


def _sentence(box: str) -> str:
    """The first paragraph of a box that tyro has drawn, as a sentence; where the terminal has no
    lines to draw with, they are dashes.
    """
    rows = [row.strip("│ ") for row in box.splitlines() if not row.startswith(("╭", "╰"))]
    rules = [i for i, row in enumerate(rows) if row and not row.strip("─-")]
    if not box.startswith("╭") and rules:  # The title stands above a rule of its own.
        rows, rules = rows[rules[0] + 1 :], [i - rules[0] - 1 for i in rules[1:]]
    text = " ".join(filter(None, rows[: rules[0] if rules else None])).replace(
        "invalid choice", "Invalid choice"
    )
    return text if text.endswith(".") else f"{text}."


def require_texts(arguments: list[str]) -> None:
    """Raise `LabError` for an argument that holds a NUL or is not UTF-8."""
    for place, text in enumerate(arguments, 1):
        require_text(f"argument {place}", text)


def shown(error: BaseException) -> str:
    """An error as one line that a screen can hold, without characters that move the cursor; it
    names the lab's commands as the user has called them.
    """
    text = re.sub(r"[\x00-\x1f\x7f\x80-\x9f]+", " ", str(error)).strip()
    text = text.replace(MODULE, program())
    return (
        text
        if len(text) <= MAX_MESSAGE_LENGTH
        else f"{text[: MAX_MESSAGE_LENGTH // 2]} … {text[-MAX_MESSAGE_LENGTH // 2 :]}"
    )


def require_known_option(command: str, function: Callable[..., None], arguments: list[str]) -> None:
    """Raise `LabError` with the nearest name for an option that `command` does not have."""
    known = [
        name
        for name, p in inspect.signature(function).parameters.items()
        if p.kind is not inspect.Parameter.POSITIONAL_ONLY
    ]
    for text in arguments:
        name = text.partition("=")[0].removeprefix("--").replace("-", "_")
        if text.startswith("--") and name not in ("help", *known, *(f"no_{k}" for k in known)):
            raise unknown(f"option of {command}", name, known)
