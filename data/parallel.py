"""Work done in threads or processes, a bounded amount ahead of its consumer."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Generic, TypeVar

import numpy as np

T = TypeVar("T")
U = TypeVar("U")
P = TypeVar("P")
R = TypeVar("R")

_AT_ONCE = 4  # items that a process takes together: fewer messages, and results come early enough


class Pool(Generic[T, U]):
    """Threads or processes that apply one function to items; for a `with` block.

    Threads do where the function lets go of the interpreter's lock while it works, as Pillow and hashlib do, and are
    few: of more than about four, each waits for the others, and they make other threads of the process wait. Processes
    have a lock each and take a second to start. Arrays in their results come through a file, because unpickling
    from a pipe would hold this process's lock.

    Args:
        function: what to apply. For processes it is pickled, once for each of them; so are items and results.
        workers: the number of threads or processes; None: one per core.
        processes: whether to use processes.
    """

    def __init__(self, function: Callable[[T], U], *, workers: int | None, processes: bool = False) -> None:
        self._workers = workers or os.cpu_count() or 1
        self._function = function
        self._processes = processes
        self._open = ExitStack()

    def __enter__(self) -> Pool[T, U]:
        if self._processes:
            folder = self._open.enter_context(TemporaryDirectory(prefix="arrays-"))
            # "spawn": forking a process with threads, such as those of pyarrow, may hang.
            context = multiprocessing.get_context("spawn")
            arguments = (pickle.dumps(self._function), folder)
            self._executor: Executor = ProcessPoolExecutor(self._workers, context, _begin_process, arguments)
        else:
            self._executor = ThreadPoolExecutor(self._workers)
        self._open.callback(self._executor.shutdown, cancel_futures=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def map(self, items: Iterable[T], *, ahead: int) -> Generator[U, None, None]:
        """Apply the function to all items, in order, computing at most `ahead` results before the consumer takes them.

        Processes take _AT_ONCE items together, and at least one such part each. An exception of the function is raised
        at its item's turn. Closing the iterator drops items that have not been started.

        Raises:
            RuntimeError: a process was ended from outside, or could not be started.
        """
        if not self._processes:
            yield from self._in_order(self._function, items, ahead)
            return
        left = iter(items)
        parts = iter(lambda: list(islice(left, _AT_ONCE)), [])
        for sent in self._in_order(_apply_all, parts, -(-ahead // _AT_ONCE)):
            results, error = sent.unpacked()
            yield from results
            if error is not None:
                raise error

    def _in_order(self, function: Callable[[P], R], items: Iterable[P], ahead: int) -> Generator[R, None, None]:
        pending: deque[Future[R]] = deque()
        try:
            for item in items:
                pending.append(self._executor.submit(function, item))
                if len(pending) >= max(ahead, self._workers):
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a process that reads files was ended from outside (too little memory?) or could not start; repeat the "
                "command. (In a script of your own that is no command of this project, put what you call below: if "
                '__name__ == "__main__":)'
            ) from error
        finally:
            for future in pending:
                future.cancel()


def parallel_map(
    function: Callable[[T], U], items: Iterable[T], *, workers: int | None, ahead: int, processes: bool = False
) -> Generator[U, None, None]:
    """Apply `function` to all items as `Pool.map` does, with threads or processes of its own; arguments as there."""
    with Pool(function, workers=workers, processes=processes) as pool, closing(pool.map(items, ahead=ahead)) as results:
        yield from results


# In a process of a pool -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sent:
    """What a process sends: a pickle, and where the bytes of its arrays are; None where it has none."""

    pickled: bytes
    path: Path | None
    sizes: tuple[int, ...]

    def unpacked(self) -> tuple[list[Any], Exception | None]:
        """The results, and the error that ended them. The file is gone afterwards."""
        arrays: list[np.ndarray] = []
        if self.path is not None:
            arrays = np.split(np.fromfile(self.path, dtype=np.uint8), np.cumsum(self.sizes)[:-1])
            self.path.unlink()
        found: tuple[list[Any], Exception | None] = pickle.loads(self.pickled, buffers=arrays)  # noqa: S301  # our own
        return found


class _Process:
    """What this process applies; unpickled with the first item, so that an error is the item's."""

    pickled = b""
    function: Callable[[Any], Any] | None = None
    folder = Path()
    count = 0


def _apply_all(items: list[Any]) -> _Sent:
    results: list[Any] = []
    error: Exception | None = None
    try:
        if _Process.function is None:
            _Process.function = pickle.loads(_Process.pickled)  # noqa: S301  # our own
        for item in items:
            results.append(_Process.function(item))
    except Exception as raised:
        error = raised
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps((results, error and _sendable(error)), protocol=5, buffer_callback=buffers.append)
    if not buffers:
        return _Sent(pickled, None, ())
    _Process.count += 1
    path = _Process.folder / f"{os.getpid()}-{_Process.count}"
    raws = [buffer.raw() for buffer in buffers]
    try:
        with path.open("wb") as target:
            target.writelines(raws)
    except OSError as failed:
        path.unlink(missing_ok=True)
        # a RuntimeError: an OSError would be taken for one of the folder that results go to
        raise RuntimeError(
            f"pictures cannot be passed on in the temporary folder {path.parent}: {failed.strerror}; free space there, "
            "or name another folder with the environment variable TMPDIR"
        ) from None
    return _Sent(pickled, path, tuple(raw.nbytes for raw in raws))


def _sendable(error: Exception) -> Exception:
    """The error, or one with its type and words if it cannot be pickled and unpickled."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # our own
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _begin_process(pickled: bytes, folder: str) -> None:
    """Leave Ctrl-C to the parent, and end with the parent, even if that is killed."""
    _Process.pickled, _Process.folder = pickled, Path(folder)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None, "it was started by one"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
