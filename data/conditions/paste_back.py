"""Fakes that keep nothing of the generator outside their mask."""

from __future__ import annotations

import numpy as np

from data.conditions import PASTE_BACK, Picture, register_condition


@register_condition(PASTE_BACK, uses=("mask", "original"), needs_pairs=True)
def paste_back(picture: Picture) -> np.ndarray:
    """Outside the mask the pixels of the original photograph, inside it those of the fake; real pictures unchanged.

    As INP-X (arXiv 2602.00192): a detector that had read traces outside the edited region has nothing to read there.

    Raises:
        ValueError: mask, original and picture differ in size.
    """
    mask, original = picture.mask, picture.original
    if mask is None or original is None:  # a real picture; a launch refuses fakes that lack one
        return picture.pixels
    if original.shape != picture.pixels.shape or mask.shape != picture.pixels.shape[:2]:
        shapes = f"picture {picture.pixels.shape}, original {original.shape}, mask {mask.shape}"
        raise ValueError(f"picture, original and mask differ in size: {shapes}")
    return np.where(mask[..., None], picture.pixels, original)
