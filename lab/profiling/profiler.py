"""What a run costs, measured: memory by what it holds, tokens, arithmetic, time, energy."""

import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

import lab.engine.decode
import lab.engine.decode_any_model
import lab.engine.generate
from lab.config.json_format import to_dict
from lab.config.methods import METHODS, method_of
from lab.config.run_config import RunConfig
from lab.engine.cuda_graphs import eager
from lab.engine.llama import decoder_of
from lab.models.loading import fitting_threads
from lab.training.loop import prepare, update
from lab.training.state import TrainState

KINDS = ("weights", "gradients", "optimizer", "cache", "activations")
"""What memory holds: cache is the key-value cache of sampling, activations everything else that is
neither a weight nor made from one.
"""


class Tracker(TorchDispatchMode):
    """Within it, every tensor storage that torch makes is counted until it dies: bytes by kind, now
    and at the highest total.

    It sees what torch asks for, in real or in fake tensors, on any device; what an allocator rounds
    up and what a library keeps for itself (cuBLAS workspaces) it does not see.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now: Counter[str] = Counter()
        self.peak: dict[str, int] = dict.fromkeys(KINDS, 0)
        self.largest_cache = 0
        self._kinds: dict[int, tuple[str, int]] = {}

    def restart(self) -> None:
        """Forget the highest total; what is held now stays counted."""
        self.peak = {kind: self.now[kind] for kind in KINDS}

    def hold(self, tensor: torch.Tensor, kind: str) -> None:
        """Count the storage of `tensor` as `kind` from now on."""
        storage = tensor.untyped_storage()
        key = storage._cdata
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
            self.peak = {kind: self.now[kind] for kind in KINDS}

    def _release(self, key: int) -> None:
        kind, size = self._kinds.pop(key)
        self.now[kind] -= size

    def __torch_dispatch__(
        self,
        operation: Callable,
        types: Iterable[type],
        args: tuple = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if (
                isinstance(tensor, torch.Tensor)
                and tensor.untyped_storage()._cdata not in self._kinds
            ):
                self.hold(tensor, "activations")
        return result


@contextmanager
def tracked(run: TrainState) -> Iterator[Tracker]:
    """A tracker that knows the weights, gradients and optimizer state of `run`, and the caches of
    its sampler.
    """
    for network in networks_of(run):
        decoder_of(
            network
        )  # It lays out the weights anew at its first use, which is not part of an update.
    tracker = Tracker()
    for weight in weights_of(run):
        tracker.hold(weight, "weights")
    for state in run.optimizer.state.values():
        for value in state.values():
            if isinstance(value, torch.Tensor):
                tracker.hold(value, "optimizer")
    trained = [weight for group in run.trained().values() for weight in group.values()]
    hooks = [
        weight.register_post_accumulate_grad_hook(
            lambda weight: tracker.hold(weight.grad, "gradients")
        )
        for weight in trained
    ]

    class Cache(DynamicCache):
        def update(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
            keys, values = super().update(*args, **kwargs)
            tracker.hold(keys, "cache")
            tracker.hold(values, "cache")
            return keys, values

    def memory(kind: str, *shape: int, like: torch.Tensor) -> torch.Tensor:
        made = plain(kind, *shape, like=like)
        tracker.hold(made, kind)
        return made

    for network in networks_of(run):
        for kind, tensor in lab.engine.generate.kept(decoder_of(network)):
            tracker.hold(tensor, kind)
    original, lab.engine.decode_any_model.DynamicCache = (
        lab.engine.decode_any_model.DynamicCache,
        Cache,
    )
    plain, lab.engine.decode.memory = lab.engine.decode.memory, memory
    try:
        with tracker:
            yield tracker
    finally:
        lab.engine.decode_any_model.DynamicCache, lab.engine.decode.memory = original, plain
        for hook in hooks:
            hook.remove()


def networks_of(run: TrainState) -> list[torch.nn.Module]:
    """The networks that a run has in memory; several of its models may share one."""
    found = [
        run.model,
        run.frozen_reference,
        run.critic and run.critic.model,
        run.reward_model and run.reward_model.model,
    ]
    return list({id(network): network for network in found if network is not None}.values())


def weights_of(run: TrainState) -> list[torch.Tensor]:
    """Every weight that a run keeps in memory, each storage once."""
    weights = [
        w for network in networks_of(run) for w in (*network.parameters(), *network.buffers())
    ]
    weights += [scalar.head for scalar in (run.critic, run.reward_model) if scalar]
    return list({w.untyped_storage()._cdata: w for w in weights}.values())


def models_of(run: TrainState) -> list[str]:
    """The models in the algorithm, however few weights they share."""
    method = METHODS[method_of(run.config)]
    without = {"reward model"} if method.online and run.reward_model is None else set()
    return [name for name in method.models if name not in without]


@dataclass(frozen=True)
class UpdateCost:
    """The cost of one update, everything measured.

    `memory` in bytes by kind at the moment when the total of a phase was highest, phase after
    phase; `peak` is the highest of them; `largest_cache` is the key-value cache at its largest,
    which may be at another moment. `allocated` is what the CUDA allocator says that the peak was
    (None on the CPU). `copies` counts how often the base's weights lie in memory. `batch` is the
    rows, the tokens without padding and the longest row of the largest piece that memory was
    measured on. `tokens` are those that went through any of the models: forward without, backward
    with a gradient. `flops` counts matrix products and attention, as torch does. `seconds` by
    phase, `joules` where the device says (None elsewhere). Where several updates share a rollout,
    each has its share of it.
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


def profile(config: RunConfig, rollouts: int = 2) -> UpdateCost:
    """Train a few updates of `config` and measure them: time over `rollouts` (offline: updates),
    then memory, arithmetic and tokens in one each.

    Counting makes an update several times slower, so time is measured without it; an ordinary run
    counts nothing of this.
    """
    run = prepare(config)
    method = METHODS[method_of(config)]
    batches = method.batches(run)
    with fitting_threads(run.model):
        for _ in range(cycle(config)):
            _one(
                run, method, batches
            )  # The first updates make the optimizer's state, and on a GPU choose kernels.
        updates = rollouts * cycle(config)
        before, joules, began = dict(run.phases), _energy(run.device), time.perf_counter()
        for _ in range(updates):
            _one(run, method, batches)
        took, spent = time.perf_counter() - began, _energy(run.device)
        seconds = {
            name: (run.phases[name] - before[name]) / updates
            for name in ("sampling", "scoring", "updating")
        } | {"all": took / updates}
        allocated = _allocated(run, method, batches)
        memory, largest_cache, batch = _memory(run, method, batches)
        flops, tokens = _work(run, method, batches)
    base = run.model.get_base_model().num_parameters() - sum(
        w.numel() for name, w in run.model.named_parameters() if "lora_" in name
    )
    copies = sum(w.untyped_storage().nbytes() // w.element_size() for w in weights_of(run)) / base
    peak = max(sum(kinds.values()) for kinds in memory.values())
    return UpdateCost(
        method_of(config),
        str(run.device),
        models_of(run),
        copies,
        memory,
        largest_cache,
        peak,
        allocated,
        batch,
        tokens,
        flops,
        seconds,
        None if spent is None else (spent - joules) / updates,
        to_dict(config),
    )


def _one(run: TrainState, method: Any, batches: Iterator) -> None:
    with run.phase("updating"):
        update(run, method, next(batches))


def cycle(config: RunConfig) -> int:
    """How many updates share a rollout; 1 for an offline method."""
    return (
        getattr(config, "updates_per_rollout", 1)
        * getattr(config, "epochs", 1)
        * getattr(config, "minibatches", 1)
    )


def _fresh(run: TrainState) -> None:
    """Let the next batch begin with a rollout of its own."""
    if run.rollout is not None:
        run.rollout.uses = cycle(run.config)


def _memory(
    run: TrainState, method: Any, batches: Iterator
) -> tuple[dict[str, dict[str, int]], int, tuple[int, int, int]]:
    _fresh(run)
    with tracked(run) as tracker:
        pieces = next(batches)
        found = {"sampling and scoring": tracker.peak}
        tracker.restart()
        update(run, method, pieces)
        batch = max(
            ((p.rows, len(p.ids), p.width) for p in (piece.tokens.packed for piece in pieces)),
            key=lambda found: found[1],
        )
        return found | {"updating": tracker.peak}, tracker.largest_cache, batch


def _allocated(run: TrainState, method: Any, batches: Iterator) -> int | None:
    if run.device.type != "cuda":
        return None
    _fresh(run)
    with eager():
        torch.cuda.reset_peak_memory_stats(run.device)
        _one(run, method, batches)
    return torch.cuda.max_memory_allocated(run.device)


def _work(run: TrainState, method: Any, batches: Iterator) -> tuple[int, dict[str, int]]:
    """FLOPs and tokens of one update with everything that belongs to it."""
    _fresh(run)
    tokens = Counter({"generated": -run.generated})

    def count(module: torch.nn.Module, inputs: Any) -> None:
        tokens["backward" if torch.is_grad_enabled() else "forward"] += inputs[0].numel()

    embeddings = {id(e): e for e in (n.get_input_embeddings() for n in networks_of(run))}
    hooks = [e.register_forward_pre_hook(count) for e in embeddings.values()]
    try:
        with (
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False, custom_mapping=COUNTED) as counter,
        ):  # Plain products elsewhere.
            for _ in range(cycle(run.config)):
                update(run, method, next(batches))
    finally:
        for hook in hooks:
            hook.remove()
    tokens["generated"] += run.generated
    return counter.get_total_flops() // cycle(run.config), {
        name: n // cycle(run.config) for name, n in tokens.items()
    }


def packed_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    edges: torch.Tensor,
    *rest: Any,
    **options: Any,
) -> int:
    """Operations of the attention kernel for packed rows (N, heads, d): scores and their sum over
    values, every token with all of its row, as torch counts.

    torch's own formula refuses keys that several queries share. Anchor: rows of 3 and 2 tokens, one
    head, d = 4 give 2·2·4·(9 + 4) = 208.
    """
    return int(4 * query.shape[1] * query.shape[2] * (edges.diff().double() ** 2).sum())


def packed_attention_back(
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    logsumexp: torch.Tensor,
    edges: torch.Tensor,
    *rest: Any,
    **options: Any,
) -> int:
    """Operations of its way back: five products where the way there had two."""
    return packed_attention(query, key, value, edges) * 5 // 2


packed_attention._get_raw = packed_attention_back._get_raw = (
    True  # FlopCounterMode then hands over the tensors, not their shapes.
)
COUNTED = {
    torch.ops.aten._flash_attention_forward: packed_attention,
    torch.ops.aten._flash_attention_backward: packed_attention_back,
}


def _energy(device: torch.device) -> float | None:
    """Joules that the device has used since its driver started, where NVML says so."""
    if device.type != "cuda":
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(device.index or torch.cuda.current_device())
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
    except Exception:  # No NVML, or a device that does not say: the profile then has no energy.
        return None


def as_row(found: UpdateCost) -> dict[str, Any]:
    """The profile as one JSON object."""
    return asdict(found)
