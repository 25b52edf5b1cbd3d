"""The number of updates of a run that counts passes over its data instead of updates."""

from collections.abc import Callable
from dataclasses import replace
from math import ceil
from typing import Any

from lab.config.methods import METHODS, DataKind, method_of
from lab.config.optimizer_settings import require_schedule
from lab.config.run_config import OfflineConfig
from lab.config.schema import declared_settings
from lab.data.corpus import Examples
from lab.data.examples import Pair, UnpairedExample
from lab.errors import LabError
from lab.training.batch_rows import batch_rows
from lab.training.methods.offline import (
    encode_pairs,
    examples_of,
    load_imitated,
    load_labelled,
    load_preferences,
)
from lab.training.state import TrainState

LOADERS: dict[DataKind, Callable[[TrainState], list[Any]]] = {
    "pairs": load_preferences,
    "judgements": load_labelled,
    "demonstrations": load_imitated,
}
"""For each kind of data the function that returns the examples to train on."""


def _sides(run: TrainState, rows: list[Any]) -> tuple[Examples, ...]:
    """The examples of the rows that a loader returns, as the method of the run makes them."""
    if isinstance(rows[0], Pair):
        return encode_pairs(run, rows)
    labelled = isinstance(rows[0], UnpairedExample)
    return (examples_of(run, [(x.prompt, x.completion) for x in rows] if labelled else rows),)


def set_steps_of_epochs(run: TrainState) -> None:
    """Set `steps` of a run with `num_train_epochs` to the updates that its data make of them, and
    note the number.

    An epoch of n examples in batches of B has ⌊n/B⌋ updates, at least 1: its short last batch is
    left out. With `tokens_per_batch` an epoch has as many updates as it takes to use every row. Raises
    `LabError` when the config names another number of steps, or a warm-up that leaves its schedule no
    step.
    """
    config = run.config
    if not isinstance(config, OfflineConfig) or not config.num_train_epochs:
        return
    rows = LOADERS[METHODS[method_of(config)].learns_from](run)
    if config.tokens_per_batch:
        steps = batch_rows(run, *_sides(run, rows)).updates(config.num_train_epochs)
        batches = f"batches of up to {config.tokens_per_batch} tokens"
    else:
        size = min(config.batch_size, len(rows))
        steps = ceil(config.num_train_epochs * (len(rows) // size))
        batches = f"batches of {size}"
    text = (
        f"num_train_epochs {config.num_train_epochs:g} of {len(rows)} rows in {batches}:"
        f" {steps} updates"
    )
    if config.steps not in (steps, declared_settings(type(config))["steps"].default):
        raise LabError(f"steps is {config.steps}, but {text}. Leave one of them out.")
    run.notes.append(f"{text}.")
    run.config = replace(config, steps=steps)
    require_schedule(run.config)
