"""What a backbone wants its pixels to look like. A backbone brings this along; nobody types a mean or a std."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.geometry import Geometry

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Preprocessing:
    """From a picture of any size to a normalised square.

    Attributes:
        size: side of the square, in pixels.
        mean: of R, G, B, for pixels in [0, 1].
        std: of R, G, B, for pixels in [0, 1].
        interpolation: of the resize: "bilinear", "bicubic", "lanczos" or "nearest".
        policy: "squash" resizes the whole picture and gives the aspect up; "crop" resizes the shortest side to
            `size / crop_fraction` and cuts the centre out; "pad" resizes the longest side to `size` and fills the
            bottom or the right with the mean colour, which normalises to (nearly) zero.
        crop_fraction: for "crop" only, in (0, 1].
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    policy: str
    crop_fraction: float = 1.0

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"need three means and three positive deviations, got {self.mean} and {self.std}")
        _ = self.geometry  # which refuses what makes no sense

    @property
    def geometry(self) -> Geometry:
        """The half of the work that is done once per picture, in uint8."""
        red, green, blue = (round(255 * value) for value in self.mean)
        return Geometry(self.size, self.interpolation, self.policy, self.crop_fraction, (red, green, blue))

    @property
    def key(self) -> str:
        """Names every field; safe as a part of a folder name, about 40 characters."""
        colours = hashlib.sha256(repr((self.mean, self.std)).encode()).hexdigest()[:8]
        return f"{self.size}px-{self.policy}-{self.interpolation}-{self.crop_fraction:g}-{colours}"

    def normalise(self, pixels: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The other half, done on every batch, on the device where the pixels are.

        Args:
            pixels: uint8 (N, H, W, 3) in RGB.
            dtype: of the result, float32 by default; the arithmetic is float32 whichever it is.

        Returns:
            (N, 3, H, W), zero mean and unit deviation in the backbone's own statistics; channels last in memory.

        Raises:
            ValueError: the pixels are not uint8 (N, H, W, 3).
        """
        import torch

        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
            raise ValueError(f"need uint8 (N, H, W, 3), got {pixels.dtype} {tuple(pixels.shape)}")
        mean = torch.tensor(self.mean, device=pixels.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(1, 3, 1, 1)
        planes = pixels.permute(0, 3, 1, 2).to(torch.float32)  # keeps the strides, so this is channels last already
        return planes.div_(255).sub_(mean).div_(std).to(dtype or torch.float32)
