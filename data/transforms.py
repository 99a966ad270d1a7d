"""From a picture of any size to the square that a backbone takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

POLICIES = ("squash", "crop", "pad")
INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Geometry:
    """How a picture becomes `size` x `size` pixels.

    Attributes:
        size: pixels a side of the result.
        interpolation: "nearest", "bilinear", "bicubic" or "lanczos"; Pillow's, so that shrinking is antialiased.
        policy: "squash": the whole picture resized, its aspect ratio given up.
            "crop": timm's evaluation transform: the shorter side resized to floor(size / crop_fraction), then the
            centre cut out.
            "pad": Segment Anything's: the longer side resized to `size`, the rest filled at the bottom and right.
        crop_fraction: for "crop", in (0, 1].
        fill: for "pad", the RGB colour of the filled part.
    """

    size: int
    interpolation: str = "bicubic"
    policy: str = "squash"
    crop_fraction: float = 1.0
    fill: tuple[int, int, int] = (0, 0, 0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fill", tuple(self.fill))  # a list after a trip through JSON
        if self.policy not in POLICIES:
            raise ValueError(f"no policy {self.policy!r}; there are: {', '.join(POLICIES)}")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"no interpolation {self.interpolation!r}; there are: {', '.join(INTERPOLATIONS)}")
        if self.size < 1:
            raise ValueError(f"size must be at least one pixel, got {self.size}")
        if not 0 < self.crop_fraction <= 1:
            raise ValueError(f"crop_fraction must be in (0, 1], got {self.crop_fraction}")
        if len(self.fill) != 3 or not all(0 <= value <= 255 for value in self.fill):
            raise ValueError(f"fill must be three values from 0 to 255, got {self.fill}")

    @property
    def key(self) -> str:
        """Everything that the result depends on besides the picture; safe as a folder name."""
        parts = [self.policy, str(self.size), self.interpolation]
        if self.policy == "crop":
            parts.append(str(float(self.crop_fraction)))
        if self.policy == "pad":
            parts.append(".".join(str(value) for value in self.fill))
        return "-".join(parts)

    def apply(self, image: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) -> uint8 (size, size, 3), both RGB."""
        height, width = image.shape[:2]
        if self.policy == "squash":
            return self._resize(image, self.size, self.size)
        if self.policy == "pad":
            scale = self.size / max(height, width)
            inner = self._resize(image, max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5)))
            square = np.full((self.size, self.size, 3), self.fill, dtype=np.uint8)
            square[: inner.shape[0], : inner.shape[1]] = inner
            return square
        # Rounding as in torchvision's Resize and CenterCrop, which timm's evaluation transform is made of.
        short = math.floor(self.size / self.crop_fraction)
        if width <= height:
            image = self._resize(image, short, int(short * height / width))
        else:
            image = self._resize(image, int(short * width / height), short)
        top = round((image.shape[0] - self.size) / 2)
        left = round((image.shape[1] - self.size) / 2)
        return np.ascontiguousarray(image[top : top + self.size, left : left + self.size])

    def _resize(self, image: np.ndarray, width: int, height: int) -> np.ndarray:
        if image.shape[:2] == (height, width):
            return image
        return np.array(Image.fromarray(image).resize((width, height), INTERPOLATIONS[self.interpolation]))
