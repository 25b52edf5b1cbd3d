"""A base model with a LoRA adapter; the reference is the same weights with the adapter off."""

import copy
import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from torch.utils.checkpoint import checkpoint
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_layers import (
    GenericForSequenceClassification,
    GradientCheckpointingLayer,
)
from transformers.utils.logging import (
    disable_progress_bar,
    get_verbosity,
    set_verbosity,
    set_verbosity_error,
)

from lab.config.input_checks import require_device
from lab.config.run_config import RunConfig
from lab.distributed.collectives import local_rank, world_size
from lab.distributed.cpu_threads import few_threads
from lab.distributed.fsdp import is_sharded, shard_model
from lab.errors import LabError
from lab.models.device import compute_dtype, has_bfloat16
from lab.models.lora import frozen_weights, lora_config, refusals, shares_weights
from lab.models.sources import load_pretrained

disable_progress_bar()  # Loading takes a blink, and its bar would tear the progress bar of a run.
warnings.filterwarnings(
    "ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning
)  # peft 0.21 asks transformers 5.23 by the old name.

SMALL = 5_000_000  # Parameters.


def resolve_device(text: str) -> torch.device:
    """'auto' is CUDA if there is one and the CPU if not; else cpu, cuda or cuda:N. Of several
    processes each takes its own GPU.
    """
    require_device(text)
    if text == "auto":
        text = "cuda" if torch.cuda.is_available() else "cpu"
    if text == "cuda" and local_rank() is not None:
        text = f"cuda:{local_rank()}"
    device = torch.device(text)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise LabError(
            f"device is '{text}', but torch sees {torch.cuda.device_count()} CUDA devices here. Use"
            " --device cpu or auto."
        )
    if device.index is not None:
        torch.cuda.set_device(device)  # What asks for "the" GPU means this one.
    return device


def _with_adapter(
    base: torch.nn.Module, config: RunConfig, task_type: str | None, device: torch.device
) -> PeftModel:
    with refusals(config, base):
        model = get_peft_model(base, lora_config(config, task_type, base))
    model.eval()  # No dropout anywhere, or the policy would not equal the reference at step 0.
    if config.gradient_checkpointing:
        enable_activation_checkpointing(model)
    if config.shard and world_size() > 1:
        shard_model(model, device)
    return model.to(device)


def enable_activation_checkpointing(model: torch.nn.Module) -> None:
    """From now on every block keeps only its input for the way back, where the rest is computed
    again (arXiv 1604.06174); gradients are the same.

    transformers' own switch acts in training mode alone, in which a model would also drop out; the
    lab's models are always in evaluation mode.
    """
    for block in [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]:
        block.gradient_checkpointing = True  # `lab.engine.llama` reads this.
        block.forward = partial(_recomputed, block.forward)


def _recomputed(forward: Callable, *inputs: Any, **options: Any) -> Any:
    if torch.is_grad_enabled():
        return checkpoint(
            forward, *inputs, use_reentrant=False, preserve_rng_state=False, **options
        )
    return forward(*inputs, **options)


def fitting_threads(model: torch.nn.Module) -> AbstractContextManager[None]:
    """Within it, a small model on the CPU computes in one thread, or in two where a core is free:
    its matrices are too small to share among more.
    """
    weights = list(model.parameters())
    small = weights[0].device.type == "cpu" and sum(w.numel() for w in weights) < SMALL
    return few_threads() if small else nullcontext()


def autocast(device: torch.device) -> AbstractContextManager:
    """Mixed precision on a modern GPU: bfloat16 matrix products, with the LoRA weights kept in
    float32.
    """
    return torch.autocast("cuda", compute_dtype(device)) if has_bfloat16(device) else nullcontext()


def _weights(device: torch.device, quantization: str | None) -> dict[str, Any]:
    """How weights are loaded: from safetensors only, in the dtype of the computation, or in 4 bits."""
    if quantization is None:
        return {"dtype": compute_dtype(device), "use_safetensors": True}
    if device.type != "cuda":
        raise LabError(
            f"quantization is '{quantization}', which needs a CUDA device, but this run is on the"
            f" {device.type}. Leave --quantization out."
        )
    if not find_spec("bitsandbytes"):
        raise LabError(
            f"quantization is '{quantization}', which needs the Python package bitsandbytes."
            " Install it: pip install bitsandbytes"
        )
    dtype = compute_dtype(device)
    four = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {
        "dtype": dtype,
        "use_safetensors": True,
        "quantization_config": four,
        "device_map": {"": device},
    }


def load_base(name: str, device: torch.device, quantization: str | None = None) -> PreTrainedModel:
    """The causal language model of that name, without any adapter."""
    return load_pretrained(AutoModelForCausalLM, name, **_weights(device, quantization))


def load_policy(config: RunConfig, device: torch.device) -> PeftModel:
    """The causal language model of `config` with a fresh LoRA adapter on every linear layer, seeded
    by `config.seed`.
    """
    base = load_base(config.model, device, config.quantization)
    torch.manual_seed(config.seed)
    return _with_adapter(base, config, "CAUSAL_LM", device)


def load_backbone(config: RunConfig, device: torch.device, seed: int) -> PeftModel:
    """The base without its vocabulary, LoRA on every linear layer, seeded by `seed`: what a critic
    with weights of its own stands on.
    """
    base = load_pretrained(AutoModel, config.model, **_weights(device, config.quantization))
    torch.manual_seed(seed)
    return _with_adapter(base, config, None, device)


def load_reward_base(
    name: str, device: torch.device, quantization: str | None = None
) -> PreTrainedModel:
    """The base of that name with a scalar head in place of the vocabulary, without any adapter."""
    before = get_verbosity()
    # transformers would report at length that the head is new, which is what is asked for.
    set_verbosity_error()
    try:
        config = load_pretrained(AutoConfig, name, num_labels=1)
        model, found = load_pretrained(
            _scorer_class(config),
            name,
            config=config,
            output_loading_info=True,
            **_weights(device, quantization),
        )
    finally:
        set_verbosity(before)
    if missing := sorted(key for key in found["missing_keys"] if not key.startswith("score")):
        raise LabError(
            f"A score cannot be put on '{name}', of type '{config.model_type}': its weights do not"
            f" fit ({missing[0]} is not among them). Give another --model, or use --reward-from"
            " gold."
        )
    return model


def _scorer_class(config: PreTrainedConfig) -> type:
    """What loads a model with a scalar head: transformers' own class where it has one with a linear
    `score`, otherwise the base with such a head.
    """
    known = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None)
    if known is not None and issubclass(known, GenericForSequenceClassification):
        return known
    causal = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if causal is None or (known is not None and "score" in inspect.getsource(known.__init__)):
        return known or AutoModelForSequenceClassification
    family = next(kind for kind in causal.__mro__ if PreTrainedModel in kind.__bases__)
    with torch.device("meta"):
        trunk = next(
            (
                part
                for part, m in causal(copy.deepcopy(config)).named_children()
                if isinstance(m, PreTrainedModel)
            ),
            causal.base_model_prefix,
        )
    return type(
        causal.__name__.replace("ForCausalLM", "") + "ForSequenceClassification",
        (GenericForSequenceClassification, family),
        {"base_model_prefix": trunk, "__module__": causal.__module__},
    )


def backbone_of(whole: PreTrainedModel) -> PreTrainedModel:
    """The model under its head, which gives the last hidden states."""
    return (
        whole.model
        if whole.base_model is whole and isinstance(getattr(whole, "model", None), PreTrainedModel)
        else whole.base_model
    )


def load_reward_model(config: RunConfig, device: torch.device) -> PeftModel:
    """The base with a scalar head in place of the vocabulary, LoRA on every linear layer, seeded by
    `config.seed`.
    """
    torch.manual_seed(config.seed)
    return _with_adapter(
        load_reward_base(config.model, device, config.quantization), config, "SEQ_CLS", device
    )


@contextmanager
def _trainable_kept(model: PeftModel) -> Iterator[None]:
    """Afterwards the same weights are trainable as before: peft lets only those of the active
    adapter be, whenever it switches.
    """
    kept = [p for p in model.parameters() if p.requires_grad]
    try:
        yield
    finally:
        for p in kept:
            p.requires_grad_(True)


@contextmanager
def adapter_disabled(model: PeftModel) -> Iterator[None]:
    """Within it, `model` is the reference: the same weights with the adapter off."""
    with _trainable_kept(model), model.disable_adapter():
        yield


@contextmanager
def active_adapter(model: PeftModel, adapter: str) -> Iterator[None]:
    """Within it, `adapter` acts on the base in place of the policy's, and its weights take
    gradients.
    """
    before = model.active_adapter
    with _trainable_kept(model):
        if adapter != before:
            model.set_adapter(adapter)
        try:
            yield
        finally:
            if adapter != before:
                model.set_adapter(before)


@contextmanager
def adapter_merged(model: PeftModel) -> Iterator[None]:
    """Within it, the adapter is added into the base weights, so that a forward pass costs what the
    base costs.

    The base weights are put back as the same tensors, so they are restored to the bit. No gradient
    flows through it. Within `reference` it is the reference that is sampled. Weights in 4 bits,
    sharded ones, and those that layers share stay apart from the adapter.
    """
    frozen = frozen_weights(model)
    if (
        shares_weights(model)
        or is_sharded(model)
        or not all(weight.is_floating_point() for _, weight in frozen)
    ):  # Nothing can be added to a part, or to 4 bits.
        yield
        return
    kept = [weight.data for _, weight in frozen]
    try:
        with torch.no_grad():
            for (layer, weight), before in zip(frozen, kept):
                for name in () if layer.disable_adapters else layer.active_adapters:
                    if name in layer.lora_A:
                        weight.data = (
                            weight.data.float() + layer.get_delta_weight(name).float()
                        ).to(before.dtype)
        with adapter_disabled(model):
            yield
    finally:
        for (_, weight), before in zip(frozen, kept):
            weight.data = before
