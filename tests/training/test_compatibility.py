"""Sequences that are longer than a model's positions, and angles that depend on the batch, are
refused before training, with both numbers.
"""

import json

import pytest
import torch
from support.tiny import save
from support.tiny import tokenizer as bytes_of
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MptConfig,
    OPTConfig,
    set_seed,
)

from lab.config.methods import METHODS, make_config
from lab.errors import LabError
from lab.models.context_length import context_length, max_new_tokens
from lab.runs.folder import create
from lab.training.driver import drive

SMALL = {
    "vocab_size": 264,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "original_max_position_embeddings": 32,
    "factor": 4.0,
    "short_factor": [1.0] * 4,
    "long_factor": [3.0] * 4,
}


def llama(length, **rope):
    return LlamaConfig(
        **SMALL,
        max_position_embeddings=length,
        rope_parameters={"rope_theta": 1e4, "rope_type": "default"} | rope,
    )


@pytest.mark.parametrize(
    "config, length",
    [
        (llama(64), 64),
        (GPT2Config(n_positions=48), 48),
        (OPTConfig(max_position_embeddings=64), 64),
        (MptConfig(max_seq_len=40), 40),
        (BloomConfig(), None),
        (MambaConfig(), None),
        (llama(64, rope_type="linear", factor=4.0), 256),
        (llama(64, rope_type="dynamic", factor=4.0), 64),
        (llama(64, rope_type="yarn", factor=4.0, original_max_position_embeddings=64), 256),
        (llama(256, rope_type="yarn", factor=4.0, original_max_position_embeddings=64), 256),
        (llama(128, **LONG), 32),
    ],
)
def test_the_longest_sequence_of_a_config(config, length):
    assert context_length(config)[0] == length


def test_a_completion_has_the_room_that_the_prompt_leaves():
    assert (
        max_new_tokens(llama(64), 60, 10) == 4
        and max_new_tokens(llama(64), 20, 10) == 10
        and max_new_tokens(BloomConfig(), 10**6, 10) == 10
    )
    with pytest.raises(LabError, match="A prompt has 64 tokens, but the model takes 64 in all"):
        max_new_tokens(llama(64), 64, 1)


@pytest.fixture
def files(tmp_path):
    pairs = [
        {"prompt": f"ask {'x' * n}", "chosen": "good" * 30, "rejected": "bad"} for n in (1, 2, 3)
    ]
    prompts = [{"prompt": f"ask {'y' * n}", "answer": str(n)} for n in range(12)]
    for name, rows in (("pairs", pairs), ("prompts", prompts)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


@pytest.fixture
def learned(tmp_path):
    """A model with 64 learned positions, which crashes at the 65th."""
    set_seed(0)
    config = OPTConfig(
        vocab_size=264,
        hidden_size=16,
        ffn_dim=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        word_embed_proj_dim=16,
        max_position_embeddings=64,
        bos_token_id=257,
        eos_token_id=258,
        pad_token_id=256,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    bytes_of().save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def run(method, model, files, **knobs):
    """The notes of a run of one update."""
    common = {
        "model": model,
        "task": str(files / "prompts.jsonl"),
        "steps": 1,
        "eval_every": 0,
        "eval_prompts": 2,
        "device": "cpu",
    }
    if METHODS[method].online:
        own = (
            {"batch_size": 4, "minibatches": 1}
            if method == "ppo"
            else {"batch_size": 4, "group_size": 2}
        )
    else:
        own = {"batch_size": 2, "pairs": 0, "data": str(files / "pairs.jsonl")}
    config = make_config(method, common | own | knobs)
    said = []
    drive(create(files / "run", config), report=lambda record, run: said.append(record))
    return [record.detail["message"] for record in said if getattr(record, "kind", "") == "noted"]


@pytest.mark.parametrize("method", ["sft", "dpo", "kto", "reward_model"])
def test_a_max_length_beyond_the_positions_is_refused_before_training_with_both_numbers(
    method, learned, files
):
    with pytest.raises(
        LabError,
        match=(
            r"max_length is 100, but the model takes 64 tokens \(max_position_embeddings\). Set"
            r" --max-length 64 or less"
        ),
    ):
        run(method, learned, files, max_length=100)


@pytest.mark.parametrize("method", ["grpo", "ppo", "online_dpo"])
def test_prompts_and_completions_beyond_the_positions_are_refused_before_training_with_both_numbers(
    method, learned, files
):
    with pytest.raises(
        LabError,
        match=(
            r"A prompt of 15 tokens and max_completion_tokens 50 make 65, but the model takes 64"
            r" .*Set --max-completion-tokens 49"
        ),
    ):
        run(method, learned, files, max_completion_tokens=50)
    assert [
        row["kind"]
        for row in map(json.loads, (files / "run" / "metrics.jsonl").read_text().splitlines())
    ] == ["failed"]


def test_held_out_completions_of_an_offline_method_end_at_the_last_position_and_the_start_says_so(
    learned, files
):
    said = run("dpo", learned, files, max_length=64, max_completion_tokens=64)
    assert (
        len(said) == 1
        and "instead of max_completion_tokens 64: the model takes 64 in all" in said[0]
    )


@pytest.mark.parametrize(
    "rope, length", [({"rope_type": "dynamic", "factor": 4.0}, 64), (LONG, 32)]
)
def test_angles_that_depend_on_the_batch_are_refused_where_they_would_and_not_before(
    rope, length, files
):
    model = save(
        files / "model",
        max_position_embeddings=64 if rope is not LONG else 128,
        initializer_range=0.3,
        rope_parameters={"rope_theta": 1e4} | rope,
    )
    with pytest.raises(
        LabError,
        match=(
            f"max_length is {length + 1}, but the model takes {length} tokens .*angles depend on"
            " the longest row of a batch"
        ),
    ):
        run("dpo", model, files, max_length=length + 1)
    policy = AutoModelForCausalLM.from_pretrained(model).eval()
    ids = torch.arange(40, 40 + 2 * (length + 20)).view(2, -1) % 250
    with torch.no_grad():
        alone, inside, beyond = (
            policy(input_ids=part).logits[0, :8] for part in (ids[:1, :8], ids[:, :length], ids)
        )
    torch.testing.assert_close(inside, alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(beyond, alone, rtol=1e-4, atol=1e-5)
