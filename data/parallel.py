"""Work done in threads, a bounded amount ahead of its consumer."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


def parallel_map(
    function: Callable[[T], U], items: Iterable[T], *, workers: int | None, ahead: int
) -> Generator[U, None, None]:
    """Apply `function` to all items, in order, computing at most `ahead` results before the consumer takes them.

    It uses threads, because Pillow and hashlib release the interpreter's lock while they work. An exception of
    `function` is raised at its item's turn. Closing the iterator drops items that have not been started.

    `workers` is the number of threads; None: one per core.
    """
    num_workers = workers or os.cpu_count() or 1
    pool = ThreadPoolExecutor(num_workers)
    pending: deque[Future[U]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= max(ahead, num_workers):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
