"""What a decoder says about a model, and which models have which fast path."""

import pytest
import torch
from support.fast_path_models import SHAPES, SMALL, policy
from transformers import MistralConfig

from lab.engine.llama import decoder_of
from lab.engine.llama_cpu import supports
from lab.models.activation_checkpointing import enable_activation_checkpointing


class SavesLikeAttention(torch.autograd.Function):
    """Saves for backward what the attention kernel saves, and computes nothing."""

    @staticmethod
    def forward(ctx, q, k, v):
        out = q * 2
        ctx.save_for_backward(q, k, v, out)
        return out


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("shape", ["llama", "llama, other head width"])
def test_saved_activation_bytes_are_what_a_forward_pass_saves(shape, recompute):
    model = policy(SHAPES[shape])
    decoder, count, saved = decoder_of(model), 400, {}
    decoder.recompute_activations = recompute
    weights = {w.untyped_storage()._cdata for w in model.parameters()}

    def save(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in weights and len(tensor) == count:
            saved[storage._cdata] = storage  # Kept alive, so that its address stays unique.
        return tensor

    decoder.load_adapter("default")
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        decoder.forward(
            torch.zeros(count, dtype=torch.long),
            torch.arange(count),
            lambda q, k, v: SavesLikeAttention.apply(q, k, v),
        )
    assert sum(storage.nbytes() for storage in saved.values()) / count == pytest.approx(
        decoder.saved_activation_bytes_per_token(), rel=0.1
    )


def test_the_cpu_pass_supports_small_models_whose_every_operation_it_has(monkeypatch):
    shapes = {name: supports(decoder_of(policy(shape))) for name, shape in SHAPES.items()}
    assert shapes == {name: not name.startswith("qwen") for name in SHAPES}
    model = policy(SHAPES["llama"])
    monkeypatch.setattr(
        "lab.engine.llama_cpu.MAX_MATRIX_ELEMENTS",
        sum(p.weight.numel() for p in decoder_of(model).projections()) - 1,
    )
    assert not supports(decoder_of(model))
    monkeypatch.undo()
    enable_activation_checkpointing(model)
    assert not supports(decoder_of(model))


def test_a_sliding_window_and_weights_that_train_take_the_plain_path():
    whole = policy(SHAPES["llama"])
    whole.requires_grad_(True)
    assert decoder_of(whole) is None
    assert decoder_of(policy(MistralConfig(**SMALL, sliding_window=4))) is None
