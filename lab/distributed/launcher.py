"""The settings of `accelerate launch`: its config reaches the lab as environment variables. Settings that
the lab has too are taken over, those that change nothing become notes, and all others are refused.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lab.config.run_config import RunConfig
from lab.errors import LabError

FULL_SHARDS = ("FULL_SHARD", "1", "SHARD_GRAD_OP", "2")
NO_SHARD = ("NO_SHARD", "3")
IRRELEVANT_FSDP = (
    "AUTO_WRAP_POLICY",
    "BACKWARD_PREFETCH",
    "CPU_RAM_EFFICIENT_LOADING",
    "FORWARD_PREFETCH",
    "MIN_NUM_PARAMS",
    "STATE_DICT_TYPE",
    "SYNC_MODULE_STATES",
    "TRANSFORMER_CLS_TO_WRAP",
    "USE_ORIG_PARAMS",
)
"""Settings of FSDP that say how accelerate shards. The lab shards its own way, to the same numbers."""
DEEPSPEED_OFFLOADS = (
    "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE",
    "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE",
)


def with_launcher_settings(config: RunConfig, environment: Mapping[str, str]) -> RunConfig:
    """Return the config with what accelerate's config asks for: `shard` and `gradient_checkpointing`.

    Raises `LabError` for what the lab cannot do, and for another norm of clipping than the run's.
    """
    clipping = _value(environment, "ACCELERATE_GRADIENT_CLIPPING")
    if clipping and _number(clipping) != config.max_grad_norm:
        raise LabError(
            f"accelerate's config has gradient_clipping {clipping}, but max_grad_norm is"
            f" {config.max_grad_norm:g}. Give --max-grad-norm {clipping}, or take it out of the config."
        )
    return replace(config, **_settings(environment))


def require_launched(config: RunConfig, environment: Mapping[str, str]) -> None:
    """Raise `LabError` where accelerate's config asks for something that `config` does not do, as a run
    that resumes, whose settings stay.
    """
    for name, value in _settings(environment).items():
        if getattr(config, name) != value:
            raise LabError(
                f"accelerate's config asks for {name}, but this run has {name} off. Start it with torchrun"
                " or with a plain accelerate launch --multi_gpu, or start a new run."
            )


def launcher_notes(environment: Mapping[str, str]) -> list[str]:
    """Return notes on settings of accelerate's config that change nothing."""
    notes = []
    if _is_on(environment, "ACCELERATE_USE_FSDP"):
        ignored = [
            f"FSDP_{name}" for name in IRRELEVANT_FSDP if _value(environment, f"FSDP_{name}")
        ]
        names = f" ({', '.join(ignored)} have no effect)" if ignored else ""
        notes.append(
            f"accelerate's FSDP config: the lab shards its own way, as --shard does{names}."
        )
    if _is_on(environment, "ACCELERATE_USE_DEEPSPEED"):
        stage = _value(environment, "ACCELERATE_DEEPSPEED_ZERO_STAGE")
        how = "as --shard does" if stage == "3" else "without shards: only adapters have gradients"
        notes.append(f"accelerate's DeepSpeed config, ZeRO stage {stage}: the lab trains {how}.")
    backend = _value(environment, "ACCELERATE_DYNAMO_BACKEND")
    if backend.upper() not in ("", "NO"):
        notes.append(f"accelerate's dynamo_backend {backend} has no effect: nothing is compiled.")
    return notes


def _settings(environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings of a run that accelerate's config asks for."""
    _require_none(environment)
    settings: dict[str, Any] = {}
    if _is_on(environment, "ACCELERATE_USE_FSDP"):
        settings |= _fsdp_settings(environment)
    if _is_on(environment, "ACCELERATE_USE_DEEPSPEED"):
        settings |= _deepspeed_settings(environment)
    return settings


def _require_none(environment: Mapping[str, str]) -> None:
    """Raise `LabError` for settings that the lab has no counterpart for."""
    if _is_on(environment, "ACCELERATE_USE_MEGATRON_LM"):
        raise _refused("use_megatron_lm", "the lab has no Megatron-LM")
    if _is_on(environment, "ACCELERATE_USE_PARALLELISM_CONFIG"):
        raise _refused("use_parallelism_config", "the lab splits batches and shards weights only")
    if (precision := _value(environment, "ACCELERATE_MIXED_PRECISION")) in ("fp16", "fp8"):
        raise _refused(
            f"mixed_precision {precision}", "the lab computes in bfloat16 on a GPU, or in float32"
        )
    steps = _value(environment, "ACCELERATE_GRADIENT_ACCUMULATION_STEPS")
    if steps not in ("", "1"):
        raise _refused(
            f"gradient_accumulation_steps {steps}",
            "batch_size is the whole batch, which --micro-batches cuts into parts",
        )


def _fsdp_settings(environment: Mapping[str, str]) -> dict[str, Any]:
    strategy = _value(environment, "FSDP_SHARDING_STRATEGY").upper()
    if strategy not in ("", *FULL_SHARDS, *NO_SHARD):
        raise _refused(
            f"fsdp_sharding_strategy {strategy}", "the lab shards over all processes of the run"
        )
    if _is_on(environment, "FSDP_OFFLOAD_PARAMS"):
        raise _refused("fsdp_offload_params", "the lab offloads nothing to the CPU")
    settings: dict[str, Any] = {} if strategy in NO_SHARD else {"shard": True}
    if _is_on(environment, "FSDP_ACTIVATION_CHECKPOINTING"):
        settings["gradient_checkpointing"] = True
    return settings


def _deepspeed_settings(environment: Mapping[str, str]) -> dict[str, Any]:
    if file := _value(environment, "ACCELERATE_DEEPSPEED_CONFIG_FILE"):
        raise _refused(
            f"deepspeed_config_file {file}", "the lab does not run DeepSpeed, nor read its file"
        )
    for name in DEEPSPEED_OFFLOADS:
        if device := _value(environment, name):
            short = name.removeprefix("ACCELERATE_DEEPSPEED_").lower()
            raise _refused(f"{short} {device}", "the lab offloads nothing")
    return {"shard": True} if environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3" else {}


def _refused(what: str, why: str) -> LabError:
    return LabError(
        f"accelerate's config has {what}, but {why}. Take it out of the config, or start with"
        " torchrun --nproc-per-node N -m lab train …"
    )


def _value(environment: Mapping[str, str], name: str) -> str:
    """The text of a variable; empty for none, which accelerate writes in several ways."""
    text = environment.get(name, "").strip()
    return "" if text.lower() in ("none", "false", "0", "auto", "no") else text


def _is_on(environment: Mapping[str, str], name: str) -> bool:
    return environment.get(name, "").lower() in ("true", "1", "yes")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise LabError(
            f"accelerate's config has gradient_clipping {text}, but takes a number."
        ) from None
