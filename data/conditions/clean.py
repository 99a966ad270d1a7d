"""Pictures as they are."""

from __future__ import annotations

import numpy as np

from data.conditions import CLEAN, Picture, register_condition


@register_condition(CLEAN)
def clean(picture: Picture) -> np.ndarray:
    """The picture as it is."""
    return picture.pixels
