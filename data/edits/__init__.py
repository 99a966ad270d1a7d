"""Classic operations on pictures, one file per operation, with which a region of a real photograph is edited.

Detectors that never saw a generator learn from such photographs (`data.self_edited`). No operation here may equal a
generator of a data set that is tested: a detector would have seen that generator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from data.register import Register

if TYPE_CHECKING:
    import numpy as np

# (uint8 (H, W, 3), random generator) -> the edited picture, float or uint8 (H, W, 3), 0 to 255 after rounding and
# clipping. The generator draws the operation's strength.
Edit = Callable[["np.ndarray", "np.random.Generator"], "np.ndarray"]

_edits: Register[Edit] = Register("edit", __name__)
register_edit, list_edits, get_edit = _edits.register, _edits.names, _edits.get
