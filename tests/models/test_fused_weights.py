"""Weights that lie side by side in memory are the same weights of the same model."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, PhiConfig
from transformers.models.auto import AutoModelForCausalLM

from lab.config.methods import make_config
from lab.engine.llama import decoder_of
from lab.models.fused_weights import fuse_projection_weights
from lab.models.loading import load_policy

SIZES = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def policy(config):
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return get_peft_model(base, LoraConfig(r=4, target_modules="all-linear")).eval()


def state(model):
    """Everything of a model that a reader could notice: tensors by name and address, modules,
    attributes, hooks.
    """
    tensors = (*model.named_parameters(), *model.named_buffers())
    return (
        {n: (w.data_ptr(), w.shape, w.stride(), w.requires_grad, w.dtype) for n, w in tensors},
        {name: (id(module), sorted(vars(module))) for name, module in model.named_modules()},
        {name: id(module.forward.__func__) for name, module in model.named_modules()},
    )


@pytest.mark.parametrize("fused", [False, True])
def test_asking_for_the_fast_path_leaves_the_model_as_it_is(fused):
    model = policy(LlamaConfig(**SIZES))
    if fused:
        fuse_projection_weights(model)
    before, values = state(model), [w.clone() for w in model.parameters()]
    decoder = decoder_of(model)
    assert (decoder is not None) == fused
    assert decoder_of(model) is decoder and state(model) == before
    assert all(torch.equal(w, value) for w, value in zip(model.parameters(), values))


def test_fusing_keeps_parameters_values_and_outputs_and_stores_weights_once():
    model, ids = policy(LlamaConfig(**SIZES, num_key_value_heads=2)), torch.arange(12)[None]
    output, parameters = model(input_ids=ids).logits, dict(model.named_parameters())
    values = {name: weight.clone() for name, weight in parameters.items()}
    fuse_projection_weights(model)
    assert torch.equal(model(input_ids=ids).logits, output)
    for name, weight in model.named_parameters():
        assert weight is parameters[name] and torch.equal(weight, values[name])
    storages = {w.untyped_storage().data_ptr(): w.untyped_storage() for w in parameters.values()}
    assert sum(s.nbytes() for s in storages.values()) == sum(
        w.numel() * w.element_size() for w in parameters.values()
    )
    attention = model.get_base_model().model.layers[0].self_attn
    q, k = attention.q_proj.base_layer.weight, attention.k_proj.base_layer.weight
    assert k.data_ptr() == q.data_ptr() + q.numel() * q.element_size()


def test_a_change_of_the_models_weights_reaches_the_fast_path():
    model = policy(LlamaConfig(**SIZES))
    fuse_projection_weights(model)
    decoder = decoder_of(model)
    weight = model.get_base_model().model.layers[1].mlp.up_proj.base_layer.weight
    weight.data.fill_(7.0)
    assert (decoder.layers[1].gate_up.weight[len(weight) :] == 7.0).all()


def test_other_architectures_stay_as_they_are():
    model = policy(PhiConfig(**SIZES))
    before = state(model)
    fuse_projection_weights(model)
    assert state(model) == before and decoder_of(model) is None


def test_the_labs_loader_gives_a_model_with_the_fast_path():
    model = load_policy(make_config("dpo", {"device": "cpu"}), torch.device("cpu"))
    assert decoder_of(model) is not None
