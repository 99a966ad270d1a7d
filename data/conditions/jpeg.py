"""Pictures saved as JPEG once more, real and fake alike."""

from __future__ import annotations

import numpy as np
from PIL import Image

from data.conditions import Picture, register_conditions
from data.saving import saved


@register_conditions("jpeg", levels=range(1, 101))
def jpeg(picture: Picture, quality: int) -> np.ndarray:
    """Saved as JPEG with this quality and read again (Pillow's tables, 4:2:0 chroma subsampling)."""
    return saved(Image.fromarray(picture.pixels), "JPEG", quality=quality, subsampling="4:2:0")
