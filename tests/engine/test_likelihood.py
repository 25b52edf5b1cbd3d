"""The fast path against the plain one: other architectures, padding, adapters, gradients; and the
chunked vocabulary against whole logits.
"""

import contextlib
import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, MistralConfig, PhiConfig, Qwen2Config, Qwen3Config
from transformers.models.auto import AutoModelForCausalLM

import lab.engine.chunked_logprobs
from lab.algorithms.kl import exact_kl
from lab.algorithms.logprobs import token_entropy, token_logps
from lab.data.batching import TokenBatch
from lab.data.packing import LengthBucket, pack, pack_shared_prefix
from lab.engine.chunked_logprobs import chunked_token_statistics
from lab.engine.cpu_attention import head_slots
from lab.engine.cuda_graphs import (
    _all_hidden_states,
    bucket_size,
    eager,
    forward_eager,
    pad_to_bucket,
)
from lab.engine.fused_ops import (
    apply_rotary,
    decode_attention,
    gumbel_argmax_sample,
    rms_norm,
    rms_norm_backward,
    swiglu,
    swiglu_backward,
)
from lab.engine.llama import decoder_of
from lab.engine.llama_cpu import supports
from lab.engine.token_logprobs import (
    padded_hidden_states,
    reference_implementation,
    score,
    token_statistics,
)
from lab.models.activation_checkpointing import enable_activation_checkpointing
from lab.models.adapters import adapter_disabled
from lab.models.fused_weights import fuse_projection_weights

SMALL = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "eos_token_id": None,
}  # Otherwise 2 would end a completion, beside the tokenizer's own.
SHAPES = {
    "llama": LlamaConfig(**SMALL, tie_word_embeddings=True),
    "llama, other head width": LlamaConfig(**SMALL, head_dim=12),
    "llama 3's positions": LlamaConfig(
        **SMALL,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 5e5,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    ),
    "mistral": MistralConfig(**SMALL, sliding_window=None),
    "qwen2, with biases": Qwen2Config(**SMALL),
    "qwen3, with norms of queries and keys": Qwen3Config(**SMALL, head_dim=16),
}
EXACT = {"rtol": 1e-4, "atol": 1e-5}  # float32 sums in another order


def policy(config, seed=0):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model = get_peft_model(
        model, LoraConfig(r=4, lora_alpha=6, target_modules="all-linear", task_type="CAUSAL_LM")
    ).eval()
    for name, weight in model.named_parameters():
        if "lora_B" in name or name.endswith("proj.bias") or "norm" in name:
            weight.data.normal_(std=0.3).add_(1.0 if "norm" in name else 0.0)
    fuse_projection_weights(model)
    return model


def batch(width=17, rows=5, seed=0):
    """Rows of different lengths, prompts of different lengths, junk behind their ends."""
    noise = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 40, (rows, width), generator=noise)
    ends = torch.randint(6, width + 1, (rows, 1), generator=noise)
    starts = torch.randint(1, 5, (rows, 1), generator=noise)
    place = torch.arange(width)
    return TokenBatch(ids, (place >= starts) & (place < ends))


PATHS = ("by hand", "by hand, long rows", "decoder", "decoder, recompute")


def take(path, model, monkeypatch):
    """From now on `model` takes that way to its likelihoods, if it is written for it."""
    decoder_of(model).recompute_activations = path == "decoder, recompute"
    if path.startswith("decoder"):
        monkeypatch.setattr("lab.engine.cuda_graphs.supports", lambda decoder: False)
    if path.endswith("long rows"):
        monkeypatch.setattr("lab.engine.cpu_attention.MAX_SCORED_LENGTH", 7)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_fast_path_gives_what_the_models_own_forward_pass_gives(shape, path, monkeypatch):
    model, tokens = policy(SHAPES[shape]), batch()
    take(path, model, monkeypatch)
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


def test_a_sliding_window_and_weights_that_train_take_the_plain_path():
    whole = policy(SHAPES["llama"])
    whole.requires_grad_(True)
    assert decoder_of(whole) is None
    assert decoder_of(policy(MistralConfig(**SMALL, sliding_window=4))) is None


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


def test_the_weights_are_stored_once_and_the_models_own_pass_stays_the_same():
    model, ids = policy(SHAPES["llama"]), batch().ids
    before, size = (
        model(input_ids=ids).logits,
        {w.untyped_storage()._cdata: w.untyped_storage().nbytes() for w in model.parameters()},
    )
    assert decoder_of(model) is not None
    after = {w.untyped_storage()._cdata: w.untyped_storage().nbytes() for w in model.parameters()}
    assert sum(after.values()) == sum(size.values())
    assert torch.equal(model(input_ids=ids).logits, before)


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


def test_packing_by_hand():
    packed = pack(
        torch.tensor([[8, 9, 0, 0], [5, 6, 7, 0]]), torch.tensor([[0, 1, 0, 0], [0, 0, 1, 0]])
    )
    assert (
        packed.ids.tolist() == [5, 6, 7, 8, 9]
        and packed.positions.tolist() == [0, 1, 2, 0, 1]
        and packed.cu_seqlens.tolist() == [0, 3, 5]
    )
    assert (
        packed.flat_positions.tolist() == [4, 5, 6, 0, 1]
        and packed.predictor_indices.tolist() == [1, 3]
        and packed.target_ids.tolist() == [7, 9]
    )
    assert packed.pad_packed(torch.tensor([1.0, 2.0])).tolist() == [[0, 2, 0, 0], [0, 0, 1, 0]]
    assert packed.length_buckets == [
        LengthBucket(1, slice(0, 3), 3),
        LengthBucket(1, slice(3, 5), 2),
    ]


def test_packing_what_is_scored_by_hand():
    packed = pack_shared_prefix(
        torch.tensor([[5, 6, 7, 0], [5, 6, 8, 9], [5, 1, 0, 0]]),
        torch.tensor([[0, 0, 1, 0], [0, 0, 1, 1], [0, 1, 0, 0]]),
    )
    assert (
        packed.ids.tolist() == [5, 6, 8]
        and packed.positions.tolist() == [0, 1, 2]
        and packed.cu_seqlens.tolist() == [0, 3, 3, 3]
    )
    assert (
        packed.target_ids.tolist() == [8, 9, 7, 1]
        and packed.predictor_indices.tolist() == [1, 2, 1, 0]
        and packed.target_flat_positions.tolist() == [6, 7, 2, 9]
    )
    assert packed.flat_positions.tolist() == [4, 5, 6] and packed.length_buckets == [
        LengthBucket(1, slice(0, 3), 3)
    ]
    assert packed.padded.token_of_cell.tolist() == [
        0,
        1,
        2,
    ] and packed.padded.cell_of_token.tolist() == [0, 1, 2]
    assert [part.tolist() for part in packed.padded.shared_tokens] == [[], []]


def test_rows_that_part_attend_to_their_shared_beginning_by_hand():
    packed = pack_shared_prefix(
        torch.tensor([[5, 6, 7, 0], [5, 6, 8, 9], [5, 6, 8, 9]]),
        torch.tensor([[0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 1, 1]]),
    )
    assert packed.ids.tolist() == [5, 6, 8]
    packed = pack_shared_prefix(
        torch.tensor([[5, 6, 7, 2], [5, 6, 8, 9]]), torch.tensor([[0, 1, 1, 1], [0, 0, 1, 1]])
    )
    assert (
        packed.ids.tolist() == [5, 6, 8, 7]
        and packed.positions.tolist() == [0, 1, 2, 2]
        and packed.cu_seqlens.tolist() == [0, 3, 4]
    )
    assert (
        packed.target_ids.tolist() == [8, 9, 6, 7, 2]
        and packed.predictor_indices.tolist() == [1, 2, 0, 1, 3]
        and packed.target_flat_positions.tolist() == [6, 7, 1, 2, 3]
    )
    assert packed.length_buckets == [
        LengthBucket(2, slice(0, 6), 3)
    ] and packed.padded.token_of_cell.tolist() == [0, 1, 2, 0, 1, 3]
    assert packed.padded.cell_of_token.tolist() == [0, 1, 2, 5] and [
        part.tolist() for part in packed.padded.shared_tokens
    ] == [[0, 1], [3, 4]]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", ["llama", "qwen3, with norms of queries and keys"])
def test_a_shared_beginning_counted_once_gives_what_every_row_on_its_own_gives(
    shape, path, monkeypatch
):
    model, tokens = policy(SHAPES[shape]), batch(rows=9)
    take(path, model, monkeypatch)
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


def test_a_pass_by_hand_is_for_small_models_whose_every_step_it_has(monkeypatch):
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


def test_places_of_heads_by_hand():
    slots, mixed = head_slots(
        [LengthBucket(2, slice(0, 4), 2), LengthBucket(1, slice(4, 5), 1)], 2, 1
    )
    assert slots.tolist() == [
        [0, 2, 8, 12],
        [1, 3, 9, 13],
        [4, 6, 10, 14],
        [5, 7, 11, 15],
        [16, 17, 18, 19],
    ]
    assert mixed.tolist() == [[0, 2], [1, 3], [4, 6], [5, 7], [8, 9]]


def test_a_quarter_turn_takes_the_first_half_to_the_second():
    assert apply_rotary(
        torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[0.0]]]), torch.tensor([[[1.0]]])
    ).tolist() == [[[-2.0, 1.0]]]


def test_the_vocabulary_in_stretches_gives_what_whole_logits_give(monkeypatch):
    noise = torch.Generator().manual_seed(0)
    hidden, other, head = (
        torch.randn(*shape, generator=noise, dtype=torch.float64)
        for shape in ((7, 5), (7, 5), (11, 5))
    )
    hidden.requires_grad_(True)
    targets = torch.randint(0, 11, (7,), generator=noise)
    ids = torch.cat([torch.zeros(1, dtype=torch.long), targets])[None]
    monkeypatch.setattr(
        lab.engine.chunked_logprobs, "MAX_CHUNK_LOGITS", 33
    )  # three tokens at a time

    def logits(states):
        return torch.cat([states @ head.T, torch.zeros(1, 11, dtype=torch.float64)])[None] / 0.7

    ours = chunked_token_statistics(hidden, head, targets, 0.7, reference=other, entropy=True)
    expected = token_logps(logits(hidden), ids)[0, 1:]
    for mine, theirs in (
        (ours.logps, expected),
        (ours.entropy, token_entropy(logits(hidden))[0, 1:]),
        (ours.reference_logps, token_logps(logits(other), ids)[0, 1:]),
        (ours.kl, exact_kl(logits(hidden), logits(other))[0, 1:]),
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)
    weight = torch.linspace(-1, 2, 7, dtype=torch.float64)
    (mine,), (theirs,) = (
        torch.autograd.grad((logps * weight).sum(), hidden) for logps in (ours.logps, expected)
    )
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_sizes_are_rounded_up_by_at_most_an_eighth():
    assert (
        bucket_size(4400, 64) == 4608 and bucket_size(64, 64) == 64 and bucket_size(65, 64) == 128
    )
    assert all(n <= bucket_size(n, 1) <= n * 9 / 8 + 1 for n in range(1, 5000))


class Mixed(torch.autograd.Function):
    """In the place of attention: keeps what the packed kernel keeps."""

    @staticmethod
    def forward(ctx, q, k, v):
        out = q * 2
        ctx.save_for_backward(q, k, v, out)
        return out


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("shape", ["llama", "llama, other head width"])
def test_what_a_pass_keeps_for_its_way_back_is_known_beforehand(shape, recompute):
    model = policy(SHAPES[shape])
    decoder, count, kept = decoder_of(model), 400, {}
    decoder.recompute_activations = recompute
    weights = {w.untyped_storage()._cdata for w in model.parameters()}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in weights and len(tensor) == count:
            kept[storage._cdata] = storage  # Held, so that no other takes its place.
        return tensor

    decoder.load_adapter("default")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        decoder.forward(
            torch.zeros(count, dtype=torch.long),
            torch.arange(count),
            lambda q, k, v: Mixed.apply(q, k, v),
        )
    assert sum(storage.nbytes() for storage in kept.values()) / count == pytest.approx(
        decoder.saved_activation_bytes_per_token(), rel=0.1
    )


@pytest.mark.parametrize("idle", [0, 7])
def test_idle_tokens_at_the_end_of_the_line_change_nothing(idle):
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
def test_a_pass_is_recorded_only_where_attention_reads_rows_without_padding(
    monkeypatch, dtype, head_dim, unpadded
):
    model, recorded = (
        policy(LlamaConfig(**SMALL | {"hidden_size": 64, "head_dim": head_dim})).to(dtype),
        [],
    )
    fuse_projection_weights(model)
    monkeypatch.setattr("lab.engine.cuda_graphs.uses_cuda_graphs", lambda device: True)
    monkeypatch.setattr(
        "lab.engine.cuda_graphs.GraphCache.hidden_states",
        lambda self, decoder, adapter, packed: recorded.append(packed),
    )
    _all_hidden_states(decoder_of(model), "default", batch().packed)
    assert bool(recorded) == unpadded


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("head_dim", [16, 28])
def test_a_replayed_pass_gives_what_the_pass_gives_also_after_the_weights_moved(head_dim):
    model = policy(LlamaConfig(**SMALL | {"hidden_size": 64, "head_dim": head_dim})).to(
        "cuda", torch.bfloat16
    )
    fuse_projection_weights(model)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data = weight.data.float()
    weights = [w for w in model.parameters() if w.requires_grad]
    for seed in range(5):
        tokens = batch(rows=5 + seed % 2, seed=seed).to(
            "cuda"
        )  # Five rows and six are one recorded shape.
        found = []
        for context in (contextlib.nullcontext, eager):
            with context():
                out = token_statistics(model, tokens, reference=model, entropy=True)
                found.append((out.logps, out.kl, *torch.autograd.grad(out.logps.sum(), weights)))
        for ours, theirs in zip(
            *found
            # The same kernels in the same order, but for the idle tokens, which change how sums are
            # cut.
        ):
            torch.testing.assert_close(
                ours, theirs, rtol=2e-2, atol=2e-2 * theirs.abs().max().item()
            )
        with torch.no_grad():
            for w in weights:
                w.add_(0.01 * torch.randn_like(w))


def test_the_gate_and_its_slope_by_hand():
    both, s = torch.tensor([[1.0, 3.0]], dtype=torch.float64), 1 / (1 + math.exp(-1))
    assert swiglu(both).item() == pytest.approx(3 * s) and swiglu_backward(
        both, torch.tensor([[2.0]]).double()
    ).tolist() == [pytest.approx([2 * 3 * s * (1 + 1 - s), 2 * s])]


def test_the_slope_of_a_norm_is_autograds():
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
def test_the_gpus_kernels_give_what_torch_gives_on_the_cpu():
    noise = torch.Generator().manual_seed(0)
    both, grad, x, angle = (
        torch.randn(*shape, generator=noise)
        for shape in ((9, 2 * 1537), (9, 1537), (9, 7, 24), (9, 1, 12))
    )
    rotating, cos, sin = (
        x[:, 1:6],
        angle.cos(),
        angle.sin(),
    )  # queries and keys are a view of a wider tensor
    line, weight = grad[:, :600].contiguous(), both[0, :600]
    there = [t.cuda() for t in (both, grad, x, cos, sin)]
    for ours, theirs in (
        (
            rms_norm_backward(line.cuda(), weight.cuda(), 1e-5, line.cos().cuda()),
            rms_norm_backward(line, weight, 1e-5, line.cos()),
        ),
        (
            rms_norm(x.cuda()[:, 1:6], weight[:24].cuda(), 1e-5),
            rms_norm(rotating, weight[:24], 1e-5),
        ),
        (swiglu(there[0]), swiglu(both)),
        (swiglu_backward(there[0], there[1]), swiglu_backward(both, grad)),
        (
            apply_rotary(there[2][:, 1:6], there[3], there[4], sign=-1),
            apply_rotary(rotating, cos, sin, sign=-1),
        ),
    ):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernels need a GPU")
@pytest.mark.parametrize(
    "rows, queries, keys, width, now",
    [(3, 6, 2, 24, 150), (2, 4, 4, 64, 1), (4, 8, 1, 16, 129), (5, 32, 8, 64, 128)],
)
def test_the_gpus_attention_of_one_token_turns_writes_and_looks_at_what_is_filled(
    rows, queries, keys, width, now
):
    noise = torch.Generator().manual_seed(0)
    mixed, cos, sin, cache = (
        torch.randn(*shape, generator=noise)
        for shape in (
            (rows, queries + 2 * keys, width),
            (rows, width // 2),
            (rows, width // 2),
            (2, rows + 2, keys, 200, width),
        )
    )
    start = torch.arange(rows + 2) * now // (rows + 1)
    there = cache.cuda()
    ours = decode_attention(
        mixed.cuda(), cos.cuda(), sin.cuda(), there, start.cuda(), torch.tensor([now]).cuda()
    )
    q, k = apply_rotary(mixed[:, :-keys], cos[:, None], sin[:, None]).split([queries, keys], 1)
    cache[0, :rows, :, now], cache[1, :rows, :, now] = k, mixed[:, -keys:]
    for row, first in enumerate(start[:rows].tolist()):
        k, v = (
            part[row, :, first : now + 1].repeat_interleave(queries // keys, 0) for part in cache
        )
        weight = torch.softmax((k @ q[row, :, :, None]).squeeze(2) / math.sqrt(width), 1)
        torch.testing.assert_close(
            ours[row].cpu(), (weight[:, None] @ v).flatten(), rtol=1e-4, atol=1e-5
        )
    torch.testing.assert_close(there.cpu(), cache, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernels need a GPU")
@pytest.mark.parametrize("vocabulary", [40, 1024, 5000])
def test_the_gpus_fused_vocabulary_gives_what_torch_gives_on_the_cpu(vocabulary, monkeypatch):
    monkeypatch.setattr(lab.engine.chunked_logprobs, "MAX_CHUNK_LOGITS_FUSED", 3 * vocabulary)
    noise, found = torch.Generator().manual_seed(0), []
    hidden, head = (torch.randn(*shape, generator=noise) for shape in ((7, 16), (vocabulary, 16)))
    targets = torch.randint(0, vocabulary, (7,), generator=noise)
    for device in ("cpu", "cuda"):
        leaf = hidden.to(device).requires_grad_()
        out = chunked_token_statistics(leaf, head.to(device), targets.to(device), 0.7, entropy=True)
        found.append(
            (
                out.logps,
                out.entropy,
                *torch.autograd.grad(
                    (out.logps * torch.linspace(-1, 2, 7, device=device)).sum(), leaf
                ),
            )
        )
    for theirs, ours in zip(*found):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernels need a GPU")
@pytest.mark.parametrize("vocabulary, temperature", [(40, 1.0), (9000, 0.7), (4096, 0.0)])
def test_the_gpus_choice_of_a_token_is_that_of_its_own_rows_noise(vocabulary, temperature):
    noise = torch.Generator().manual_seed(0)
    logits, drawn = (
        torch.randn(3, vocabulary, generator=noise),
        torch.empty(5, vocabulary).exponential_(generator=noise),
    )
    owners = torch.tensor([4, 0, 2])
    expected = [
        (row - temperature * drawn[owner].log()).argmax().item()
        for row, owner in zip(logits, owners.tolist())
    ]
    assert (
        gumbel_argmax_sample(
            logits.cuda(), drawn.cuda(), owners.cuda(), torch.tensor([temperature]).cuda()
        )
        .flatten()
        .tolist()
        == expected
    )
