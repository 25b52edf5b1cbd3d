"""A config as JSON: what config.json and a checkpoint hold, in this and in earlier formats."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from lab.config.methods import METHODS, make_config, method_of
from lab.config.run_config import RunConfig
from lab.errors import LabError

CONFIG_FORMAT = 3
"""The version that config.json gives as "format". Format 1 had no number; formats 1 and 2 have the
names and values of `OLD_NAMES` and `OLD_VALUES`.
"""

OLD_NAMES = {
    "form": "ipo_variant",
    "lam": "gae_lambda",
    "layout": "model_layout",
    "reduction": "loss_aggregation",
    "scale": "advantage_scaling",
}
"""The names that settings had in formats 1 and 2, and their names in format 3."""
OLD_VALUES: dict[str, dict[str, Any]] = {
    "gradient_checkpointing": {"on": True, "off": False},
    "quantization": {"none": None},
    "shard": {"on": True, "off": False},
}
"""For each setting the values that were written otherwise in formats 1 and 2."""


def with_current_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of format 1 or 2 as format 3 writes them; settings of format 3 stay."""
    renamed = {OLD_NAMES.get(name, name): value for name, value in settings.items()}
    for name, values in OLD_VALUES.items():
        if isinstance(value := renamed.get(name), str):
            renamed[name] = values.get(value, value)
    return renamed


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Return `{"method": …, every setting: …}`, which JSON can hold and `from_dict` reads."""
    return {"method": method_of(config)} | dataclasses.asdict(config)


def from_dict(data: Any) -> RunConfig:
    """Build the config that `to_dict` returned or that config.json holds, in any format up to this.

    Raises `LabError` for anything else, such as the format of a newer lab.
    """
    if not isinstance(data, dict):
        raise LabError(
            f"it holds {type(data).__name__}, not an object with a method and its settings."
        )
    number = data.get("format", 1)
    if type(number) is not int or number < 1:
        raise LabError(
            f"its format is {number!r:.60}, but takes a whole number from 1 to {CONFIG_FORMAT}."
        )
    if number > CONFIG_FORMAT:
        raise LabError(
            f"it was made by a newer lab (format {number}; this one reads up to {CONFIG_FORMAT}). Update"
            " this one, or use the newer."
        )
    if not isinstance(data.get("method"), str):
        raise LabError(f"it names no method. Accepted: {', '.join(METHODS)}.")
    settings = {name: value for name, value in data.items() if name not in ("method", "format")}
    try:
        return make_config(
            data["method"], with_current_names(settings) if number < CONFIG_FORMAT else settings
        )
    except OverflowError as error:
        raise LabError(f"it holds a number that is too large ({error}).") from None
