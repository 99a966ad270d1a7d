"""Pictures as a messenger delivers them, real and fake alike."""

from __future__ import annotations

import numpy as np
from PIL import Image

from data.conditions import Picture, register_condition
from data.saving import saved

LONGEST = 1280  # pixels; what common messengers keep of a photograph that is not sent as a file
QUALITY = 75


@register_condition("messenger")
def messenger(picture: Picture) -> np.ndarray:
    """Shrunk where the longer side has more than 1,280 pixels (bicubic), then saved as JPEG 75 and read again.

    Corvi et al. (2023, arXiv 2211.00680) measure how much detectors lose where pictures are resized and compressed as
    social networks do it. A picture with no side over 1,280 pixels comes out as under jpeg-75.
    """
    image = Image.fromarray(picture.pixels)
    if (longest := max(image.size)) > LONGEST:
        scale = LONGEST / longest
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BICUBIC)
    return saved(image, "JPEG", quality=QUALITY, subsampling="4:2:0")
