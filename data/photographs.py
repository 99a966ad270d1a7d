"""The photographs of a data set, and what is measured on one of them: an image is decoded once, beside its original."""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image, ImageChops

from data.images import ImageFacts, white_from
from data.laundering import reproduced
from data.sources.base import FAKE, REAL, SHARED_REAL
from data.traces import blockiness, jpeg_quality, resampling, sharpness

logger = logging.getLogger(__name__)

MEASURE_VERSION = 2  # increase it when a number changes
PER_GROUP = 500  # images with pixel statistics per generator, label and split
NUM_TRIED = 3  # pairs per generator and split on which ways of saving and resizing are tried
SAMPLE = 1536  # places, each with the pixel before and the pixel behind it
COLUMNS = {
    "hash": str, "pixels": str, "mask_pixels": str, "mask_share": float, "mask_levels": float, "mask_highest": float,
    "paired": bool, "measured": bool, "traced": bool, "changed_outside": float, "amount_outside": float,
    "changed_inside": float, "amount_inside": float, "blockiness": float, "blockiness_original": float,
    "quality": float, "quality_original": float, "frequency": float, "strength": float, "process": str,
    "reproduced": float, "exact": float, "sample": bytes, "sample_mask": bytes, "sharpness": bytes,
}  # fmt: skip
EMPTY: dict[type, Any] = {str: "", float: float("nan"), bool: False, bytes: b""}
ON_PIXELS = tuple(COLUMNS)[tuple(COLUMNS).index("measured") :]  # of images that were chosen for it
_HASH_SIDE = 16
_KEY = ["digest", "original", "mask"]

Key = tuple[str, str, str]  # digests of the image, of its original and of its mask; "" where there is none
Row = dict[str, Any]
Read = Callable[[str], tuple[ImageFacts, Image.Image] | None]  # None: the file cannot be used


@dataclass(frozen=True)
class Shot:
    """One image of a photograph, and what to measure on it.

    Attributes:
        path: relative to the root.
        label, generator, mask: as in the manifest; mask is "" without one.
        measured: pixel statistics too, not only its hash and its mask.
        traces: traces of saving and resizing over the whole image.
        tried: try ways of saving and resizing on the original.
    """

    path: str
    label: int
    generator: str
    mask: str
    measured: bool
    traces: bool
    tried: bool

    @property
    def files(self) -> list[str]:
        """The paths of the image and of its mask."""
        return [self.path, self.mask] if self.mask else [self.path]


def photographs(table: pd.DataFrame, per_group: int) -> list[list[Shot]]:
    """The images of each photograph of a split, real images first, with what to measure on them.

    Args:
        table: columns path, label, generator, source_id, split and mask, as in the manifest.
        per_group: pixel statistics for at most so many images per generator, label and split, chosen by a hash of the
            source id, so that a fake and its original are chosen together.
    """
    digests = {source: hashlib.sha256(source.encode()).hexdigest() for source in table["source_id"].unique()}
    ordered = table.assign(_digest=table["source_id"].map(digests), mask=table["mask"].fillna(""))
    ordered = ordered.sort_values(["_digest", "label", "path"])
    rank = ordered.groupby(["split", "generator", "label"]).cumcount()
    shots: defaultdict[tuple[str, str], list[Shot]] = defaultdict(list)
    columns = [ordered[name].tolist() for name in ("split", "source_id", "path", "label", "generator", "mask")]
    for split, source, path, label, generator, mask, number in zip(*columns, rank.tolist(), strict=True):
        chosen = number < per_group
        tried = label == FAKE and number < min(NUM_TRIED, per_group)
        shots[split, source].append(Shot(path, label, generator, mask, chosen, chosen, tried))
    groups = list(shots.values())
    if all(_originals(group) for group in groups if any(shot.label == FAKE for shot in group)):
        # Every fake has its original, so nothing is compared over whole images.
        return [[Shot(s.path, s.label, s.generator, s.mask, s.measured, False, s.tried) for s in g] for g in groups]
    return groups


def measure_photograph(shots: Iterable[Shot], read_file: Read) -> dict[Key, Row]:
    """Measure the images of one photograph.

    Args:
        shots: real images first.
        read_file: path -> (facts, pixels), or None; it is called once for each file.

    Returns:
        a row per image, columns `COLUMNS`.
    """
    rows: dict[Key, Row] = {}
    originals: dict[str, tuple[str, Image.Image]] = {}
    for shot in shots:
        opened = read_file(shot.path)
        opened_mask = read_file(shot.mask) if shot.mask else None
        if opened is None:
            continue
        facts, picture = opened
        grey = picture.convert("L")
        row: Row = {name: EMPTY[kind] for name, kind in COLUMNS.items()}
        row |= {"hash": _hash(grey), "pixels": _checksum(grey)}
        mask, mask_digest = None, ""
        if opened_mask is not None and opened_mask[1].size == picture.size:
            mask_digest = opened_mask[0].digest
            mask, mask_facts = _mask(opened_mask[1], white_from(opened_mask[0].format))
            row |= mask_facts
        original = (originals.get(shot.generator) or originals.get(SHARED_REAL)) if shot.label == FAKE else None
        if original is not None and original[1].size != picture.size:
            original = None
        if shot.label == REAL:
            originals[shot.generator] = facts.digest, picture
        row |= {"paired": original is not None, "measured": shot.measured}
        if shot.measured:
            row["sample"] = _sample(grey)
            row["sample_mask"] = _sample(mask) if mask is not None else b""
            if original is not None:
                row |= _compared(picture, grey, original[1], mask, tried=shot.tried)
            elif shot.traces:
                row |= _traces(grey)
        rows[facts.digest, original[0] if original else "", mask_digest] = row
    return rows


def read_measured(root: Path, cache: Path) -> dict[Key, Row]:
    """The numbers that were measured in a folder before."""
    file = _file(root, cache)
    try:
        frame = pd.read_parquet(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:  # an unreadable cache costs only time
        logger.warning("%s cannot be read (%s); every file is measured again", file, error)
        return {}
    keys = zip(*(frame.pop(name) for name in _KEY), strict=True)
    columns = [frame[name].tolist() for name in COLUMNS]
    return {
        key: dict(zip(COLUMNS, row, strict=True)) for key, row in zip(keys, zip(*columns, strict=True), strict=True)
    }


def add_measured(root: Path, cache: Path, fresh: dict[Key, Row]) -> None:
    """Keep rows of `measure_photograph`, beside those that are kept already."""
    if not fresh:
        return
    file = _file(root, cache)
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        rows = read_measured(root, cache)
        # A row that has more replaces one that has less.
        rows |= {key: row for key, row in fresh.items() if not (key in rows and _more(rows[key], row))}
        frame = pd.DataFrame(list(rows), columns=_KEY)
        for name in COLUMNS:
            frame[name] = [row[name] for row in rows.values()]
        temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
        try:
            frame.to_parquet(temporary, index=False)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)


def _file(root: Path, cache: Path) -> Path:
    key = hashlib.sha256(os.path.realpath(root).encode()).hexdigest()[:16]
    return cache / "measured" / f"{key}-v{MEASURE_VERSION}.parquet"


def _originals(group: Iterable[Shot]) -> bool:
    """Whether every fake of a photograph has its original."""
    group = list(group)
    owners = {shot.generator for shot in group if shot.label == REAL}
    return all({shot.generator, SHARED_REAL} & owners for shot in group if shot.label == FAKE)


def _more(old: Row, new: Row) -> bool:
    wealth = [(row["measured"], row["traced"], not np.isnan(row["reproduced"])) for row in (old, new)]
    return wealth[0] > wealth[1]


def _mask(picture: Image.Image, white: int) -> tuple[Image.Image, Row]:
    """(255 where the image is fake, else 0; the facts about the mask)."""
    grey = picture.convert("L")
    counts = grey.histogram()
    levels = [level for level, count in enumerate(counts) if count]
    facts = {
        "mask_pixels": _checksum(grey),
        "mask_share": sum(counts[:white]) / sum(counts),
        "mask_levels": len(levels),
        "mask_highest": levels[-1],
    }
    return grey.point([255] * white + [0] * (256 - white)), facts


def _checksum(grey: Image.Image) -> str:
    return f"{zlib.crc32(grey.tobytes()):08x}"


def _hash(grey: Image.Image) -> str:
    import imagehash  # not at the top: it imports SciPy, which a launch without work need not

    factor = min(grey.size) // (4 * _HASH_SIDE)
    bits = imagehash.phash(grey.reduce(factor) if factor > 1 else grey, hash_size=_HASH_SIDE).hash
    return np.packbits(bits).tobytes().hex()  # as `str` of the hash, in a tenth of its time


@lru_cache(maxsize=16)
def _places(num_pixels: int) -> NDArray[np.int64]:
    centres = np.random.default_rng(0).integers(0, num_pixels, SAMPLE)
    places: NDArray[np.int64] = np.clip(centres[:, None] + np.arange(-1, 2), 0, num_pixels - 1).reshape(-1)
    return places


def _sample(grey: Image.Image) -> bytes:
    pixels = np.asarray(grey).reshape(-1)
    return pixels[_places(len(pixels))].tobytes()


def _levels(grey: Image.Image) -> NDArray[np.float32]:
    return np.asarray(grey).astype(np.float32)


def _traces(grey: Image.Image) -> Row:
    levels = _levels(grey)
    return {
        "blockiness": blockiness(levels),
        "quality": jpeg_quality(levels),
        "traced": True,
        "sharpness": sharpness(levels).tobytes(),
    }


def _compared(
    picture: Image.Image, grey: Image.Image, original: Image.Image, mask: Image.Image | None, *, tried: bool
) -> Row:
    """The numbers of a fake beside its original."""
    red, green, blue = ImageChops.difference(picture, original).split()
    differing = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    counts = np.array(differing.histogram(), np.float64)
    inside = np.zeros(256) if mask is None else np.array(differing.histogram(mask), np.float64)
    row: Row = {}
    for where, where_counts in (("outside", counts - inside), ("inside", inside)):
        if total := where_counts.sum():
            row[f"changed_{where}"] = 1 - where_counts[0] / total
            row[f"amount_{where}"] = where_counts @ np.arange(256) / total
    if not row.get("changed_outside"):
        return row
    levels, grey_original = _levels(grey), original.convert("L")
    levels_original = _levels(grey_original)
    keep = None if mask is None else np.asarray(mask) == 0
    row["blockiness"], row["blockiness_original"] = blockiness(levels, keep), blockiness(levels_original, keep)
    row["quality"], row["quality_original"] = jpeg_quality(levels, keep), jpeg_quality(levels_original, keep)
    row["frequency"], row["strength"] = resampling(levels, levels_original, keep)
    if tried:
        row["process"], row["reproduced"], row["exact"] = reproduced(picture, original, mask)
    return row
