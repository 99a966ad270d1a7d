"""Figures to files, on request in processes of their own, because drawing takes much of a report's time."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

import matplotlib as mpl
from matplotlib.figure import Figure

from analysis.figures import style
from grid.garbage import search_less_often
from grid.local_store import StoreError

P = ParamSpec("P")
T = TypeVar("T")
DPI = 144
CSS_PIXELS = 96  # per inch
_KILLED = (
    "a process that draws pictures was killed, perhaps because the memory ran out; make the report again with "
    "--processes 1"
)


def draw(figure: Figure, stem: Path, *, vector: bool = True) -> tuple[int, int]:
    """Draw a figure to `stem`.png and, if it is `vector`, `stem`.svg. Returns width and height in CSS pixels.

    The layout, if it has one, and the box that holds everything drawn are found once for the two files, without drawing
    anything for it.
    """
    with style():
        figure.set_dpi(DPI)
        layout = figure.get_layout_engine()
        if layout is not None:
            layout.execute(figure)
        figure.set_layout_engine(None)  # the layout is final; "none" would go through all of the figure once more
        box = figure.get_tightbbox().padded(mpl.rcParams["savefig.pad_inches"])
        png = {"compress_level": 4}  # half the time of 6 for a picture of photographs, whose file is 4 % larger
        figure.savefig(stem.with_name(f"{stem.name}.png"), dpi=DPI, bbox_inches=box, pil_kwargs=png)
        if vector:
            figure.savefig(stem.with_name(f"{stem.name}.svg"), bbox_inches=box, metadata={"Date": None})
    return round(box.width * CSS_PIXELS), round(box.height * CSS_PIXELS)


class Drawing:
    """Draws figures, in this process or in others. A context; at its end the other processes are ended."""

    def __init__(self, processes: int = 1) -> None:
        """With 1 process, each figure is drawn at once, here; with more, in so many others, while this one goes on."""
        self._executor: Executor | None = None
        if processes > 1:
            self._executor = ProcessPoolExecutor(
                processes,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_begin_process,
            )

    def __enter__(self) -> Drawing:
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def start(self, figure: Figure, stem: Path, *, vector: bool = True) -> Future[tuple[int, int]]:
        """Begin `draw`. What it raises, the future raises; in this process, the call raises it."""
        return self._begin(draw, figure, stem, vector=vector)

    def compute(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Callable[[], T]:
        """Begin other work, of a function of a module. Returns what waits for its result, and raises what it raised."""
        if self._executor is None:
            return partial(work, *args, **kwargs)
        return partial(_result, self._begin(work, *args, **kwargs))

    def _begin(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        if self._executor is not None:
            try:
                return self._executor.submit(work, *args, **kwargs)
            except BrokenProcessPool as error:
                raise StoreError(_KILLED) from error
        done = Future[T]()
        done.set_result(work(*args, **kwargs))
        return done


def _begin_process() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the report, which ends its processes
    search_less_often()


def size_of(drawn: Future[tuple[int, int]]) -> tuple[int, int]:
    """Wait for a figure. Returns width and height in CSS pixels.

    Raises:
        StoreError: a process that draws was killed, which loses all figures that are not drawn yet.
        Exception: whatever the drawing raised.
    """
    return _result(drawn)


def _result(done: Future[T]) -> T:
    try:
        return done.result()
    except BrokenProcessPool as error:
        raise StoreError(_KILLED) from error
