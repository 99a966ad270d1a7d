"""Python's search for garbage, off while very many objects are made."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


def search_less_often() -> None:
    """Let this process look for garbage after 50,000 new objects: imports and tables make very many that stay.

    By default Python does so after hundreds or some thousands. The second report of a grid becomes a tenth faster.
    """
    gc.set_threshold(50_000, 20, 20)


@contextmanager
def no_search_for_garbage() -> Iterator[None]:
    """A million new objects, none of which is garbage, make Python look through all of them again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
