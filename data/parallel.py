"""Work done in threads or processes, a bounded amount ahead of its consumer."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


def parallel_map(
    function: Callable[[T], U], items: Iterable[T], *, workers: int | None, ahead: int, processes: bool = False
) -> Generator[U, None, None]:
    """Apply `function` to all items, in order, computing at most `ahead` results before the consumer takes them.

    It uses threads, because Pillow and hashlib release the interpreter's lock while they work. An exception of
    `function` is raised at its item's turn. Closing the iterator drops items that have not been started.

    Args:
        function: what to apply.
        items: what to apply it to.
        workers: the number of threads or processes; None: one per core.
        ahead: see above.
        processes: use processes: for many small items, between which threads wait for the interpreter's lock. Then
            `function`, items and results are pickled.

    Raises:
        RuntimeError: a process was ended from outside, or could not be started.
    """
    num_workers = workers or os.cpu_count() or 1
    pool = _process_pool(num_workers) if processes else ThreadPoolExecutor(num_workers)
    pending: deque[Future[U]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= max(ahead, num_workers):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a process that reads files was ended from outside (too little memory?) or could not start; repeat the "
            'command. In a program of your own, put the call below: if __name__ == "__main__":'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _process_pool(num_workers: int) -> Executor:
    # "spawn": forking a process with threads, such as those of pyarrow, may hang.
    return ProcessPoolExecutor(num_workers, multiprocessing.get_context("spawn"), initializer=_begin_process)


def _begin_process() -> None:
    """Leave Ctrl-C to the parent, and end with the parent, even if that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None, "it was started by one"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
