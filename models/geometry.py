"""The transform from a picture of any size to a backbone's square input, and back for maps over that square."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

POLICIES = ("squash", "crop", "pad", "native")
INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Geometry:
    """A transform of a picture to `size` x `size` pixels.

    Attributes:
        size: side of the result in pixels.
        interpolation: "nearest", "bilinear", "bicubic" or "lanczos"; Pillow's, which antialiases when it shrinks.
        policy: "squash": resize the whole picture, without keeping the aspect ratio.
            "crop": timm's evaluation transform: resize the shorter side to floor(size / crop_fraction), then cut out
            the centre.
            "pad": Segment Anything's: resize the longer side to `size`, then fill the rest at the bottom and right.
            "native": cut out the centre without a resize, as torchvision's CenterCrop; where a picture is smaller than
            the square, it is in the middle and the rest is filled.
        crop_fraction: for "crop", in (0, 1].
        fill: for "pad" and "native", the RGB colour of the filled part.
        alpha: for "pad", add a fourth channel: 255 where the picture is, 0 where it was filled.
    """

    size: int
    interpolation: str = "bicubic"
    policy: str = "squash"
    crop_fraction: float = 1.0
    fill: tuple[int, int, int] = (0, 0, 0)
    alpha: bool = False

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ValueError(f"no policy {self.policy!r}; there are: {', '.join(POLICIES)}")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"no interpolation {self.interpolation!r}; there are: {', '.join(INTERPOLATIONS)}")
        if self.size < 1:
            raise ValueError(f"size must be at least one pixel, got {self.size}")
        if not 0 < self.crop_fraction <= 1:
            raise ValueError(f"crop_fraction must be in (0, 1], got {self.crop_fraction}")
        if self.alpha and self.policy != "pad":
            raise ValueError(f"alpha marks what was filled, and {self.policy!r} fills nothing")

    @property
    def key(self) -> str:
        """Identifies the transform with all its settings; safe as a folder name."""
        parts = [self.policy, str(self.size), self.interpolation]
        if self.policy == "crop":
            parts.append(str(float(self.crop_fraction)))
        if self.policy in ("pad", "native"):
            parts.append(".".join(str(value) for value in self.fill))
        parts += ["alpha"] if self.alpha else []
        return "-".join(parts)

    def apply(self, image: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) -> uint8 (size, size, 3), both RGB; (size, size, 4) with `alpha`."""
        shape = (image.shape[0], image.shape[1])
        image = self._resize(image, *self._resized(shape))
        if self.policy == "pad":
            colour = (*self.fill, 0) if self.alpha else self.fill
            square = np.full((self.size, self.size, len(colour)), colour, dtype=np.uint8)
            square[: image.shape[0], : image.shape[1], :3] = image
            square[: image.shape[0], : image.shape[1], 3:] = 255
            return square
        if self.policy == "native":
            square = np.full((self.size, self.size, 3), self.fill, dtype=np.uint8)
            inside, shown = self._shown(shape)
            square[inside] = image[shown]
            return square
        top, left = self._corner(shape)
        return np.ascontiguousarray(image[top : top + self.size, left : left + self.size])

    def invert(self, values: np.ndarray, shape: tuple[int, int], *, outside: float = 0.0) -> np.ndarray:
        """Transform a map over the square to a map over the picture.

        "squash" stretches the map. "pad" and "native" cut the filled part off. "crop" and "native" give `outside` where
        the picture was cut off, which no detector saw.

        Args:
            values: float (size, size).
            shape: (H, W) of the picture.
            outside: the value of what no detector saw.

        Returns:
            float32 (H, W), in the range of the values and `outside`; interpolated linearly.

        Raises:
            ValueError: the map has another size.
        """
        if values.shape != (self.size, self.size):
            raise ValueError(f"the map has shape {values.shape}, the geometry makes {(self.size, self.size)}")
        values = np.asarray(values, dtype=np.float32)
        low, high = min(float(values.min()), outside), max(float(values.max()), outside)
        height, width = self._resized(shape)
        if self.policy == "pad":
            values = values[:height, :width]
        elif self.policy == "crop":
            top, left = self._corner(shape)
            canvas = np.full((height, width), outside, dtype=np.float32)
            canvas[top : top + self.size, left : left + self.size] = values
            values = canvas
        elif self.policy == "native":
            canvas = np.full(shape, outside, dtype=np.float32)
            inside, shown = self._shown(shape)
            canvas[shown] = values[inside]
            values = canvas
        if values.shape != shape:
            picture = Image.fromarray(np.ascontiguousarray(values))
            values = np.asarray(picture.resize(shape[::-1], Image.Resampling.BILINEAR))
        return np.clip(values, low, high)

    def _resized(self, shape: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of a picture of this shape after resizing, before cutting or filling."""
        height, width = shape
        if self.policy == "squash":
            return self.size, self.size
        if self.policy == "native":
            return height, width
        if self.policy == "pad":
            scale = self.size / max(height, width)
            return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
        # Rounding as in torchvision's Resize and CenterCrop, of which timm's evaluation transform consists.
        short = math.floor(self.size / self.crop_fraction)
        return (int(short * height / width), short) if width <= height else (short, int(short * width / height))

    def _corner(self, shape: tuple[int, int]) -> tuple[int, int]:
        """(top, left) of the centre that is cut out of the resized picture."""
        height, width = self._resized(shape)
        return round((height - self.size) / 2), round((width - self.size) / 2)

    def _shown(self, shape: tuple[int, int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """For "native": where the picture is in the square, and which part of the picture that is."""
        inside, shown = list[slice](), list[slice]()
        for side, corner in zip(shape, self._corner(shape), strict=True):
            length = min(side, self.size)
            start, offset = (corner, 0) if side >= self.size else (0, (self.size - side) // 2)
            inside.append(slice(offset, offset + length))
            shown.append(slice(start, start + length))
        return tuple(inside), tuple(shown)

    def _resize(self, image: np.ndarray, height: int, width: int) -> np.ndarray:
        if image.shape[:2] == (height, width):
            return image
        return np.array(Image.fromarray(image).resize((width, height), INTERPOLATIONS[self.interpolation]))
