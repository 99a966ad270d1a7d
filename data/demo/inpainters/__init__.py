"""Stand-in inpainters of the built-in demo, one a file; honest names of their own, never those of real generators.

A new file in this folder is a new generator: importing it must register one function. Modules whose name begins with
an underscore hold what several of them share.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from data.register import Register

# (image uint8 (H, W, 3), mask bool (H, W) with True = repaint, rng) -> uint8 (H, W, 3). It leaves its arguments alone,
# never looks at the image under the mask, and draws all its randomness from `rng`.
Inpaint = Callable[[NDArray[np.uint8], NDArray[np.bool_], np.random.Generator], NDArray[np.uint8]]

_inpainters: Register[Inpaint] = Register("inpainter", __name__)


def register_inpainter(name: str) -> Callable[[Inpaint], Inpaint]:
    """Register the decorated function under `name`.

    Raises:
        ValueError: the name is taken.
    """

    def decorate(inpaint: Inpaint) -> Inpaint:
        _inpainters.add(name, inpaint)
        return inpaint

    return decorate


def list_inpainters() -> list[str]:
    """Names of all registered inpainters, in alphabetical order."""
    return _inpainters.names()


def get_inpainter(name: str) -> Inpaint:
    """Look an inpainter up. Raises `KeyError` that lists what exists."""
    return _inpainters.get(name)
