"""From a JSONL file to masked batches, against matrices and counts written out by hand, and every
way in which data can be unfit.
"""

import gc
import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lab.data.batching import batch_indices, collate, encode_examples
from lab.data.examples import Pair, UnpairedExample
from lab.data.parsing import load_pairs
from lab.data.resampling import add_label_noise, keep_desirable, unpair
from lab.data.token_rows import EncodedExample
from lab.errors import LabError
from lab.models.tokenizer import load_tokenizer
from lab.tasks.base import Problem
from lab.tasks.registry import TASKS

SHIPPED = TASKS["chain"].pairs_path
GOOD = {"prompt": "7+5=", "chosen": "12", "rejected": "13"}
PAIRS = [Pair(f"p{i}", f"c{i}", f"r{i}") for i in range(40)]


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("embedded")


@pytest.fixture
def write(tmp_path):
    def write(*lines, end="\n"):
        path = tmp_path / "pairs.jsonl"
        path.write_bytes(
            b"".join(line if isinstance(line, bytes) else (line + end).encode() for line in lines)
        )
        return path

    return write


def row(**changes):
    return json.dumps(GOOD | changes)


# Batches.


def test_three_examples_of_different_lengths_make_the_matrices_written_here():
    batch = collate(
        [
            EncodedExample([5, 6, 7, 1], 2),
            EncodedExample([5, 8, 6, 6, 9, 1], 3),
            EncodedExample([5, 4], 1),
        ],
        pad_id=0,
    )
    assert batch.ids.tolist() == [[5, 6, 7, 1, 0, 0], [5, 8, 6, 6, 9, 1], [5, 4, 0, 0, 0, 0]]
    assert batch.completion_mask.tolist() == [
        [False, False, True, True, False, False],
        [False, False, False, True, True, True],
        [False, True, False, False, False, False],
    ]
    assert batch.ids.dtype == torch.int64 and batch.completion_mask.dtype == torch.bool


def test_the_end_token_stays_in_the_mask_when_padding_has_the_same_id():
    batch = collate(
        [
            EncodedExample([5, 6, 7, 1], 2),
            EncodedExample([5, 8, 6, 6, 9, 1], 3),
            EncodedExample([5, 4, 1], 1),
        ],
        pad_id=1,
    )
    assert batch.ids.tolist() == [[5, 6, 7, 1, 1, 1], [5, 8, 6, 6, 9, 1], [5, 4, 1, 1, 1, 1]]
    assert batch.completion_mask.tolist() == [
        [False, False, True, True, False, False],
        [False, False, False, True, True, True],
        [False, True, True, False, False, False],
    ]


def test_a_batch_moves_to_a_device_with_its_mask():
    moved = collate([EncodedExample([5, 1], 1)], pad_id=0).to(torch.device("meta"))
    assert moved.ids.device.type == moved.completion_mask.device.type == "meta"


# Encoding.

ID = {
    "<eos>": 1,
    "<think>": 3,
    "</think>": 4,
    **{str(d): 5 + d for d in range(10)},
    "+": 15,
    "-": 16,
    "*": 17,
    "=": 18,
    ";": 19,
}


def test_an_example_is_prompt_then_completion_then_the_end_token(tokenizer):
    plain, thought = encode_examples(
        tokenizer, [("7+5=", "12"), ("7+5=", "<think>7+5=12</think>12")], 64, "data"
    )
    assert plain == EncodedExample([ID[c] for c in "7+5=12"] + [1], 4)
    assert thought == EncodedExample(
        [ID[c] for c in [*"7+5=", "<think>", *"7+5=12", "</think>", *"12", "<eos>"]], 4
    )


def test_a_completion_that_brings_its_end_token_gets_no_second_one(tokenizer):
    assert encode_examples(tokenizer, [("7+5=", "12<eos>")], 64, "data") == encode_examples(
        tokenizer, [("7+5=", "12")], 64, "data"
    )


def test_max_length_cuts_the_completion_from_its_end(tokenizer):
    seven = [ID[c] for c in "7+5=12"] + [1]
    for length, ids in [(8, seven), (7, seven), (6, seven[:6]), (5, seven[:5])]:
        assert encode_examples(tokenizer, [("7+5=", "12")], length, "data") == [
            EncodedExample(ids, 4)
        ]


@pytest.mark.parametrize("length", [4, 3, 2])
def test_a_prompt_that_leaves_no_room_for_a_completion_is_named_by_number(tokenizer, length):
    with pytest.raises(
        LabError,
        match=(
            rf"chosen of pair 2: the prompt fills all {length} tokens of max_length \(it has"
            r" 4\).*Raise max_length"
        ),
    ):
        encode_examples(tokenizer, [("7", "1"), ("7+5=", "12")], length, "chosen of pair")


@pytest.mark.parametrize(
    "prompt, completion, odd",
    [
        ("7+5=", "1x2", "x"),
        ("7÷5=", "12", "÷"),
        ("7 +5=", "12", " "),
        ("7+5=", "１２", "１"),
        ("7+5=", "<thought>12", "<"),
        ("7+5=\n", "12", "\\\\n"),
    ],
)
def test_a_character_outside_of_the_vocabulary_is_shown_with_the_number_of_its_pair(
    tokenizer, prompt, completion, odd
):
    with pytest.raises(
        LabError, match=f"data 3: the model's vocabulary has no '{odd}'.*another --model"
    ):
        encode_examples(
            tokenizer, [("7+5=", "12"), ("7+5=", "12"), (prompt, completion)], 64, "data"
        )


def test_a_word_outside_of_the_vocabulary_is_named_even_when_each_of_its_characters_is_inside():
    words = Tokenizer(models.WordLevel({"<unk>": 0, "<eos>": 1, "a": 2, "b": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", eos_token="<eos>"
    )
    assert encode_examples(tokenizer, [("a b", "b")], 64, "data") == [
        EncodedExample([2, 3, 3, 1], 2)
    ]
    with pytest.raises(LabError, match="data 1: the model's vocabulary has no 'ab'"):
        encode_examples(tokenizer, [("a", "ab")], 64, "data")


def test_a_prompt_without_tokens_raises_because_nothing_would_predict_the_first_token_of_the_completion(
    tokenizer,
):
    with pytest.raises(LabError, match="data 2: the prompt has no tokens"):
        encode_examples(tokenizer, [("7+5=", "12"), ("", "12")], 64, "data")


# Order.


@pytest.mark.parametrize("n, size", [(12, 4), (13, 4), (7, 7), (5, 1), (40, 16)])
def test_each_epoch_visits_every_example_at_most_once_and_all_of_them_but_the_short_rest(n, size):
    steps = n // size
    orders = []
    for epoch in range(4):
        batches = [batch_indices(n, size, 3, 1 + epoch * steps + i) for i in range(steps)]
        assert all(len(b) == size for b in batches)
        seen = [i for b in batches for i in b]
        assert len(set(seen)) == len(seen) == steps * size and set(seen) <= set(range(n))
        orders.append(tuple(seen))
    assert n < 7 or len(set(orders)) == 4  # Epochs are shuffled anew.


def test_data_shorter_than_a_batch_is_one_batch_of_all_of_it():
    for step in range(1, 6):
        assert sorted(batch_indices(3, 16, 0, step)) == [0, 1, 2]


def test_the_order_depends_on_the_arguments_alone():
    first = batch_indices(100, 10, 1, 7)
    batch_indices(100, 10, 2, 1)
    assert batch_indices(100, 10, 1, 7) == first
    assert batch_indices(100, 10, 2, 7) != first and batch_indices(100, 10, 1, 17) != first


# Label noise and unpairing.


@pytest.mark.parametrize(
    "share, swapped", [(0.0, 0), (0.01, 0), (0.1, 4), (0.26, 10), (0.5, 20), (1.0, 40)]
)
def test_label_noise_swaps_exactly_the_rounded_share(share, swapped):
    noisy = add_label_noise(PAIRS, share, 0)
    turned = [i for i, pair in enumerate(noisy) if pair == Pair(f"p{i}", f"r{i}", f"c{i}")]
    assert len(turned) == swapped
    assert all(noisy[i] == PAIRS[i] for i in range(40) if i not in turned) and len(noisy) == 40


def test_the_seed_picks_which_labels_are_swapped():
    assert add_label_noise(PAIRS, 0.25, 1) == add_label_noise(PAIRS, 0.25, 1)
    assert add_label_noise(PAIRS, 0.25, 1) != add_label_noise(PAIRS, 0.25, 2)


@pytest.mark.parametrize("share, kept", [(1.0, 40), (0.5, 20), (0.1, 4), (0.01, 1), (0.0, 1)])
def test_unpairing_keeps_every_undesirable_completion_and_the_share_of_the_desirable(share, kept):
    labelled = keep_desirable(unpair(PAIRS), share, 0)
    good, bad = [x for x in labelled if x.desirable], [x for x in labelled if not x.desirable]
    assert bad == [UnpairedExample(f"p{i}", f"r{i}", False) for i in range(40)]
    assert len(good) == kept and set(good) <= {
        UnpairedExample(f"p{i}", f"c{i}", True) for i in range(40)
    }
    assert keep_desirable(unpair(PAIRS), share, 0) == labelled


def test_another_seed_keeps_other_desirable_completions():
    assert keep_desirable(unpair(PAIRS), 0.5, 0) != keep_desirable(unpair(PAIRS), 0.5, 1)


def test_noise_on_judged_completions_turns_exactly_the_rounded_share_of_thumbs():
    judged = unpair(PAIRS)
    noisy = add_label_noise(judged, 0.1, 0)
    assert sum(a != b for a, b in zip(judged, noisy)) == 8
    assert all((a.prompt, a.completion) == (b.prompt, b.completion) for a, b in zip(judged, noisy))


def test_data_without_a_desirable_completion_stays_as_it_is():
    bad = [x for x in unpair(PAIRS) if not x.desirable]
    assert keep_desirable(bad, 0.5, 0) == bad


# Files.


def test_pairs_are_read_in_order_with_empty_lines_left_out_and_more_fields_allowed(write):
    path = write(row(), "", row(chosen="99", source="mine"), "   ")
    assert (
        load_pairs(path)
        == load_pairs(str(path))
        == [Pair("7+5=", "12", "13"), Pair("7+5=", "99", "13")]
    )


@pytest.mark.parametrize(
    "first, end",
    [("", "\r\n"), ("", "\n"), ("\ufeff", "\n")],
    ids=["Windows line ends", "Unix line ends", "byte order mark"],
)
def test_line_ends_and_the_byte_order_mark_of_windows_make_no_difference(write, first, end):
    assert load_pairs(write(first + row(), row(chosen="99"), end=end)) == [
        Pair("7+5=", "12", "13"),
        Pair("7+5=", "99", "13"),
    ]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "é", "\u00a0"])
def test_a_line_ends_at_a_newline_alone_whatever_else_its_text_holds(write, separator):
    line = json.dumps(GOOD | {"chosen": f"a{separator}b"}, ensure_ascii=False)
    assert load_pairs(write(line, row())) == [
        Pair("7+5=", f"a{separator}b", "13"),
        Pair("7+5=", "12", "13"),
    ]


FORMAT = "one JSON object a line"


@pytest.mark.parametrize(
    "line, message",
    [
        ('{"prompt": "7+5=", "chosen"', rf"is not JSON \(.* at column \d+\)\. Expected {FORMAT}"),
        ("prompt,chosen,rejected", rf"is not JSON .*Expected {FORMAT}"),
        ("[" * 100_000, rf"is not JSON .*Expected {FORMAT}"),
        ('{"prompt": ' + "9" * 5000 + "}", rf"is not JSON .*Expected {FORMAT}"),
        ('["7+5=", "12", "13"]', f"holds list, not an object.*Expected {FORMAT}"),
        ("null", f"holds NoneType, not an object.*Expected {FORMAT}"),
        (
            '{"chosen": "12", "rejected": "3"}',
            f"there is no prompt, neither as a column nor as a beginning.*Expected {FORMAT}",
        ),
        (
            '{"prompt": "7+5=", "completion": "12", "label": true}',
            r"has no 'chosen' .*unpaired preference data, which kto learns",
        ),
        (
            '{"prompt": "7+5=", "completion": "12"}',
            r"has no 'chosen' .*prompt-completion data, which sft learns",
        ),
        (
            '{"prompt": "7+5="}',
            r"has no 'chosen' .*prompt-only data, which an online method learns",
        ),
        ('{"prompt": "7+5=", "rejected": "13"}', "has no 'chosen'"),
        ('{"prompt": "7+5=", "chosen": "12"}', "has no 'rejected'"),
        ("{}", r"has no 'chosen' \(it has: nothing\)"),
        (row(prompt=7), "'prompt' is int, neither text nor a list of messages"),
        (row(chosen=None), "'chosen' is NoneType, neither text"),
        (
            row(rejected=[{"role": "assistant", "content": "13"}]),
            "of chosen and rejected one is text and the other a conversation",
        ),
        (row(rejected=["13"]), "'rejected' is a list, but not of messages"),
        (row(rejected=[{"role": "assistant"}]), "'rejected' is a list, but not of messages"),
        (row(rejected=[{"role": "assistant", "content": ""}]), "a completion is empty"),
        (row(rejected=[]), "a completion is empty"),
        (row(prompt=[{"role": "user", "content": "7+5="}]), "of prompt and chosen one is text"),
        (row(chosen=""), "a completion is empty"),
        (row(rejected=""), "a completion is empty"),
        (row(rejected="12"), "chosen equals rejected"),
        (row(chosen="1\ud800"), "'chosen' holds half of a surrogate pair"),
    ],
    ids=lambda text: text[:40],
)
def test_each_unfit_line_is_named_by_file_and_number_and_shown_the_format(write, line, message):
    path = write(row(), "", line, row())
    with pytest.raises(LabError, match=rf"pairs\.jsonl, line 3:? {message}"):
        load_pairs(path)


@pytest.mark.parametrize(
    "lines",
    [[], ["", "  "], [b"\n\n\n"], ["\ufeff"]],
    ids=["no bytes", "blanks", "newlines", "byte order mark"],
)
def test_a_file_without_pairs_is_called_empty(write, lines):
    with pytest.raises(LabError, match=r"pairs\.jsonl is empty"):
        load_pairs(write(*lines))


def test_a_file_that_is_not_there_or_is_a_folder_is_named(tmp_path):
    for path in (tmp_path / "nowhere.jsonl", tmp_path):
        with pytest.raises(LabError, match=f"No data file at {path}.*JSON lines"):
            load_pairs(path)


def test_a_file_that_is_not_utf_8_is_named_with_the_place_of_the_first_wrong_byte(write):
    with pytest.raises(LabError, match=r"pairs\.jsonl is not UTF-8 text \(byte 12\)"):
        load_pairs(write(b'{"prompt": "\xff\xfe", "chosen": "1", "rejected": "2"}\n'))


# The shipped pairs.


@pytest.fixture(scope="module")
def shipped():
    return load_pairs(SHIPPED)


def value(prompt):
    """The chain's value from left to right in plain integers, modulo 100."""
    total = int(prompt[0])
    for sign, digit in zip(prompt[1:-1:2], prompt[2:-1:2]):
        total = (
            total + int(digit)
            if sign == "+"
            else total - int(digit)
            if sign == "-"
            else total * int(digit)
        )
    return total % 100


def is_right(prompt, completion):
    scratchpad, closed, last = completion.rpartition("</think>")
    well_formed = not closed or (scratchpad.startswith("<think>") and scratchpad.count("<") == 1)
    return well_formed and last == str(value(prompt))


def test_there_are_at_least_2000_shipped_pairs_each_of_another_prompt(shipped):
    assert len(shipped) >= 2000 and len({p.prompt for p in shipped}) == len(shipped)
    assert len(shipped) == SHIPPED.read_bytes().count(b"\n")


def test_every_shipped_chosen_is_right_and_every_rejected_wrong(shipped):
    assert [
        p for p in shipped if not is_right(p.prompt, p.chosen) or is_right(p.prompt, p.rejected)
    ] == []


def test_the_tasks_own_score_agrees_on_every_shipped_pair(shipped):
    chain = TASKS["chain"]
    for pair in shipped:
        problem = Problem(pair.prompt, str(value(pair.prompt)))
        assert (
            chain.score(problem, pair.chosen).answer == 1.0
            and chain.score(problem, pair.rejected).answer == 0.0
        )


def test_no_shipped_prompt_is_held_out(shipped):
    assert {p.prompt for p in shipped}.isdisjoint(p.prompt for p in TASKS["chain"].held_out(3000))


def test_every_shipped_pair_fits_the_embedded_model(shipped, tokenizer):
    for side in ("chosen", "rejected"):
        examples = encode_examples(
            tokenizer, [(p.prompt, getattr(p, side)) for p in shipped], 128, side
        )
        assert len(examples) == len(shipped) and all(
            e.ids[-1] == tokenizer.eos_token_id for e in examples
        )


def test_the_garbage_collector_rests_while_rows_are_read_and_works_again_after_an_error():
    from lab.data.gc_pause import gc_paused

    states = []
    with pytest.raises(LabError), gc_paused():
        states.append(gc.isenabled())
        with gc_paused():
            pass
        states.append(gc.isenabled())
        raise LabError("a bad row")
    assert states == [False, False] and gc.isenabled()
