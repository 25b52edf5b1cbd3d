"""Captured passes against eager ones; what can be captured, and in which shapes."""

import contextlib
import gc
import weakref

import pytest
import torch
from support.fast_path_models import EXACT, SHAPES, SMALL, batch, policy
from transformers import LlamaConfig

from lab.engine.cuda_graphs import (
    _all_hidden_states,
    bucket_size,
    capturing,
    eager,
    forward_eager,
    pad_to_bucket,
)
from lab.engine.llama import decoder_of
from lab.engine.token_logprobs import token_statistics
from lab.models.fused_weights import fuse_projection_weights


def test_bucket_sizes_are_at_most_an_eighth_larger():
    assert (
        bucket_size(4400, 64) == 4608 and bucket_size(64, 64) == 64 and bucket_size(65, 64) == 128
    )
    assert all(n <= bucket_size(n, 1) <= n * 9 / 8 + 1 for n in range(1, 5000))


@pytest.mark.parametrize("enabled", [True, False])
def test_a_model_that_is_no_longer_used_is_not_freed_during_a_capture(enabled, monkeypatch):
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, pool: contextlib.nullcontext())
    freed = []
    before, thresholds = gc.isenabled(), gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(RuntimeError, match="inside"), capturing(None, None):
            old = Holder()
            weakref.finalize(old, freed.append, True)
            old.itself = old
            del old
            _more_objects = [[i] for i in range(1000)]
            assert not freed
            raise RuntimeError("inside")
        assert gc.isenabled() is enabled
    finally:
        gc.set_threshold(*thresholds)
        (gc.enable if before else gc.disable)()
    gc.collect()
    assert freed == [True]


class Holder:
    """An object that can hold itself, so that only the garbage collector frees it."""


@pytest.mark.parametrize("idle", [0, 7])
def test_dummy_tokens_at_the_end_of_the_packed_sequence_change_nothing(idle):
    model, tokens = policy(SHAPES["llama"]), batch()
    decoder, packed = decoder_of(model), tokens.packed
    longer = pad_to_bucket(packed, len(packed.ids) + idle)
    assert (
        len(longer.ids) == len(packed.ids) + idle
        and longer.cu_seqlens[-1] == len(longer.ids)
        and longer.cu_seqlens[-2] == len(packed.ids)
    )
    more = pad_to_bucket(packed, len(packed.ids) + idle, rows=8)
    assert (
        more.cu_seqlens.tolist() == longer.cu_seqlens.tolist() + 3 * [len(longer.ids)]
        and more.rows == 9
    )
    torch.testing.assert_close(
        forward_eager(decoder, "default", longer)[: len(packed.ids)],
        forward_eager(decoder, "default", packed),
        **EXACT,
    )


@pytest.mark.parametrize(
    "dtype, head_dim, unpadded",
    [
        (torch.bfloat16, 16, True),
        (torch.bfloat16, 28, False),
        (torch.bfloat16, 264, False),
        (torch.float32, 16, False),
    ],
)
def test_a_pass_is_captured_only_where_attention_needs_no_padding(
    monkeypatch, dtype, head_dim, unpadded
):
    model, captured = (
        policy(LlamaConfig(**SMALL | {"hidden_size": 64, "head_dim": head_dim})).to(dtype),
        [],
    )
    fuse_projection_weights(model)
    monkeypatch.setattr("lab.engine.cuda_graphs.uses_cuda_graphs", lambda device: True)
    monkeypatch.setattr(
        "lab.engine.cuda_graphs.GraphCache.hidden_states",
        lambda self, decoder, adapter, packed: captured.append(packed),
    )
    _all_hidden_states(decoder_of(model), "default", batch().packed)
    assert bool(captured) == unpadded


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("head_dim", [16, 28])
def test_a_replayed_pass_gives_what_the_eager_pass_gives_also_after_an_update(head_dim):
    model = policy(LlamaConfig(**SMALL | {"hidden_size": 64, "head_dim": head_dim})).to(
        "cuda", torch.bfloat16
    )
    fuse_projection_weights(model)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data = weight.data.float()
    weights = [w for w in model.parameters() if w.requires_grad]
    for seed in range(5):
        # Five rows and six have the same captured shape.
        tokens = batch(rows=5 + seed % 2, seed=seed).to("cuda")
        results = []
        for context in (contextlib.nullcontext, eager):
            with context():
                out = token_statistics(model, tokens, reference=model, entropy=True)
                results.append((out.logps, out.kl, *torch.autograd.grad(out.logps.sum(), weights)))
        # The kernels and their order are equal; only the dummy tokens change how sums are split.
        for ours, theirs in zip(*results):
            torch.testing.assert_close(
                ours, theirs, rtol=2e-2, atol=2e-2 * theirs.abs().max().item()
            )
        with torch.no_grad():
            for w in weights:
                w.add_(0.01 * torch.randn_like(w))
