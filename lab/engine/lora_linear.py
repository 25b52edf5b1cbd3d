"""Linear layers with LoRA that read the same input, computed as one matrix product with its own
backward pass.

Shapes: N tokens, I input and O output width, K layers in one product, r LoRA rank.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from lab.engine.cpu_products import linear, plus_product, product
from lab.engine.torch_private import storage_id
from lab.models.fused_weights import base_linear


@dataclass(frozen=True)
class FusedPrologue:
    """A function that is applied to the input of a product, with its own gradient.

    `forward(x)` returns the product's input, and `backward(x, grad)` the gradient for x, given the
    gradient for `forward(x)`. `recompute`: do not save the output; recompute it in backward (cheap
    to compute, large to store).
    """

    forward: Callable[[torch.Tensor], torch.Tensor]
    backward: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    recompute: bool


@dataclass
class FusedLoraLinear:
    """The linear layers `layers`, which read the same input, as one product: `weight` (O, I),
    `bias` (O,) or None.

    The layers' own weights are views of `weight` (see `lab.models.fused_weights`), so nothing is
    stored twice; `out_features` are their output widths. `lora_a` (K·r, I) and `lora_b` (O, K·r,
    block diagonal, scaled) are the active adapter in the dtype of the computation;
    `Decoder.load_adapter` sets them, and None stands for no adapter. `lora_parameters` are its
    trainable weights, A and B in turn, and `scaling` its factor.
    """

    layers: list[nn.Module]
    weight: torch.Tensor = field(init=False)
    bias: torch.Tensor | None = field(init=False)
    out_features: list[int] = field(init=False)
    lora_a: torch.Tensor | None = None
    lora_b: torch.Tensor | None = None
    lora_parameters: list[torch.Tensor] = field(default_factory=list)
    scaling: float = 1.0

    def __post_init__(self) -> None:
        linears = [base_linear(layer) for layer in self.layers]
        self.out_features = [linear.out_features for linear in linears]
        weights = [linear.weight.detach() for linear in linears]
        assert are_side_by_side(weights)
        self.weight = weights[0].as_strided(
            (sum(self.out_features), linears[0].in_features), weights[0].stride()
        )
        biases = [linear.bias.detach() for linear in linears if linear.bias is not None]
        self.bias = torch.cat(biases) if biases else None

    def __call__(self, x: torch.Tensor, prologue: FusedPrologue | None = None) -> torch.Tensor:
        """Return x (N, I) · weightᵀ + bias + LoRA, (N, O); `prologue` is applied to x first."""
        if self.lora_a is None:
            return linear(prologue.forward(x) if prologue else x, self.weight, self.bias)
        return cast(
            torch.Tensor,
            LoraLinearFunction.apply(
                prologue,
                x,
                self.weight,
                self.bias,
                self.lora_a,
                self.lora_b,
                self.scaling,
                *self.lora_parameters,
            ),
        )

    def scaling_of(self, adapter: str) -> float:
        """Return the factor of an adapter's B·A, which is the same for all layers."""
        return cast("dict[str, float]", self.layers[0].scaling)[adapter]

    def parameters_of(self, adapter: str) -> list[nn.Parameter]:
        """Return the weights of an adapter, A and B of each layer in turn."""
        return [
            matrix[adapter].weight
            for layer in self.layers
            for matrix in (cast(Any, layer).lora_A, cast(Any, layer).lora_B)
        ]


def are_side_by_side(weights: list[torch.Tensor]) -> bool:
    """Return whether `weights` (O_k, I) lie one after the other in one storage, as rows of one
    matrix.
    """
    first, end = weights[0], weights[0].storage_offset()
    for weight in weights:
        if (
            storage_id(weight) != storage_id(first)
            or weight.storage_offset() != end
            or not weight.is_contiguous()
        ):
            return False
        end += weight.numel()
    return True


def matmul_float32(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return a·b in float32, also summed in float32 if the factors are bfloat16."""
    return (
        torch.mm(a, b, out_dtype=torch.float32)
        if a.is_cuda and a.dtype != torch.float32
        else (a @ b).float()
    )


class LoraLinearFunction(torch.autograd.Function):
    """y = x·Wᵀ + b + (x·Aᵀ)·(s·B)ᵀ for several layers with the same input (arXiv 2106.09685, Eq.
    3).

    Gradients for x, A and B; W and b are frozen. Saves x and x·Aᵀ without a copy. With a prologue,
    x is the prologue's output, and the prologue's input is saved too.
    """

    @staticmethod
    def forward(
        ctx: Any,
        prologue: FusedPrologue | None,
        inputs: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        lora_a: torch.Tensor,
        lora_b: torch.Tensor,
        scaling: float,
        *lora_parameters: torch.Tensor,
    ) -> torch.Tensor:
        """Return x·Wᵀ + b + s·x·Aᵀ·Bᵀ (N, O) for inputs (N, I); `prologue` makes x of the inputs."""
        x = prologue.forward(inputs) if prologue else inputs
        x_a = x @ lora_a.T
        ctx.save_for_backward(
            None if prologue and prologue.recompute else x,
            inputs if prologue else None,
            x_a,
            weight,
            lora_a,
            lora_b,
        )
        ctx.prologue, ctx.scaling = prologue, scaling
        ctx.shapes = [parameter.shape for parameter in lora_parameters]
        y = product(x, weight) if bias is None else plus_product(bias, x, weight)
        return torch.addmm(y, x_a, lora_b.T, out=y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of the inputs (N, I) and of the LoRA matrices A (r, I) and B (O, r)."""
        x, inputs, x_a, weight, lora_a, lora_b = ctx.saved_tensors
        x = ctx.prologue.forward(inputs) if x is None else x
        grad_x_a = grad @ lora_b
        grad_x = None
        if ctx.needs_input_grad[1]:
            grad_x = product(grad, weight.T)
            torch.addmm(grad_x, grad_x_a, lora_a, out=grad_x)
            grad_x = ctx.prologue.backward(inputs, grad_x) if ctx.prologue else grad_x
        grad_a = matmul_float32(grad_x_a.T, x)
        grad_b = matmul_float32(grad.T, x_a).mul_(ctx.scaling)
        lora_grads, row, column = [], 0, 0
        for (rank, _), (width, _) in zip(ctx.shapes[::2], ctx.shapes[1::2]):
            lora_grads += [
                grad_a[column : column + rank],
                grad_b[row : row + width, column : column + rank],
            ]
            row, column = row + width, column + rank
        return None, grad_x, None, None, None, None, None, *lora_grads
