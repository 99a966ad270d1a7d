"""Stand-in inpainters of the built-in demo, one per file. None has the name of a real generator.

A new file in this folder is a new generator: when it is imported, it must register one function. Modules whose name
begins with an underscore hold code that several inpainters share.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from data.register import Register

# (image uint8 (H, W, 3), mask bool (H, W) with True = repaint, rng) -> picture uint8 (H, W, 3). An inpainter does not
# change its arguments, does not read the image under the mask, and draws all random numbers from `rng`.
Inpaint = Callable[[NDArray[np.uint8], NDArray[np.bool_], np.random.Generator], NDArray[np.uint8]]

_inpainters: Register[Inpaint] = Register("inpainter", __name__)
register_inpainter, list_inpainters, get_inpainter = _inpainters.register, _inpainters.names, _inpainters.get
