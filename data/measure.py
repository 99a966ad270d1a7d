"""Numbers measured on decoded pixels, for the audits of `data.audits`. Each photograph is decoded once, with its fakes.

The first reading of a folder can measure while it has the pixels (`data.manifest.build_manifest`); `measure` decodes
what is still missing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from data.images import BadImage, ImageFacts, read
from data.manifest import Manifest
from data.parallel import parallel_map
from data.photographs import (
    COLUMNS,
    EMPTY,
    ON_PIXELS,
    PER_GROUP,
    Key,
    Row,
    Shot,
    add_measured,
    mask_key,
    measure_photograph,
    photographs,
    read_measured,
)  # fmt: skip
from data.pictures import FileError, changed_file
from data.sources.base import FAKE, REAL, SHARED_REAL, owners_of


def measure(
    manifest: Manifest,
    *,
    cache: Path,
    per_group: int = PER_GROUP,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Numbers measured on the pixels of a data set. What was measured before is read from disk, and nothing is decoded.

    Args:
        manifest: describes the data set.
        cache: the numbers are kept here, per digests of the image, of its original and of its mask.
        per_group: see `photographs`.
        progress: called with (files done, files to open), from this thread.

    Returns:
        one row per image, with the index of the manifest's rows:

        - hash: perceptual hash of 256 bits, 64 hexadecimal digits (`imagehash.phash` of 16 x 16); pixels: checksum of
          the luminance, 8 hexadecimal digits.
        - mask_pixels: the mask's checksum, as pixels; mask_share: share of the image that the mask marks as fake;
          mask_levels: number of grey levels in the mask; mask_highest: its highest level, 0 to 255. NaN without a mask.
        - paired: whether the original is there (a real image of the same source id, split and size).
        - measured: whether the columns below were asked for.
        - changed_outside, changed_inside: share of the pixels outside and inside the mask that differ from the
          original, in [0, 1]; amount_outside, amount_inside: the mean difference over all of these pixels, of the
          colour that differs most, in levels. Without a mask, all pixels are outside. NaN without a pair, or without
          such pixels.
        - blockiness, quality: see `data.traces`. Of a paired fake outside its mask, if pixels changed there, with those
          of its original at the same pixels (blockiness_original, quality_original); else over the whole image where
          there are fakes without a pair. NaN elsewhere.
        - frequency, strength: of `data.traces.resampling`, of a paired fake outside its mask against its original.
        - process, reproduced, exact: of `data.laundering.reproduced`, on `NUM_TRIED` pairs per generator and split.
        - sample: luminance at `SAMPLE` fixed random places, 3 bytes for each: the pixel before, the pixel, the pixel
          behind it in the order of reading; sample_mask: the mask there,
          255 where the image is fake, else 0. Empty where it was not asked for, or without a mask.
        - sharpness: `data.traces.sharpness` as bytes, of images whose traces were measured over the whole image.

    Raises:
        FileError: a file is gone, has changed or cannot be decoded.
    """
    table = manifest.table
    digests = dict(zip(table["path"], table["digest"], strict=True))
    digests |= dict(zip(table["mask"].dropna(), table["mask_digest"].dropna(), strict=True))
    if "original" in table.columns:
        digests |= dict(zip(table["original"].dropna(), table["original_digest"].dropna(), strict=True))
    sizes = dict(zip(table["path"], zip(table["width"], table["height"], strict=True), strict=True))
    groups = photographs(table, per_group)
    cached = read_measured(manifest.root, cache)
    keys = {shot.path: key for group in groups for shot, key in zip(group, _keys(group, digests, sizes), strict=True)}
    missing = [group for group in groups if any(_lacks(cached.get(keys[shot.path]), shot) for shot in group)]

    def read_file(path: str) -> tuple[ImageFacts, Image.Image]:
        try:
            facts, picture = read(manifest.file(path))
        except BadImage as error:
            raise FileError(f"{manifest.file(path)} cannot be read any more: {error}") from error
        if facts.digest != digests[path]:
            raise changed_file(manifest.file(path))
        return facts, picture

    fresh: dict[Key, Row] = {}
    done, total = 0, sum(len(shot.files) for group in missing for shot in group)
    try:
        work = parallel_map(lambda group: measure_photograph(group, read_file), missing, workers=None, ahead=64)
        with closing(work) as results:
            for group, rows in zip(missing, results, strict=True):
                fresh |= rows
                done += sum(len(shot.files) for shot in group)
                if progress is not None:
                    progress(done, total)
    finally:  # an interrupted one keeps what it has
        add_measured(manifest.root, cache, fresh)
    cached |= fresh
    shots = {shot.path: shot for group in groups for shot in group}
    asked_for = [_asked_for(cached[keys[path]], shots[path]) for path in table["path"]]
    return pd.DataFrame({name: [row[name] for row in asked_for] for name in COLUMNS}, index=table.index)


def _keys(group: list[Shot], digests: dict[str, str], sizes: dict[str, tuple[int, int]]) -> list[Key]:
    owners = {name: shot.path for shot in group if shot.label == REAL for name in owners_of(shot.generator)}
    keys = []
    for shot in group:
        original = (owners.get(shot.generator) or owners.get(SHARED_REAL)) if shot.label == FAKE else None
        if original is not None and sizes[original] != sizes[shot.path]:
            original = None
        original = shot.original or original
        mask = mask_key(digests.get(shot.mask, ""), shot.mask_white)
        keys.append((digests[shot.path], digests[original] if original else "", mask))
    return keys


def _lacks(row: Row | None, shot: Shot) -> bool:
    """Whether a row lacks what is to be measured."""
    if row is None or shot.measured > row["measured"]:
        return True
    untried = shot.tried and row["changed_outside"] > 0 and np.isnan(row["reproduced"])
    return bool(untried or (shot.traces and not row["paired"] and not row["traced"]))


def _asked_for(row: Row, shot: Shot) -> Row:
    """A row without what an earlier call, which asked for more, has measured: findings must not depend on that."""
    left_out = set() if shot.measured else set(ON_PIXELS)
    if not shot.tried:
        left_out |= {"process", "reproduced", "exact"}
    if not shot.traces and not row["paired"]:
        left_out |= {"traced", "blockiness", "quality", "sharpness"}
    return row | {name: EMPTY[COLUMNS[name]] for name in left_out}
