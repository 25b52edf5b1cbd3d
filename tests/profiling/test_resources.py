"""What an update costs: counted bytes against bytes worked out by hand, and the estimator against
both.
"""

import json
from pathlib import Path

import pytest
import torch

from lab.cli.main import main
from lab.config.methods import make_config
from lab.data.packing import pack
from lab.errors import LabError
from lab.experiments import costs
from lab.profiling.estimate import SHAPES, estimate, estimate_shape
from lab.profiling.profiler import Tracker, packed_attention, packed_attention_back, profile
from lab.runs.folder import create
from lab.training.loop import prepare, save_adapter

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
    return profile(make_config(method, {"device": "cpu"} | knobs), rollouts=1)


def test_the_tracker_counts_a_storage_once_from_its_birth_to_its_death():
    with Tracker() as tracker:
        a = torch.zeros(1000)
        view = a[10:].view(-1, 2)
        b = torch.zeros(500, dtype=torch.float64)
        assert tracker.now["activations"] == 8000
        del a
        assert tracker.now["activations"] == 8000, "a view still holds the storage"
        del view
        assert tracker.now["activations"] == 4000
        tracker.hold(b, "weights")
        assert (tracker.now["weights"], tracker.now["activations"]) == (4000, 0)
    assert sum(tracker.peak.values()) == 8000


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
    found = measured("dpo", pairs=16)
    rotary = 2 * (112 // 4 // 2)  # The inverse frequencies, kept twice.
    assert found.memory["updating"]["weights"] == 4 * (BASE + LORA + rotary)
    assert found.memory["updating"]["optimizer"] == pytest.approx(
        2 * 4 * LORA, rel=2e-3
    )  # and one step counter for each matrix
    assert found.models == ["policy", "reference"] and found.copies == pytest.approx(
        1 + LORA / BASE, rel=1e-3
    )
    assert found.tokens == {"generated": 0, "backward": passed(texts_of_pairs(16))}


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
    found = measured("grpo", batch_size=16, max_completion_tokens=12)
    assert 16 <= found.tokens["generated"] <= 16 * 12
    assert (
        0 < found.largest_cache <= 2 * 2 * 16 * 112 * (12 + 16) * 4
    )  # Keys and values of two layers, 16 rows, prompts of up to 16 tokens.
    assert (
        set(found.seconds) == {"sampling", "scoring", "updating", "all"}
        and found.seconds["sampling"] > 0
        and found.joules is None
    )
    assert (
        found.flops > 6 * BASE * found.tokens["generated"]
    )  # A token costs at least 2 operations a weight forward and 4 backward.


def test_arithmetic_is_counted_where_torch_cannot_count_grouped_attention(tmp_path, monkeypatch):
    def refuse(*shapes):
        raise AssertionError(
            "sdpa_flop_count: query/key/value shapes are incompatible"
        )  # torch 2.11, for grouped queries on CUDA

    monkeypatch.setattr("torch.utils.flop_counter.sdpa_flop_count", refuse)
    monkeypatch.setattr("torch.utils.flop_counter.sdpa_backward_flop_count", refuse)
    monkeypatch.setitem(costs.SMALL["1m"], "num_key_value_heads", 2)
    costs.write_model(costs.SMALL["1m"], tmp_path / "base", torch.device("cpu"))
    found = measured("dpo", pairs=16, model=str(tmp_path / "base"))
    keys, texts = 128 // 2, texts_of_pairs(16)
    tokens, completion, lengths = (
        passed(texts),
        sum(len(b) for _, b in texts),
        [(len(a), len(b)) for a, b in texts],
    )
    whole = torch.arange(128) < torch.tensor([a + b - 1 for a, b in lengths])[:, None]
    padded = sum(
        s.rows * s.width**2 for s in pack(whole.long(), whole).stretches
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
    assert found.flops == pytest.approx(expected, rel=0.03)


def test_attention_over_packed_rows_is_counted_row_by_row_also_where_queries_share_keys():
    query, key, edges = (
        torch.zeros(5, 6, 4),
        torch.zeros(5, 2, 4),
        torch.tensor([0, 3, 5], dtype=torch.int32),
    )
    there = 6 * (
        2 * 4 * (3 * 3 + 2 * 2) + 2 * 4 * (3 * 3 + 2 * 2)
    )  # Per head: scores, and their sum over values.
    assert (
        packed_attention(query, key, key, edges, edges, 3, 3, 0.0, True, False, out_val=None)
        == there
    )
    assert (
        packed_attention_back(query, query, key, key, query, None, edges, edges, 3, 3, out_val=None)
        == 2.5 * there
    )


def test_measuring_changes_nothing_that_is_trained():
    config = make_config("dpo", {"device": "cpu", "pairs": 32})
    before = prepare(config)
    profile(config)
    assert all(
        torch.equal(a, b)
        for a, b in zip(before.model.parameters(), prepare(config).model.parameters())
    )


@pytest.mark.parametrize("size, published", [("135m", 134_515_008), ("1.2b", 1_235_814_400)])
def test_a_shape_has_the_published_number_of_weights(size, published):
    rank = 16
    shape = SHAPES[size]
    hidden, inner, layers = (
        shape["hidden_size"],
        shape["intermediate_size"],
        shape["num_hidden_layers"],
    )
    keys = hidden // shape["num_attention_heads"] * shape["num_key_value_heads"]
    lora = layers * rank * ((hidden + hidden) * 2 + (hidden + keys) * 2 + (hidden + inner) * 3)
    found = estimate(
        size, "dpo", batch_size=2, prompt_tokens=4, completion_tokens=4, lora_rank=rank
    )
    assert found.parameters - lora == published and found.trainable == lora
    assert found.memory["updating"]["weights"] == pytest.approx(2 * published + 4 * lora, rel=1e-3)
    assert (
        found.memory["stepping"]["gradients"] == 4 * lora
        and found.memory["stepping"]["optimizer"] == 2 * 4 * lora
    )


SMALL = {
    "batch_size": 8,
    "prompt_tokens": 16,
    "completion_tokens": 48,
    "group_size": 8,
    "full": False,
    "lora_rank": 8,
    "bf16": False,
    "checkpointing": False,
    "layout": "shared",
    "micro_batches": 1,
}
WEIGHTS = (
    512 * 128 + 4 * (4 * 128**2 + 3 * 128 * 384 + 2 * 128) + 128
)  # Those of costs.SMALL["1m"].
RANK_1 = 4 * (4 * 256 + 3 * 512)  # The adapter that full fine-tuning still has.


def small(method, **more):
    return estimate_shape("1m", costs.SMALL["1m"], method, **SMALL | more)


@pytest.mark.parametrize("optimizer, bytes_each", [("adamw", 8), ("adamw_8bit", 2), ("sgd", 0)])
def test_full_fine_tuning_keeps_gradients_and_the_state_of_its_optimizer_for_every_weight(
    optimizer, bytes_each
):
    found = small("dpo", full=True, optimizer=optimizer)
    assert found.trainable == WEIGHTS + RANK_1
    assert found.memory["stepping"]["gradients"] == 4 * found.trainable
    assert found.memory["stepping"]["optimizer"] == bytes_each * found.trainable


def test_full_rlhf_keeps_four_sets_of_weights_and_trains_two():
    found = small("ppo", full=True, layout="separate")
    assert found.trainable == 2 * (WEIGHTS + RANK_1) + 128  # and the critic's head
    assert found.memory["stepping"]["weights"] == pytest.approx(
        4 * (4 * WEIGHTS + 3 * RANK_1 + 2 * 128), rel=1e-3
    )  # and rotary frequencies


def test_recomputing_activations_and_smaller_pieces_need_less():
    whole, recomputed, pieces = (
        small("grpo", **more).peak for more in ({}, {"checkpointing": True}, {"micro_batches": 4})
    )
    assert recomputed < whole and pieces < whole


def test_a_rollout_on_a_gpu_holds_the_activations_of_a_piece_however_long_it_is(monkeypatch):
    monkeypatch.setattr("lab.profiling.estimate.ACTIVATIONS", 2**20)
    small_rollout, large = (
        small("grpo", bf16=True, batch_size=n).memory["updating"]["activations"] for n in (32, 128)
    )
    noise = (
        4 * 512 * (128 - 32)
        # What sampling keeps for the next rollout, a float for every row and token of the vocabulary.
    )
    assert large - noise < 1.3 * small_rollout  # Pieces are whole rows, so not exactly alike.
    on_the_cpu = [small("grpo", batch_size=n).memory["updating"]["activations"] for n in (32, 128)]
    assert on_the_cpu[1] > 3 * on_the_cpu[0]


def test_estimates_are_within_a_tenth_of_what_is_measured_here(tmp_path, monkeypatch):
    monkeypatch.setattr(costs, "ROWS", 16)
    monkeypatch.setattr(
        costs,
        "ARMS",
        {
            name: (method, knobs | {"batch_size": 8 if method == "dpo" else 16})
            for name, (method, knobs) in costs.ARMS.items()
            if name in ("dpo", "grpo", "ppo.separate")
        },
    )
    table = costs.check(["embedded"], "cpu", out=tmp_path / "costs.json")
    assert json.loads((tmp_path / "costs.json").read_text()) == json.loads(json.dumps(table))
    assert [row["arm"] for row in table["rows"]] == ["dpo", "grpo", "ppo.separate"]
    assert max(abs(row["error"]) for row in table["rows"]) < 0.1
    assert table["rows"][2]["models"] == ["policy", "reference", "reward model", "critic"]


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"model": "8b"}, "Accepted: 1.2b, 135m"),
        ({"method": "pop"}, "Did you mean 'ppo'"),
        ({"optimizer": "adam"}, "Did you mean 'adamw'"),
        ({"batch_size": 0}, "at least 1"),
        ({"batch_size": 3, "micro_batches": 2}, "divides batch_size"),
        ({"method": "ppo", "full": True}, "--layout separate"),
    ],
)
def test_what_cannot_be_estimated_is_refused(arguments, says):
    with pytest.raises(LabError, match=says):
        estimate(
            **{
                "model": "135m",
                "method": "dpo",
                "batch_size": 2,
                "prompt_tokens": 4,
                "completion_tokens": 4,
            }
            | arguments
        )


def test_an_estimate_on_the_command_line_says_that_it_is_one(capsys):
    main(
        [
            "estimate",
            "--model",
            "1.2b",
            "--method",
            "dpo",
            "--batch-size",
            "2",
            "--completion-tokens",
            "8",
        ]
    )
    assert capsys.readouterr().out.startswith("an estimate, not a measurement: dpo on 1.2b")
    main(
        [
            "estimate",
            "--model",
            "1.2b",
            "--method",
            "dpo",
            "--batch-size",
            "2",
            "--completion-tokens",
            "8",
            "--json",
        ]
    )
    assert json.loads(capsys.readouterr().out)["estimate"] is True


def test_a_measurement_on_the_command_line_says_where_it_was_made(capsys):
    main(["resources", "dpo", "--device", "cpu", "--pairs", "32"])
    assert capsys.readouterr().out.startswith(
        "measured on cpu, one update of dpo: policy, reference"
    )
