"""The preprocessing of a backbone's pixels. Each backbone brings its own; nobody types a mean or a deviation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from models.geometry import Geometry

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Preprocessing:
    """The transform of a picture of any size to a normalised square.

    Attributes:
        size: side of the square in pixels.
        mean: mean of R, G, B, for pixels in [0, 1].
        std: standard deviation of R, G, B, for pixels in [0, 1].
        interpolation: see `Geometry`.
        policy: see `Geometry`. "pad" fills with the mean colour, which normalises to (nearly) zero.
        crop_fraction: see `Geometry`.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    policy: str
    crop_fraction: float = 1.0

    @property
    def geometry(self) -> Geometry:
        """The first half of the work, in uint8, done once per picture. Raises `ValueError` for senseless settings."""
        red, green, blue = (round(255 * value) for value in self.mean)
        return Geometry(self.size, self.interpolation, self.policy, self.crop_fraction, (red, green, blue))

    @property
    def key(self) -> str:
        """Identifies all fields; about 40 characters, safe as a part of a folder name."""
        colours = hashlib.sha256(repr((self.mean, self.std)).encode()).hexdigest()[:8]
        return f"{self.size}px-{self.policy}-{self.interpolation}-{self.crop_fraction:g}-{colours}"

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """The second half of the work, done for every batch, on the device of the pixels.

        Args:
            pixels: uint8 (N, H, W, 3) in RGB; or (N, H, W, 4), whose last channel is 0 where a picture was filled up.

        Returns:
            float32 (N, 3, H, W), (pixels / 255 - mean) / std; channels last in memory. For four channels (N, 4, H, W):
            all channels are 0 where a picture was filled up, and the last is 1 elsewhere.

        Raises:
            ValueError: the pixels are not uint8 (N, H, W, 3) or (N, H, W, 4).
        """
        import torch

        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[3] not in (3, 4):
            raise ValueError(f"need uint8 (N, H, W, 3), got {pixels.dtype} {tuple(pixels.shape)}")
        if pixels.shape[3] == 4:
            present = (pixels[..., 3] > 0).to(torch.float32)[:, None]
            return torch.cat([self.normalise(pixels[..., :3]) * present, present], dim=1)
        mean, std = (_constant(values, pixels.device) for values in (self.mean, self.std))
        planes = pixels.permute(0, 3, 1, 2).to(torch.float32)  # keeps the strides, so this is channels last already
        return planes.div_(255).sub_(mean).div_(std)


@cache
def _constant(values: tuple[float, float, float], device: torch.device) -> torch.Tensor:
    """float32 (1, 3, 1, 1), sent to a device once: sending makes a GPU wait."""
    import torch

    with torch.inference_mode(False):  # usable for gradients, wherever it is needed first
        return torch.tensor(values, device=device).view(1, 3, 1, 1)
