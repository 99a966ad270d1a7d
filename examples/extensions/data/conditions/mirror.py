"""Pictures that are mirrored: a change that no trace of a generator should depend on."""

from __future__ import annotations

import numpy as np

from data.conditions import Picture, register_condition


@register_condition("mirror")
def mirror(picture: Picture) -> np.ndarray:
    """Left and right exchanged."""
    return np.ascontiguousarray(picture.pixels[:, ::-1])
