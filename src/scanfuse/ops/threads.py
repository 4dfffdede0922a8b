"""A pool of threads for kernels that release the interpreter lock: as many as `torch.get_num_threads()`."""

import functools
import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

__all__ = ["run"]


def run(tasks: Sequence[tuple[Any, ...]], kernel: Callable[..., Any]) -> None:
    """Calls `kernel(*task)` for every task; the caller works too, and each thread takes the next task in turn.

    Raises:
        Exception: the first that a kernel raised, once all threads have stopped.
    """
    count = min(torch.get_num_threads(), len(tasks))
    if count <= 1:
        for task in tasks:
            kernel(*task)
        return
    todo = itertools.count()

    def work() -> None:
        while (i := next(todo)) < len(tasks):
            kernel(*tasks[i])

    others = [_pool(os.getpid(), count - 1).submit(work) for _ in range(count - 1)]
    try:
        work()
    finally:
        for other in others:
            other.result()


@functools.lru_cache(maxsize=4)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    # One per process: a forked child has none of its parent's threads.
    return ThreadPoolExecutor(threads, thread_name_prefix="scanfuse-ops")
