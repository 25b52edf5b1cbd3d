"""A subcommand for every registered method, with the method's settings as options."""

import dataclasses
from functools import cache, partial
from typing import Annotated, Any, Literal, Union

import tyro

from lab.cli.arguments import TypeFrom, number
from lab.config.input_checks import Range
from lab.config.methods import METHODS, MethodSpec
from lab.config.schema import Setting, declared_settings


def _option(declared: Setting) -> tuple[str, Any, Any]:
    """A setting as a field of the class that tyro fills: help with the range, choices as types."""
    accepted = None
    if declared.low is not None and declared.high is not None:
        accepted = Range(declared.kind, declared.low, declared.high)
    help_text = (
        declared.help
        + (f" {accepted.bounds().capitalize().replace(',', '')}." if accepted else "")
        + (" Can change while it runs." if declared.mutable else "")
    )
    hint: Any = declared.kind
    if declared.choices and not declared.extra_patterns:
        hint = Literal[declared.choices]
    if declared.optional:
        hint = hint | None
    read = (number(declared.name, accepted, shown=False),) if accepted else ()
    annotated = Annotated[(hint, tyro.conf.arg(help=help_text), *read)]
    return declared.name, annotated, dataclasses.field(default=declared.default)


def _options_class(spec: MethodSpec, writes: bool) -> type:
    """A dataclass with the settings of a method, with `out` and `config` if the command
    writes a run.
    """
    options = [_option(declared) for declared in declared_settings(spec.config).values()]
    if writes:
        out = tyro.conf.arg(
            help="Folder of the run; it must not exist. Empty makes runs/METHOD-DATE-TIME."
        )
        options.append(("out", Annotated[str, out], dataclasses.field(default="")))
        config = tyro.conf.arg(
            help="YAML file with the settings, such as the run.yaml of a run folder, which repeats"
            " that run. Options that are given beside it take priority."
        )
        options.append(("config", Annotated[str, config], dataclasses.field(default="")))
    options_class = dataclasses.make_dataclass(spec.name, options)
    options_class.__doc__ = spec.config.__doc__
    return options_class


def _one_of_the_methods(writes: bool) -> Any:
    return _union(tuple(METHODS.values()), writes)


@cache
def _union(specs: tuple[MethodSpec, ...], writes: bool) -> Any:
    subcommands = [
        Annotated[
            _options_class(spec, writes),
            tyro.conf.subcommand(spec.name, description=spec.config.__doc__),
        ]
        for spec in specs
    ]
    return Union[tuple(subcommands)]  # noqa: UP007  The members are known at run time only.


def _method_or_empty() -> Any:
    return Literal[("", *METHODS)]


METHOD_TO_TRAIN = TypeFrom(partial(_one_of_the_methods, writes=True))
"""Annotates a method with its settings and the folder of the new run."""
METHOD_TO_MEASURE = TypeFrom(partial(_one_of_the_methods, writes=False))
"""Annotates a method with its settings."""
METHOD_NAME = TypeFrom(_method_or_empty)
"""Annotates the name of a method, which may be empty."""
