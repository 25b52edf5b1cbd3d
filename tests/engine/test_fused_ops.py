"""Operations of the fast path against plain formulas, and the GPU kernels against the CPU."""

import math

import pytest
import torch

from lab.engine.fused_ops import (
    apply_rotary,
    decode_attention,
    gumbel_argmax_sample,
    rms_norm,
    rms_norm_backward,
    swiglu,
    swiglu_backward,
)


def test_a_rotation_by_90_degrees_takes_the_first_half_to_the_second():
    assert apply_rotary(
        torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[0.0]]]), torch.tensor([[[1.0]]])
    ).tolist() == [[[-2.0, 1.0]]]


def test_swiglu_and_its_gradient_by_hand():
    gate_up, s = torch.tensor([[1.0, 3.0]], dtype=torch.float64), 1 / (1 + math.exp(-1))
    assert swiglu(gate_up).item() == pytest.approx(3 * s) and swiglu_backward(
        gate_up, torch.tensor([[2.0]]).double()
    ).tolist() == [pytest.approx([2 * 3 * s * (1 + 1 - s), 2 * s])]


def test_the_gradient_of_rms_norm_is_autograds():
    noise = torch.Generator().manual_seed(0)
    x, weight, grad = (
        torch.randn(*shape, generator=noise, dtype=torch.float64)
        for shape in ((5, 12), (12,), (5, 12))
    )
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(
        torch.nn.functional.rms_norm(leaf, (12,), weight, 1e-3), leaf, grad
    )
    torch.testing.assert_close(
        rms_norm_backward(x, weight, 1e-3, grad), expected, rtol=1e-10, atol=1e-12
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernels need a GPU")
def test_kernels_on_a_gpu_give_what_torch_gives_on_the_cpu():
    noise = torch.Generator().manual_seed(0)
    gate_up, grad, x, angle = (
        torch.randn(*shape, generator=noise)
        for shape in ((9, 2 * 1537), (9, 1537), (9, 7, 24), (9, 1, 12))
    )
    cos, sin = angle.cos(), angle.sin()
    heads = x[:, 1:6]  # Queries and keys are a view of a wider tensor.
    states, weight = grad[:, :600].contiguous(), gate_up[0, :600]
    on_gpu = [t.cuda() for t in (gate_up, grad, x, cos, sin)]
    for ours, theirs in (
        (
            rms_norm_backward(states.cuda(), weight.cuda(), 1e-5, states.cos().cuda()),
            rms_norm_backward(states, weight, 1e-5, states.cos()),
        ),
        (rms_norm(x.cuda()[:, 1:6], weight[:24].cuda(), 1e-5), rms_norm(heads, weight[:24], 1e-5)),
        (swiglu(on_gpu[0]), swiglu(gate_up)),
        (swiglu_backward(on_gpu[0], on_gpu[1]), swiglu_backward(gate_up, grad)),
        (
            apply_rotary(on_gpu[2][:, 1:6], on_gpu[3], on_gpu[4], sign=-1),
            apply_rotary(heads, cos, sin, sign=-1),
        ),
    ):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernels need a GPU")
@pytest.mark.parametrize(
    "rows, n_heads, n_kv_heads, head_dim, now",
    [(3, 6, 2, 24, 150), (2, 4, 4, 64, 1), (4, 8, 1, 16, 129), (5, 32, 8, 64, 128)],
)
def test_decode_attention_rotates_writes_the_cache_and_attends_to_its_filled_part(
    rows, n_heads, n_kv_heads, head_dim, now
):
    noise = torch.Generator().manual_seed(0)
    qkv, cos, sin, cache = (
        torch.randn(*shape, generator=noise)
        for shape in (
            (rows, n_heads + 2 * n_kv_heads, head_dim),
            (rows, head_dim // 2),
            (rows, head_dim // 2),
            (2, rows + 2, n_kv_heads, 200, head_dim),
        )
    )
    pad_offset = torch.arange(rows + 2) * now // (rows + 1)
    gpu_cache = cache.cuda()
    ours = decode_attention(
        qkv.cuda(), cos.cuda(), sin.cuda(), gpu_cache, pad_offset.cuda(), torch.tensor([now]).cuda()
    )
    q, k = apply_rotary(qkv[:, :-n_kv_heads], cos[:, None], sin[:, None]).split(
        [n_heads, n_kv_heads], 1
    )
    cache[0, :rows, :, now], cache[1, :rows, :, now] = k, qkv[:, -n_kv_heads:]
    for row, first in enumerate(pad_offset[:rows].tolist()):
        k, v = (
            part[row, :, first : now + 1].repeat_interleave(n_heads // n_kv_heads, 0)
            for part in cache
        )
        weight = torch.softmax((k @ q[row, :, :, None]).squeeze(2) / math.sqrt(head_dim), 1)
        torch.testing.assert_close(
            ours[row].cpu(), (weight[:, None] @ v).flatten(), rtol=1e-4, atol=1e-5
        )
    torch.testing.assert_close(gpu_cache.cpu(), cache, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernels need a GPU")
@pytest.mark.parametrize("vocabulary, temperature", [(40, 1.0), (9000, 0.7), (4096, 0.0)])
def test_gumbel_argmax_takes_the_noise_of_its_own_row(vocabulary, temperature):
    noise = torch.Generator().manual_seed(0)
    logits, exponential = (
        torch.randn(3, vocabulary, generator=noise),
        torch.empty(5, vocabulary).exponential_(generator=noise),
    )
    noise_rows = torch.tensor([4, 0, 2])
    expected = [
        (row - temperature * exponential[noise_row].log()).argmax().item()
        for row, noise_row in zip(logits, noise_rows.tolist())
    ]
    assert (
        gumbel_argmax_sample(
            logits.cuda(), exponential.cuda(), noise_rows.cuda(), torch.tensor([temperature]).cuda()
        )
        .flatten()
        .tolist()
        == expected
    )
