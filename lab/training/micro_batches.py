"""Splits a batch into micro-batches, and gives every process the same number of them where it must."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

if TYPE_CHECKING:
    from lab.training.state import TrainState

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class StandIn(Generic[_Item]):
    """A micro-batch that passes through the model and counts for nothing, because another process has
    one more than this.
    """

    micro_batch: _Item


MicroBatches: TypeAlias = list[_Item | StandIn[_Item]]


def split_evenly(items: Sequence[_Item], count: int) -> list[list[_Item]]:
    """Split `items` into at most `count` consecutive lists whose sizes differ by at most one.

    No list is empty, so there are fewer than `count` lists of fewer items, and none of no items.
    """
    count = min(count, len(items))
    edges = [round(i * len(items) / count) for i in range(count + 1)] if items else []
    return [list(items[start:end]) for start, end in zip(edges, edges[1:])]


def with_stand_ins(
    run: "TrainState", micro_batches: list[_Item], stand_in: _Item
) -> MicroBatches[_Item]:
    """Return the micro-batches, and after them `stand_in` as often as another process of a sharded run
    has more: processes wait in every pass for each other's weights.
    """
    from lab.distributed import collectives

    if not run.config.shard:
        return [*micro_batches]
    missing = collectives.all_reduce_max_int(len(micro_batches)) - len(micro_batches)
    return [*micro_batches, *[StandIn(stand_in)] * missing]
