"""Stand-in inpainters of the built-in demo, one per file. None has the name of a real generator.

A new file in this folder is a new generator: when it is imported, it must register one function. Modules whose name
begins with an underscore hold code that several inpainters share.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from data.register import Register

Wish = NDArray[np.float32] | None


class Inpaint(Protocol):
    """Repaints a region of a picture. It changes no argument and draws all random numbers from `rng`."""

    def __call__(
        self, image: NDArray[np.uint8], mask: NDArray[np.bool_], rng: np.random.Generator, wish: Wish = None
    ) -> NDArray[np.uint8]:
        """Repaint.

        Args:
            image: uint8 (H, W, 3), not read under the mask.
            mask: bool (H, W), True = repaint.
            rng: random numbers.
            wish: a clean picture of what the region is to show, float32 (H, W, 3) levels; None: the inpainter thinks of
                a face itself.

        Returns:
            uint8 (H, W, 3), a new array.
        """
        ...


_inpainters: Register[Inpaint] = Register("inpainter", __name__)
register_inpainter, list_inpainters, get_inpainter = _inpainters.register, _inpainters.names, _inpainters.get
