"""Settings of a run that trains: which may change, and a new value read from text."""

import dataclasses
from typing import Any

from lab.config.methods import method_of, method_of_class
from lab.config.run_config import RunConfig
from lab.config.schema import declared_settings
from lab.errors import LabError, unknown


def parse_setting(config_class: type[RunConfig], name: str, text: str) -> Any:
    """Return the value of the setting `name` that `text` writes.

    Raises `LabError` for an unknown setting and for text of another type.
    """
    settings = declared_settings(config_class)
    if name not in settings:
        raise unknown(f"setting of {method_of_class(config_class)}", name, list(settings))
    return settings[name].parse(text)


def mutable_settings(config: RunConfig) -> list[str]:
    """Return the names of the settings that may change while a run of this config trains."""
    return [name for name, declared in declared_settings(type(config)).items() if declared.mutable]


def change_setting(config: RunConfig, name: str, value: Any) -> RunConfig:
    """Return the config with one mutable setting set to `value`.

    Raises `LabError` for an unknown setting, a fixed setting, and a value that is not accepted.
    """
    mutable = mutable_settings(config)
    if name not in mutable:
        if name in declared_settings(type(config)):
            raise LabError(
                f"{name} is fixed once a run has started. Settings of {method_of(config)} that may"
                f" change: {', '.join(mutable)}."
            )
        raise unknown(f"setting of {method_of(config)} that may change", name, mutable)
    return dataclasses.replace(config, **{name: value})
