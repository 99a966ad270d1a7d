"""Self-edited pictures: real photographs, and the same photographs with one region edited by a classic operation.

Detectors learn from them without a generator. This is the regional form of self-blended images (Shiohara and Yamasaki
2022, arXiv 2204.08376) and of content-aligned training data (B-Free, arXiv 2412.17671). Everything follows from the
picture's digest, a seed and the number of the version: the same version has the same pixels on all machines. Outside of
its region an edited picture equals its photograph to the last bit, until both are processed as a whole.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter, uniform_filter

from data.conditions import CLEAN, Condition, Picture
from data.edits import get_edit, list_edits
from data.manifest import Manifest
from data.pictures import Decoded, Files, Pictures
from data.pixels import RESAMPLINGS, SUBSAMPLINGS, resized, rounded
from data.regions import any_region, blob
from data.saving import saved
from data.sources.base import REAL

_VERSION = 1  # increase it when a version gets other pixels than before
_AREA = 256 * 256  # pixels of a picture by which their number is counted
_LEAST = 200  # edited versions of a split that large pictures do not go below: a threshold rests on them
_LONGEST = 1024  # pixels; of a longer side a part of this length takes part
_SMALLEST = 64  # pixels; no processing makes the shorter side of a picture smaller

Rng = np.random.Generator


@dataclass(frozen=True)
class Processing:
    """What is done to whole pictures, real and edited alike, so that a detector does not take it for an edit.

    Attributes:
        share: of the pictures that are processed at all.
        resize: (share of these that are resized, lowest factor, highest factor).
        blur, noise: share that is blurred by .3 to .9 pixels, that gets noise of .5 to 4 grey levels.
        jpeg: (share, lowest quality, highest quality).
        webp: likewise, of those that are not saved as JPEG.
    """

    share: float
    resize: tuple[float, float, float]
    blur: float
    noise: float
    jpeg: tuple[float, int, int]
    webp: tuple[float, int, int]


PLAIN = Processing(0.0, (0, 1, 1), 0, 0, (0, 100, 100), (0, 100, 100))
MIXED = Processing(0.65, (0.35, 0.6, 1.35), 0.1, 0.1, (0.55, 60, 98), (0.2, 60, 95))
COMPRESSED = Processing(1.0, (0.25, 0.7, 1.3), 0, 0, (0.65, 60, 90), (1.0, 65, 90))


@dataclass(frozen=True)
class Recipe:
    """How versions of a photograph are made.

    Attributes:
        region: (random generator, (H, W)) -> the region, bool (H, W).
        second: share of the edited pictures with a second operation.
        finished: whether grain, brightness and a soft edge are added to some regions.
        passes: version n of a picture is processed by `passes[n % len(passes)]`.
    """

    region: Callable[[Rng, tuple[int, int]], np.ndarray]
    second: float
    finished: bool
    passes: tuple[Processing, ...]


RECIPES = {
    "blobs": Recipe(lambda rng, shape: blob(rng, shape, (0.03, 0.4)), 0.3, False, (PLAIN,)),
    "regions": Recipe(any_region, 0.2, True, (MIXED, COMPRESSED)),
}


@dataclass(frozen=True)
class Version(Files):
    """One version of a real photograph: edited in a region, or left as it is.

    Attributes:
        number: from 0.
        edited: whether a region is edited.
        shape: (H, W) of the photograph, or of the part of it that takes part.
    """

    number: int = 0
    edited: bool = False
    shape: tuple[int, int] = (0, 0)

    @property
    def key(self) -> str:
        """The digest of the photograph's file with the version's number; without it for a picture as it is."""
        return f"{self.image.digest}-{'edited' if self.edited else 'real'}-{self.number}"


class SelfEdited(Pictures):
    """Self-edited versions of the real photographs of a data set, under a condition.

    As many real as edited versions: so that classes are even. Where a split has more photographs than versions are
    wanted, those with the smallest digests take part.

    Args:
        manifest: describes the data set.
        recipe: name in `RECIPES`.
        seed: other seeds make other edits.
        versions: edited versions of each photograph, at most.
        most: split -> edited versions of all its photographs, at most, for pictures of 256 x 256 pixels; of larger ones
            fewer, so that they have as many pixels together, but not below 200. Of a side above 1024 pixels a part of
            that length takes part, at a place that follows from the digest, the seed and the version's number.
        condition: name in `data.conditions`, applied after the edit.
        decoded: as in `Pictures`.
    """

    def __init__(
        self,
        manifest: Manifest,
        recipe: str,
        *,
        seed: int,
        versions: int,
        most: dict[str, int],
        condition: str = CLEAN,
        decoded: Decoded | None = None,
    ) -> None:
        super().__init__(manifest, condition, decoded=decoded)
        self._options |= {"recipe": recipe, "seed": seed, "versions": versions, "most": most}
        self._after = self.condition
        self._recipe, self._seed, self._versions, self._most = RECIPES[recipe], seed, versions, most
        after = "" if condition == CLEAN else f"-then-{condition}"
        drawn = hashlib.sha256("+".join(list_edits()).encode()).hexdigest()[:6]  # one more operation changes all edits
        name = f"self-edited-{_VERSION}-{recipe}-{drawn}-seed{seed}{after}"
        self.condition = Condition(name, self._after.apply)  # names the store of features

    def files(self, rows: pd.DataFrame) -> list[Files]:
        """All versions of the photographs of these manifest rows, which must be whole splits: real, edited, real, ….

        Raises:
            ValueError: a row is no real photograph, or of a split whose photographs are never edited, as test.
        """
        return list(self.versions(rows))

    def versions(self, rows: pd.DataFrame) -> list[Version]:
        """See `files`."""
        if (rows["label"] != REAL).any():
            raise ValueError("only real photographs are edited")
        if never := sorted(set(rows["split"]) - self._most.keys()):
            raise ValueError(f"photographs of the split {', '.join(never)} are never edited")
        found: list[Version] = []
        for split, part in rows.groupby("split", sort=False):
            sides = part[["height", "width"]].clip(upper=_LONGEST)
            area, wanted = float(sides.prod(axis=1).mean()), self._most[str(split)]
            most = max(min(wanted, _LEAST), math.ceil(wanted * min(1.0, _AREA / area)))
            chosen = part.sort_values("digest", kind="stable").head(most)
            number_each = max(1, min(self._versions, most // len(part)))
            shapes = sides.loc[chosen.index].itertuples(index=False, name=None)
            passes = self._recipe.passes
            for place, (image, shape) in enumerate(zip(self._images(chosen), shapes, strict=True)):
                # photographs with fewer versions than there are passes take turns in the passes
                first = place % len(passes) if number_each < len(passes) else 0
                for number in range(first, first + number_each):
                    for edited in (False, True):
                        at = number if edited or passes != (PLAIN,) else 0
                        found.append(Version(image, None, None, at, edited, (int(shape[0]), int(shape[1]))))
        return found

    def keys(self, rows: pd.DataFrame) -> list[str]:
        """The key of each version."""
        return [version.key for version in self.versions(rows)]

    def labels(self, rows: pd.DataFrame) -> np.ndarray:
        """int64 (N,): 1 for an edited version, 0 for a real one; in the order of `files`."""
        return np.array([version.edited for version in self.versions(rows)], dtype=np.int64)

    def read(self, files: Files) -> np.ndarray:
        """The pixels of a version: uint8 (H, W, 3). Errors as in `Pictures.read`."""
        assert isinstance(files, Version)
        pixels = self.edit(files.image.pixels(), files)
        if self._after.name == CLEAN:
            return pixels
        return self._apply(self._after, Picture(pixels, files.key), files)

    def edit(self, pixels: np.ndarray, version: Version) -> np.ndarray:
        """The version's pixels before the condition, from those of its photograph: uint8 (H, W, 3) each."""
        pixels = self._part(pixels, version)
        if version.edited:
            mask = self._region(version)
            pixels = edited(pixels, mask, self._rng(version, "edit"), self._recipe)
        rng, processing = self._rng(version, "processing"), self._processing(version)
        shape = processed_shape(rng, version.shape, processing)
        return pixels if shape is None else processed(pixels, shape, rng, processing)

    def mask(self, version: Version) -> np.ndarray:
        """Where a version is edited: bool (H, W) of its size; nowhere for a real version."""
        mask = self._region(version) if version.edited else np.zeros(version.shape, dtype=bool)
        shape = processed_shape(self._rng(version, "processing"), version.shape, self._processing(version))
        if shape is not None and shape != version.shape:
            mask = _as_picture(mask, lambda picture: resized(picture, *shape, Image.Resampling.BILINEAR))
        if self._after.name == CLEAN:
            return mask
        # a condition may cut or move a picture, and does the same to a picture of the mask
        return _as_picture(mask, lambda picture: self._apply(self._after, Picture(picture, version.key), version))

    def _part(self, pixels: np.ndarray, version: Version) -> np.ndarray:
        """The part of a photograph that takes part; the same for a real and an edited version of one number."""
        rng = self._rng(replace(version, edited=True), "part")
        free = (size - length for size, length in zip(pixels.shape, version.shape, strict=False))
        top, left = (int(rng.integers(rest + 1)) for rest in free)
        return pixels[top : top + version.shape[0], left : left + version.shape[1]]

    def _region(self, version: Version) -> np.ndarray:
        return self._recipe.region(self._rng(version, "region"), version.shape)

    def _processing(self, version: Version) -> Processing:
        return self._recipe.passes[version.number % len(self._recipe.passes)]

    def _rng(self, version: Version, what: str) -> Rng:
        text = f"{version.key}/{self._seed}/{what}"
        return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big"))


class SelfEditedMasks:
    """Masks of versions, gathered by index. See `models.detector.Masks`.

    Args:
        pictures: the versions under each condition; their masks come one condition after the other.
        rows: manifest rows.
    """

    def __init__(self, pictures: Sequence[SelfEdited], rows: pd.DataFrame) -> None:
        self._versions = [(part, version) for part in pictures for version in part.versions(rows)]

    def __len__(self) -> int:
        return len(self._versions)

    def __getitem__(self, index: Any) -> Sequence[np.ndarray | None]:
        """The masks at an index array: bool (H, W) each."""
        chosen = [self._versions[number] for number in np.arange(len(self._versions))[index]]
        return [pictures.mask(version) for pictures, version in chosen]


def edited(pixels: np.ndarray, mask: np.ndarray, rng: Rng, recipe: Recipe) -> np.ndarray:
    """A photograph with one region edited: uint8 (H, W, 3), equal to it where `mask`, bool (H, W), is not set."""
    names = list_edits()
    changed = rounded(get_edit(names[rng.integers(len(names))])(pixels, rng))
    if rng.random() < recipe.second:
        changed = rounded(get_edit(names[rng.integers(len(names))])(changed, rng))
    share = mask[:, :, None].astype(np.float32)
    if recipe.finished:
        values = changed.astype(np.float32)
        if rng.random() < 0.35:
            values = _grained(values, pixels, rng)
        if rng.random() < 0.15:
            values = values * rng.uniform(0.96, 1.04) + rng.uniform(-4, 4)
        if rng.random() < 0.3:  # from the region's edge inwards, so that nothing changes outside
            ramp = distance_transform_edt(mask) / (2 * rng.uniform(0.7, 4.0))
            share = np.minimum(ramp, 1.0)[:, :, None].astype(np.float32)
        changed = rounded(share * values + (1 - share) * pixels)
    return np.where(mask[:, :, None], changed, pixels)


def _grained(values: np.ndarray, pixels: np.ndarray, rng: Rng) -> np.ndarray:
    """With coloured noise in place of the fine detail that an operation took away: .4 to 1.1 of its local variance."""
    fine = [part - gaussian_filter(part, (1.5, 1.5, 0)) for part in (pixels.astype(np.float32), values)]
    before, after = (uniform_filter(np.square(part), (9, 9, 1)) for part in fine)
    noise = rng.standard_normal(values.shape, dtype=np.float32)
    noise = gaussian_filter(noise, (sigma := rng.uniform(0.3, 1.0), sigma, 0))
    lost = np.maximum(before - after, 0) * rng.uniform(0.4, 1.1)
    return values + noise / max(float(noise.std()), 1e-6) * np.sqrt(lost)


def processed_shape(rng: Rng, shape: tuple[int, int], processing: Processing) -> tuple[int, int] | None:
    """The size of a picture of this size after processing, in pixels; None: it is not processed."""
    if rng.random() >= processing.share:
        return None
    share, low, high = processing.resize
    factor = rng.uniform(low, high) if rng.random() < share else 1.0
    factor = max(factor, min(1.0, _SMALLEST / min(shape)))
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def processed(pixels: np.ndarray, shape: tuple[int, int], rng: Rng, processing: Processing) -> np.ndarray:
    """A picture resized to a shape, blurred, with noise, saved and read again, each as it is drawn: uint8."""
    if pixels.shape[:2] != shape:
        pixels = resized(pixels, *shape, RESAMPLINGS[rng.integers(len(RESAMPLINGS))])
    if rng.random() < processing.blur:
        sigma = rng.uniform(0.3, 0.9)
        pixels = rounded(gaussian_filter(pixels.astype(np.float32), (sigma, sigma, 0)))
    if rng.random() < processing.noise:
        pixels = rounded(pixels + rng.normal(0, rng.uniform(0.5, 4.0), pixels.shape))
    for file_format, (share, low, high) in (("JPEG", processing.jpeg), ("WEBP", processing.webp)):
        if rng.random() < share:
            options: dict[str, Any] = {"quality": int(rng.integers(low, high + 1))}
            if file_format == "JPEG":
                options["subsampling"] = SUBSAMPLINGS[rng.integers(len(SUBSAMPLINGS))]
            return saved(Image.fromarray(pixels), file_format, **options)
    return pixels


def _as_picture(mask: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A mask after a change that was made for pictures: bool."""
    picture = np.repeat((255 * mask.astype(np.uint8))[:, :, None], 3, axis=2)
    return np.asarray(change(picture)[:, :, 1] > 127)
