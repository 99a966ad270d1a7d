"""A picture saved in memory and read again."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image


def saved(image: Image.Image, file_format: str, **options: Any) -> np.ndarray:
    """A picture saved in memory, in a format of Pillow with its options, and read again: uint8 (H, W, 3)."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return np.array(Image.open(buffer).convert("RGB"))
