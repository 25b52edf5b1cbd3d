"""Each call of torch's private parts against public torch; what needs a GPU is skipped elsewhere."""

import ast
import inspect
import re
from pathlib import Path

import pytest
import torch

import lab
from lab.engine import torch_private
from lab.engine.torch_private import (
    OperationMode,
    causal_varlen_attention,
    fake_tensors,
    has_onednn_product,
    in_dispatch_mode,
    onednn_product,
    scaled_copies_,
    softmax_backward,
    storage_id,
    tensors_in,
    varlen_attention_ops,
)

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="flash attention needs a GPU")
PRIVATE = re.compile(
    r"torch\._[a-z]|torch(\.\w+)+\._[a-zA-Z]|torch\.ops\.\w|\._cdata|\._foreach|from torch\S* import _"
)


def test_only_this_module_of_the_lab_calls_private_torch():
    root = Path(lab.__file__).parent
    calls = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if any(
            PRIVATE.search(line) for line in ast.unparse(ast.parse(path.read_text())).split("\n")
        )
    }
    assert calls == {"engine/torch_private.py"}


def padded_attention(q, k, v, lengths):
    """Plain causal attention of each row by itself."""
    rows = zip(*(x.split(lengths) for x in (q, k, v)))
    outputs = [
        torch.nn.functional.scaled_dot_product_attention(
            *(x.transpose(0, 1)[None] for x in row), is_causal=True, enable_gqa=True
        )
        for row in rows
    ]
    return torch.cat([output[0].transpose(0, 1) for output in outputs])


@GPU
@pytest.mark.parametrize("n_kv_heads", [4, 2])
def test_packed_attention_is_attention_of_each_row_by_itself(n_kv_heads):
    lengths = [5, 130, 1, 64]
    noise = torch.Generator("cuda").manual_seed(0)
    q, k, v = (
        torch.randn(200, heads, 32, generator=noise, device="cuda")
        .to(torch.bfloat16)
        .requires_grad_()
        for heads in (4, n_kv_heads, n_kv_heads)
    )
    cu_seqlens = torch.tensor([0, 5, 135, 136, 200], dtype=torch.int32, device="cuda")
    ours = causal_varlen_attention(q, k, v, cu_seqlens, max(lengths))
    theirs = padded_attention(q, k, v, lengths)
    torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2)
    weight = torch.randn(ours.shape, generator=noise, device="cuda").to(torch.bfloat16)
    for mine, expected in zip(
        torch.autograd.grad(ours, (q, k, v), weight), torch.autograd.grad(theirs, (q, k, v), weight)
    ):
        torch.testing.assert_close(mine, expected, rtol=3e-2, atol=3e-2)


@pytest.mark.parametrize("n_kv_heads", [4, 2])
def test_packed_attention_keeps_shapes_forward_and_backward_and_a_mode_sees_its_operators(
    n_kv_heads,
):
    seen = []

    class Listen(OperationMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            seen.append(getattr(operation, "overloadpacket", None))
            return operation(*args, **(kwargs or {}))

    with fake_tensors():
        q, k, v = (
            torch.zeros(9, heads, 16, dtype=torch.bfloat16, requires_grad=True)
            for heads in (4, n_kv_heads, n_kv_heads)
        )
        cu_seqlens = torch.zeros(3, dtype=torch.int32)
        with Listen():
            out = causal_varlen_attention(q, k, v, cu_seqlens, 6)
            gradients = torch.autograd.grad(out, (q, k, v), torch.zeros_like(out))
    assert out.shape == q.shape and [g.shape for g in gradients] == [q.shape, k.shape, v.shape]
    assert all(operator in seen for operator in varlen_attention_ops())


@pytest.mark.parametrize(
    "parameters, grouped, options",
    [
        ("q k v is_causal", True, {"is_causal": True}),
        ("q k v window_size", True, {"window_size": (-1, 0)}),
        ("q k v window_size enable_gqa", True, {"window_size": (-1, 0), "enable_gqa": True}),
        ("q k v window_size enable_gqa", False, {"window_size": (-1, 0)}),
    ],
)
def test_the_arguments_of_packed_attention_follow_the_signature(
    monkeypatch, parameters, grouped, options
):
    signature = inspect.Signature(
        [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD)
            for name in parameters.split()
        ]
    )
    monkeypatch.setattr(torch_private.inspect, "signature", lambda function: signature)
    assert torch_private._causal_options.__wrapped__(grouped) == options


def test_the_gradient_of_a_softmax_is_autograds():
    noise = torch.Generator().manual_seed(0)
    logits, grad = (torch.randn(3, 4, 5, generator=noise, dtype=torch.float64) for _ in range(2))
    logits.requires_grad_()
    probs = logits.softmax(-1)
    (expected,) = torch.autograd.grad(probs, logits, grad)
    torch.testing.assert_close(softmax_backward(grad, probs.detach()), expected)


@pytest.mark.skipif(not has_onednn_product(), reason="torch has no oneDNN here")
@pytest.mark.parametrize(
    "weight",
    [
        lambda w: w,
        lambda w: w.T.contiguous().T,
        lambda w: torch.cat([w, w], 1)[:, 4:].contiguous()[:, : w.shape[1]],
        lambda w: torch.cat([w.T, w.T], 1)[:, : len(w)].T,
    ],
    ids=["rows", "columns", "a slice of columns", "a transposed slice"],
)
def test_a_product_of_onednn_is_the_product_of_torch_whatever_the_strides(weight):
    noise = torch.Generator().manual_seed(0)
    x, w = (torch.randn(rows, 40, generator=noise) for rows in (7, 24))
    weight = weight(w)
    expected = x.double() @ weight.double().T
    for given in (x, torch.cat([x, x], 1)[:, :40]):
        found = onednn_product(given, weight)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_scaled_copies_are_products_in_the_dtype_of_the_target():
    sources = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([[0.1, 5.0]])]
    whole = torch.zeros(4, dtype=torch.bfloat16)
    targets = [whole[:3], torch.zeros(1, 2)]
    scaled_copies_(targets, sources, [0.5, 3.0])
    assert whole.tolist() == [0.5, 1.0, 1.5, 0.0]
    assert torch.equal(targets[1], sources[1] * 3.0)


def test_a_dispatch_mode_is_noticed_and_sees_operations():
    shapes = []

    class Listen(OperationMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            result = operation(*args, **(kwargs or {}))
            shapes.extend(tuple(tensor.shape) for tensor in tensors_in(result))
            return result

    assert not in_dispatch_mode()
    with Listen():
        assert in_dispatch_mode()
        torch.ones(2, 6).chunk(2, 1)
    assert not in_dispatch_mode() and shapes == [(2, 6), (2, 3), (2, 3)]


def test_tensors_are_found_in_nested_results():
    one, two = torch.ones(1), torch.ones(2)
    assert list(tensors_in((one, [two, None], 3))) == [one, two]


@pytest.mark.parametrize("fake", [False, True])
def test_views_share_the_number_of_their_storage(fake):
    with fake_tensors() if fake else torch.enable_grad():
        whole, other = torch.zeros(4, 2), torch.zeros(4, 2)
    assert storage_id(whole) == storage_id(whole[1:]) == storage_id(whole.T)
    assert storage_id(whole) != storage_id(other)


def test_fake_tensors_have_a_device_and_take_no_memory():
    with fake_tensors():
        huge = torch.zeros(2**40) + 1
    assert huge.shape == (2**40,) and huge.device == torch.device("cpu")
