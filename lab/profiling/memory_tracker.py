"""Counts the bytes of all tensors by what they are for, now and at the peak."""

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, get_args

import torch

from lab.engine.allocator import Allocator, MemoryKind
from lab.engine.generate import persistent_tensors
from lab.engine.llama import decoder_of
from lab.engine.torch_private import OperationMode, storage_id, tensors_in
from lab.profiling.networks import networks_of, resident_weights
from lab.training.state import TrainState

MEMORY_KINDS: tuple[MemoryKind, ...] = get_args(MemoryKind)


class MemoryTracker(OperationMode):
    """While it is active, it counts every tensor storage that torch allocates until it is freed:
    bytes by kind, `now` and at the `peak`, the moment of the highest total.

    It sees what is asked of torch, in real or in fake tensors, on any device. It does not see what
    an allocator rounds up, nor what a library allocates for itself (cuBLAS workspaces).
    """

    def __init__(self) -> None:
        super().__init__()
        self.now: Counter[str] = Counter()
        self.peak: dict[str, int] = dict.fromkeys(MEMORY_KINDS, 0)
        self.largest_cache = 0
        self._kinds: dict[int, tuple[MemoryKind, int]] = {}

    def reset_peak(self) -> None:
        """Forget the peak; what is in memory now stays counted."""
        self.peak = {kind: self.now[kind] for kind in MEMORY_KINDS}

    def count_as(self, kind: MemoryKind, tensor: torch.Tensor) -> None:
        """Count the storage of `tensor` as `kind` from now on."""
        storage = tensor.untyped_storage()
        key = storage_id(tensor)
        if key in self._kinds:
            before, size = self._kinds[key]
            self.now[before] -= size
        else:
            size = storage.nbytes()
            weakref.finalize(storage, self._release, key).atexit = False
        self._kinds[key] = (kind, size)
        self.now[kind] += size
        self.largest_cache = max(self.largest_cache, self.now["cache"])
        if self.now.total() > sum(self.peak.values()):
            self.reset_peak()

    def _release(self, key: int) -> None:
        kind, size = self._kinds.pop(key)
        self.now[kind] -= size

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operation and count what it allocates as activations."""
        result = func(*args, **(kwargs or {}))
        for tensor in tensors_in(result):
            if storage_id(tensor) not in self._kinds:
                self.count_as("activations", tensor)
        return result


class _TrackingAllocator(Allocator):
    """Tells a tracker what the memory of sampling is for."""

    def __init__(self, tracker: MemoryTracker) -> None:
        self._tracker = tracker

    def allocate(self, kind: MemoryKind, *shape: int, like: torch.Tensor) -> torch.Tensor:
        tensor = super().allocate(kind, *shape, like=like)
        self._tracker.count_as(kind, tensor)
        return tensor

    def register(self, kind: MemoryKind, *tensors: torch.Tensor) -> None:
        for tensor in tensors:
            self._tracker.count_as(kind, tensor)


@contextmanager
def track_memory(run: TrainState) -> Iterator[MemoryTracker]:
    """Track memory with a tracker that knows the weights, gradients and optimizer state of `run`,
    and the key-value caches of its sampler.
    """
    tracker = MemoryTracker()
    for weight in resident_weights(run):
        tracker.count_as("weights", weight)
    for state in run.optimizer.state.values():
        for value in state.values():
            if isinstance(value, torch.Tensor):
                tracker.count_as("optimizer", value)

    def count_gradient(weight: torch.Tensor) -> None:
        assert weight.grad is not None
        tracker.count_as("gradients", weight.grad)

    hooks = [
        weight.register_post_accumulate_grad_hook(count_gradient)
        for group in run.trainable_parameters().values()
        for weight in group.values()
    ]
    for network in networks_of(run):
        for kind, tensor in persistent_tensors(decoder_of(network)):
            tracker.count_as(kind, tensor)
    previous, run.allocator = run.allocator, _TrackingAllocator(tracker)
    try:
        with tracker:
            yield tracker
    finally:
        run.allocator = previous
        for hook in hooks:
            hook.remove()
