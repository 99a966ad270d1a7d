"""What a method needs of the sizes of pictures. The data are asked for it before anything is computed."""

from __future__ import annotations

import math
from dataclasses import dataclass

MAX_RATIO = 50.0  # longer side by shorter side; of a narrower picture a square shows nothing
MAX_PIXELS = 64_000_000  # of a picture whose shorter side was resized to the square's side, as "crop" does


@dataclass(frozen=True)
class PictureNeeds:
    """The sizes of pictures that a method can take.

    Attributes:
        min_side: the smallest side in pixels.
        max_ratio: the largest ratio of the longer side to the shorter side.
    """

    min_side: int = 1
    max_ratio: float = math.inf

    def problem(self, width: int, height: int) -> str:
        """What is wrong with a picture of this size in pixels, in words for all such pictures; "" if nothing is."""
        short, long = sorted((width, height))
        if short < self.min_side:
            return f"a side of less than {self.min_side} pixels"
        if long > self.max_ratio * short:
            return f"one side more than {self.max_ratio:g} times the other"
        return ""


def resized_to(size: int) -> PictureNeeds:
    """The needs of a method that resizes pictures to a square of this side in pixels; 0: at most 1024.

    The ratio is bounded for every resize policy: "crop" would enlarge a picture of 1 x 400,000 pixels to
    224 x 89,600,000, and under the others nothing is left of it.
    """
    return PictureNeeds(max_ratio=max(1.0, min(MAX_RATIO, MAX_PIXELS // max(1, size) ** 2)))


@dataclass(frozen=True)
class SelfEdits:
    """The self-edited pictures that a method learns from: real photographs, and the same with one region edited.

    A split has as many real as edited versions. If it has more photographs than `most`, some of them take part.

    Attributes:
        recipe: how regions are drawn, edited and processed; a name in `data.self_edited`.
        versions: edited versions of each photograph, at most.
        most: edited versions of all training photographs, at most, if these have 256 x 256 pixels; of larger ones
            fewer, so that the time of training is bounded (`data.self_edited.SelfEdited`).
        most_valid: likewise, of validation photographs; 0: this recipe is for training alone.
    """

    recipe: str
    versions: int
    most: int
    most_valid: int
