"""Threads for many products of middling size.

A product that is shared out over several threads ends with a barrier, at which they spin. Where other work wants the
same cores, each of thousands of barriers waits for a thread that is not running, and two threads take many times as
long as one. So here a path of small products gets one thread, and a pass over many rows gives each thread rows of its
own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


#: Up to so many columns matrices are small: one thread is about as fast on them as many.
SMALL = 1024


@contextmanager
def threads_for(columns: int) -> Iterator[int]:
    """Runs PyTorch's operations on one thread inside, where matrices of so many columns are small.

    Gives the number of threads that there are outside.
    """
    before = torch.get_num_threads()
    if columns <= SMALL:
        torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


def map_rows(work: Callable[[T], R], parts: Sequence[T], workers: int) -> list[R]:
    """``work`` of each part, in order, on as many threads as ``workers``, each of which uses no other."""
    if workers <= 1 or len(parts) == 1:
        return [work(part) for part in parts]
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, parts))
    finally:
        torch.set_num_threads(before)  # the last value set is what new threads start with
