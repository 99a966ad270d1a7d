"""Pictures, thumbnails and masks of the test images, by their ids; what is drawn once is kept on disk."""

from __future__ import annotations

import io
import logging
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from PIL import Image

from analysis.explore.refusals import Refused
from analysis.explore.scores import Images
from data.conditions import CLEAN, get_condition
from data.manifest import Manifest
from data.pictures import ConditionError, FileError, Files, Pictures, mask_file

logger = logging.getLogger(__name__)

THUMBNAIL, LARGE = 192, 1024  # the longer side in pixels; smaller pictures keep their size
WEBP, PNG = "image/webp", "image/png"
_VERSION = 1  # increase it when thumbnails are drawn in another way
_QUALITY, _EFFORT = 82, 2  # of a thumbnail; more effort saves 3 % of the bytes and costs three times the time


class Kept:
    """Files that are made once, below a folder.

    Args:
        folder: made where it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._warned = folder, False

    def get(self, name: str, make: Callable[[], bytes]) -> bytes:
        """The file's bytes. A folder that cannot be written is said once in the log, and the bytes are made again."""
        path = self.folder / name
        with suppress(OSError):  # it is not there, or cannot be read
            return path.read_bytes()
        made = make()
        temporary = path.with_name(f"{uuid.uuid4().hex}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(made)
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            if not self._warned:
                logger.warning("nothing is kept in %s, so pictures take longer: %s", self.folder, error)
                self._warned = True
        return made


class Album:
    """The pictures of a grid's test images.

    Args:
        manifest: of the grid's data set; None: its pictures cannot be had.
        problem: why not; "" with a manifest.
        kept: where thumbnails are kept.
    """

    def __init__(self, manifest: Manifest | None, problem: str, kept: Kept) -> None:
        self.manifest, self.problem, self._kept = manifest, problem, kept
        self._by_condition: dict[str, Pictures] = {}
        self._lock = threading.Lock()
        self._rows = pd.Index([]) if manifest is None else pd.Index(manifest.table["path"].astype(str))

    def key(self, images: Images, image: int, condition: str) -> str:
        """Identifies an image's pixels under a condition; safe as a name of a file."""
        return f"{self._files(images, image, condition)[1].key}-{condition}"

    def pixels(self, images: Images, image: int, condition: str) -> np.ndarray:
        """The picture under a condition, uint8 (H, W, 3).

        Raises:
            Refused: the picture cannot be had: no such image, or its file is gone or is another one.
        """
        pictures, files = self._files(images, image, condition)
        try:
            return pictures.read(files)
        except (FileError, ConditionError) as error:
            raise Refused(404, f"{error}; name the data folder with --images DIR") from error

    def mask(self, images: Images, image: int) -> np.ndarray | None:
        """The mask, bool (H, W), True where fake; None without one. Raises `Refused` as `pixels`."""
        (row,) = self._row(images, image).to_dict("records")
        if pd.isna(row["mask"]):
            return None
        assert self.manifest is not None  # or the row is refused
        self._check_inside(str(row["mask"]))
        file = mask_file(self.manifest, row)
        try:
            return None if file is None else file.mask()
        except FileError as error:
            raise Refused(404, f"{error}; name the data folder with --images DIR") from error

    def thumbnail(self, images: Images, image: int, condition: str) -> bytes:
        """The small picture, WebP. Raises `Refused` as `pixels`."""
        key = self.key(images, image, condition)
        return self._kept.get(
            f"thumbnails-{_VERSION}/{key[:2]}/{key}-{THUMBNAIL}.webp",
            lambda: webp(self.pixels(images, image, condition), THUMBNAIL),
        )

    def large(self, images: Images, image: int, condition: str) -> bytes:
        """The picture, at most 1024 pixels wide and high, without loss: PNG. Raises `Refused` as `pixels`."""
        return _encoded(_small(Image.fromarray(self.pixels(images, image, condition)), LARGE), "PNG")

    def drawn_mask(self, images: Images, image: int) -> bytes:
        """The mask as a small PNG, white where fake. Raises `Refused` as `pixels`, and without a mask."""
        mask = self.mask(images, image)
        if mask is None:
            raise Refused(404, "this image has no mask")
        return _encoded(_small(Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)), THUMBNAIL), "PNG")

    def _files(self, images: Images, image: int, condition: str) -> tuple[Pictures, Files]:
        row = self._row(images, image)
        assert self.manifest is not None  # or the row is refused
        with self._lock:
            if condition not in self._by_condition:
                try:
                    get_condition(condition)
                except (KeyError, ValueError) as error:
                    raise Refused(404, str(error.args[0])) from error
                self._by_condition[condition] = Pictures(self.manifest, condition)
            pictures = self._by_condition[condition]
            return pictures, pictures.files(row)[0]

    def _row(self, images: Images, image: int) -> pd.DataFrame:
        """The image's row of the manifest, as a table of one row."""
        if not 0 <= image < len(images):
            raise Refused(404, f"there is no image {image}; load the page again")
        if self.manifest is None:
            raise Refused(409, self.problem)
        found = self._rows.get_indexer(pd.Index([images.path[image]]))[0]
        if found < 0 or self.manifest.table["digest"].iloc[found] != images.digest[image]:
            raise Refused(
                404,
                f"the manifest of the data set has no image {images.path[image]}; name the data folder with --images "
                "DIR, or the grid's cache with --cache DIR",
            )
        row = self.manifest.table.iloc[[found]]
        self._check_inside(str(row["path"].iloc[0]))
        return row

    def _check_inside(self, name: str) -> None:
        """A path of the manifest must lie in a folder of the data. That its bytes are right, its digest says."""
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise Refused(404, f"the manifest names the file {name}, which is not in the data folder")


def webp(pixels: np.ndarray, side: int) -> bytes:
    """A picture, uint8 (H, W, 3), at most `side` pixels wide and high, as WebP."""
    return _encoded(_small(Image.fromarray(pixels), side), "WEBP", quality=_QUALITY, method=_EFFORT)


def with_border(picture: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """A picture, uint8 (H, W, 3), with the border of a mask in white, where the mask has the picture's size."""
    if mask is None or mask.shape != picture.shape[:2]:
        return picture
    inner = mask.copy()
    for axis in (0, 1):
        for step in (1, -1):
            inner &= np.roll(mask, step, axis)
    drawn = picture.copy()
    drawn[mask & ~inner] = 255
    return drawn


def shows_mask(condition: str) -> bool:
    """Whether an image's mask still fits its picture under a condition."""
    return condition == CLEAN or not get_condition(condition).moves


def _small(image: Image.Image, side: int) -> Image.Image:
    if max(image.size) > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3)
    return image


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
