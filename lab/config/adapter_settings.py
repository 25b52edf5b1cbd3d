"""The settings of the LoRA adapter that a run trains."""

from dataclasses import dataclass

from lab.config.schema import declared_settings, setting
from lab.errors import LabError

ALL_LINEAR = "all-linear"
FULL_RANK = 0
"""The rank that stands for full fine-tuning: every weight trains, and there is no adapter."""
ADAPTER_FOLDER, MODEL_FOLDER = "adapter", "model"
"""The folders of a run that hold what it has trained: an adapter, or a whole model."""


@dataclass(frozen=True)
class AdapterSettings:
    """The settings of the LoRA adapter, which every method has."""

    adapter: str = setting(
        "",
        "Folder of an adapter in PEFT's format from which the training starts, such as RUN/adapter."
        " Rank, alpha, targets and variant are then the adapter's. As in TRL, the reference is the"
        " base with this adapter as it was at the start. If it is empty, a new adapter is trained.",
        choices=("",),
        extra_patterns={"FOLDER": r".+"},
    )
    lora_rank: int = setting(
        8,
        "Rank r of the LoRA matrices on every linear layer (arXiv 2106.09685). 0 trains all weights of"
        " the model without an adapter (full fine-tuning), in float32; the reference is a frozen copy"
        " of them. It needs a lower learning rate than LoRA, and the fast path is off.",
        low=0,
        high=1024,
    )
    lora_alpha: float = setting(
        16.0,
        "LoRA scale: the output of the LoRA matrices is multiplied by alpha / rank.",
        low=1e-3,
        high=4096,
    )
    lora_targets: str = setting(
        ALL_LINEAR,
        "Layers that get LoRA: all-linear, every linear layer but the vocabulary, or names such as"
        " q_proj,v_proj.",
        choices=(ALL_LINEAR,),
        extra_patterns={"NAME,NAME": r"[\w.]+(\s*,\s*[\w.]+)*"},
    )
    lora_dropout: float = setting(
        0.0,
        "Share of the inputs of the LoRA matrices that an update sets to 0 at random. Sampling,"
        " evaluation and the reference have none. Above 0 the fast path is off.",
        low=0.0,
        high=0.99,
    )
    use_rslora: bool = setting(
        False, "Rank-stabilised LoRA (arXiv 2312.03732): the scale is alpha / √rank."
    )
    use_dora: bool = setting(
        False,
        "DoRA (arXiv 2402.09353): the length of every row of a weight trains apart from its"
        " direction. The fast path is off.",
    )


def trained_folder(settings: AdapterSettings) -> str:
    """Return the name of the folder, in that of the run, which holds the weights that the run trains."""
    return MODEL_FOLDER if settings.lora_rank == FULL_RANK else ADAPTER_FOLDER


def require_adapter_settings(settings: AdapterSettings, shard: bool) -> None:
    """Raise `LabError` for full fine-tuning, DoRA, or an adapter to start from, beside settings that
    it does not go with.
    """
    if settings.lora_rank == FULL_RANK:
        _require_no_adapter_settings(settings, shard)
    if settings.adapter and shard:
        raise LabError(
            f"adapter is '{settings.adapter}', which shard cannot start from. Leave one of them out."
        )
    if settings.use_dora and settings.lora_dropout:
        raise LabError(
            f"use_dora is on and lora_dropout is {settings.lora_dropout:g}, but peft's DoRA has no"
            " dropout while the model is in evaluation mode, as the lab's is. Leave one of them out."
        )
    if settings.use_dora and shard:
        raise LabError(
            "use_dora is on, but it reads whole weights of the base, which shard spreads over"
            " processes. Leave one of them out."
        )


def _require_no_adapter_settings(settings: AdapterSettings, shard: bool) -> None:
    """Raise `LabError` for full fine-tuning beside a setting of LoRA, or weights that cannot train."""
    declared = declared_settings(AdapterSettings)
    given = [
        name
        for name, setting_ in declared.items()
        if name != "lora_rank" and getattr(settings, name) != setting_.default
    ]
    given += ["quantization"] * (getattr(settings, "quantization", None) is not None)
    if given := given + ["shard"] * shard:
        raise LabError(
            f"lora_rank is {FULL_RANK}, which trains all weights of the model without an adapter, but"
            f" {given[0]} is {getattr(settings, given[0])}. Leave --{given[0].replace('_', '-')} out,"
            " or give a rank of at least 1."
        )
