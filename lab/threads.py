"""How many threads torch computes with."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it, and in a function that it decorates, torch computes in one thread.

    Small tensors gain little from a second thread on idle cores, and where others want them too, waiting for it costs several times
    the work. One thread also makes sums repeat to the last bit.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
