"""The settings in which TRL does each work of the benchmark: its defaults, and faster ones."""

import importlib.util
from typing import Any

import torch

from lab.benchmarks.workload import Work
from lab.errors import LabError

CACHE_MEMORY_SHARE = 0.3
"""Share of the free GPU memory that continuous batching may use for its cache. Left to itself it
takes nearly all of the memory, which the other sides need too.
"""

NO_CHECKPOINTING: dict[str, Any] = {"gradient_checkpointing": False}

PRECOMPUTED: dict[str, Any] = {"precompute_ref_log_probs": True}
FUSED: dict[str, Any] = {"use_liger_kernel": True}
REFERENCE_PRECOMPUTED = NO_CHECKPOINTING | PRECOMPUTED

PREFERENCE_SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "no checkpointing": NO_CHECKPOINTING,
    "reference precomputed": REFERENCE_PRECOMPUTED,
    "fused kernels": NO_CHECKPOINTING | FUSED,
    "reference precomputed, fused kernels": REFERENCE_PRECOMPUTED | FUSED,
    "checkpointing, reference precomputed": PRECOMPUTED,
    "checkpointing, reference precomputed, fused kernels": PRECOMPUTED | FUSED,
}

TRL_SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "dpo": PREFERENCE_SETTINGS,
    "ipo": PREFERENCE_SETTINGS,
    "kto": PREFERENCE_SETTINGS,
    "padding": {"reference precomputed": REFERENCE_PRECOMPUTED},
    "padding, longer": {"reference precomputed": REFERENCE_PRECOMPUTED},
    "grpo": {
        "default": {},
        "no checkpointing": NO_CHECKPOINTING,
        "continuous batching": (
            NO_CHECKPOINTING
            | {
                "use_transformers_continuous_batching": True,
                "transformers_continuous_batching_config": {
                    "max_memory_percent": CACHE_MEMORY_SHARE
                },
            }
        ),
        "fused kernels": NO_CHECKPOINTING | FUSED,
        "vLLM": NO_CHECKPOINTING
        | {
            "use_vllm": True,
            "vllm_mode": "colocate",
            "vllm_gpu_memory_utilization": CACHE_MEMORY_SHARE,
        },
        "checkpointing, fused kernels": FUSED,
    },
    "decode": {
        "default": {},
        "adapter merged": {"merge": True},
        "static cache": {"merge": True, "cache_implementation": "static"},
        "continuous batching": {"merge": True, "continuous": True},
    },
}
"""The settings of each work by name; "default" is TRL's own, with gradient checkpointing."""

FALLBACK_SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "grpo": {
        "eager attention": NO_CHECKPOINTING
        | {"model_init_kwargs": {"attn_implementation": "eager"}},
        "float32": NO_CHECKPOINTING
        | {"bf16": False, "model_init_kwargs": {"dtype": torch.float32}},
    }
}
"""Settings that are tried when every other setting of a work fails."""


def trl_version() -> str:
    """Returns the installed version, such as "trl 1.16.0". Raises `LabError` without TRL."""
    if importlib.util.find_spec("trl") is None:
        raise LabError(
            "TRL is not installed here, so there is nothing to compare with. Install it: pip"
            ' install "alignment-lab[peers]"'
        )
    import trl

    return f"trl {trl.__version__}"


def settings_of(work: Work, where: torch.device) -> dict[str, dict[str, Any]]:
    """Returns the settings to try for a work on this device. On a CPU these are the default and the
    fastest applicable setting, the latter with all threads and with one thread.
    """
    settings = TRL_SETTINGS[work.name]
    if where.type == "cuda":
        return settings
    best = next(
        name
        for name in ("reference precomputed", "adapter merged", "no checkpointing")
        if name in settings
    )
    return {name: settings[name] for name in ("default", best) if name in settings} | {
        f"{best}, one thread": settings[best] | {"threads": 1}
    }


def has_checkpointing(work: Work, knobs: dict[str, Any]) -> bool:
    """Whether a setting trains with gradient checkpointing, which is on unless TRL is told otherwise."""
    return bool(work.method) and knobs.get("gradient_checkpointing", True)


def unavailable(knobs: dict[str, Any]) -> str:
    """Says why a setting cannot be tried on this machine; empty when it can."""
    for knob, module, package in (
        ("use_liger_kernel", "liger_kernel", "liger-kernel"),
        ("use_vllm", "vllm", "vLLM"),
    ):
        if knob in knobs and importlib.util.find_spec(module) is None:
            return f"skipped: {package} is not installed"
    return ""
