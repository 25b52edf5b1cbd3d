"""The settings of the optimizer: how many updates it makes, how large they are, and by which rule."""

import math
from dataclasses import dataclass

from lab.config.schema import setting
from lab.errors import LabError

CONSTANT = "constant"
LEARNING_RATE_HELP = (
    "Peak learning rate of the optimizer. lr_scheduler_type says how it goes on after the warm-up."
)


@dataclass(frozen=True)
class OptimizerSettings:
    """The settings of the optimizer, which every method has."""

    steps: int = setting(100, "Number of optimizer updates.", low=1, high=1_000_000)
    learning_rate: float = setting(
        5e-4, LEARNING_RATE_HELP, low=1e-8, high=1.0, mutable=True, log=True
    )
    lr_scheduler_type: str = setting(
        CONSTANT,
        "Learning rate after the warm-up: constant, or a fall to 0 over all steps, linear or cosine"
        " (the formulas of transformers). A change of learning_rate while it runs scales the rest."
        " --resume with more --steps stretches the fall.",
        choices=(CONSTANT, "linear", "cosine"),
    )
    warmup_steps: int = setting(
        0,
        "Number of updates in which the learning rate rises linearly from 0. The last of them has"
        " the peak.",
        low=0,
        high=100_000,
    )
    warmup_ratio: float = setting(
        0.0,
        "Share of all steps in which the learning rate rises, rounded up to whole updates, in place"
        " of warmup_steps.",
        low=0.0,
        high=1.0,
    )
    optimizer: str = setting(
        "adamw",
        "adamw; adamw_8bit, whose state takes a quarter of the memory (bitsandbytes, CUDA only); or"
        " muon (torch.optim.Muon), for matrices only.",
        choices=("adamw", "adamw_8bit", "muon"),
    )
    weight_decay: float = setting(
        0.0,
        "Share of each trained weight, times the learning rate, that an update takes away (AdamW,"
        " arXiv 1711.05101). With LoRA it pulls the policy to the reference.",
        low=0.0,
        high=100.0,
    )
    micro_batches: int = setting(
        1,
        "Number of parts into which a batch is cut. Their gradients are summed, so the update is the"
        " same and needs less memory.",
        low=1,
        high=4096,
    )
    max_grad_norm: float = setting(
        1.0, "A gradient with a larger norm is scaled down to this norm.", low=1e-6, high=1e6
    )


def require_schedule(settings: OptimizerSettings) -> None:
    """Raise `LabError` for a warm-up that is given twice, and for a schedule that the warm-up leaves
    no update.
    """
    if settings.warmup_steps and settings.warmup_ratio:
        raise LabError(
            f"warmup_steps is {settings.warmup_steps} and warmup_ratio {settings.warmup_ratio:g}, but"
            " a run has one warm-up. Leave one of them out."
        )
    warmup = warmup_updates(settings)
    if settings.lr_scheduler_type != CONSTANT and warmup >= settings.steps:
        raise LabError(
            f"The warm-up takes {warmup} of {settings.steps} steps, so lr_scheduler_type"
            f" {settings.lr_scheduler_type} has no step left. Give more steps, a shorter warm-up, or"
            f" lr_scheduler_type {CONSTANT}."
        )


def warmup_updates(settings: OptimizerSettings) -> int:
    """Return the number of updates of the warm-up."""
    if settings.warmup_ratio:
        return math.ceil(settings.warmup_ratio * settings.steps)
    return settings.warmup_steps


def learning_rate_factor(settings: OptimizerSettings, step: int) -> float:
    """Return the number that multiplies the learning rate in update `step`; the first is 1.

    Update k of a warm-up of W gets k/W; transformers has (k − 1)/W, so that its first update changes
    nothing. After the warm-up the factor is that of transformers: with x = (k − 1 − W)/(steps − W),
    the finished share of the updates behind the warm-up, linear is 1 − x and cosine (1 + cos πx)/2.
    Anchor: update 3 of 4 with a linear schedule has 1/2.
    """
    warmup = warmup_updates(settings)
    if step <= warmup:
        return step / warmup
    if settings.lr_scheduler_type == CONSTANT:
        return 1.0
    done = (step - 1 - warmup) / max(1, settings.steps - warmup)
    if settings.lr_scheduler_type == "linear":
        return max(0.0, 1.0 - done)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * done)))
