"""The measured cost of an update against bytes, tokens and operations worked out by hand."""

import json
from pathlib import Path

import pytest
import torch

from lab.cli.main import main
from lab.config.methods import make_config
from lab.data.packing import pack
from lab.experiments import costs
from lab.profiling.profiler import profile_update
from lab.runs.folder import create
from lab.training.loop import prepare
from lab.training.trained_model import save_adapter

PAIRS = Path(__file__).parents[2] / "lab/assets/preference_pairs/pairs.jsonl"
BASE = (
    20 * 112 + 2 * (4 * 112**2 + 3 * 112 * 336 + 2 * 112) + 112
)  # Embedding, shared with the output; two layers: attention, feed-forward, norms; norm.
LORA = (
    2 * 8 * (4 * (112 + 112) + 3 * (112 + 336))
)  # Rank 8 on the seven linear layers of two blocks.


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    config = make_config("reward_model", {"device": "cpu"})
    folder = create(tmp_path_factory.mktemp("runs") / "judge", config)
    save_adapter(prepare(config), folder.path / "adapter")
    return str(folder.path)


def measured(method, **knobs):
    return profile_update(make_config(method, {"device": "cpu"} | knobs), rollouts=1)


def texts_of_pairs(count):
    """(prompt, completion) of the first shipped pairs, both sides, a character for each token:
    <think> and </think> are one too, and the end is a full stop.
    """
    pairs = [json.loads(line) for line in PAIRS.read_text().splitlines()[:count]]
    return [
        (p["prompt"], p[side].replace("</think>", "(").replace("<think>", ")") + ".")
        for side in ("chosen", "rejected")
        for p in pairs
    ]


def passed(texts):
    """The tokens of these texts that pass through the model: a beginning that several share once,
    no end token.
    """
    return len(
        {
            (prompt + completion)[:n]
            for prompt, completion in texts
            for n in range(1, len(prompt + completion))
        }
    )


def test_weights_and_optimizer_of_dpo_are_those_worked_out_by_hand():
    cost = measured("dpo", pairs=16)
    rotary = 2 * (112 // 4 // 2)  # The inverse frequencies, kept twice.
    assert cost.memory["updating"]["weights"] == 4 * (BASE + LORA + rotary)
    assert cost.memory["updating"]["optimizer"] == pytest.approx(
        2 * 4 * LORA, rel=2e-3
    )  # and one step counter for each matrix
    assert cost.models == ["policy", "reference"] and cost.copies == pytest.approx(
        1 + LORA / BASE, rel=1e-3
    )
    assert cost.tokens == {"generated": 0, "backward": passed(texts_of_pairs(16))}


def test_the_four_models_of_rlhf_share_a_base_or_lie_in_memory_four_times(judge):
    shared, separate = (
        measured("ppo", reward_from=judge, model_layout=layout, batch_size=16)
        for layout in ("shared", "separate")
    )
    assert shared.models == separate.models == ["policy", "reference", "reward model", "critic"]
    assert shared.copies == pytest.approx(
        1 + 3 * LORA / BASE, rel=0.01
    ) and separate.copies == pytest.approx(4 + 3 * LORA / BASE, rel=0.01)
    extra = separate.memory["updating"]["weights"] - shared.memory["updating"]["weights"]
    assert extra == pytest.approx(4 * 3 * BASE, rel=0.01)


def test_grpo_counts_generated_tokens_and_its_cache():
    cost = measured("grpo", batch_size=16, max_completion_tokens=12)
    assert 16 <= cost.tokens["generated"] <= 16 * 12
    assert (
        0 < cost.largest_cache <= 2 * 2 * 16 * 112 * (12 + 16) * 4
    )  # Keys and values of two layers, 16 rows, prompts of up to 16 tokens.
    assert (
        set(cost.seconds) == {"sampling", "scoring", "updating", "all"}
        and cost.seconds["sampling"] > 0
        and cost.joules is None
    )
    assert (
        cost.flops > 6 * BASE * cost.tokens["generated"]
    )  # A token costs at least 2 operations a weight forward and 4 backward.


def test_arithmetic_is_counted_where_torch_cannot_count_grouped_attention(tmp_path, monkeypatch):
    def refuse(*shapes):
        raise AssertionError(
            "sdpa_flop_count: query/key/value shapes are incompatible"
        )  # torch 2.11, for grouped queries on CUDA

    monkeypatch.setattr("torch.utils.flop_counter.sdpa_flop_count", refuse)
    monkeypatch.setattr("torch.utils.flop_counter.sdpa_backward_flop_count", refuse)
    monkeypatch.setitem(costs.CPU_SHAPES["1m"], "num_key_value_heads", 2)
    costs.write_model(costs.CPU_SHAPES["1m"], tmp_path / "base", torch.device("cpu"))
    cost = measured("dpo", pairs=16, model=str(tmp_path / "base"))
    keys, texts = 128 // 2, texts_of_pairs(16)
    tokens, completion, lengths = (
        passed(texts),
        sum(len(b) for _, b in texts),
        [(len(a), len(b)) for a, b in texts],
    )
    whole = torch.arange(128) < torch.tensor([a + b - 1 for a, b in lengths])[:, None]
    padded = sum(
        s.rows * s.width**2 for s in pack(whole.long(), whole).length_buckets
    )  # Keys that the tokens of all rows look at, padding included.
    dense = 4 * (2 * 128**2 + 2 * 128 * keys + 3 * 128 * 384)
    lora = (
        4 * 8 * (3 * (128 + 128 + 2 * keys) + 256 + 2 * (128 + 768) + 512)
    )  # Queries, keys, values in blocks; output; gate and up in blocks; down.
    attention = 4 * 2 * 128 * padded  # Scores and their sum over values, in four layers.
    # A product costs 2 forward, 2 to its inputs and 2 to its weights, frozen but for LoRA's; the
    # first layer's inputs need none. Of the vocabulary
    # the completion's logits and the mean of its rows are taken, both forward.
    expected = tokens * (4 * dense + 6 * lora) + 6 * attention + 4 * 512 * 128 * completion
    assert cost.flops == pytest.approx(expected, rel=0.03)


def test_measuring_changes_nothing_that_is_trained():
    config = make_config("dpo", {"device": "cpu", "pairs": 32})
    before = prepare(config)
    profile_update(config)
    assert all(
        torch.equal(a, b)
        for a, b in zip(before.model.parameters(), prepare(config).model.parameters())
    )


def test_a_measurement_on_the_command_line_says_where_it_was_made(capsys):
    main(["resources", "dpo", "--device", "cpu", "--pairs", "32"])
    assert capsys.readouterr().out.startswith(
        "measured on cpu, one update of dpo: policy, reference"
    )
