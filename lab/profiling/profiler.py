"""Measures what an update costs: memory by what it is for, tokens, arithmetic, time and energy."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lab.config.json_format import to_dict
from lab.config.methods import METHODS, MethodSpec, method_of
from lab.config.run_config import RunConfig
from lab.engine.cuda_graphs import eager
from lab.engine.decode_any_model import base_of
from lab.models.loading import fitting_threads
from lab.profiling.flops import FLOP_FORMULAS
from lab.profiling.memory_tracker import track_memory
from lab.profiling.networks import models_of, networks_of, resident_weights
from lab.training.loop import prepare, train_step
from lab.training.state import TrainState


@dataclass(frozen=True)
class UpdateCost:
    """The measured cost of one update.

    `memory` holds, for each phase, the bytes by kind at the moment of the highest total; `peak` is
    the highest total of all phases. `largest_cache` is the largest size of the key-value cache,
    which may be at another moment. `allocated` is the peak in bytes that the CUDA allocator reports
    (None on the CPU). `copies` says how many times the weights of the base are in memory. `batch` is
    (rows, tokens without padding, longest row) of the largest micro-batch during the memory
    measurement. `tokens` counts the tokens that went through any of the models: "forward" without a
    gradient, "backward" with one. `flops` counts matrix products and attention, as torch does.
    `seconds` are by phase, `joules` where the device reports them (None elsewhere). If several
    updates share a rollout, each counts its share of it.
    """

    method: str
    device: str
    models: list[str]
    copies: float
    memory: dict[str, dict[str, int]]
    largest_cache: int
    peak: int
    allocated: int | None
    batch: tuple[int, int, int]
    tokens: dict[str, int]
    flops: int
    seconds: dict[str, float]
    joules: float | None
    config: dict[str, Any]


def profile_update(config: RunConfig, rollouts: int = 2) -> UpdateCost:
    """Train a few updates of `config` and measure them: time over `rollouts` rollouts (updates, if
    the method is offline), then memory, arithmetic and tokens in one each.

    Counting makes an update several times slower, so time is measured without it; an ordinary run
    counts nothing.
    """
    run = prepare(config)
    method = METHODS[method_of(config)]
    updates = _Updates(run, method, method.batches(run))
    with fitting_threads(run.model):
        # The first updates create the optimizer state, and on a GPU they choose kernels.
        for _ in range(updates_per_rollout(config)):
            updates.timed_update()
        seconds, joules = updates.seconds_and_joules(rollouts * updates_per_rollout(config))
        allocated = updates.allocated_bytes()
        memory, largest_cache, batch = updates.memory()
        flops, tokens = updates.flops_and_tokens()
    base = base_of(run.model).num_parameters() - sum(
        w.numel() for name, w in run.model.named_parameters() if "lora_" in name
    )
    weights = sum(w.untyped_storage().nbytes() // w.element_size() for w in resident_weights(run))
    return UpdateCost(
        method=method_of(config),
        device=str(run.device),
        models=models_of(run),
        copies=weights / base,
        memory=memory,
        largest_cache=largest_cache,
        peak=max(sum(kinds.values()) for kinds in memory.values()),
        allocated=allocated,
        batch=batch,
        tokens=tokens,
        flops=flops,
        seconds=seconds,
        joules=joules,
        config=to_dict(config),
    )


def updates_per_rollout(config: RunConfig) -> int:
    """Return how many updates share a rollout; 1 for an offline method."""
    return (
        getattr(config, "updates_per_rollout", 1)
        * getattr(config, "epochs", 1)
        * getattr(config, "minibatches", 1)
    )


@dataclass(frozen=True)
class _Updates:
    """The updates of a run, each measurement on the next one."""

    run: TrainState
    method: MethodSpec
    batches: Iterator[list[Any]]

    def timed_update(self) -> None:
        with self.run.timer.phase("updating"):
            train_step(self.run, self.method, next(self.batches))

    def start_with_rollout(self) -> None:
        """Make the next batch begin with a rollout of its own."""
        if self.run.rollout is not None:
            self.run.rollout.num_updates = updates_per_rollout(self.run.config)

    def seconds_and_joules(self, updates: int) -> tuple[dict[str, float], float | None]:
        """Measure the seconds by phase and the joules of one update, a mean over `updates`."""
        run = self.run
        before, joules_before, began = (
            dict(run.timer.phases),
            _joules(run.device),
            time.perf_counter(),
        )
        for _ in range(updates):
            self.timed_update()
        elapsed, joules = time.perf_counter() - began, _joules(run.device)
        seconds = {
            name: (run.timer.phases[name] - before[name]) / updates
            for name in ("sampling", "scoring", "updating")
        }
        return seconds | {"all": elapsed / updates}, (
            None if joules is None or joules_before is None else (joules - joules_before) / updates
        )

    def memory(self) -> tuple[dict[str, dict[str, int]], int, tuple[int, int, int]]:
        """Measure the peak memory by phase and kind, the largest cache, and the size of the largest
        micro-batch: rows, tokens and longest row.
        """
        self.start_with_rollout()
        with track_memory(self.run) as tracker:
            pieces = next(self.batches)
            memory = {"sampling and scoring": tracker.peak}
            tracker.reset_peak()
            train_step(self.run, self.method, pieces)
            packed = [piece.tokens.packed for piece in pieces]
            largest = max(packed, key=lambda batch: len(batch.ids))
            memory["updating"] = tracker.peak
            return (memory, tracker.largest_cache, (largest.rows, len(largest.ids), largest.width))

    def allocated_bytes(self) -> int | None:
        """Measure the peak of the CUDA allocator in bytes; None on another device."""
        if self.run.device.type != "cuda":
            return None
        self.start_with_rollout()
        with eager():
            torch.cuda.reset_peak_memory_stats(self.run.device)
            self.timed_update()
        return torch.cuda.max_memory_allocated(self.run.device)

    def flops_and_tokens(self) -> tuple[int, dict[str, int]]:
        """Count the FLOPs and tokens of one update with its share of the rollout."""
        run = self.run
        self.start_with_rollout()
        tokens = Counter({"generated": -run.generated})

        def count(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            tokens["backward" if torch.is_grad_enabled() else "forward"] += inputs[0].numel()

        networks = [base_of(network) for network in networks_of(run)]
        embeddings = {id(e): e for e in (n.get_input_embeddings() for n in networks)}
        hooks = [e.register_forward_pre_hook(count) for e in embeddings.values()]
        # The math backend computes attention that is not packed by matrix products.
        counter = FlopCounterMode(display=False, custom_mapping=FLOP_FORMULAS)
        updates = updates_per_rollout(run.config)
        try:
            with sdpa_kernel(SDPBackend.MATH), counter:
                for _ in range(updates):
                    train_step(run, self.method, next(self.batches))
        finally:
            for hook in hooks:
                hook.remove()
        tokens["generated"] += run.generated
        return (
            counter.get_total_flops() // updates,
            {name: count // updates for name, count in tokens.items()},
        )


def _joules(device: torch.device) -> float | None:
    """Return the energy that the device has used since its driver started, if NVML reports it."""
    if device.type != "cuda":
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(device.index or torch.cuda.current_device())
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
    except Exception:  # There is no NVML, or the device does not report its energy.
        return None


def as_row(cost: UpdateCost) -> dict[str, Any]:
    """Return the cost as one JSON object."""
    return asdict(cost)
