"""How a config class declares its settings, and the checks that every setting makes."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from types import NoneType
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from lab.errors import LabError, unknown

BOOLEANS = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}
"""The words that write a boolean, in lower case."""
TYPE_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    extra_patterns: Mapping[str, str] | None = None,
    mutable: bool = False,
    log: bool = False,
    check: Callable[[str], Any] | None = None,
) -> Any:
    """Declare a setting of a run, as a field of a config class.

    Args:
        default: The value of a run that does not name the setting.
        help: What the setting does, in one or two sentences.
        low: The lowest accepted number.
        high: The highest accepted number.
        choices: The accepted words.
        extra_patterns: Further accepted words: a regular expression under the name that errors
            give it. A form offers only the choices, so a web page cannot name a file or code.
        mutable: Whether the setting may change while the run trains.
        log: Whether a slider over the setting is logarithmic.
        check: Raises `LabError` for a text that it cannot read.
    """
    return field(
        default=default,
        metadata={
            "help": help,
            "low": low,
            "high": high,
            "choices": choices,
            "extra_patterns": extra_patterns or {},
            "mutable": mutable,
            "log": log,
            "check": check,
        },
    )


@dataclass(frozen=True)
class Setting:
    """A setting of a config class: its name, its type (`kind`), and what `setting` declared.

    `optional` says that None is accepted as well; a text writes it as "none".
    """

    name: str
    kind: type
    optional: bool
    default: Any
    help: str
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    extra_patterns: Mapping[str, str]
    mutable: bool
    log: bool
    check: Callable[[str], Any] | None

    def accepted(self) -> str:
        """The accepted values in words, such as "a number from 0 to 1"."""
        word = TYPE_NAMES[self.kind]
        if self.optional:
            return " or ".join((*self.choices, "none")) if self.choices else f"{word} or none"
        return word if self.low is None else f"{word} from {self.low:g} to {self.high:g}"

    def offers(self, value: Any) -> bool:
        """Whether a form offers `value`: one of the choices or a number within the range."""
        if value is None:
            return self.optional
        if self.choices:
            return value in self.choices
        if self.low is None or self.high is None:
            return self.kind is bool
        return bool(self.low <= value <= self.high)  # False for nan as well.

    def require(self, value: Any) -> None:
        """Raise `LabError` unless the setting accepts `value`."""
        if value is None and self.optional:
            return
        is_of_kind = type(value) is self.kind
        if not is_of_kind:
            raise LabError(f"{self.name} is {value!r}, but takes {self.accepted()}.")
        if (
            self.choices
            and value not in self.choices
            and not any(re.fullmatch(pattern, value) for pattern in self.extra_patterns.values())
        ):
            raise unknown(self.name, value, [*self.choices, *self.extra_patterns])
        if self.low is not None and self.high is not None and not self.low <= value <= self.high:
            raise LabError(f"{self.name} is {value!r}, but takes {self.accepted()}.")
        if self.check:
            self.check(value)

    def parse(self, text: str) -> Any:
        """Return the value that `text` writes; raise `LabError` for text of another type.

        Whether the value is in range is a question for `require`.
        """
        if self.optional and text.lower() in ("", "none"):
            return None
        if self.kind is bool and text.lower() in BOOLEANS:
            return BOOLEANS[text.lower()]
        try:
            if self.kind is bool:
                raise ValueError(text)
            return self.kind(text)
        except ValueError:
            raise LabError(f"{self.name} is '{text}', but takes {TYPE_NAMES[self.kind]}.") from None

    def text(self, value: Any) -> str:
        """Return the text that `parse` reads as `value`."""
        if value is None:
            return "none"
        return ("on" if value else "off") if self.kind is bool else str(value)


_SETTINGS: dict[type, dict[str, Setting]] = {}


def declared_settings(config_class: type) -> dict[str, Setting]:
    """Return the settings of a config class by name, in the order of their declaration."""
    if config_class not in _SETTINGS:
        hints = get_type_hints(config_class)
        _SETTINGS[config_class] = {
            f.name: Setting(f.name, *_kind(hints[f.name]), f.default, **f.metadata)
            for f in fields(cast(Any, config_class))
        }
    return _SETTINGS[config_class]


def _kind(hint: Any) -> tuple[type, bool]:
    """The type of a setting with the annotation `hint`, and whether None is accepted."""
    members = [member for member in get_args(hint) if member is not NoneType]
    if get_origin(hint) is Literal:
        return type(members[0]), False
    if not members:
        return hint, False
    return _kind(members[0])[0], len(members) < len(get_args(hint))


def validate(config: Any) -> None:
    """Check every setting of `config`; raise `LabError` at the first value that is not accepted.

    A whole number given for a float becomes a float.
    """
    for name, declared in declared_settings(type(config)).items():
        value = getattr(config, name)
        if declared.kind is float and type(value) is int:
            value = float(value)
            object.__setattr__(config, name, value)
        declared.require(value)
