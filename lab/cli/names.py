"""Names that do not exist: the error for an unknown command, method, setting or option."""

from collections.abc import Callable, Mapping

from lab.cli.arguments import require_known_option
from lab.config.methods import METHODS
from lab.config.schema import declared_settings
from lab.errors import LabError, unknown


def require_known_names(arguments: list[str], commands: Mapping[str, Callable[..., None]]) -> None:
    """Raise `LabError` with the nearest valid name for a command, method, setting or option that
    does not exist; tyro checks the rest.
    """
    if not arguments:
        raise LabError(
            f"No command is given. Give one of {', '.join(commands)}; python -m lab --help says"
            " what each does."
        )
    if not arguments[0].startswith("-") and arguments[0] not in commands:
        raise unknown("command", arguments[0], list(commands))
    command, words = arguments[0], [word for word in arguments[1:] if word != "--resume"]
    if command not in ("train", "resources"):
        if command in commands and command != "app":
            require_known_option(command, commands[command], words)
        return
    method, resumed = (
        words[0] if words and not words[0].startswith("-") else "",
        len(words) < len(arguments) - 1,
    )
    if method and method not in METHODS:
        raise unknown("method", method, list(METHODS))
    if not (method or resumed):
        return
    specs = [METHODS[method]] if method else list(METHODS.values())
    settings = {name: own for spec in specs for name, own in declared_settings(spec.config).items()}
    switches = [f"no_{name}" for name, own in settings.items() if own.kind is bool]
    known = ["out", "steps", "reward", "sampler"] if resumed else ["config", "out", *settings]
    for text in words:
        name = text.partition("=")[0].removeprefix("--").replace("-", "_")
        if text.startswith("--") and name not in [*known, *([] if resumed else switches), "help"]:
            if resumed and name in [*settings, *switches]:
                raise LabError(
                    f"{name} cannot be given again when a run resumes: it keeps its own. While it"
                    f" trains, some settings change with python -m lab control RUN {name}=VALUE."
                )
            raise unknown(f"setting of {method or 'a run that resumes'}", name, known)
