"""Dropout of LoRA's inputs, which acts where gradients are computed and nowhere else."""

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.nn import functional


class GradientDropout(nn.Dropout):
    """Dropout while gradients are enabled.

    The lab's models are always in evaluation mode, so that the base has no dropout; sampling,
    evaluation and the reference compute no gradients, so that they have none either.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x with a share p of its entries 0 and the others divided by 1 − p."""
        return functional.dropout(x, self.p, training=torch.is_grad_enabled())


def replace_dropout(model: nn.Module) -> None:
    """Put `GradientDropout` in place of the dropout that peft has put before LoRA's matrices."""
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            for name, dropout in layer.lora_dropout.items():
                if type(dropout) is nn.Dropout:
                    layer.lora_dropout[name] = GradientDropout(dropout.p)
