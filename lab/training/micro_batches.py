"""Splits a batch into micro-batches."""

from collections.abc import Sequence
from typing import TypeVar

_Item = TypeVar("_Item")


def split_evenly(items: Sequence[_Item], count: int) -> list[list[_Item]]:
    """Split `items` into at most `count` consecutive lists whose sizes differ by at most one.

    No list is empty, so there are fewer than `count` lists of fewer items, and none of no items.
    """
    count = min(count, len(items))
    edges = [round(i * len(items) / count) for i in range(count + 1)] if items else []
    return [list(items[start:end]) for start, end in zip(edges, edges[1:])]
