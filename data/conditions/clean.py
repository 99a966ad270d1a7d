"""Unchanged pictures."""

from __future__ import annotations

import numpy as np

from data.conditions import CLEAN, Picture, register_condition


@register_condition(CLEAN)
def clean(picture: Picture) -> np.ndarray:
    """The unchanged picture."""
    return picture.pixels
