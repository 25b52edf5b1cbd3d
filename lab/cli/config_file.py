"""`train --config FILE`: the settings of a YAML file as options of the command line."""

import re
from pathlib import Path

from lab.config.config_file import read_config_file
from lab.config.methods import METHODS
from lab.config.run_config import CODE
from lab.config.schema import declared_settings
from lab.errors import LabError

OPTION = "--config"


def with_config_file(arguments: list[str]) -> list[str]:
    """Return the arguments of a command with the settings of its `--config FILE` in place of that
    option. Options that are given beside it take priority.

    Raises `LabError` for a file that `read_config_file` refuses, for a run that resumes, and for a
    reward that is code and not named on the command line too.
    """
    words, path = _without_option(arguments)
    if arguments[:1] != ["train"] or path is None:
        return arguments
    if "--resume" in words:
        raise LabError(
            "config cannot be given when a run resumes: the run keeps its own settings. Leave"
            " --config out, or leave --resume out for a new run."
        )
    named = words[1] if len(words) > 1 and not words[1].startswith("-") else ""
    method, settings = read_config_file(path, named)
    options = words[2:] if named else words[1:]
    given = {_name(word) for word in options if word.startswith("--")}
    reward = str(settings.get("reward", ""))
    if re.fullmatch(CODE, reward) and "reward" not in given:
        raise LabError(
            f"The reward of {path} is the code {reward}, which a file cannot start by itself. If you"
            f" trust it, name it again: --reward {reward}"
        )
    declared = declared_settings(METHODS[method].config)
    from_file = []
    for name, value in settings.items():
        if name in given or name in declared and value == declared[name].default:
            continue
        option = name.replace("_", "-")
        if isinstance(value, bool):
            from_file.append(f"--{option}" if value else f"--no-{option}")
        else:
            from_file.append(f"--{option}={value}")
    return ["train", method, *from_file, *options]


def _name(word: str) -> str:
    """The setting that an option names. Anchor: --no-shard and --shard=on are "shard"."""
    name = word.partition("=")[0].removeprefix("--").replace("-", "_")
    return name.removeprefix("no_")


def _without_option(arguments: list[str]) -> tuple[list[str], Path | None]:
    """The arguments without `--config FILE` and the file; None where it is not given."""
    words, files = [], []
    rest = iter(arguments)
    for word in rest:
        if word == OPTION:
            files.append(next(rest, ""))
        elif word.startswith(f"{OPTION}="):
            files.append(word.partition("=")[2])
        else:
            words.append(word)
    if arguments[:1] == ["train"] and (len(files) > 1 or "" in files):
        raise LabError("config takes the path of one YAML file: --config run.yaml")
    return words, Path(files[0]) if files else None
