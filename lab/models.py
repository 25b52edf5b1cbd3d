"""A base model with a LoRA adapter; the reference is the same weights with the adapter off."""

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar, get_verbosity, set_verbosity, set_verbosity_error

from lab.config import RunConfig
from lab.errors import LabError
from lab.fetch import SOURCES, fetched
from lab.threads import one_thread

disable_progress_bar()  # Loading takes a blink, and its bar would tear the progress bar of a run.
warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)  # peft 0.21 asks transformers 5.23 by the old name.

SMALL = 5_000_000  # Parameters.
EMBEDDED = Path(__file__).parent / "assets" / "base"


def resolve_device(text: str) -> torch.device:
    """'auto' is CUDA if there is one and the CPU if not; anything else is a device name that torch knows."""
    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(text)
    except RuntimeError:
        raise LabError(f"device is '{text}', but takes auto, cpu, cuda or cuda:N.") from None
    if device.type not in ("cpu", "cuda"):
        raise LabError(f"device is '{text}', but takes auto, cpu, cuda or cuda:N.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise LabError(f"device is '{text}', but torch sees {torch.cuda.device_count()} CUDA devices here. Use --device cpu or auto.")
    return device


def model_source(name: str) -> str:
    """The folder or hub id that a model name stands for; raise `LabError` for a path that does not exist."""
    if name == "embedded":
        return str(EMBEDDED)
    if name in SOURCES:
        return str(fetched(name))
    if Path(name).is_dir():
        return name
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise LabError(f"No model folder at '{name}'. Give 'embedded', a folder with config.json and model.safetensors, a hub id such as owner/name, "
                       f"or one of those that python -m lab fetch gets: {', '.join(SOURCES)}.")
    return name


def _load(loader: type, name: str, **options: object):
    try:
        return loader.from_pretrained(model_source(name), **options)
    except (OSError, ValueError) as error:
        raise LabError(f"Could not load '{name}' ({str(error).splitlines()[0]}). Give 'embedded', a folder in Hugging Face format "
                       "with safetensors weights, or a hub id that this machine can reach.") from error


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, with a pad token (its end token where it has none)."""
    tokenizer = _load(AutoTokenizer, name)
    if tokenizer.eos_token_id is None:
        raise LabError(f"The tokenizer of '{name}' has no end-of-sequence token, so completions could not end. Choose another model.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def lora_config(config: RunConfig, task_type: str | None) -> LoraConfig:
    """LoRA of the config's rank on every linear layer, without dropout."""
    return LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, lora_dropout=0.0, target_modules="all-linear", task_type=task_type)


def _with_adapter(base: torch.nn.Module, config: RunConfig, task_type: str | None, device: torch.device) -> PeftModel:
    model = get_peft_model(base, lora_config(config, task_type))
    model.eval()  # No dropout anywhere, or the policy would not equal the reference at step 0.
    return model.to(device)


def fitting_threads(model: torch.nn.Module) -> AbstractContextManager[None]:
    """Within it, a small model on the CPU computes in one thread: its matrices are too small to share."""
    weights = list(model.parameters())
    small = weights[0].device.type == "cpu" and sum(w.numel() for w in weights) < SMALL
    return one_thread() if small else nullcontext()


def compute_dtype(device: torch.device) -> torch.dtype:
    """float32 on the CPU, bfloat16 on CUDA."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def autocast(device: torch.device) -> AbstractContextManager:
    """Mixed precision on CUDA: bfloat16 matrix products, with the LoRA weights kept in float32."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


def load_base(name: str, device: torch.device) -> PreTrainedModel:
    """The causal language model of that name, without any adapter."""
    return _load(AutoModelForCausalLM, name, dtype=compute_dtype(device), use_safetensors=True)


def load_policy(config: RunConfig, device: torch.device) -> PeftModel:
    """The causal language model of `config` with a fresh LoRA adapter on every linear layer, seeded by `config.seed`."""
    base = load_base(config.model, device)
    torch.manual_seed(config.seed)
    return _with_adapter(base, config, "CAUSAL_LM", device)


def load_trunk(config: RunConfig, device: torch.device, seed: int) -> PeftModel:
    """The base without its vocabulary, LoRA on every linear layer, seeded by `seed`: what a critic with weights of its own stands on."""
    base = _load(AutoModel, config.model, dtype=compute_dtype(device), use_safetensors=True)
    torch.manual_seed(seed)
    return _with_adapter(base, config, None, device)


def load_scorer(name: str, device: torch.device) -> PreTrainedModel:
    """The base of that name with a scalar head in place of the vocabulary, without any adapter."""
    before = get_verbosity()
    set_verbosity_error()  # transformers would report at length that the head is new, which is what is asked for.
    try:
        return _load(AutoModelForSequenceClassification, name, num_labels=1, dtype=compute_dtype(device), use_safetensors=True)
    finally:
        set_verbosity(before)


def load_reward_model(config: RunConfig, device: torch.device) -> PeftModel:
    """The base with a scalar head in place of the vocabulary, LoRA on every linear layer, seeded by `config.seed`."""
    torch.manual_seed(config.seed)
    return _with_adapter(load_scorer(config.model, device), config, "SEQ_CLS", device)


@contextmanager
def _trainable_kept(model: PeftModel) -> Iterator[None]:
    """Afterwards the same weights are trainable as before: peft lets only those of the active adapter be, whenever it switches."""
    kept = [p for p in model.parameters() if p.requires_grad]
    try:
        yield
    finally:
        for p in kept:
            p.requires_grad_(True)


@contextmanager
def reference(model: PeftModel) -> Iterator[None]:
    """Within it, `model` is the reference: the same weights with the adapter off."""
    with _trainable_kept(model), model.disable_adapter():
        yield


@contextmanager
def active(model: PeftModel, adapter: str) -> Iterator[None]:
    """Within it, `adapter` acts on the base in place of the policy's, and its weights take gradients."""
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
def merged(model: PeftModel) -> Iterator[None]:
    """Within it, the adapter is added into the base weights, so that a forward pass costs what the base costs.

    The base weights are put back as the same tensors, so they are restored to the bit. No gradient flows through it. Within
    `reference` it is the reference that is sampled.
    """
    layers = [m for m in model.modules() if isinstance(m, LoraLayer)]
    kept = [m.base_layer.weight.data for m in layers]
    try:
        with torch.no_grad():
            for layer, weight in zip(layers, kept):
                for name in () if layer.disable_adapters else layer.active_adapters:
                    layer.base_layer.weight.data = (layer.base_layer.weight.data.float() + layer.get_delta_weight(name).float()).to(weight.dtype)
        with reference(model):
            yield
    finally:
        for layer, weight in zip(layers, kept):
            layer.base_layer.weight.data = weight
