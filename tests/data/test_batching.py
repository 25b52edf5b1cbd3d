"""Batches by hand: which tokens are trained on, what is cut, what is left out, and in which order."""

import pytest
import torch
from support.small import small_model

from lab.data.batching import TokenBatch, batch_indices, collate, encode_examples, last_token
from lab.data.examples import Conversation, Pair, UnpairedExample
from lab.data.resampling import add_label_noise, keep_desirable, unpair
from lab.data.token_rows import (
    EncodedExample,
    RowIds,
    departure_note,
    omission_reason,
    refusal_reason,
    template_notes,
    tokenize_rows,
    truncate,
)
from lab.errors import LabError
from lab.models.tokenizer import load_tokenizer

PAIR = [RowIds([1, 2], [3, 4, 5]), RowIds([1, 2], [3, 4, 6])]
TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(small_model(tmp_path_factory.mktemp("model"), ["a", "b"]))


def thumbs(up, down):
    return [UnpairedExample(f"p{i}", "c", i < up) for i in range(up + down)]


# Examples and batches


def test_an_example_trains_on_its_completion_or_on_the_marked_tokens_of_it():
    assert EncodedExample([1, 2, 3, 4, 5], 2).trained == 3
    assert EncodedExample([1, 2, 3, 4, 5], 2, [True, True, False, True, True]).trained == 2


def test_a_mask_of_tokens_narrows_the_mask_of_the_completion():
    batch = collate(
        [EncodedExample([1, 2, 3, 4], 1, [True, False, True, False]), EncodedExample([1, 2], 1)], 0
    )
    assert batch.completion_mask.tolist() == [
        [False, False, True, False],
        [False, True, False, False],
    ]


def test_a_mask_shorter_than_the_batch_marks_the_tokens_of_its_own_row():
    batch = collate([EncodedExample([1, 2, 3], 1), EncodedExample([1, 2], 1, [True, True])], 0)
    assert batch.completion_mask.tolist() == [[False, True, True], [False, True, False]]


def test_the_last_token_of_a_completion_comes_from_its_mask():
    batch = collate(
        [EncodedExample([5, 6, 0, 0], 1), EncodedExample([5, 6], 1), EncodedExample([7], 1)], 0
    )
    assert last_token(batch).tolist() == [3, 1, 0]


def test_a_packed_batch_is_its_tokens_without_padding():
    batch = TokenBatch(
        torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([[0, 1, 1], [0, 1, 0]]).bool()
    )
    assert batch.packed.ids.flatten().tolist() == [1, 2, 3, 4, 5]
    assert batch.packed is batch.packed and batch.scored is batch.scored


def test_a_batch_goes_to_another_device_whole():
    batch = TokenBatch(torch.tensor([[1, 2]]), torch.tensor([[False, True]]))
    there = batch.to(torch.device("meta"))
    assert there.ids.device.type == there.completion_mask.device.type == "meta"
    assert there.ids.shape == there.completion_mask.shape == (1, 2)


def test_on_a_cpu_rows_that_begin_alike_are_scored_with_one_copy_of_their_beginning():
    ids = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5]])
    batch = TokenBatch(ids, torch.tensor([[False, False, True, True]] * 2))
    assert batch.scored.ids.numel() < batch.packed.ids.numel()


# Rows of ids


def test_ids_are_prompt_then_rest_and_the_boundary_can_move():
    row = RowIds([1, 2], [3, 4], [True] * 4)
    assert row.ids == [1, 2, 3, 4] and row.beginning_at(2) is row
    moved = row.beginning_at(3)
    assert (moved.start, moved.rest, moved.trained) == ([1, 2, 3], [4], [True] * 4)


def test_a_prompt_can_be_answered_by_the_completion_of_another_row():
    assert PAIR[0].answered_by(RowIds([9], [7, 8])) == RowIds([1, 2], [7, 8])


def test_a_text_without_a_completion_is_trained_on_from_its_second_token(tokenizer):
    (row,) = tokenize_rows(tokenizer, [("a b", None)], "data")
    assert row.start == row.ids[:1] and len(row.rest) == len(row.ids) - 1
    assert row.trained is not None and any(row.trained)
    assert tokenize_rows(tokenizer, [], "data") == []


@pytest.mark.parametrize("mode", ["keep_start", "keep_end"])
def test_a_row_that_fits_is_not_cut(mode):
    assert truncate(RowIds([1, 2], [3]), 3, mode) == EncodedExample([1, 2, 3], 2)


def test_a_long_row_keeps_its_first_tokens_or_its_last():
    row = RowIds([1, 2], [3, 4, 5, 6, 7], [False, True, False, True, False, True, True])
    assert truncate(row, 4) == EncodedExample([1, 2, 3, 4], 2, [False, True, False, True])
    assert truncate(row, 6, "keep_end") == EncodedExample(
        [2, 3, 4, 5, 6, 7], 1, [True, False, True, False, True, True]
    )
    assert truncate(row, 4, "keep_end") == EncodedExample(
        [4, 5, 6, 7], 1, [True, False, True, True]
    )


# What training refuses and leaves out


def test_a_row_that_can_be_trained_on_is_fit(tokenizer):
    assert refusal_reason(tokenizer, ("a", "b"), RowIds([3], [4, 1])) == ""
    assert refusal_reason(tokenizer, ("a b", None), RowIds([3], [4], [False, True])) == ""


def test_unfit_rows_are_told_why(tokenizer):
    unk = tokenizer.unk_token_id
    assert "has no 'x'" in refusal_reason(tokenizer, ("a", "x"), RowIds([3], [unk, 1]))
    assert "nothing in it is trained on" in refusal_reason(
        tokenizer, ("a b", None), RowIds([3], [4], [False, False])
    )
    assert "the prompt has no tokens" in refusal_reason(tokenizer, ("", "b"), RowIds([], [4, 1]))


def test_an_unknown_character_of_a_whole_text_is_named(tokenizer):
    row = RowIds([3], [tokenizer.unk_token_id], [False, True])
    assert "has no 'x'" in refusal_reason(tokenizer, ("a x", None), row)


@pytest.mark.parametrize(
    ("max_length", "mode", "says"),
    [
        (2, "keep_start", "fills all 2 tokens of max_length (it has 2)"),
        (4, "keep_start", "equal in the first 4 tokens"),
        (5, "keep_start", ""),
        (2, "keep_end", ""),
        (1, "keep_end", "among the last 1"),
    ],
)
def test_a_pair_is_left_out_when_max_length_leaves_nothing_to_prefer(max_length, mode, says):
    reason = omission_reason(PAIR, max_length, mode)
    assert (says in reason) if says else reason == ""


def test_a_pair_that_differs_in_its_prompt_alone_is_equal_at_its_end():
    sides = [RowIds([1, 2], [3, 4]), RowIds([9, 2], [3, 4])]
    assert "equal in the last 2 tokens" in omission_reason(sides, 2, "keep_end")
    assert omission_reason(sides[:1], 2, "keep_end") == ""


def test_the_longest_prompt_of_a_pair_decides_whether_it_fits():
    assert "it has 3" in omission_reason([RowIds([1], [2, 3]), RowIds([1, 2, 3], [4])], 3)


def test_a_row_without_a_marked_token_among_the_first_is_left_out():
    row = RowIds([1], [2, 3, 4], [False, False, False, True])
    assert "among the first 3" in omission_reason([row], 3) and omission_reason([row], 4) == ""


def test_a_row_that_is_left_out_is_named_by_its_number(tokenizer):
    texts = [("a", "b"), ("a a a", "b")]
    with pytest.raises(LabError, match=r"^data 2: the prompt fills all 3 tokens"):
        encode_examples(tokenizer, texts, 3, "data")
    assert [e.ids for e in encode_examples(tokenizer, texts, 4, "data")] == [
        [3, 4, 1],
        [3, 3, 3, 4],
    ]


def test_remarks_are_made_on_conversations_alone(tokenizer):
    assert (
        template_notes(tokenizer, "a b") == []
        and template_notes(tokenizer, TALK, is_full_text=False) == []
    )
    (note,) = template_notes(tokenizer, TALK)
    assert "does not mark the assistant's words" in note


def test_a_template_that_does_not_read_a_rows_options_is_remarked_on(tokenizer):
    (note,) = template_notes(
        tokenizer, Conversation(TALK, {"enable_thinking": False}), is_full_text=False
    )
    assert "does not read enable_thinking" in note


def test_a_departing_prompt_is_quoted_by_its_last_sixty_characters():
    assert f"with {'y' * 60!r}, which" in departure_note("x" + "y" * 60)


# Which examples, in which order


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.3, 2), (1.0, 6)])
def test_noise_turns_the_rounded_share_of_thumbs_and_leaves_the_others(share, count):
    rows = thumbs(3, 3)
    noisy = add_label_noise(rows, share, seed=0)
    assert sum(before != after for before, after in zip(rows, noisy)) == count
    assert [x.prompt for x in noisy] == [x.prompt for x in rows]


def test_pairs_come_apart_in_order_the_chosen_first():
    assert unpair([Pair("p", "c", "r"), Pair("q", "d", "s")]) == [
        UnpairedExample("p", "c", True),
        UnpairedExample("p", "r", False),
        UnpairedExample("q", "d", True),
        UnpairedExample("q", "s", False),
    ]


@pytest.mark.parametrize(
    ("up", "share", "kept"), [(4, 0.5, 2), (4, 0.0, 1), (4, 1.0, 4), (0, 0.5, 0), (3, 0.5, 2)]
)
def test_a_share_of_the_desirable_is_kept_and_at_least_one(up, share, kept):
    rows = thumbs(up, 3)
    left = keep_desirable(rows, share, seed=0)
    assert sum(x.desirable for x in left) == kept and left == [x for x in rows if x in left]
    assert sum(not x.desirable for x in left) == 3


def test_an_epoch_is_cut_into_batches_and_the_next_one_has_another_order():
    epochs = [[batch_indices(7, 3, 0, step) for step in steps] for steps in ((1, 2), (3, 4))]
    for first, second in epochs:
        assert len(first) == len(second) == 3 and not set(first) & set(second)
    assert epochs[0] != epochs[1]
    assert batch_indices(7, 3, 1, 1) != epochs[0][0]


def test_the_first_updates_go_through_all_the_data_once():
    batches = [batch_indices(9, 3, 0, step) for step in (1, 2, 3)]
    assert sorted(sum(batches, [])) == list(range(9))


def test_a_batch_of_all_the_data_is_shuffled_anew_in_every_update():
    first, second = batch_indices(6, 9, 0, 1), batch_indices(6, 9, 0, 2)
    assert sorted(first) == sorted(second) == list(range(6)) and first != second
