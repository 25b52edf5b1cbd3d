"""The fast path against the plain one: architectures, padding, adapters, gradients."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.fast_path_models import EXACT, SHAPES, SMALL, batch, policy
from transformers import LlamaConfig, PhiConfig

from lab.algorithms.logprobs import token_logps
from lab.engine.llama import decoder_of
from lab.engine.token_logprobs import (
    padded_hidden_states,
    reference_implementation,
    score,
    token_statistics,
)
from lab.models.adapters import adapter_disabled

PATHS = ("cpu", "cpu, long rows", "cpu, oneDNN", "decoder", "decoder, recompute", "decoder, oneDNN")


def choose_path(path, model, monkeypatch):
    """Make `token_statistics` of `model` take `path`, if the model supports it."""
    decoder_of(model).recompute_activations = path == "decoder, recompute"
    if path.startswith("decoder"):
        monkeypatch.setattr("lab.engine.cuda_graphs.supports", lambda decoder: False)
    if path.endswith("oneDNN"):
        monkeypatch.setattr("lab.engine.cpu_products.MIN_MATRIX_ELEMENTS", 1)
    if path.endswith("long rows"):
        monkeypatch.setattr("lab.engine.cpu_attention.MAX_SCORED_LENGTH", 7)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_fast_path_gives_what_the_models_own_forward_pass_gives(shape, path, monkeypatch):
    model, tokens = policy(SHAPES[shape]), batch()
    choose_path(path, model, monkeypatch)
    weights = {n: w for n, w in model.named_parameters() if w.requires_grad}
    weight = torch.linspace(-1, 1, tokens.ids.numel()).view_as(tokens.ids)
    found, gradients = [], []
    for way in (token_statistics, reference_implementation):
        out = way(model, tokens, temperature=0.7, reference=model, entropy=True)
        gradients.append(torch.autograd.grad((out.logps * weight).sum(), list(weights.values())))
        found.append(out)
    for name in ("logps", "entropy", "reference_logps", "kl"):
        ours, theirs = getattr(found[0], name), getattr(found[1], name)
        torch.testing.assert_close(ours, theirs, **EXACT)
        assert (
            theirs[tokens.completion_mask].abs().min() > 0
            and (ours[~tokens.completion_mask] == 0).all()
        )
        assert ours.requires_grad == (name == "logps")
    for name, ours, theirs in zip(weights, *gradients):
        assert theirs.norm() > 0, name
        torch.testing.assert_close(
            ours, theirs, rtol=1e-4, atol=3e-5 * theirs.abs().max().item(), msg=name
        )


def test_another_architecture_takes_the_plain_path():
    model, tokens = (
        policy(
            PhiConfig(
                vocab_size=40,
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=1,
                num_attention_heads=2,
            )
        ),
        batch(),
    )
    assert decoder_of(model) is None
    logits = model(input_ids=tokens.ids).logits.double()
    expected = torch.zeros(tokens.ids.shape, dtype=torch.double)
    for row, place in tokens.completion_mask.nonzero().tolist():
        expected[row, place] = logits[row, place - 1].log_softmax(0)[tokens.ids[row, place]]
    torch.testing.assert_close(token_statistics(model, tokens).logps.double(), expected, **EXACT)


def test_the_reference_is_the_model_without_its_adapter_and_an_adapter_that_moves_is_followed():
    model, tokens = policy(SHAPES["llama"]), batch()
    with adapter_disabled(model), torch.no_grad():
        expected = (
            token_logps(model(input_ids=tokens.ids).logits, tokens.ids) * tokens.completion_mask
        )
        torch.testing.assert_close(token_statistics(model, tokens).logps, expected, **EXACT)
    torch.testing.assert_close(
        token_statistics(model, tokens, reference=model).reference_logps, expected, **EXACT
    )
    before = token_statistics(model, tokens).logps.detach()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.mul_(0.5)
    after = token_statistics(model, tokens).logps
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, reference_implementation(model, tokens).logps, **EXACT)


def test_an_adapter_of_another_name_is_read_by_that_name():
    model, tokens = policy(SHAPES["llama"]), batch()
    model.add_adapter(
        "critic", LoraConfig(r=2, lora_alpha=2, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    torch.manual_seed(5)
    for name, weight in model.named_parameters():
        if ".critic." in name:
            weight.data.normal_(std=0.3)
    mine = padded_hidden_states(model, tokens, "critic")
    model.set_adapter("critic")
    theirs = model.get_base_model().base_model(input_ids=tokens.ids).last_hidden_state
    real = torch.arange(tokens.ids.shape[1]) <= (
        tokens.completion_mask * torch.arange(tokens.ids.shape[1])
    ).amax(1, keepdim=True)
    torch.testing.assert_close(mine[real], theirs[real], **EXACT)


def test_a_reward_is_the_heads_product_with_the_state_at_the_completions_end():
    from transformers import LlamaForSequenceClassification

    torch.manual_seed(0)
    model = get_peft_model(
        LlamaForSequenceClassification(LlamaConfig(**SMALL, num_labels=1, pad_token_id=0)),
        LoraConfig(r=2, target_modules="all-linear", task_type="SEQ_CLS"),
    ).eval()
    tokens = batch()
    last = [
        max(i for i, inside in enumerate(row) if inside) for row in tokens.completion_mask.tolist()
    ]
    whole = model.get_base_model()
    expected = whole.score(
        whole.model(input_ids=tokens.ids).last_hidden_state[torch.arange(5), last]
    ).squeeze(1)
    torch.testing.assert_close(score(model, tokens), expected, **EXACT)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", ["llama", "qwen3, with norms of queries and keys"])
def test_a_shared_beginning_counted_once_gives_what_every_row_on_its_own_gives(
    shape, path, monkeypatch
):
    model, tokens = policy(SHAPES[shape]), batch(rows=9)
    choose_path(path, model, monkeypatch)
    tokens.completion_mask &= (
        torch.arange(17) >= 4
        # Rows 0, 3 and 7 have the same prompt, 3 and 7 also the same two tokens after it; 5 is 1, 2 its
        # beginning.
    )
    tokens.ids[[3, 7], :4], tokens.ids[7, 4:6], tokens.ids[5] = (
        tokens.ids[0, :4],
        tokens.ids[3, 4:6],
        tokens.ids[1],
    )
    tokens.ids[2, :6], tokens.completion_mask[2] = (
        tokens.ids[1, :6],
        (torch.arange(17) >= 4) & (torch.arange(17) < 7),
    )
    lengths = [int(mask.nonzero().max()) for mask in tokens.completion_mask]
    assert len(tokens.scored.ids) == len(
        {
            tuple(row[: i + 1])
            for row, length in zip(tokens.ids.tolist(), lengths)
            for i in range(length)
        }
    )
    assert len(tokens.scored.ids) <= sum(lengths) - 2 * 4 - 2 - 2 * 6
    weights = [w for w in model.parameters() if w.requires_grad]
    weight = torch.linspace(-1, 1, tokens.ids.numel()).view_as(tokens.ids)
    found = []
    for way in (token_statistics, reference_implementation):
        out = way(model, tokens, reference=model, entropy=True)
        found.append(
            (
                out.logps,
                out.entropy,
                out.kl,
                *torch.autograd.grad((out.logps * weight).sum(), weights),
            )
        )
    for ours, theirs in zip(*found):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=3e-5 * theirs.abs().max().item())
