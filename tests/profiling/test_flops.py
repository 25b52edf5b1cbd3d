"""FLOP formulas for packed attention against operations worked out by hand."""

import torch

from lab.profiling.flops import packed_attention_backward_flops, packed_attention_flops


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
        packed_attention_flops(query, key, key, edges, edges, 3, 3, 0.0, True, False, out_val=None)
        == there
    )
    assert (
        packed_attention_backward_flops(
            query, query, key, key, query, None, edges, edges, 3, 3, out_val=None
        )
        == 2.5 * there
    )
