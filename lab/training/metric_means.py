"""Averages the metrics of a batch over its micro-batches and processes."""

import math
from collections.abc import Iterable

import torch


class MetricAccumulator:
    """Averages of metrics over the micro-batches of a batch, without NaN entries.

    Nothing is read from the device before `read`.
    """

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, torch.Tensor] = {}

    def add(self, metrics: dict[str, torch.Tensor]) -> None:
        """Add the entries of detached tensors of any shape."""
        for name, value in metrics.items():
            count = (~value.isnan()).sum()
            total = value.float().nansum()
            self._sums[name] = self._sums[name] + total if name in self._sums else 0 + total
            self._counts[name] = self._counts[name] + count if name in self._counts else 0 + count

    def align_keys(self, names: Iterable[str], device: torch.device) -> None:
        """Keep exactly the metrics of these names, in this order; one without an entry gets zeros.

        The processes of a run then hold tensors for the same metrics, and can sum them.
        """
        zero = torch.zeros((), device=device)
        names = list(names)
        self._sums = {name: self._sums.get(name, zero.clone()) for name in names}
        self._counts = {name: self._counts.get(name, zero.clone()).float() for name in names}

    def tensors(self) -> list[torch.Tensor]:
        """Return sums and counts, to be changed in place."""
        return [*self._sums.values(), *self._counts.values()]

    def read(self, **scalars: torch.Tensor) -> dict[str, float]:
        """Return `scalars` as they are, then the mean of every metric that had an entry."""
        averaged = [name for name in self._sums if name not in scalars]
        means = [self._sums[name] / self._counts[name] for name in averaged]
        values = torch.stack([*(value.float() for value in scalars.values()), *means]).tolist()
        read = dict(zip([*scalars, *averaged], values))
        return {n: v for n, v in read.items() if n in scalars or not math.isnan(v)}
