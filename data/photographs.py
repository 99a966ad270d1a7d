"""The photographs of a data set, and what is measured on one of them: an image is decoded once, beside its original."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image, ImageChops

from data.images import ImageFacts, fake_levels, fits, fitted
from data.kept import Kept
from data.laundering import reproduced
from data.sources.base import FAKE, REAL, SHARED_REAL, WHITE_KEPT, owners_of
from data.traces import blockiness, jpeg_quality, resampling, sharpness

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
_TYPES = {str: pa.large_string(), float: pa.float64(), bool: pa.bool_(), bytes: pa.large_binary()}
_SCHEMA = pa.schema(
    [(name, pa.large_string()) for name in _KEY] + [(name, _TYPES[kind]) for name, kind in COLUMNS.items()]
)

Key = tuple[str, str, str]  # digests of the image, of its original and of its mask; "" where there is none
Row = dict[str, Any]
Read = Callable[[str], tuple[ImageFacts, Image.Image] | None]  # None: the file cannot be used


@dataclass(frozen=True)
class Shot:
    """One image of a photograph, and what to measure on it.

    Attributes:
        path: relative to the root.
        label, generator, mask, mask_white, original: as in the manifest; mask and original are "" without one.
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
    mask_white: str = WHITE_KEPT
    original: str = ""

    @property
    def files(self) -> list[str]:
        """The paths of the image, of its mask, and of the original that the source states for it."""
        return [path for path in (self.path, self.mask, self.original) if path]


def photographs(table: pd.DataFrame, per_group: int) -> list[list[Shot]]:
    """The images of each photograph of a split, real images first, with what to measure on them.

    Args:
        table: columns path, label, generator, source_id, split and mask, as in the manifest.
        per_group: pixel statistics for at most so many images per generator, label and split, chosen by a hash of the
            source id, so that a fake and its original are chosen together.
    """
    digests = {source: hashlib.sha256(source.encode()).hexdigest() for source in table["source_id"].unique()}
    texts = {name: table[name].fillna("") for name in ("mask", "mask_white", "original") if name in table.columns}
    ordered = table.assign(_digest=table["source_id"].map(digests), **{"mask_white": "", "original": ""} | texts)
    ordered = ordered.sort_values(["_digest", "label", "path"])
    rank = ordered.groupby(["split", "generator", "label"]).cumcount()
    shots: defaultdict[tuple[str, str], list[Shot]] = defaultdict(list)
    names = ("split", "source_id", "path", "label", "generator", "mask", "mask_white", "original")
    columns = [ordered[name].tolist() for name in names]
    for split, source, path, label, generator, mask, white, original, number in zip(
        *columns, rank.tolist(), strict=True
    ):
        chosen = number < per_group
        tried = label == FAKE and number < min(NUM_TRIED, per_group)
        shot = Shot(path, label, generator, mask, chosen, chosen, tried, white or WHITE_KEPT, original)
        shots[split, source].append(shot)
    groups = list(shots.values())
    if all(_originals(group) for group in groups if any(shot.label == FAKE for shot in group)):
        # Every fake has its original, so nothing is compared over whole images.
        return [[dataclasses.replace(shot, traces=False) for shot in group] for group in groups]
    return groups


def measure_photograph(shots: Iterable[Shot], read_file: Read) -> dict[Key, Row]:
    """Measure the images of one photograph.

    Args:
        shots: real images first.
        read_file: path -> (facts, pixels), or None; it is called once for each file of a shot.

    Returns:
        a row per image, columns `COLUMNS`.
    """
    rows: dict[Key, Row] = {}
    originals: dict[str, tuple[str, Image.Image]] = {}
    by_path: dict[str, tuple[str, Image.Image]] = {}
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
        if opened_mask is not None and fits(opened_mask[1].size, picture.size):
            mask_digest = mask_key(opened_mask[0].digest, shot.mask_white)
            mask, mask_facts = _mask(opened_mask[1], shot.mask_white, opened_mask[0].format, picture.size)
            row |= mask_facts
        if shot.original and shot.original not in by_path:
            found = read_file(shot.original)
            by_path |= {} if found is None else {shot.original: (found[0].digest, found[1])}
        original = by_path.get(shot.original)
        if original is None and shot.label == FAKE:
            original = originals.get(shot.generator) or originals.get(SHARED_REAL)
        if original is not None and original[1].size != picture.size:
            original = None
        if shot.label == REAL:
            by_path[shot.path] = facts.digest, picture
            originals |= dict.fromkeys(owners_of(shot.generator), by_path[shot.path])
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


def mask_key(digest: str, white: str) -> str:
    """The part of a row's key that says which mask it has, and what white means in it; "" without a mask."""
    return f"{digest} {white}" if digest and white != WHITE_KEPT else digest


def read_measured(root: Path, cache: Path) -> dict[Key, Row]:
    """The numbers that were measured in a folder before."""
    table = _kept(root, cache).read()
    for number, (name, kind) in enumerate(COLUMNS.items(), len(_KEY)):
        if kind is float:  # pandas, which wrote such files before, leaves out what is no number
            table = table.set_column(number, name, pc.fill_null(table[name], EMPTY[float]))
    keys = zip(*(table[name].to_pylist() for name in _KEY), strict=True)
    columns = [table[name].to_pylist() for name in COLUMNS]
    return {
        key: dict(zip(COLUMNS, row, strict=True)) for key, row in zip(keys, zip(*columns, strict=True), strict=True)
    }


def add_measured(root: Path, cache: Path, fresh: dict[Key, Row], *, merge: bool = True) -> None:
    """Keep rows of `measure_photograph`, beside those that are kept already.

    A row that has more replaces one that has less. Without `merge` that takes no longer for the rows that are there; a
    later call merges them.
    """
    kept = _kept(root, cache)
    if fresh:
        columns = [*zip(*fresh, strict=True), *([row[name] for row in fresh.values()] for name in COLUMNS)]
        kept.add(pa.table(list(map(list, columns)), schema=_SCHEMA))
    if merge and kept.file.parent.exists():
        kept.merge()


def _kept(root: Path, cache: Path) -> Kept:
    key = hashlib.sha256(os.path.realpath(root).encode()).hexdigest()[:16]
    file = cache / "measured" / f"{key}-v{MEASURE_VERSION}.parquet"
    return Kept(file, _SCHEMA, _KEY, lost="every file is measured again", wealth=_wealth)


def _wealth(rows: pa.Table) -> NDArray[np.int64]:
    measured, traced = (rows[name].to_numpy().astype(np.int64) for name in ("measured", "traced"))
    wealth: NDArray[np.int64] = 4 * measured + 2 * traced + ~np.isnan(rows["reproduced"].to_numpy())
    return wealth


def _originals(group: Iterable[Shot]) -> bool:
    """Whether every fake of a photograph has its original."""
    group = list(group)
    owners = {name for shot in group if shot.label == REAL for name in owners_of(shot.generator)}
    return all(shot.original or {shot.generator, SHARED_REAL} & owners for shot in group if shot.label == FAKE)


def _mask(picture: Image.Image, white: str, file_format: str, size: tuple[int, int]) -> tuple[Image.Image, Row]:
    """(255 where the image is fake, else 0, in the size of the image; the facts about the mask)."""
    grey = picture.convert("L")
    fake = fake_levels(white, file_format, int(np.asarray(grey).max()))
    grey = fitted(grey, size)
    counts = grey.histogram()
    levels = [level for level, count in enumerate(counts) if count]
    facts = {
        "mask_pixels": _checksum(grey),
        "mask_share": int(np.array(counts) @ fake) / sum(counts),
        "mask_levels": len(levels),
        "mask_highest": levels[-1],
    }
    return grey.point((255 * fake).tolist()), facts


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
