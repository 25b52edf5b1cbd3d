"""The fast path of sampling against the reference implementation: equal tokens from equal noise,
whatever the architecture, the lengths, and the other rows in the batch.
"""

from collections import Counter

import pytest
import torch
from support.fast_path_models import SHAPES, SMALL, policy
from transformers import GPTNeoXConfig, LlamaConfig

import lab.engine.decode
import lab.engine.generate
import lab.engine.sampler
from lab.engine.allocator import Allocator
from lab.engine.decode import single_token_attention
from lab.engine.decode_cpu import CpuStaticCacheDecoder
from lab.engine.decode_policy import DECODE_POLICIES, DecodePolicy
from lab.engine.generate import has_static_rope
from lab.engine.llama import decoder_of
from lab.engine.sampler import sample
from lab.errors import LabError
from lab.models.activation_checkpointing import enable_activation_checkpointing
from lab.models.adapters import adapter_disabled
from lab.models.fused_weights import fuse_projection_weights
from lab.recipes.pretrain_base import build_tokenizer

CPU = torch.device("cpu")
PROMPTS = ["7+5*3-4*2=", "9", "3*3*3+1=", "8+8-1*2+6-3=" * 4]  # of 1 to 48 tokens


def draw(model, prompts=PROMPTS, group_size=3, *, end=None, device=CPU, **options):
    tokenizer = build_tokenizer(40)
    tokenizer.eos_token = end or "<eos>"
    settings = {"max_tokens": 30, "temperature": 1.0, "seed": 0, "step": 1} | options
    return sample(
        model, tokenizer, tokenizer(prompts)["input_ids"], group_size, device=device, **settings
    )


def draw_reference(monkeypatch, *arguments, **options):
    """`draw` by the model's own forward pass."""
    with monkeypatch.context() as patch:
        patch.setattr(lab.engine.sampler, "decoder_of", lambda model: None)
        return draw(*arguments, **options)


def tokens(completions):
    return [row[mask].tolist() for row, mask in zip(completions.ids, completions.completion_mask)]


@pytest.fixture
def in_shapes(monkeypatch):
    """The CPU goes in the shapes of a GPU: stretches of columns, and rows that leave by halves."""
    monkeypatch.setitem(DECODE_POLICIES, "cpu", DecodePolicy(5, use_cuda_graphs=True))
    monkeypatch.setattr(
        DecodePolicy,
        "rows_to_keep",
        lambda policy, alive, rows: min(rows, 1 << (alive - 1).bit_length()),
    )


@pytest.fixture(params=["small", "any", "small, oneDNN", "any, oneDNN"])
def decoder_kind(request, monkeypatch):
    """Which static-cache decoder samples a model that both support: the one for small models, or the
    one for any model; and whose products they take.
    """
    if request.param.startswith("any"):
        monkeypatch.setattr(lab.engine.generate, "supports", lambda decoder: False)
    if request.param.endswith("oneDNN"):
        monkeypatch.setattr("lab.engine.cpu_products.MIN_MATRIX_ELEMENTS", 1)
    return request.param


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("shape", [*SHAPES, "llama, with biases everywhere"])
def test_the_fast_path_draws_the_tokens_of_the_reference_implementation(
    shape, temperature, decoder_kind, monkeypatch
):
    model = policy(SHAPES.get(shape) or LlamaConfig(**SMALL, attention_bias=True, mlp_bias=True))
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight.data, std=0.3)
    assert decoder_of(model) is not None
    ours, theirs = (
        draw(model, temperature=temperature),
        draw_reference(monkeypatch, model, temperature=temperature),
    )
    assert (
        tokens(ours) == tokens(theirs)
        and ours.texts == theirs.texts
        and torch.equal(ours.ids, theirs.ids)
    )
    assert torch.equal(ours.truncated, theirs.truncated) and len(set(map(tuple, tokens(ours)))) >= (
        2 if temperature == 0 else 12
    )


@pytest.mark.parametrize("shape", [*SHAPES, "llama, with biases everywhere"])
def test_with_gradient_checkpointing_no_matrix_is_copied_and_the_tokens_are_the_same(
    shape, monkeypatch
):
    model = policy(SHAPES.get(shape) or LlamaConfig(**SMALL, attention_bias=True, mlp_bias=True))
    enable_activation_checkpointing(model)
    kept = ByKind()
    assert tokens(draw(model, allocator=kept)) == tokens(draw_reference(monkeypatch, model))
    with adapter_disabled(model):
        reference = draw(model)
        assert tokens(reference) == tokens(draw_reference(monkeypatch, model))
    assert tokens(reference) != tokens(draw(model))
    # Layers that read one input have one A and one B together, B with a block for each of them. Rank 4.
    sizes = [(4 * len(p.layers), sum(p.weight.shape)) for p in decoder_of(model).projections()]
    assert kept.numbers["weights"] == sum(rank * width for rank, width in sizes)


class ByKind(Allocator):
    """Counts the numbers that sampling allocates of each kind."""

    def __init__(self):
        self.numbers = Counter()

    def allocate(self, kind, *shape, like):
        allocated = super().allocate(kind, *shape, like=like)
        self.numbers[kind] += allocated.numel()
        return allocated


def test_steps_in_the_shapes_of_a_gpu_draw_the_same(in_shapes, decoder_kind, monkeypatch):
    model = policy(SHAPES["llama"])
    ours = draw(model, group_size=8, max_tokens=130, end="4")
    theirs = draw_reference(monkeypatch, model, group_size=8, max_tokens=130, end="4")
    assert tokens(ours) == tokens(theirs) and ours.lengths.min() < 10 and ours.lengths.max() > 80


def test_shapes_are_few_and_at_most_a_quarter_too_long():
    policy_of_gpu = DECODE_POLICIES["cuda"]
    assert [policy_of_gpu.attended_columns(n) for n in (1, 128, 129, 1000, 1025, 5000)] == [
        128,
        128,
        256,
        1024,
        1280,
        5120,
    ]
    assert (
        [policy_of_gpu.rows_to_keep(alive, 64) for alive in (64, 33, 32, 17, 3)]
        == [64, 64, 32, 32, 16]
        and policy_of_gpu.rows_to_keep(90, 100) == 100
        and policy_of_gpu.rows_to_keep(60, 100) == 64
    )
    assert [DECODE_POLICIES["cpu"].rows_to_keep(alive, 100) for alive in (80, 75, 1)] == [
        100,
        75,
        1,
    ] and DECODE_POLICIES["cpu"].attended_columns(37) == 37


@pytest.mark.parametrize("lengths", ["alike", "different"])
def test_rows_that_go_on_take_the_places_of_those_that_have_ended(
    lengths, decoder_kind, monkeypatch
):
    model, prompts = (
        policy(SHAPES["llama"]),
        PROMPTS[:3] if lengths == "different" else ["7+5=", "9*3=", "1-2="],
    )
    options = {"prompts": prompts, "group_size": 8, "max_tokens": 60, "end": "4"}
    ours, theirs = draw(model, **options), draw_reference(monkeypatch, model, **options)
    assert tokens(ours) == tokens(theirs) and len(set(ours.lengths.tolist())) > 8


@pytest.mark.parametrize("length", [1, 2])
def test_one_token_and_an_end_at_once(length, monkeypatch):
    model = policy(SHAPES["llama"])
    first = draw(model, PROMPTS[:1], 1, temperature=0.0, max_tokens=1)
    assert first.lengths.tolist() == [1] and first.truncated.tolist() == [True]
    end = build_tokenizer(40).convert_ids_to_tokens(tokens(first)[0][0])
    at_end = draw(model, PROMPTS[:1], 2, temperature=0.0, max_tokens=length, end=end)
    assert (
        tokens(at_end) == tokens(first) * 2
        and at_end.truncated.tolist() == [False, False]
        and at_end.texts == ["", ""]
    )


def test_pairs_of_tokens_are_distributed_as_the_model_says():
    model, prompt, count = policy(LlamaConfig(**SMALL | {"vocab_size": 22})), "7+5=", 20_000
    tokenizer = build_tokenizer(22)
    completions = sample(
        model,
        tokenizer,
        tokenizer([prompt, "1"])["input_ids"],
        count,
        max_tokens=2,
        temperature=1.5,
        seed=0,
        step=0,
        device=CPU,
    )
    counts = torch.zeros(22, 22, dtype=torch.double)
    for pair in tokens(completions)[:count]:
        counts[pair[0], pair[-1]] += 1  # a first end token stands for the pair
    start = torch.tensor(tokenizer(prompt)["input_ids"])
    first = torch.softmax(model(input_ids=start[None]).logits[0, -1].double() / 1.5, -1)
    after = torch.stack([start.new_tensor([*start, token]) for token in range(22)])
    second = torch.softmax(model(input_ids=after).logits[:, -1].double() / 1.5, -1)
    second[tokenizer.eos_token_id] = torch.eye(22, dtype=torch.double)[tokenizer.eos_token_id]
    expected, counts = (count * first[:, None] * second).flatten(), counts.flatten()
    rare = expected < 5
    assert (~rare).sum() > 100
    expected_pooled = torch.cat([expected[~rare], expected[rare].sum()[None]])
    counts_pooled = torch.cat([counts[~rare], counts[rare].sum()[None]])
    chi_square, freedom = (
        ((counts_pooled - expected_pooled) ** 2 / expected_pooled.clamp(min=1e-9)).sum().item(),
        len(expected_pooled) - 1,
    )
    assert (
        chi_square < freedom + 4 * (2 * freedom) ** 0.5
    )  # Four standard deviations of the chi-square distribution.


def test_a_rows_draws_do_not_depend_on_its_neighbours():
    model = policy(SHAPES["llama"])
    one, other = (
        draw(model, [PROMPTS[0], neighbour, PROMPTS[2]], 4, end="4")
        for neighbour in (PROMPTS[1], PROMPTS[3])
    )
    assert (
        tokens(one)[:4] + tokens(one)[8:] == tokens(other)[:4] + tokens(other)[8:]
        and tokens(one)[4:8] != tokens(other)[4:8]
    )
    assert len(set(one.lengths.tolist())) > 4, "rows leave at different times"


def test_policy_and_reference_draw_the_same_until_their_distributions_part():
    model = policy(SHAPES["llama"])
    ours = draw(model)
    with adapter_disabled(model):
        theirs = draw(model)
    assert tokens(ours) != tokens(theirs)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.zero_()
    assert tokens(draw(model)) == tokens(theirs)


def test_the_reference_is_the_base_and_another_adapter_is_sampled_when_it_acts(monkeypatch):
    model = policy(SHAPES["llama"])
    model.add_adapter("other", model.peft_config["default"])
    model.set_adapter("other")
    for name, weight in model.named_parameters():
        if "lora_B.other" in name:
            torch.nn.init.normal_(weight.data, std=0.3)
    assert tokens(draw(model)) == tokens(draw_reference(monkeypatch, model))
    with adapter_disabled(model):
        off = draw(model)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.zero_()
    assert tokens(off) == tokens(draw_reference(monkeypatch, model))


def test_sampling_leaves_every_weight_as_it_was():
    model = policy(SHAPES["qwen2, with biases"])
    before = {
        name: (w.clone(), w.data_ptr(), w.requires_grad)
        for name, w in (*model.named_parameters(), *model.named_buffers())
    }
    draw(model)
    for name, weight in (*model.named_parameters(), *model.named_buffers()):
        value, place, trains = before[name]
        assert (
            torch.equal(weight, value)
            and weight.data_ptr() == place
            and weight.requires_grad == trains
            and weight.grad is None
        ), name


def test_another_architecture_is_sampled_by_its_own_forward_pass_with_prompts_of_very_different_lengths():
    model = policy(
        GPTNeoXConfig(
            vocab_size=40,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
        )
    )
    assert decoder_of(model) is None
    together = draw(model, temperature=0.0, group_size=1)
    for prompt, texts in zip(PROMPTS, together.texts):
        assert draw(model, [prompt], 1, temperature=0.0).texts == [texts]


def test_the_decoder_for_small_models_takes_only_models_that_it_supports():
    small = {
        name: isinstance(
            lab.engine.generate.static_decoder_for(decoder, torch.zeros(40, 32), 1, 4),
            CpuStaticCacheDecoder,
        )
        for name, decoder in ((name, decoder_of(policy(shape))) for name, shape in SHAPES.items())
    }
    assert small == {name: not name.startswith("qwen") for name in SHAPES}


@pytest.mark.parametrize("fast", [True, False])
def test_no_softmax_is_ever_without_a_number(fast, monkeypatch):
    """Padding before a prompt sees no token; a kernel that answers with NaN there would spoil the
    row by 0 · NaN in the next layer.
    """
    monkeypatch.setattr(lab.engine.generate, "supports", lambda decoder: False)
    all_finite, original = [], torch.nn.functional.scaled_dot_product_attention

    def checked_attention(*arguments, **options):
        attended = original(*arguments, **options)
        all_finite.append(bool(attended.isfinite().all()))
        return attended

    for module in (
        "lab.engine.varlen_attention.scaled_dot_product_attention",
        "torch.nn.functional.scaled_dot_product_attention",
    ):
        monkeypatch.setattr(module, checked_attention)
    step_outputs, attention = [], single_token_attention
    monkeypatch.setattr(
        lab.engine.decode,
        "single_token_attention",
        lambda *tensors: step_outputs.append(attention(*tensors)) or step_outputs[-1],
    )
    model = policy(SHAPES["llama"])
    prompts = ["9", "8+8-1*2+6-3=" * 16]
    assert (
        draw(model, prompts) if fast else draw_reference(monkeypatch, model, prompts)
    ).lengths.min() > 0
    assert (
        len(all_finite) >= 2
        and all(all_finite)
        and len(step_outputs) == (58 if fast else 0)
        and all(attended.isfinite().all() for attended in step_outputs)
    )


def test_a_prompt_without_tokens_is_refused():
    with pytest.raises(LabError, match="Prompt 1 has no tokens"):
        draw(policy(SHAPES["llama"]), ["1+1=", ""])


def test_positions_that_depend_on_the_texts_length_take_the_plain_path(monkeypatch):
    model, short = (
        policy(
            LlamaConfig(
                **SMALL,
                max_position_embeddings=length,
                rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
            )
        )
        for length in (128, 16)
    )
    assert not has_static_rope(decoder_of(model)) and tokens(draw(model)) == tokens(
        draw_reference(monkeypatch, model)
    )
    with pytest.raises(LabError, match="A prompt has 48 tokens, but the model takes 16 in all"):
        draw(short)


def test_attention_of_one_token_is_the_fused_kernels():
    noise = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(shape, generator=noise) for shape in ((3, 2, 4, 8), (3, 2, 5, 8), (3, 2, 5, 8))
    )
    bias = torch.zeros(3, 1, 1, 5)
    bias[1, ..., :3] = float("-inf")
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias).flatten(1)
    torch.testing.assert_close(
        single_token_attention(q, k, v, bias), expected, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_graphs_on_a_gpu_draw_what_the_plain_path_draws(checkpointing, monkeypatch):
    from contextlib import nullcontext

    monkeypatch.setattr(
        lab.engine.sampler, "autocast", lambda device: nullcontext()
    )  # float32, so that the tokens are exactly the same
    device, model = torch.device("cuda"), policy(SHAPES["llama"]).cuda()
    fuse_projection_weights(model)
    if checkpointing:
        enable_activation_checkpointing(model)
    for step in range(3):
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight.data, std=0.3)
        options = {
            "group_size": 16,
            "max_tokens": 200,
            "end": "4",
            "device": device,
            "step": step,
            "temperature": 0.7 * (step > 0),
        }
        assert tokens(draw(model, **options)) == tokens(
            draw_reference(monkeypatch, model, **options)
        )
    static_decoder = lab.engine.generate._STATIC_DECODERS[decoder_of(model)]
    assert any(static_decoder.cuda_graphs.values())
