"""The number of updates of a run that counts passes over its data instead of updates."""

from collections.abc import Callable
from dataclasses import replace
from math import ceil
from typing import Any

from lab.config.methods import METHODS, DataKind, method_of
from lab.config.optimizer_settings import require_schedule
from lab.config.run_config import OfflineConfig
from lab.config.schema import declared_settings
from lab.errors import LabError
from lab.training.methods.offline import load_imitated, load_labelled, load_preferences
from lab.training.state import TrainState

LOADERS: dict[DataKind, Callable[[TrainState], list[Any]]] = {
    "pairs": load_preferences,
    "judgements": load_labelled,
    "demonstrations": load_imitated,
}
"""For each kind of data the function that returns the examples to train on."""


def set_steps_of_epochs(run: TrainState) -> None:
    """Set `steps` of a run with `num_train_epochs` to the updates that its data make of them, and
    note the number.

    An epoch of n examples in batches of B has ⌊n/B⌋ updates, at least 1: its short last batch is
    left out. Raises `LabError` when the config names another number of steps, or a warm-up that
    leaves its schedule no step.
    """
    config = run.config
    if not isinstance(config, OfflineConfig) or not config.num_train_epochs:
        return
    count = len(LOADERS[METHODS[method_of(config)].learns_from](run))
    size = min(config.batch_size, count)
    steps = ceil(config.num_train_epochs * (count // size))
    text = (
        f"num_train_epochs {config.num_train_epochs:g} of {count} rows in batches of {size}:"
        f" {steps} updates"
    )
    if config.steps not in (steps, declared_settings(type(config))["steps"].default):
        raise LabError(f"steps is {config.steps}, but {text}. Leave one of them out.")
    run.notes.append(f"{text}.")
    run.config = replace(config, steps=steps)
    require_schedule(run.config)
