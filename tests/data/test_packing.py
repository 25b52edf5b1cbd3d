"""Packed batches by hand."""

import torch

from lab.data.packing import LengthBucket, pack, pack_shared_prefix


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


def test_packing_with_shared_prefixes_by_hand():
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


def test_rows_that_differ_after_a_shared_prefix_by_hand():
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
