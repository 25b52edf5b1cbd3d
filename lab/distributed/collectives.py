"""Collectives of a run on several devices (data parallelism).

`torchrun` or `accelerate launch` starts one process for each device, and each process (rank) trains
on its share of every batch. All ranks hold the same weights: they begin with the same weights, and
every update applies the same gradient, summed over the shares. An average over the whole batch (a
baseline, a reference point, a whitened advantage) is computed from the whole batch in every rank.
Rank 0 alone reads commands, evaluates, prints and writes files.

In a run of one process every function here returns its input.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

from lab.errors import LabError

_Item = TypeVar("_Item")
TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for the others. It is long because rank 0 may be evaluating or paused; a rank
that has ended is noticed at once.
"""
PEER_LOST_PATTERN = r"closed by peer|reset by peer|Broken pipe|NCCL error"
"""torch's messages when it talks to a process that has ended."""
_cpu_group: list[Any] = []
"""The group that carries tensors on the CPU and Python objects; empty outside of `process_group`."""


def env_rank() -> int:
    """Return the rank, from 0, that the launcher gave this process; for use before `process_group`."""
    return _launcher("RANK", 0) if _launcher("WORLD_SIZE", 1) > 1 else 0


def local_rank() -> int | None:
    """Return the index of this process's GPU on its machine, or None in a run of one process."""
    return (
        _launcher("LOCAL_RANK", 0)
        if _launcher("WORLD_SIZE", 1) > 1 and "LOCAL_RANK" in os.environ
        else None
    )


def _launcher(name: str, otherwise: int) -> int:
    """The whole number in the environment variable `name`, which a launcher such as torchrun sets;
    raise `LabError` for any other value.
    """
    text = os.environ.get(name, str(otherwise))
    if not (text.isascii() and text.isdigit()):
        raise LabError(
            f"The environment variable {name} is '{text}', but takes a whole number, which torchrun"
            " sets. Unset it to train in one process."
        )
    return int(text)


def world_size() -> int:
    """Return the number of processes of the run."""
    return distributed.get_world_size() if _cpu_group else 1


def rank() -> int:
    """Return the rank of this process, from 0."""
    return distributed.get_rank() if _cpu_group else 0


@contextmanager
def process_group() -> Iterator[None]:
    """Within it, the processes that were launched together train one run: gloo carries tensors on the
    CPU, NCCL those on GPUs.

    Raises `LabError` when another process of the run ends.
    """
    if _launcher("WORLD_SIZE", 1) <= 1:
        yield
        return
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT
    )
    _cpu_group.append(distributed.new_group(backend="gloo", timeout=TIMEOUT))
    try:
        yield
        distributed.destroy_process_group()
    except RuntimeError as error:
        # FSDP gathers weights by itself, so its errors arrive here.
        if re.search(PEER_LOST_PATTERN, str(error)):
            raise _peer_lost(error) from error
        raise
    finally:  # After an error the group is not destroyed, because the others may be gone.
        _cpu_group.clear()


@contextmanager
def alone() -> Iterator[None]:
    """Within it, this process works as if it were the only one: its batches are whole, and nothing
    is gathered from other processes.
    """
    group = _cpu_group.copy()
    _cpu_group.clear()
    try:
        yield
    finally:
        _cpu_group.extend(group)


def broadcast_object(make: Callable[[], _Item]) -> _Item:
    """Call `make` in rank 0 and return its result in every rank."""
    if world_size() == 1:
        return make()
    objects: list[Any] = [make() if rank() == 0 else None]
    _raise_if_peer_lost(lambda: distributed.broadcast_object_list(objects, 0, _cpu_group[0]))
    return objects[0]


def shard_for_rank(items: Sequence[_Item], what: str) -> Sequence[_Item]:
    """Return this rank's share of a batch; the shares of all ranks are equally large.

    `what` names the items in the `LabError` for a batch that cannot be divided equally.
    """
    count = world_size()
    if len(items) % count:
        raise LabError(
            f"A batch of {len(items)} {what} cannot be shared equally by {count} processes. Change"
            f" batch_size so that it holds a multiple of {count} {what}, or start a number of"
            f" processes that divides {len(items)}."
        )
    size = len(items) // count
    return items[rank() * size : (rank() + 1) * size]


def local_rows(rows: Sequence[int], count: int) -> list[int]:
    """Return those `rows` of the whole batch that this rank holds, as indices into its own rows.

    Each rank holds `count` consecutive rows. Anchor: rank 2 of 3 with 4 rows each has of the rows
    0, 4, 5, 8, 11 its own rows 0 and 3.
    """
    first = rank() * count
    return [row - first for row in rows if first <= row < first + count]


def all_gather(values: torch.Tensor) -> torch.Tensor:
    """Return the values (N, …) or (N, T) of the whole batch, from the same number of rows in each rank.

    Where T differs between ranks, shorter rows are padded with zeros on the right.
    """
    if world_size() == 1:
        return values
    if values.ndim > 1:
        values = torch.nn.functional.pad(
            values, (0, all_reduce_max_int(values.shape[1]) - values.shape[1])
        )
    shares = [torch.empty_like(values) for _ in range(world_size())]
    _barrier()
    _raise_if_peer_lost(lambda: distributed.all_gather(shares, values.contiguous()))
    return torch.cat(shares)


def all_gather_object(items: list[_Item]) -> list[_Item]:
    """Return the items of all ranks, in the order of the ranks."""
    if world_size() == 1:
        return items
    shares: list[Any] = [None] * world_size()
    _raise_if_peer_lost(lambda: distributed.all_gather_object(shares, items, _cpu_group[0]))
    return [item for share in shares for item in share]


def local_shard(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return this rank's rows of `whole`, the inverse of `all_gather`; `like` has their shape."""
    rows = whole[rank() * len(like) : (rank() + 1) * len(like)]
    return rows[:, : like.shape[1]] if like.ndim > 1 else rows


def all_reduce_sum_(tensors: list[torch.Tensor]) -> None:
    """Replace every tensor, in place, by its sum over all ranks: one message for all tensors, in
    float32.
    """
    if world_size() == 1:
        return
    flat = torch.cat([t.detach().float().flatten() for t in tensors])
    _barrier()
    _raise_if_peer_lost(lambda: distributed.all_reduce(flat))
    for tensor, summed in zip(tensors, flat.split([t.numel() for t in tensors])):
        tensor.detach().copy_(summed.view_as(tensor))


def all_reduce_sum_int(number: int) -> int:
    """Return the sum of the whole numbers of all ranks."""
    if world_size() == 1:
        return number
    summed = torch.tensor(number)
    _raise_if_peer_lost(lambda: distributed.all_reduce(summed, group=_cpu_group[0]))
    return int(summed)


def all_reduce_max_int(number: int) -> int:
    """Return the largest of the whole numbers of all ranks."""
    if world_size() == 1:
        return number
    largest = torch.tensor(number)
    _raise_if_peer_lost(
        lambda: distributed.all_reduce(largest, distributed.ReduceOp.MAX, _cpu_group[0])
    )
    return int(largest)


def _barrier() -> None:
    """Notice a process that has ended before waiting for it on a GPU, where a wait cannot be
    interrupted.
    """
    _raise_if_peer_lost(lambda: distributed.monitored_barrier(_cpu_group[0], TIMEOUT))


def _raise_if_peer_lost(collective: Callable[[], Any]) -> None:
    try:
        collective()
    except RuntimeError as error:
        raise _peer_lost(error) from error


def _peer_lost(error: RuntimeError) -> LabError:
    match = re.search(r"Rank (\d+) failed", str(error))
    name = f"process {match[1]}" if match else "another process"
    return LabError(
        f"{name} of the {world_size()} that train this run has ended, so the training stopped. The"
        " last checkpoint is intact: run the same command again with --resume."
    )
