"""The settings that say what samples the completions of an online method, and how GRPO corrects for
it.
"""

import re
from dataclasses import dataclass

from lab.config.schema import setting
from lab.errors import LabError

LAB, TRANSFORMERS = "lab", "transformers"
_HOST = r"[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:]+\]"
VLLM = rf"vllm://(?P<host>{_HOST}):(?P<port>\d{{1,5}})"


@dataclass(frozen=True)
class SamplerSettings:
    """The engine that samples rollouts."""

    sampler: str = setting(
        LAB,
        "The engine that samples the completions to learn from. lab: the lab's own. transformers: its"
        " continuous batching. The command line also takes vllm://HOST:PORT, a running vLLM server,"
        " which gets the adapter before every rollout. Evaluation takes the lab's own.",
        choices=(LAB, TRANSFORMERS),
        extra_patterns={"vllm://HOST:PORT": VLLM},
    )
    sampler_seconds: float = setting(
        600.0,
        "The longest time in seconds that a vLLM server may take for one answer: the completions of"
        " one prompt, or an adapter to load. After it, the run stops, and --resume continues it.",
        low=0.1,
        high=86_400.0,
    )


@dataclass(frozen=True)
class SamplingCorrectionSettings:
    """How GRPO corrects for an engine whose probabilities differ from those that are trained."""

    importance_sampling_mode: str = setting(
        "sequence_mask",
        "Where --sampler is not lab, a token's loss is multiplied by π_old/π_sampler (TRL:"
        " vllm_importance_sampling_mode, with the same default). token or sequence: one ratio for each"
        " token or each completion. mask or truncate: a ratio above the limit counts as 0, or as the"
        " limit. none: no correction.",
        choices=("sequence_mask", "sequence_truncate", "token_mask", "token_truncate", "none"),
    )
    importance_sampling_clip_max: float = setting(
        3.0,
        "The limit of the ratio π_old/π_sampler (TRL: vllm_importance_sampling_clip_max).",
        low=1.0,
        high=1e6,
    )


def server_address(sampler: str) -> tuple[str, int] | None:
    """Return host and port of a vLLM server; None for another sampler.

    Anchor: vllm://node7:8000 is ("node7", 8000).
    """
    match = re.fullmatch(VLLM, sampler)
    return (match["host"].strip("[]"), int(match["port"])) if match else None


def are_servers(one: str, other: str) -> bool:
    """Return whether both samplers are vLLM servers, so that a run may move from one to the other."""
    return None not in (server_address(one), server_address(other))


def require_sampler_settings(
    settings: SamplerSettings, shard: bool, use_dora: bool, is_whole: bool
) -> None:
    """Raise `LabError` for an engine beside settings that it does not go with; `is_whole` says that
    all weights train.
    """
    if settings.sampler == LAB:
        return
    if shard:
        raise LabError(
            f"sampler is '{settings.sampler}' and shard is on, but only the lab's own sampler reads"
            " weights that are spread over processes. Leave one of them out."
        )
    if (address := server_address(settings.sampler)) is None:
        return
    if not 0 < address[1] < 65_536:
        raise LabError(
            f"sampler is '{settings.sampler}', but a port is a number from 1 to 65535. Give"
            " vllm://HOST:PORT, such as vllm://localhost:8000."
        )
    if is_whole:
        raise LabError(
            f"sampler is '{settings.sampler}' and lora_rank is 0, but a vLLM server gets an adapter,"
            " and a run that trains all weights has none. Give a lora_rank, or another sampler: lab or"
            " transformers."
        )
    if use_dora:
        raise LabError(
            f"sampler is '{settings.sampler}' and use_dora is on, but vLLM serves no DoRA adapters."
            " Leave one of them out."
        )
