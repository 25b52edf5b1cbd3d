"""Loads base models and puts LoRA adapters on them. The reference of a policy is the same weights
with the adapter off, or after full fine-tuning a copy of the initial weights.
"""

import copy
import inspect
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from typing import Any, cast

import torch
from peft import PeftModel, get_peft_model
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
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.utils.logging import (
    disable_progress_bar,
    get_verbosity,
    set_verbosity,
    set_verbosity_error,
)

from lab.config.adapter_settings import FULL_RANK
from lab.config.run_config import RunConfig
from lab.distributed.collectives import world_size
from lab.distributed.cpu_threads import few_threads
from lab.distributed.fsdp import shard_model
from lab.errors import LabError
from lab.models import starting_adapter
from lab.models.activation_checkpointing import enable_activation_checkpointing
from lab.models.device import compute_dtype
from lab.models.full_weights import keep_initial_weights
from lab.models.fused_weights import fuse_projection_weights
from lab.models.lora import lora_config, lora_errors
from lab.models.lora_dropout import replace_dropout
from lab.models.sources import load_pretrained

# Loading takes a moment, and its progress bar would break that of a run.
disable_progress_bar()
warnings.filterwarnings(
    "ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning
)  # peft 0.21 asks transformers 5.23 by the old name.

ONE_THREAD_MAX_PARAMETERS = 5_000_000  # Parameters.


def _with_adapter(
    base: torch.nn.Module, config: RunConfig, task_type: str | None, device: torch.device
) -> PeftModel:
    with lora_errors(config, base):
        model = get_peft_model(base, lora_config(config, task_type, base))
    return _prepared(model, config, device)


def _prepared(model: PeftModel, config: RunConfig, device: torch.device) -> PeftModel:
    """The model with its new adapter on `device`, as training takes it."""
    model.eval()  # No dropout in the base, or the policy would not equal the reference at step 0.
    replace_dropout(model)
    if config.gradient_checkpointing:
        enable_activation_checkpointing(model, random=config.lora_dropout > 0)
    if config.shard and world_size() > 1:
        shard_model(model, device)
        return model.to(device)
    model = model.to(device)
    fuse_projection_weights(model)
    return model


def _fully_trained(model: PreTrainedModel, config: RunConfig, device: torch.device) -> PeftModel:
    """The model on `device`, all of whose weights train.

    The lab's functions take it as they take a model with an adapter, so it has the same type for mypy.
    """
    model.eval().requires_grad_(True)
    if config.gradient_checkpointing:
        enable_activation_checkpointing(model)
    return cast(PeftModel, cast(Any, model).to(device))


def fitting_threads(model: torch.nn.Module) -> AbstractContextManager[None]:
    """Returns a context in which a small model on the CPU computes in one thread, or in two where a
    core is free: its matrices are too small to share among more.
    """
    weights = list(model.parameters())
    small = (
        weights[0].device.type == "cpu"
        and sum(w.numel() for w in weights) < ONE_THREAD_MAX_PARAMETERS
    )
    return few_threads() if small else nullcontext()


def _weights(
    device: torch.device, quantization: str | None, *, full: bool = False
) -> dict[str, Any]:
    """Options of `from_pretrained`: safetensors only, in the dtype of the computation or in 4 bits;
    `full` training takes float32, whose small changes 16 bits would round away.
    """
    if quantization is None:
        dtype = torch.float32 if full else compute_dtype(device)
        return {"dtype": dtype, "use_safetensors": True}
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
    four_bit = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {
        "dtype": dtype,
        "use_safetensors": True,
        "quantization_config": four_bit,
        "device_map": {"": device},
    }


def load_base(
    name: str, device: torch.device, quantization: str | None = None, *, full: bool = False
) -> PreTrainedModel:
    """Returns the causal language model with a name, without an adapter; for `full` training in float32.

    Raises `LabError` where weights are missing, as those of the vocabulary are in a classifier.
    """
    with _only_errors_logged():
        model, loading_info = load_pretrained(
            AutoModelForCausalLM,
            name,
            output_loading_info=True,
            **_weights(device, quantization, full=full),
        )
    if missing := sorted(loading_info["missing_keys"]):
        raise LabError(
            f"'{name}' lacks {len(missing)} of the weights of a causal language model of type"
            f" '{model.config.model_type}', such as {missing[0]}: it may be a classifier, or a part"
            " of a model. Give a whole one."
        )
    return model


@contextmanager
def _only_errors_logged() -> Iterator[None]:
    """Within it transformers does not report at length which weights are new or not used."""
    before = get_verbosity()
    set_verbosity_error()
    try:
        yield
    finally:
        set_verbosity(before)


def load_policy(config: RunConfig, device: torch.device) -> PeftModel:
    """Returns the causal language model of `config` with a fresh LoRA adapter on every linear
    layer, seeded by `config.seed`, or with the adapter that the config starts from. For full
    fine-tuning it has no adapter, and a copy of its weights for the reference.
    """
    full = config.lora_rank == FULL_RANK
    base = load_base(config.model, device, config.quantization, full=full)
    if full:
        policy = _fully_trained(base, config, device)
        keep_initial_weights(policy)
        return policy
    if config.adapter:
        return _prepared(starting_adapter.load(base, config), config, device)
    torch.manual_seed(config.seed)
    return _with_adapter(base, config, "CAUSAL_LM", device)


def load_backbone(config: RunConfig, device: torch.device, seed: int) -> PeftModel:
    """Returns the base without its vocabulary, with LoRA on every linear layer, seeded by `seed`, or
    with all weights trained: the backbone of a critic that has weights of its own.
    """
    full = config.lora_rank == FULL_RANK
    base = load_pretrained(
        AutoModel, config.model, **_weights(device, config.quantization, full=full)
    )
    if full:
        return _fully_trained(base, config, device)
    torch.manual_seed(seed)
    return _with_adapter(base, config, None, device)


def load_reward_base(
    name: str, device: torch.device, quantization: str | None = None, *, full: bool = False
) -> PreTrainedModel:
    """Returns the base with a name and a scalar head in place of the vocabulary, without an
    adapter; for `full` training in float32.

    Raises `LabError` where weights other than the head's are missing.
    """
    with _only_errors_logged():  # The head is new, as it should be.
        config = load_pretrained(AutoConfig, name, num_labels=1)
        model, loading_info = load_pretrained(
            _scorer_class(config),
            name,
            config=config,
            output_loading_info=True,
            **_weights(device, quantization, full=full),
        )
    if missing := sorted(
        key for key in loading_info["missing_keys"] if not key.startswith("score")
    ):
        raise LabError(
            f"A score cannot be put on '{name}', of type '{config.model_type}': its weights do not"
            f" fit ({missing[0]} is not among them). Give another --model, or use --reward-from"
            " gold."
        )
    return model


def _scorer_class(config: PreTrainedConfig) -> type[Any]:
    """The class of a model with a scalar head: transformers' own class where it has a linear
    `score`, otherwise a class of the base with such a head.
    """
    known = _class_for(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, config)
    if known is not None and issubclass(known, GenericForSequenceClassification):
        return known
    causal = _class_for(MODEL_FOR_CAUSAL_LM_MAPPING, config)
    if causal is None or (known is not None and "score" in inspect.getsource(known.__init__)):
        return known or AutoModelForSequenceClassification
    family = next(kind for kind in causal.__mro__ if PreTrainedModel in kind.__bases__)
    with torch.device("meta"):
        backbone_name = next(
            (
                name
                for name, module in causal(copy.deepcopy(config)).named_children()
                if isinstance(module, PreTrainedModel)
            ),
            causal.base_model_prefix,
        )
    return type(
        causal.__name__.replace("ForCausalLM", "") + "ForSequenceClassification",
        (GenericForSequenceClassification, family),
        {"base_model_prefix": backbone_name, "__module__": causal.__module__},
    )


def backbone_of(whole: PreTrainedModel) -> PreTrainedModel:
    """Returns the model under its head, which gives the last hidden states."""
    inner = getattr(whole, "model", None)
    if whole.base_model is whole and isinstance(inner, PreTrainedModel):
        return inner
    return cast(PreTrainedModel, whole.base_model)


def _class_for(mapping: Any, config: PreTrainedConfig) -> type[Any] | None:
    """The class that transformers has in an auto mapping for the type of a config."""
    return mapping.get(type(config), None)


def load_reward_model(config: RunConfig, device: torch.device) -> PeftModel:
    """Returns the base with a scalar head in place of the vocabulary and LoRA on every linear
    layer, seeded by `config.seed`, or with all weights trained.
    """
    if config.adapter:
        raise LabError(
            f"adapter is '{config.adapter}', but a reward model starts from a new adapter: its head"
            " has no vocabulary. Leave --adapter out."
        )
    torch.manual_seed(config.seed)
    full = config.lora_rank == FULL_RANK
    base = load_reward_base(config.model, device, config.quantization, full=full)
    if full:
        return _fully_trained(base, config, device)
    return _with_adapter(base, config, "SEQ_CLS", device)
