"""Labels of patches from masks, for a network that gives each cell of a grid logits of all classes."""

from __future__ import annotations

import numpy as np

from models.checks import check_masked, given_masks
from models.detector import Examples
from models.geometry import Geometry
from models.maps import cell_shares

INSIDE = 0.5  # share of a cell inside the mask above which its patch is fake
UNKNOWN = -100  # label of patches without one; torch's `cross_entropy` leaves it out


def check_masks(train: Examples) -> None:
    """Raise `ValueError` if there is no fake with a mask; warn of fakes without one."""
    masks = given_masks(train)
    has_mask = np.ones(len(train.labels), dtype=bool)
    for number in np.flatnonzero(train.labels):
        has_mask[number] = masks[np.array([number])][0] is not None
    check_masked(train.labels, has_mask)


def patch_labels(
    mask: np.ndarray | None, label: int, square: Geometry, cells: tuple[int, int], *, flip: bool
) -> np.ndarray:
    """int64 `cells`: the label where a patch is fake, 0 where it is real, `UNKNOWN` for a fake without a mask.

    Args:
        mask: bool (H, W) of the pixels that `square` makes a square of; None: there is none.
        label: class number of the picture; in a real picture nothing is fake.
        square: the transform from these pixels to the network's square.
        cells: rows and columns of the network's grid.
        flip: whether the square is mirrored.
    """
    if mask is None or not label:
        return np.full(cells, UNKNOWN if label else 0, dtype=np.int64)
    shares = cell_shares(mask, square, cells)
    return np.where((shares[:, ::-1] if flip else shares) > INSIDE, label, 0)
