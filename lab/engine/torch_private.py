"""The only module of the lab that calls private parts of torch; each function says why it needs
them.

Written for torch 2.11 to 2.13. A new version of torch can change these parts without notice, so
tests/engine/test_torch_private.py compares each function with public torch.
"""

import inspect
import platform
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention.varlen import varlen_attn
from torch.utils._python_dispatch import TorchDispatchMode, is_in_torch_dispatch_mode
from torch.utils._pytree import tree_iter


@cache
def _causal_options(grouped_queries: bool) -> dict[str, Any]:
    """Return the arguments that make `varlen_attn` causal, by the signature of the installed torch.

    Newer versions take `window_size=(-1, 0)`, the first ones took `is_causal=True`. Versions
    without `enable_gqa` accept fewer key heads than query heads as they are.
    """
    accepted = inspect.signature(varlen_attn).parameters
    options: dict[str, Any] = (
        {"window_size": (-1, 0)} if "window_size" in accepted else {"is_causal": True}
    )
    if grouped_queries and "enable_gqa" in accepted:
        options["enable_gqa"] = True
    return options


def causal_varlen_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int
) -> torch.Tensor:
    """Return causal attention within each row of a packed sequence, by flash attention on a GPU.

    q is (N, n_heads, head_dim), k and v are (N, n_kv_heads, head_dim), `cu_seqlens` (rows + 1,) is
    int32.

    The call is public (`torch.nn.attention.varlen`), but new: its arguments differ between versions
    of torch.
    """
    attended = varlen_attn(
        q,
        k,
        v,
        cu_seqlens,
        cu_seqlens,
        max_seqlen,
        max_seqlen,
        **_causal_options(grouped_queries=q.shape[1] != k.shape[1]),
    )
    assert isinstance(
        attended, torch.Tensor
    )  # A tuple comes only if auxiliary outputs are requested.
    return attended


def varlen_attention_ops() -> tuple[Any, Any]:
    """Return the operators that a dispatch mode sees for `causal_varlen_attention`: forward and
    backward.

    Needed to count their operations: torch's own formula refuses fewer key heads than query heads.
    """
    return torch.ops.torch_attn._varlen_attn, torch.ops.torch_attn._varlen_attn_backward


def softmax_backward(grad: torch.Tensor, probs: torch.Tensor) -> torch.Tensor:
    """Return the gradient for the logits of `probs` = softmax(logits, -1), given `grad` for
    `probs`.

    The formula is probs · (grad − Σ probs · grad). Needed because the public operators take three
    calls and two temporary tensors for it, and a small model on a CPU spends its time on calls.
    """
    return torch._softmax_backward_data(grad, probs, -1, probs.dtype)


@cache
def has_onednn_product() -> bool:
    """Return whether `onednn_product` works in this process."""
    return (
        platform.machine().lower() in ("x86_64", "amd64")
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def onednn_product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return x (N, I) · weightᵀ (N, O) in float32 by oneDNN, without a gradient; `weight` (O, I) may
    have any strides.

    Needed because torch multiplies float32 matrices by MKL, which on processors of AMD takes more than
    twice as long; torch has no public call that chooses the library.
    """
    if not (weight.is_contiguous() or weight.T.is_contiguous()):
        weight = weight.T.contiguous().T  # A slice would take a hundred times as long as its copy.
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
        x.contiguous(), weight, None, "none", [], ""
    )
    return product


def scaled_copies_(
    targets: Sequence[torch.Tensor], sources: Sequence[torch.Tensor], scales: Sequence[float]
) -> None:
    """Write sources[i] · scales[i] into targets[i], in the dtype of the target.

    Needed because a loop takes one GPU kernel for each of several hundred LoRA matrices, and these
    calls take a few for all; torch has no public call for lists of tensors.
    """
    torch._foreach_copy_(list(targets), torch._foreach_mul(list(sources), list(scales)))


def in_dispatch_mode() -> bool:
    """Return whether a `TorchDispatchMode` is active: a profiler, a FLOP counter or fake tensors.

    Needed because such a mode has to see every operation, which hand-written passes and CUDA graphs
    hide; torch has no public call that says so.
    """
    return is_in_torch_dispatch_mode()


def storage_id(tensor: torch.Tensor) -> int:
    """Return a number that is equal for tensors that share their storage, also for fake tensors.

    Needed because the public `data_ptr` is 0 for every fake tensor.
    """
    return tensor.untyped_storage()._cdata


class OperationMode(TorchDispatchMode):
    """Base class of a context in which `__torch_dispatch__` sees every operation of torch.

    Needed to count memory by what it holds; torch documents this class, but keeps it in a private
    module.
    """


def tensors_in(result: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in the result of an operation, also those in nested lists and tuples.

    Needed with `OperationMode`; torch has no public call for nested results.
    """
    return (leaf for leaf in tree_iter(result) if isinstance(leaf, torch.Tensor))


def fake_tensors() -> AbstractContextManager[Any]:
    """Return a context in which new tensors have a shape and a device, but no memory.

    Needed to estimate memory: the public `meta` device has no device of its own, so code that asks
    for the device would take another path.
    """
    return FakeTensorMode()
