"""Batches that are filled by tokens: which rows an update trains on, and the loss of such a batch."""

import json
from collections import Counter

import pytest
import torch
from support.tiny import save
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM

from lab.config.methods import make_config
from lab.errors import LabError
from lab.runs.folder import RunFolder, create
from lab.runs.records import StepRecord
from lab.training.batch_rows import batch_rows
from lab.training.driver import drive
from lab.training.loop import prepare, train
from lab.training.methods import dpo
from lab.training.methods.offline import encode_pairs, load_preferences

LENGTHS = [3, 9, 1, 4, 30, 2, 2, 7, 5, 5, 1, 8]
QUICK = {
    "task": "chain",
    "steps": 6,
    "eval_every": 0,
    "eval_prompts": 4,
    "checkpoint_every": 1,
    "max_completion_tokens": 4,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save(tmp_path_factory.mktemp("model"))


def written(folder, lengths):
    """Pairs whose prompt, chosen and rejected have 2, n and 1 bytes; a row of a pair has n + 7 tokens."""
    path = folder / "pairs.jsonl"
    rows = [
        {"prompt": f"{i % 10}=", "chosen": "y" * n, "rejected": "n"} for i, n in enumerate(lengths)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def config_of(model, folder, method="dpo", lengths=LENGTHS, **more):
    source = {"model": model, "data": written(folder, lengths)}
    return make_config(method, QUICK | source | {"tokens_per_batch": 40} | more)


def rows_of(config):
    run = prepare(config)
    return batch_rows(run, *encode_pairs(run, load_preferences(run)))


def tokens(rows):
    return sum(LENGTHS[i] + 7 for i in rows)


def test_every_row_is_used_once_an_epoch_and_a_batch_is_as_full_as_the_order_allows(
    model, tmp_path
):
    made = rows_of(config_of(model, tmp_path))
    batches = [made.of_update(step) for step in range(1, 40)]
    epoch, epochs = [], []
    for batch in batches:
        epoch.append(batch)
        if sum(map(len, epoch)) == len(LENGTHS):
            epochs.append(epoch)
            epoch = []
    assert len(epochs) > 4
    for epoch in epochs:
        assert Counter(i for batch in epoch for i in batch) == Counter(range(len(LENGTHS)))
        for batch, following in zip(epoch, epoch[1:]):
            assert tokens(batch) <= 40 < tokens([*batch, following[0]])
    assert epochs[0] != epochs[1]
    assert made.updates(1) == len(epochs[0])
    assert made.updates(2.5) == len(epochs[0]) + len(epochs[1]) + -(-len(epochs[2]) // 2)


def test_the_batches_depend_on_seed_and_step_alone(model, tmp_path):
    config = config_of(model, tmp_path)
    forwards, backwards = rows_of(config), rows_of(config)
    there = [forwards.of_update(step) for step in range(1, 25)]
    back = [backwards.of_update(step) for step in range(24, 0, -1)]
    assert there == back[::-1]
    other = rows_of(config_of(model, tmp_path, seed=1))
    assert [other.of_update(step) for step in range(1, 25)] != there


def test_a_longer_row_is_a_batch_of_its_own_and_the_run_says_so(model, tmp_path):
    run = prepare(config_of(model, tmp_path, tokens_per_batch=20))
    made = batch_rows(run, *encode_pairs(run, load_preferences(run)))
    batches = [made.of_update(step) for step in range(1, 11)]
    assert [4] in batches  # 30 + 7 tokens.
    assert all(tokens(batch) <= 20 for batch in batches if batch != [4])
    (note,) = [note for note in run.notes if "tokens_per_batch" in note]
    assert note.startswith("1 of 12 rows have more than tokens_per_batch 20 tokens, up to 37")


@pytest.mark.parametrize("method", ["dpo", "ipo", "kto", "sft", "reward_model"])
def test_rows_of_equal_length_train_as_with_batch_size(model, tmp_path, method):
    """Of 16 equal pairs (11 tokens each; of single completions 7 and 4, so that KTO has no equal rows)."""
    equal = [4] * 16 if method != "kto" else [1] * 16
    sizes = {"kto": 4 * 4, "sft": 4 * 7}
    by_tokens = config_of(
        model, tmp_path, method, equal, tokens_per_batch=sizes.get(method, 4 * 11)
    )
    by_rows = config_of(model, tmp_path, method, equal, tokens_per_batch=0, batch_size=4)
    ours, theirs = (
        [record.metrics for record in train(prepare(config)) if isinstance(record, StepRecord)]
        for config in (by_tokens, by_rows)
    )
    assert [row["loss"] for row in ours[1:]] == [row["loss"] for row in theirs[1:]]
    assert len(ours) == 7


def test_each_pair_of_a_batch_has_the_same_weight_whatever_its_length(model, tmp_path):
    """The loss of a batch is the mean of the losses of its pairs, by a model of transformers alone."""
    run = prepare(config_of(model, tmp_path, beta=0.5))
    policy = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():  # The reference stays; the policy moves a little.
        policy.lm_head.weight.mul_(1.5)
    (piece,) = next(dpo.batches(run))
    with torch.no_grad():
        run.model.get_base_model().lm_head.weight.mul_(1.5)
        loss, _ = dpo.loss(run, piece)
        logps = policy(input_ids=piece.tokens.ids).logits[:, :-1].log_softmax(-1)
    taken = logps.gather(2, piece.tokens.ids[:, 1:, None]).squeeze(2)
    chosen, rejected = (taken * piece.tokens.completion_mask[:, 1:]).sum(1).chunk(2)
    margins = chosen - piece.reference_chosen - rejected + piece.reference_rejected
    assert len(margins) > 1
    assert loss.item() == pytest.approx(-logsigmoid(0.5 * margins).mean().item(), rel=1e-4)


def test_a_resumed_run_and_one_of_epochs_go_on_exactly(model, tmp_path):
    config = config_of(model, tmp_path, steps=9)
    whole, parted = create(tmp_path / "whole", config), create(tmp_path / "parted", config)
    drive(whole)
    drive(parted, until=lambda run: run.step >= 4)
    drive(RunFolder(parted.path))
    ours, again = (f.path / "adapter" / "adapter_model.safetensors" for f in (whole, parted))
    assert ours.read_bytes() == again.read_bytes()
    counted = config_of(model, tmp_path, steps=100, num_train_epochs=2)
    run = prepare(counted)
    made = rows_of(config)
    assert run.config.steps == made.updates(2)
    assert any(f"batches of up to 40 tokens: {made.updates(2)} updates" in n for n in run.notes)


def test_held_out_rows_are_one_batch_also_with_batches_by_tokens(model, tmp_path):
    lengths = [1 + i % 5 for i in range(40)]
    by_tokens, by_rows = (
        config_of(model, tmp_path, lengths=lengths, task="", **size)
        for size in ({}, {"tokens_per_batch": 0})
    )
    first = [
        next(r for r in train(prepare(c)) if isinstance(r, StepRecord))
        for c in (by_tokens, by_rows)
    ]
    assert first[0].metrics["eval/loss"] == first[1].metrics["eval/loss"]


def test_bad_settings_are_refused_in_one_line():
    with pytest.raises(LabError, match="tokens_per_batch is 64 and batch_size 8.*Leave one"):
        make_config("sft", {"tokens_per_batch": 64, "batch_size": 8})
    with pytest.raises(LabError, match="tokens_per_batch"):
        make_config("grpo", {"tokens_per_batch": 64})
    with pytest.raises(LabError, match="tokens_per_batch is -1"):
        make_config("dpo", {"tokens_per_batch": -1})


def test_several_processes_refuse_batches_by_tokens(model, tmp_path, monkeypatch):
    run = prepare(config_of(model, tmp_path))
    monkeypatch.setattr("lab.distributed.collectives.world_size", lambda: 2)
    with pytest.raises(LabError, match="tokens_per_batch is 40, but 2 processes.*Use batch_size"):
        batch_rows(run, *encode_pairs(run, load_preferences(run)))
