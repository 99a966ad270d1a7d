"""Pictures saved as WebP once more, real and fake alike."""

from __future__ import annotations

import numpy as np
from PIL import Image

from data.conditions import Picture, register_conditions
from data.saving import saved


@register_conditions("webp", levels=range(1, 101))
def webp(picture: Picture, quality: int) -> np.ndarray:
    """Saved as lossy WebP with this quality and read again (Pillow's other settings).

    80 is the default quality of Pillow, and 75 that of libwebp's own tool.
    """
    return saved(Image.fromarray(picture.pixels), "WEBP", quality=quality)
