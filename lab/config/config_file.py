"""A config as YAML: the file that `train --config` reads, and run.yaml of every run folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.config.json_format import to_dict
from lab.config.methods import METHODS
from lab.config.run_config import RunConfig
from lab.config.schema import Setting, declared_settings
from lab.errors import LabError, unknown

RUN_YAML = "run.yaml"
HEADER = (
    "# alab train --config with the path of this file repeats this run from its start.\n"
    "# Options on the command line take priority over the values here.\n"
)


def to_yaml(config: RunConfig) -> str:
    """Return the method and every setting of `config` as YAML, which `read_config_file` reads."""
    import yaml

    return HEADER + yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def read_config_file(path: Path, method: str = "") -> tuple[str, dict[str, Any]]:
    """Return the method and the settings that a YAML file names; each is of its setting's type and
    in range.

    `method` is the method of the command line, for a file that names none. A number may be written
    as 1e-5, a boolean as on or off, and several names as a list or with commas. A key out, the
    folder of the run, is returned with the settings.

    Raises `LabError` for a file that is no mapping, an unknown or repeated key, a value that is not
    accepted, and a method that is missing or differs from `method`.
    """
    rows = _read_mapping(path)
    own = rows.pop("method", method)
    if not isinstance(own, str) or not own:
        raise LabError(
            f"{path} names no method. Add a line such as method: dpo, or name it on the command"
            f" line: python -m lab train METHOD --config {path}"
        )
    if own not in METHODS:
        raise LabError(f"{path}: {unknown('method', own, list(METHODS))}")
    if method and own != method:
        raise LabError(
            f"{path} is for the method {own}, but {method} is given. Leave {method} out, or change"
            " the line method of the file."
        )
    return own, _settings(path, own, rows)


def _settings(path: Path, method: str, rows: Mapping[str, Any]) -> dict[str, Any]:
    declared = declared_settings(METHODS[method].config)
    settings: dict[str, Any] = {}
    for key, value in rows.items():
        name = key.replace("-", "_")
        if name in settings:
            raise LabError(f"{path} has the key {name} twice, with - and with _. Remove one.")
        try:
            if name == "out" and isinstance(value, str):
                settings[name] = value
            elif name in declared:
                settings[name] = _value(declared[name], value)
            else:
                raise unknown(f"setting of {method}", key, ["method", "out", *declared])
        except LabError as error:
            raise LabError(f"{path}: {error}") from None
    return settings


def _value(declared: Setting, value: Any) -> Any:
    """The value of a setting; YAML 1.1 reads 1e-5 and "0.1" as text, and on and none by rules of its
    own.
    """
    if isinstance(value, list) and declared.kind is str and all(type(v) is str for v in value):
        value = ",".join(value)
    if isinstance(value, str) and (declared.kind is not str or declared.optional):
        value = declared.parse(value)
    if declared.kind is float and type(value) is int:
        value = float(value)
    if declared.kind is str and value is None and not declared.optional:
        value = ""
    declared.require(value)
    return value


def _read_mapping(path: Path) -> dict[str, Any]:
    """The content of a YAML file with text as keys, each of them once."""
    import yaml

    try:
        text = path.read_text("utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        rows = yaml.safe_load(text)
    except OSError as error:
        raise LabError(
            f"config is '{path}', which cannot be read: {error.strerror}. Give a YAML file such as"
            f" the {RUN_YAML} of a run folder."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise LabError(f"{path} is no YAML that can be read: {reason}") from None
    if not isinstance(rows, dict) or not all(isinstance(key, str) for key in rows):
        raise LabError(
            f"{path} holds {type(rows).__name__ if not isinstance(rows, dict) else 'other keys'},"
            " but takes lines of SETTING: VALUE, such as beta: 0.1."
        )
    keys = [key.value for key, _ in node.value]
    if repeated := sorted({key for key in keys if keys.count(key) > 1}):
        raise LabError(f"{path} has the key {', '.join(repeated)} more than once. Remove one.")
    return rows
