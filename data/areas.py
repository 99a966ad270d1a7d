"""How large the edited area of each fake is, by its mask."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from data.images import read_mask
from data.manifest import Manifest
from data.parallel import parallel_map
from data.pictures import File
from data.sources.base import FAKE


def edited_areas(
    manifest: Manifest, rows: pd.DataFrame, *, progress: Callable[[int, int], None] | None = None
) -> dict[str, float]:
    """Digest of a fake's file -> the share of its mask that is fake, in [0, 1]; without fakes that have no mask.

    Args:
        manifest: describes the data set.
        rows: of the manifest.
        progress: called with (masks read, masks to read).

    Raises:
        FileError: a mask is gone or has changed; the message names it.
    """
    masked = rows[(rows["label"] == FAKE) & rows["mask"].notna()]
    files = [
        File(manifest.root / path, digest) for path, digest in zip(masked["mask"], masked["mask_digest"], strict=True)
    ]

    def area(file: File) -> float:
        return float(np.mean(file.read(read_mask)))

    areas = {}
    for digest, share in zip(masked["digest"], parallel_map(area, files, workers=None, ahead=64), strict=True):
        areas[str(digest)] = share
        if progress is not None:
            progress(len(areas), len(files))
    return areas
