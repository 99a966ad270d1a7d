"""Stand-in inpainters of the built-in demo, one a file; honest names of their own, never those of real generators.

A new file in this folder is a new generator: importing it must register one function. Modules whose name begins with
an underscore hold what several of them share.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

# (image uint8 (H, W, 3), mask bool (H, W) with True = repaint, rng) -> uint8 (H, W, 3). It leaves its arguments alone,
# never looks at the image under the mask, and draws all its randomness from `rng`.
Inpaint = Callable[[NDArray[np.uint8], NDArray[np.bool_], np.random.Generator], NDArray[np.uint8]]

_inpainters: dict[str, Inpaint] = {}


def register_inpainter(name: str) -> Callable[[Inpaint], Inpaint]:
    """Register the decorated function under `name`.

    Raises:
        ValueError: the name is taken.
    """

    def decorate(inpaint: Inpaint) -> Inpaint:
        if name in _inpainters:
            raise ValueError(f"an inpainter named {name!r} is registered already")
        _inpainters[name] = inpaint
        return inpaint

    return decorate


def _load_all() -> None:
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{__name__}.{module.name}")


def list_inpainters() -> list[str]:
    """Names of all registered inpainters, in alphabetical order."""
    _load_all()
    return sorted(_inpainters)


def get_inpainter(name: str) -> Inpaint:
    """Look an inpainter up. Raises `KeyError` that lists what exists."""
    _load_all()
    if name not in _inpainters:
        raise KeyError(f"no inpainter named {name!r}; there are: {', '.join(sorted(_inpainters))}")
    return _inpainters[name]
