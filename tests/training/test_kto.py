"""KTO's reference point: whose completions stand beside whose prompts."""

import json
import re
import sys
from itertools import product

import pytest
import torch

from lab.config.methods import make_config
from lab.data.batching import batch_indices, collate, encode_examples
from lab.data.corpus import Corpus, Examples
from lab.data.examples import UnpairedExample
from lab.data.parsing import load_pairs
from lab.data.resampling import unpair
from lab.engine.token_logprobs import completion_logps
from lab.errors import LabError
from lab.models.tokenizer import load_tokenizer
from lab.runs.records import StepRecord
from lab.tasks.registry import TASKS
from lab.training.loop import prepare, train
from lab.training.methods.kto import lenders, mismatched
from lab.training.methods.offline import load_labelled
from lab.training.reference_logps import reference_logps


def rows(prompts):
    """One judged completion for each letter, every second of them desirable."""
    return [UnpairedExample(prompt, f"answer {i}", i % 2 == 0) for i, prompt in enumerate(prompts)]


def crossed(batch):
    partners = mismatched(batch)
    assert len(partners) == len(batch) and all(
        batch[j].prompt != x.prompt for x, j in zip(batch, partners)
    )
    return partners


def test_completions_move_on_by_one_row_as_in_trl():
    assert mismatched(rows("abcd")) == [3, 0, 1, 2] and mismatched(rows("abab")) == [3, 0, 1, 2]


def test_in_every_small_batch_each_completion_is_used_once_unless_one_prompt_has_more_than_half_of_the_rows():
    for n in range(2, 7):
        for letters in product("abc", repeat=n):
            if len(set(letters)) > 1:
                partners = crossed(rows(letters))
                if 2 * max(map(letters.count, letters)) <= n:
                    assert sorted(partners) == list(range(n)), letters


def test_a_prompt_with_most_of_the_rows_takes_the_others_completions_in_turn():
    partners = crossed(rows("aaaaaabc"))
    assert set(partners[:6]) == {6, 7} and set(partners[6:]) < set(range(6))
    assert max(partners.count(6), partners.count(7)) <= 4


def test_completions_of_both_kinds_stand_beside_other_prompts_even_where_the_pairs_lie_in_their_order():
    labelled = unpair(load_pairs(TASKS["chain"].pairs_path))
    partners = crossed(labelled)
    assert (
        sorted(partners) == list(range(len(labelled)))
        and sum(labelled[j].desirable for j in partners) == len(labelled) / 2
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_in_training_half_of_the_partners_are_desirable_and_all_are_of_the_batch(seed):
    labelled = unpair(load_pairs(TASKS["chain"].pairs_path))
    for step in range(1, 101):
        batch = batch_indices(len(labelled), 16, seed, step)
        assert sorted(lenders(labelled, batch)) == sorted(
            batch
        )  # So z is over the same completions as the loss, of which half are desirable.


def test_conversations_are_told_apart_by_their_words():
    ask = [[{"role": "user", "content": word}] for word in ("one", "one", "two", "two")]
    assert crossed([UnpairedExample(p, "yes", True) for p in ask]) == [2, 3, 0, 1]


def test_a_batch_of_one_prompt_borrows_from_the_examples_that_follow_it_in_the_data():
    labelled = rows("abaacb")
    assert lenders(labelled, [2, 0, 3]) == [4, 5, 1]
    assert lenders(rows("aaab"), [1, 2]) == [3, 3]


def executed_lines(function):
    """How many lines of Python `function` runs, generators' turns included."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("prompts", ["{a}b", "{ab}", "{a}{b}"])
def test_the_work_is_linear_in_the_rows_however_few_the_prompts_are(prompts):
    def work(size):
        labelled = rows(re.sub(r"{(\w+)}", lambda part: part[1] * size, prompts))
        return executed_lines(
            lambda: (mismatched(labelled), lenders(labelled, list(range(min(16, size)))))
        )

    assert work(2000) < 2.1 * work(1000)


def test_rows_of_one_prompt_are_refused():
    with pytest.raises(LabError, match="at least two prompts, but all 20 examples share one"):
        mismatched(rows("a" * 20))


def test_a_mismatched_pair_is_the_prompt_with_the_whole_completion_of_the_other_cut_at_the_length():
    tokenizer = load_tokenizer("embedded")
    texts = [("7+5=", "1"), ("9=", "12;34")]
    short, long = (tokenizer(text)["input_ids"] for text in ("7+5=", "9="))
    one, other = (
        tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] for text in ("1", "12;34")
    )
    for mode, part in (("keep_start", slice(6)), ("keep_end", slice(-6, None))):
        examples = Examples(Corpus(tokenizer, 6, mode), texts)
        assert [e.ids for e in examples.crossed([0, 1], [1, 0])] == [
            (short + other)[part],
            (long + one)[part],
        ]
        assert examples.at([1])[0].ids == (long + other)[part]


def test_z_is_that_of_the_batchs_own_completions_beside_the_prompts_of_the_rows_after():
    config = make_config(
        "kto",
        {
            "device": "cpu",
            "pairs": 200,
            "batch_size": 8,
            "steps": 6,
            "eval_every": 0,
            "eval_prompts": 2,
            "learning_rate": 5e-3,
        },
    )
    run = prepare(config)
    labelled, ours, theirs = load_labelled(run), [], []
    for record in train(run):
        if isinstance(record, StepRecord):
            ours.append(record.metrics.get("kto/z"))
            batch = [labelled[i] for i in batch_indices(len(labelled), 8, 0, record.step + 1)]
            texts = [
                (x.prompt, y.completion)
                for x, y in zip(batch, [batch[-1], *batch[:-1]])
                if x.prompt != y.prompt
            ]
            assert len(texts) == 8
            examples = encode_examples(run.tokenizer, texts, 128, "data")
            with torch.no_grad():
                ratios = [
                    completion_logps(run.model, collate([e], run.tokenizer.pad_token_id))
                    - reference_logps(run, [e])
                    for e in examples
                ]
            theirs.append(max(0.0, torch.cat(ratios).mean().item()))
    assert sum(z > 0.01 for z in ours[1:]) >= 2
    assert ours[1:] == pytest.approx(theirs[:-1], rel=1e-4, abs=1e-5)


def test_batches_of_one_prompt_train_where_the_data_hold_others(tmp_path):
    path = tmp_path / "data.jsonl"
    texts = [
        ("7+5=", "12"),
        ("7+5=", "11"),
        ("7+5=", "10"),
        ("7+5=", "13"),
        ("7+5=", "14"),
        ("8-1=", "7"),
    ]
    path.write_text(
        "\n".join(
            json.dumps({"prompt": p, "completion": c, "label": i % 2 == 0})
            for i, (p, c) in enumerate(texts)
        )
    )
    run = prepare(
        make_config(
            "kto",
            {
                "device": "cpu",
                "data": str(path),
                "batch_size": 2,
                "steps": 9,
                "eval_every": 0,
                "eval_prompts": 2,
            },
        )
    )
    assert [record.step for record in train(run) if isinstance(record, StepRecord)][-1] == 9
    alone = [len({texts[i][0] for i in batch_indices(6, 2, 0, step)}) == 1 for step in range(1, 10)]
    assert 0 < sum(alone) < 9


def test_pieces_of_a_batch_share_its_reference_point():
    def points(pieces):
        config = make_config(
            "kto",
            {
                "device": "cpu",
                "pairs": 32,
                "batch_size": 8,
                "steps": 4,
                "micro_batches": pieces,
                "eval_every": 0,
                "eval_prompts": 2,
                "learning_rate": 5e-3,
            },
        )
        return [
            r.metrics["kto/z"]
            for r in train(prepare(config))
            if isinstance(r, StepRecord) and r.step
        ]

    whole = points(1)
    assert points(4) == pytest.approx(whole, rel=1e-4, abs=1e-5) and max(whole) > 0.01
