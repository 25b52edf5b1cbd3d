"""The memory estimator against bytes worked out by hand, and against measurements."""

import json

import pytest

from lab.cli.main import main
from lab.errors import LabError
from lab.experiments import costs
from lab.profiling.estimate import UpdateSettings, estimate_memory, estimate_shape_memory
from lab.profiling.model_shapes import MODEL_SHAPES


@pytest.mark.parametrize("size, published", [("135m", 134_515_008), ("1.2b", 1_235_814_400)])
def test_a_shape_has_the_published_number_of_weights(size, published):
    rank = 16
    shape = MODEL_SHAPES[size]
    hidden, inner, layers = (
        shape["hidden_size"],
        shape["intermediate_size"],
        shape["num_hidden_layers"],
    )
    keys = hidden // shape["num_attention_heads"] * shape["num_key_value_heads"]
    lora = layers * rank * ((hidden + hidden) * 2 + (hidden + keys) * 2 + (hidden + inner) * 3)
    settings = UpdateSettings(batch_size=2, prompt_tokens=4, completion_tokens=4, lora_rank=rank)
    result = estimate_memory(size, "dpo", settings)
    assert result.parameters - lora == published and result.trainable == lora
    assert result.memory["updating"]["weights"] == pytest.approx(2 * published + 4 * lora, rel=1e-3)
    assert (
        result.memory["stepping"]["gradients"] == 4 * lora
        and result.memory["stepping"]["optimizer"] == 2 * 4 * lora
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
)  # Those of costs.CPU_SHAPES["1m"].
RANK_1 = 4 * (4 * 256 + 3 * 512)  # The adapter that full fine-tuning still has.


def small(method, **more):
    return estimate_shape_memory(
        "1m", costs.CPU_SHAPES["1m"], method, UpdateSettings(**SMALL | more)
    )


@pytest.mark.parametrize("optimizer, bytes_each", [("adamw", 8), ("adamw_8bit", 2), ("sgd", 0)])
def test_full_fine_tuning_keeps_gradients_and_the_state_of_its_optimizer_for_every_weight(
    optimizer, bytes_each
):
    result = small("dpo", full=True, optimizer=optimizer)
    assert result.trainable == WEIGHTS + RANK_1
    assert result.memory["stepping"]["gradients"] == 4 * result.trainable
    assert result.memory["stepping"]["optimizer"] == bytes_each * result.trainable


def test_full_grpo_on_a_gpu_keeps_a_copy_of_the_weights_as_its_reference():
    result = small("grpo", full=True, bf16=True)
    assert result.trainable == WEIGHTS + RANK_1
    sampled = 2 * 4 * (4 * 128**2 + 3 * 128 * 384)  # Merged weights, which sampling keeps.
    assert result.memory["updating"]["weights"] == pytest.approx(
        2 * 2 * WEIGHTS + sampled, rel=0.05
    )  # LoRA of rank 1 is in float32.


def test_full_rlhf_keeps_four_sets_of_weights_and_trains_two():
    result = small("ppo", full=True, layout="separate")
    assert result.trainable == 2 * (WEIGHTS + RANK_1) + 128  # and the critic's head
    assert result.memory["stepping"]["weights"] == pytest.approx(
        4 * (4 * WEIGHTS + 3 * RANK_1 + 2 * 128), rel=1e-3
    )  # and rotary frequencies


def test_recomputing_activations_and_smaller_pieces_need_less():
    whole, recomputed, pieces = (
        small("grpo", **more).peak for more in ({}, {"checkpointing": True}, {"micro_batches": 4})
    )
    assert recomputed < whole and pieces < whole


def test_a_rollout_on_a_gpu_holds_the_activations_of_a_piece_however_long_it_is(monkeypatch):
    monkeypatch.setattr("lab.profiling.estimate.MAX_ACTIVATION_BYTES", 2**20)
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
    monkeypatch.setattr(costs, "COST_COMPLETIONS", 16)
    monkeypatch.setattr(
        costs,
        "COST_ARMS",
        {
            name: (method, knobs | {"batch_size": 8 if method == "dpo" else 16})
            for name, (method, knobs) in costs.COST_ARMS.items()
            if name in ("dpo", "grpo", "ppo.separate")
        },
    )
    table = costs.check_estimates(["embedded"], "cpu", out=tmp_path / "costs.json")
    assert json.loads((tmp_path / "costs.json").read_text()) == json.loads(json.dumps(table))
    assert [row["arm"] for row in table["rows"]] == ["dpo", "grpo", "ppo.separate"]
    assert max(abs(row["error"]) for row in table["rows"]) < 0.1
    assert table["rows"][2]["models"] == ["policy", "reference", "reward model", "critic"]


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"model": "9b"}, "Accepted: 1.2b, 135m"),
        ({"method": "pop"}, "Did you mean 'ppo'"),
        ({"optimizer": "adam"}, "Did you mean 'adamw'"),
        ({"batch_size": 0}, "at least 1"),
        ({"batch_size": 3, "micro_batches": 2}, "divides batch_size"),
        ({"method": "ppo", "full": True}, "--layout separate"),
    ],
)
def test_what_cannot_be_estimated_is_refused(arguments, says):
    with pytest.raises(LabError, match=says):
        sizes = {"batch_size": 2, "prompt_tokens": 4, "completion_tokens": 4}
        options = {"model": "135m", "method": "dpo"} | sizes | arguments
        model, method = options.pop("model"), options.pop("method")
        estimate_memory(model, method, UpdateSettings(**options))


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
