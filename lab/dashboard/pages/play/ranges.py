"""The ranges of the playground's sliders: 1.5 decades on either side of a setting's default."""

from collections.abc import Mapping
from typing import Any

from lab.config.schema import Setting
from lab.dashboard.components.config_widgets import (
    BETA_OF_PAPER,
    divisors,
    knob_fields,
    ladder,
    near_values,
)

KNOBS = {"beta": "β", "group_size": "G", "learning_rate": "learning rate"}
BETA_TICKS = (0.05, 0.1, 0.2, 0.5)


def slider_range(field: Setting, default: Any, batch_size: int) -> dict[str, Any]:
    """The values of a knob's slider: `near` its default and `all` that the setting offers, its
    `default`, and the values with a tick.
    """
    near: list[Any]
    every: list[Any]
    ticks: list[Any]
    if field.name == "group_size":
        near = every = divisors(batch_size)
        ticks = [size for size in (2, 8, 32, 128) if size in every]
    else:
        middle = default or BETA_OF_PAPER
        near = near_values(field, default)
        every = sorted({*near, *ladder(float(field.low or 0.0), float(field.high or 0.0))})
        decades = [float(f"{middle * 10**e:.3g}") for e in (-1, 0, 1)]
        ticks = [*BETA_TICKS] if field.name == "beta" else decades
        near = sorted({*near, *(tick for tick in ticks if near[0] <= tick <= near[-1])})
    return {
        "label": KNOBS[field.name],
        "near": near,
        "all": every,
        "default": default,
        "ticks": [tick for tick in ticks if tick in near],
    }


def slider_ranges(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The ranges of the knobs that a method has, around the settings of its recorded run."""
    fields = knob_fields(config["method"])
    return {
        knob: slider_range(fields[knob], config[knob], config["batch_size"])
        for knob in KNOBS
        if knob in fields
    }
