"""On a CPU: LoRA adapters merged into the weights of a decoder, laid out so that a rotation is one
complex product.

Shapes: I input and O output width of a product, K layers in it, r LoRA rank, N tokens, d head
width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from weakref import WeakKeyDictionary

import torch

from lab.engine.cpu_products import by_onednn
from lab.engine.llama import Decoder
from lab.engine.lora_linear import FusedLoraLinear
from lab.engine.torch_private import onednn_product


@dataclass
class MergedLinear:
    """A product with its adapter merged in, `weight` (O, I), and what the adapter's gradients need.

    `lora_a` (K·r, I): the matrices A of its K layers; None for the reference. `lora_bs`: their
    matrices B (O_k, r). `scaling`: the factor of B·A. `head_dim`: d for the product of q, k and v,
    else 0; there the rows of queries and keys are ordered by `interleave_rope_rows`, and queries
    are divided by √d.
    """

    weight: torch.Tensor
    lora_a: torch.Tensor | None = None
    lora_bs: list[torch.Tensor] = field(default_factory=list)
    scaling: float = 1.0
    head_dim: int = 0

    def lora_gradients(self, x: torch.Tensor, grads: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the gradients of A and B of each layer in turn.

        x (N, I) is the product's input; `grads` (N, O_k) are the gradients for the layers' outputs.
        """
        assert self.lora_a is not None
        rank, large = len(self.lora_a) // len(self.lora_bs), by_onednn(self.weight)
        x_a = (onednn_product(x, self.lora_a) if large else x @ self.lora_a.T).mul_(self.scaling)
        grad_x_a = x.new_empty(len(x), len(self.lora_a))
        grad_bs = []
        for grad, b, x_a_k, grad_x_a_k in zip(
            grads, self.lora_bs, x_a.split(rank, 1), grad_x_a.split(rank, 1)
        ):
            if large:
                grad_x_a_k.copy_(onednn_product(grad, b.T))
                grad_bs.append(onednn_product(x_a_k.T, grad.T).T)
            else:
                torch.mm(grad, b, out=grad_x_a_k)
                grad_bs.append(grad.T @ x_a_k)
        if self.head_dim:
            grad_bs[:2] = (
                deinterleave_rope_rows(grad_bs[0].mul_(self.head_dim**-0.5), self.head_dim),
                deinterleave_rope_rows(grad_bs[1], self.head_dim),
            )
        grad_a = onednn_product(grad_x_a.T, x.T) if large else grad_x_a.T @ x
        grad_as = grad_a.mul_(self.scaling).split(rank)
        return [gradient for pair in zip(grad_as, grad_bs) for gradient in pair]


def interleave_rope_rows(rows: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Return the rows (heads·d, …) of a projection so that the rows i and i + d/2 of a head are
    neighbours.

    The rotary embedding rotates these two together, so they become the parts of one complex number.
    """
    return rows.view(-1, 2, head_dim // 2, rows.shape[1]).transpose(1, 2).reshape(rows.shape)


def deinterleave_rope_rows(rows: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Invert `interleave_rope_rows`."""
    return rows.view(-1, head_dim // 2, 2, rows.shape[1]).transpose(1, 2).reshape(rows.shape)


_INTERLEAVED_QKV: WeakKeyDictionary[Decoder, list[torch.Tensor]] = WeakKeyDictionary()


def rope_interleaved_qkv(decoder: Decoder) -> list[torch.Tensor]:
    """Return the frozen q, k and v weights of each block, q and k interleaved, and q divided by √d."""
    if decoder not in _INTERLEAVED_QKV:
        d = decoder.head_dim
        weights = [block.qkv.weight.split(block.qkv.out_features) for block in decoder.layers]
        _INTERLEAVED_QKV[decoder] = [
            torch.cat([interleave_rope_rows(q, d) * d**-0.5, interleave_rope_rows(k, d), v])
            for q, k, v in weights
        ]
    return _INTERLEAVED_QKV[decoder]


def merge_lora(
    projection: FusedLoraLinear,
    weight: torch.Tensor,
    lora: list[torch.Tensor],
    scaling: float,
    head_dim: int = 0,
) -> MergedLinear:
    """Return a projection with its adapter merged into `weight`, its own weight or an interleaved
    one.

    `lora` are the matrices A and B of its layers in turn, empty for the reference; `head_dim` is d
    for q, k and v.
    """
    lora_as, lora_bs = lora[::2], lora[1::2]
    if not lora:
        return MergedLinear(weight)
    if head_dim:
        lora_bs[:2] = (
            interleave_rope_rows(lora_bs[0], head_dim) * head_dim**-0.5,
            interleave_rope_rows(lora_bs[1], head_dim),
        )
    merged = torch.empty_like(weight)
    for out, rows, b, a in zip(
        merged.split(projection.out_features),
        weight.split(projection.out_features),
        lora_bs,
        lora_as,
    ):
        torch.addmm(rows, b, a, alpha=scaling, out=out)
    lora_a = torch.cat(lora_as) if len(lora_as) > 1 else lora_as[0]
    return MergedLinear(merged, lora_a, lora_bs, scaling, head_dim)


@torch.no_grad()
def merged_blocks(decoder: Decoder, adapter: str | None) -> list[list[MergedLinear]]:
    """Return the four products of each block under `adapter`; None means the reference."""
    remaining = iter(() if adapter is None else decoder.lora_parameters(adapter))
    blocks = []
    for block, interleaved in zip(decoder.layers, rope_interleaved_qkv(decoder)):
        products = []
        for p in block.projections:
            lora: list[torch.Tensor] = list(islice(remaining, 2 * len(p.layers)))
            scaling = p.scaling_of(adapter) if adapter else 1.0
            if p is block.qkv:
                products.append(merge_lora(p, interleaved, lora, scaling, decoder.head_dim))
            else:
                products.append(merge_lora(p, p.weight, lora, scaling))
        blocks.append(products)
    return blocks
