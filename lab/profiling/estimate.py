"""Estimates the memory of an update for models that do not fit here: it runs the lab's own update
on tensors that have shapes but no content.
"""

from contextlib import nullcontext
from dataclasses import dataclass

import torch

from lab.config.methods import METHODS, estimated_methods, make_config
from lab.config.run_config import RunConfig
from lab.config.schema import declared_settings
from lab.engine.decode_policy import DECODE_POLICIES
from lab.engine.llama import decoder_of
from lab.engine.torch_private import fake_tensors
from lab.errors import LabError, unknown
from lab.profiling.fake_run import RowShape, fake_micro_batch, materialise, meta_run, pack_for_cpu
from lab.profiling.memory_tracker import MEMORY_KINDS, track_memory
from lab.profiling.model_shapes import MODEL_SHAPES, ModelShape
from lab.profiling.networks import models_of, networks_of
from lab.training.methods.online import MAX_ACTIVATION_BYTES, pieces_within
from lab.training.state import TrainState

PPO_LAYOUTS = ("shared", "separate")
MAX_MICRO_BATCH_TOKENS = 2**21
"""Tokens of the largest micro-batch that is estimated. Its update has no content, but it goes
through the vocabulary in chunks, which would take minutes.
"""
OPTIMIZER_STATE_DTYPES: dict[str, tuple[torch.dtype | None, ...]] = {
    "adamw": (None, None),
    "adamw_8bit": (torch.uint8, torch.uint8),
    "muon": (None,),
    "sgd": (),
}
"""For each optimizer, the dtypes of the tensors that it keeps for a weight, each of the weight's
shape; None is the weight's own dtype.
"""
MemoryByKind = dict[str, int]


@dataclass(frozen=True)
class UpdateSettings:
    """The size of an update and how it is computed.

    `batch_size` counts pairs (DPO, IPO), examples (KTO) or completions (GRPO, PPO), which go
    through the model in `micro_batches` pieces. Prompts and completions have `prompt_tokens` and
    `completion_tokens` tokens; where lengths differ, these are means, and `longest_row` is the
    length of the longest row (0: all rows are equally long). `group_size` is G of GRPO. `full`
    trains every weight instead of LoRA of rank `lora_rank`; weights, gradients and optimizer state
    then have the dtype of the base. `bf16` is what the lab does on CUDA: the base in bfloat16, LoRA
    and its optimizer state in float32; otherwise all is float32. `checkpointing` recomputes
    activations. `layout` is PPO's, `optimizer` a name of `OPTIMIZER_STATE_DTYPES`.
    """

    batch_size: int
    prompt_tokens: int
    completion_tokens: int
    group_size: int = 8
    full: bool = False
    lora_rank: int = 16
    bf16: bool = True
    checkpointing: bool = False
    layout: str = "shared"
    micro_batches: int = 1
    optimizer: str = "adamw"
    longest_row: int = 0

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the base."""
        return torch.bfloat16 if self.bf16 else torch.float32

    @property
    def row_shape(self) -> RowShape:
        """The lengths of a row."""
        length = self.prompt_tokens + self.completion_tokens
        return RowShape(length, self.prompt_tokens, self.longest_row or length)


@dataclass(frozen=True)
class MemoryEstimate:
    """Estimated bytes of one update: `memory` by phase and kind, each at the highest total of the
    phase, and `peak`, the highest total of all phases. Nothing here was measured.
    """

    model: str
    method: str
    models: list[str]
    parameters: int
    trainable: int
    memory: dict[str, MemoryByKind]
    peak: int


def estimate_memory(model: str, method: str, settings: UpdateSettings) -> MemoryEstimate:
    """Return the memory that an update of `model`, a name of `MODEL_SHAPES`, needs with `method`.

    On CUDA a rollout is cut into at least as many pieces as keep their activations within
    `lab.training.methods.online.MAX_ACTIVATION_BYTES` bytes. Raises `LabError` for an unknown model, method,
    layout or optimizer, and for sizes that cannot be estimated.
    """
    if model not in MODEL_SHAPES:
        raise unknown("model", model, list(MODEL_SHAPES))
    if method not in estimated_methods():
        raise unknown("method to estimate", method, list(estimated_methods()))
    if settings.layout not in PPO_LAYOUTS:
        raise unknown("layout", settings.layout, list(PPO_LAYOUTS))
    if settings.full and method == "ppo" and settings.layout == "shared":
        raise LabError(
            "With every weight trained, policy and critic cannot share a base. Use --layout"
            " separate."
        )
    if settings.optimizer not in OPTIMIZER_STATE_DTYPES:
        raise unknown("optimizer", settings.optimizer, list(OPTIMIZER_STATE_DTYPES))
    counts = (
        settings.batch_size,
        settings.prompt_tokens,
        settings.completion_tokens,
        settings.group_size,
        settings.lora_rank,
        settings.micro_batches,
    )
    if min(counts) < 1 or settings.batch_size % settings.micro_batches:
        raise LabError(
            "batch_size, tokens, group_size, lora_rank and micro_batches are whole numbers of at"
            " least 1, and micro_batches divides batch_size."
        )
    rows = settings.batch_size // settings.micro_batches
    tokens = rows * METHODS[method].rows_per_example * settings.row_shape.length
    if tokens > MAX_MICRO_BATCH_TOKENS:
        raise LabError(
            f"{tokens:,} tokens would go through the model at once, and at most"
            f" {MAX_MICRO_BATCH_TOKENS:,} are estimated. Raise micro_batches, or lower batch_size"
            " or the tokens."
        )
    return estimate_shape_memory(model, MODEL_SHAPES[model], method, settings)


def estimate_shape_memory(
    name: str, shape: ModelShape, method: str, settings: UpdateSettings
) -> MemoryEstimate:
    """Return what `estimate_memory` returns for a model `name` of any `shape`, without checks.

    With `full` there still is an adapter, of rank 1, whose size is negligible.
    """
    config = _run_config(method, settings)
    run = meta_run(
        config, shape, settings.dtype, full=settings.full, checkpointing=settings.checkpointing
    )
    updating, after_backward = _updating(run, method, settings)
    # An optimizer works on all weights at once, with one temporary tensor of the size of each.
    stepping = after_backward | {"activations": after_backward["gradients"]}
    memory = {"updating": updating, "stepping": stepping}
    if METHODS[method].online:
        sampling = _sampling(shape, settings)
        if settings.bf16:  # On CUDA it is kept for the next rollout.
            memory = {phase: _add(kinds, sampling) for phase, kinds in memory.items()}
        memory["sampling"] = _add(
            _add(after_backward, sampling), {"activations": _token_choice(shape, settings)}
        )
    return MemoryEstimate(
        model=name,
        method=method,
        models=models_of(run),
        parameters=sum(p.numel() for p in run.model.parameters()),
        trainable=sum(
            p.numel() for group in run.trainable_parameters().values() for p in group.values()
        ),
        memory=memory,
        peak=max(sum(kinds.values()) for kinds in memory.values()),
    )


def _run_config(method: str, settings: UpdateSettings) -> RunConfig:
    group_size = settings.group_size
    method_options: dict[str, dict[str, object]] = {
        "grpo": {"group_size": group_size, "batch_size": group_size, "beta": 0.04},
        "ppo": {"model_layout": settings.layout, "minibatches": 1},
    }
    common: dict[str, object] = {
        "lora_rank": 1 if settings.full else settings.lora_rank,
        "device": "cpu",
    }
    return make_config(method, common | method_options.get(method, {}))


def _updating(
    run: TrainState, method: str, settings: UpdateSettings
) -> tuple[MemoryByKind, MemoryByKind]:
    """Run forward and backward of a micro-batch of a meta run in fake tensors; return the memory at
    the peak, and after backward.
    """
    rows, shape = settings.batch_size // settings.micro_batches, settings.row_shape
    packed = None
    if not settings.bf16:
        sequences = METHODS[method].rows_per_example * rows
        samples_groups = "group_size" in declared_settings(METHODS[method].config)
        completions_of_prompt = (
            settings.group_size if samples_groups else METHODS[method].rows_per_example
        )
        packed = pack_for_cpu(sequences, max(1, sequences // completions_of_prompt), shape)
    with fake_tensors():
        materialise(run, OPTIMIZER_STATE_DTYPES[settings.optimizer])
        for decoder in filter(None, map(decoder_of, networks_of(run))):
            decoder.recompute_activations = settings.bf16
        if settings.bf16 and METHODS[method].online:
            rows = _rows_within_budget(run, settings)
        with track_memory(run) as tracker:
            if settings.full and method == "grpo":
                # The reference is a copy of the weights; LoRA needs none.
                reference = [torch.empty_like(weight) for weight in run.model.parameters()]
                for weight in reference:
                    tracker.count_as("weights", weight)
            batch = fake_micro_batch(method, rows, settings.batch_size, shape, packed)
            with torch.autocast("cpu", torch.bfloat16) if settings.bf16 else nullcontext():
                loss, _ = METHODS[method].loss(run, batch)
            loss.backward()
            for group in run.optimizer.param_groups:
                torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
            return tracker.peak, {kind: tracker.now[kind] for kind in MEMORY_KINDS}


def _rows_within_budget(run: TrainState, settings: UpdateSettings) -> int:
    """Return the rows of a micro-batch of a rollout on CUDA: it is cut into at least as many pieces
    as keep their activations within the budget, unless activations are recomputed or the
    architecture is unknown.
    """
    decoder = decoder_of(run.model)
    if decoder is None or settings.checkpointing:
        return settings.batch_size // settings.micro_batches
    saved_bytes = (
        settings.batch_size * settings.row_shape.length * decoder.saved_activation_bytes_per_token()
    )
    pieces = max(settings.micro_batches, pieces_within(MAX_ACTIVATION_BYTES, saved_bytes))
    return -(-settings.batch_size // pieces)


def _sampling(shape: ModelShape, settings: UpdateSettings) -> MemoryByKind:
    """Return the memory of sampling: a key-value cache as long as a row can be, every matrix with
    the adapter merged in unless checkpointing saves memory, and noise (rows, V) in float32.
    """
    hidden, layers = shape["hidden_size"], shape["num_hidden_layers"]
    n_heads = shape["num_attention_heads"]
    kv_size = hidden // n_heads * shape.get("num_key_value_heads", n_heads)
    policy = DECODE_POLICIES["cuda" if settings.bf16 else "cpu"]
    columns = policy.attended_columns(settings.row_shape.longest)
    merged = layers * (
        2 * hidden * hidden + 2 * hidden * kv_size + 3 * hidden * shape["intermediate_size"]
    )
    itemsize = settings.dtype.itemsize
    return {
        "weights": 0 if settings.checkpointing else merged * itemsize,
        "cache": layers * 2 * kv_size * columns * settings.batch_size * itemsize,
        "activations": settings.batch_size * shape["vocab_size"] * 4,
    }


def _token_choice(shape: ModelShape, settings: UpdateSettings) -> int:
    """Return the bytes of choosing a token: the logits, on the CPU also the noise in the order of
    the rows and the sum of both, in float32.
    """
    bytes_each = settings.dtype.itemsize + (0 if settings.bf16 else 2 * 4)
    return settings.batch_size * shape["vocab_size"] * bytes_each


def _add(memory: MemoryByKind, more: MemoryByKind) -> MemoryByKind:
    return {kind: size + more.get(kind, 0) for kind, size in memory.items()}
