"""One run on several devices: a process for each, as `torchrun` and `accelerate launch` start them,
every one training on its share of each batch.

Alone, everything here changes nothing. Together, all processes hold the same weights: they begin
with the same ones, and every update applies the same gradient, which is summed over the shares.
What is an average over the whole batch (a baseline, a reference point, a whitened advantage) is
computed from the whole batch in every process. Process 0 alone listens, evaluates, prints and
writes; all others follow what it decides.
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

Item = TypeVar("Item")
TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others: process 0 may be evaluating or paused, so not forever
but long. One that has ended is noticed at once.
"""
PEER_LOST_PATTERN = r"closed by peer|reset by peer|Broken pipe|NCCL error"
"""What torch says when it talks to a process that has ended."""
_cpu_group: list[
    Any
] = []  # The group that carries what is not on a GPU, while processes are together.


def env_rank() -> int:
    """Which process of its run this one was started as, from 0; before they have come together."""
    return _launcher("RANK", 0) if _launcher("WORLD_SIZE", 1) > 1 else 0


def local_rank() -> int | None:
    """The number of the GPU that is this process's own, or None where it was started alone."""
    return (
        _launcher("LOCAL_RANK", 0)
        if _launcher("WORLD_SIZE", 1) > 1 and "LOCAL_RANK" in os.environ
        else None
    )


def _launcher(name: str, otherwise: int) -> int:
    """The whole number that a launcher such as torchrun has put into the environment as `name`;
    raise `LabError` for anything else.
    """
    text = os.environ.get(name, str(otherwise))
    if not (text.isascii() and text.isdigit()):
        raise LabError(
            f"The environment variable {name} is '{text}', but takes a whole number, which torchrun"
            " sets. Unset it to train in one process."
        )
    return int(text)


def world_size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if _cpu_group else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return distributed.get_rank() if _cpu_group else 0


@contextmanager
def process_group() -> Iterator[None]:
    """Within it, the processes that were launched together act as one run: CPU tensors go by gloo,
    those on GPUs by NCCL.
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
        if re.search(
            PEER_LOST_PATTERN, str(error)
        ):  # While weights were gathered, which torch does by itself.
            raise _lost(error) from error
        raise
    finally:  # After an error no goodbye: the others may be gone.
        _cpu_group.clear()


@contextmanager
def alone() -> Iterator[None]:
    """Within it, this process works as if it were the only one: its batches are whole, and nothing
    is gathered.
    """
    group = _cpu_group.copy()
    _cpu_group.clear()
    try:
        yield
    finally:
        _cpu_group.extend(group)


def broadcast_object(make: Callable[[], Item]) -> Item:
    """What `make` gives in process 0, in every process."""
    if world_size() == 1:
        return make()
    held = [make() if rank() == 0 else None]
    _raise_if_peer_lost(lambda: distributed.broadcast_object_list(held, 0, _cpu_group[0]))
    return held[0]


def shard_for_rank(items: Sequence[Item], what: str) -> Sequence[Item]:
    """This process's part of a batch, as large as everyone's; raises `LabError`, naming `what` the
    items are, where it cannot be.
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
    """Of the whole batch's `rows` those that lie here, numbered as they are here, where each
    process holds `count` rows.
    """
    first = rank() * count
    return [row - first for row in rows if first <= row < first + count]


def all_gather(values: torch.Tensor) -> torch.Tensor:
    """The whole batch's (N, …) or (N, T) from everyone's equal number of rows; a shorter T is
    filled up with zeros on the right.
    """
    if world_size() == 1:
        return values
    if values.ndim > 1:
        values = torch.nn.functional.pad(
            values, (0, all_reduce_max_int(values.shape[1]) - values.shape[1])
        )
    parts = [torch.empty_like(values) for _ in range(world_size())]
    _barrier()
    _raise_if_peer_lost(lambda: distributed.all_gather(parts, values.contiguous()))
    return torch.cat(parts)


def all_gather_object(items: list[Item]) -> list[Item]:
    """Everyone's items, in the order of the processes."""
    if world_size() == 1:
        return items
    parts: list[Any] = [None] * world_size()
    _raise_if_peer_lost(lambda: distributed.all_gather_object(parts, items, _cpu_group[0]))
    return [item for part in parts for item in part]


def local_shard(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The rows of `whole` that are this process's, in the shape of `like`, its own part before
    `everyone`.
    """
    part = whole[rank() * len(like) : (rank() + 1) * len(like)]
    return part[:, : like.shape[1]] if like.ndim > 1 else part


def all_reduce_sum_(tensors: list[torch.Tensor]) -> None:
    """Put into every tensor, in place, the sum over all processes: one message for all of them, in
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
    """The sum of everyone's whole number."""
    if world_size() == 1:
        return number
    summed = torch.tensor(number)
    _raise_if_peer_lost(lambda: distributed.all_reduce(summed, group=_cpu_group[0]))
    return int(summed)


def all_reduce_max_int(number: int) -> int:
    """The largest of everyone's whole numbers."""
    if world_size() == 1:
        return number
    largest = torch.tensor(number)
    _raise_if_peer_lost(
        lambda: distributed.all_reduce(largest, distributed.ReduceOp.MAX, _cpu_group[0])
    )
    return int(largest)


def _barrier() -> None:
    """Notice a process that has ended before waiting for it on a GPU, where waiting cannot be
    broken off.
    """
    _raise_if_peer_lost(lambda: distributed.monitored_barrier(_cpu_group[0], TIMEOUT))


def _raise_if_peer_lost(talk: Callable[[], Any]) -> None:
    try:
        talk()
    except RuntimeError as error:
        raise _lost(error) from error


def _lost(error: RuntimeError) -> LabError:
    named = re.search(r"Rank (\d+) failed", str(error))
    who = f"process {named[1]}" if named else "another process"
    return LabError(
        f"{who} of the {world_size()} that train this run has ended, and without it there is no whole"
        " batch. Everything up to the last checkpoint stands; go on with the same command and"
        " --resume."
    )
