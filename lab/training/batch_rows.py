"""Which rows of the data each update trains on: `batch_size` rows, or as many as `tokens_per_batch` holds."""

from collections.abc import Sequence

import numpy as np

from lab.config.run_config import OfflineConfig, config_as
from lab.data.batching import batch_indices, epoch_order
from lab.data.corpus import Examples
from lab.distributed import collectives
from lab.errors import LabError
from lab.training.state import TrainState

ROWS_AT_ONCE = 4096
"""Rows that are tokenised together when their lengths are counted."""


class BatchRows:
    """The rows of each update, as indices into `sides`: the examples of one batch, or the chosen and the
    rejected examples, of which a row is one of each.

    With `tokens_per_batch` N, batches are filled in the shuffled order of the epoch until the next row
    would make more than N tokens of prompts and completions. A longer row is a batch of its own. Each
    epoch uses every row once. A batch depends on data, seed and step alone, so a resumed run goes on with
    the same ones.
    """

    def __init__(self, run: TrainState, *sides: Examples) -> None:
        self._run = run
        self._count = len(sides[0])
        config = config_as(run.config, OfflineConfig)
        self._first_of_epoch = [0]  # The number of updates before each epoch.
        self._edges: dict[int, np.ndarray] = {}
        if config.tokens_per_batch:
            if collectives.world_size() > 1:
                raise LabError(
                    f"tokens_per_batch is {config.tokens_per_batch}, but {collectives.world_size()}"
                    " processes share every batch equally, and such batches differ in rows. Use"
                    " batch_size."
                )
            self._lengths = sum(map(_lengths, sides), np.zeros(self._count, dtype=np.int64))
            self._note_long_rows(config.tokens_per_batch)

    def of_update(self, step: int) -> list[int]:
        """Return the rows of update `step`; the first is 1."""
        config = config_as(self._run.config, OfflineConfig)
        if not config.tokens_per_batch:
            return batch_indices(self._count, config.batch_size, config.seed, step)
        while self._first_of_epoch[-1] < step:
            epoch = len(self._first_of_epoch) - 1
            self._first_of_epoch.append(self._first_of_epoch[-1] + len(self._batches(epoch)) - 1)
        epoch = len(self._first_of_epoch) - 2
        while self._first_of_epoch[epoch] >= step:
            epoch -= 1
        start, end = self._batches(epoch)[step - 1 - self._first_of_epoch[epoch] :][:2]
        return epoch_order(self._count, config.seed, epoch)[start:end].tolist()

    def updates(self, epochs: float) -> int:
        """Return the number of updates in so many epochs; a part of an epoch is rounded up to whole
        updates.
        """
        whole = int(epochs)
        counts = [len(self._batches(epoch)) - 1 for epoch in range(whole + (epochs > whole))]
        part = [] if epochs == whole else [-int(-(epochs - whole) * counts[whole] // 1)]
        return sum(counts[:whole] + part)

    def _batches(self, epoch: int) -> np.ndarray:
        """The places in the order of an epoch at which its batches begin, and the number of rows."""
        if epoch not in self._edges:
            config = config_as(self._run.config, OfflineConfig)
            order = epoch_order(self._count, config.seed, epoch)
            self._edges = {epoch: batch_edges(self._lengths[order], config.tokens_per_batch)}
        return self._edges[epoch]

    def _note_long_rows(self, limit: int) -> None:
        """Note rows that have more tokens than a batch should have."""
        if count := int((self._lengths > limit).sum()):
            self._run.notes.append(
                f"{count} of {self._count} rows have more than tokens_per_batch {limit} tokens, up to"
                f" {self._lengths.max()}: each of them is a batch of its own."
            )


def batch_edges(lengths: np.ndarray, limit: int) -> np.ndarray:
    """Return where batches of rows with these `lengths` begin, and the number of rows at the end: a batch
    takes rows until the next would make more than `limit` tokens, and at least one.

    Anchor: lengths 3, 4, 9, 2, 2 and a limit of 8 give 0, 2, 3, 5.
    """
    ends = np.cumsum(lengths)
    edges = [0]
    while edges[-1] < len(lengths):
        before = ends[edges[-1] - 1] if edges[-1] else 0
        following = int(np.searchsorted(ends, before + limit, side="right"))
        edges.append(max(following, edges[-1] + 1))
    return np.array(edges)


def _lengths(examples: Examples) -> np.ndarray:
    """The tokens of every example."""
    starts: Sequence[int] = range(0, len(examples), ROWS_AT_ONCE)
    return np.array(
        [len(e.ids) for i in starts for e in examples[i : i + ROWS_AT_ONCE]], dtype=np.int64
    )


def batch_rows(run: TrainState, *sides: Examples) -> BatchRows:
    """Return the rows of each update of `run`, whose examples are `sides`; they are made once."""
    if "batch rows" not in run.cache:
        run.cache["batch rows"] = BatchRows(run, *sides)
    return run.cache["batch rows"]
