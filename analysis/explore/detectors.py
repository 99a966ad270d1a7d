"""Detectors that are loaded while the page is open: maps of test images, and answers for pictures that are dropped."""

from __future__ import annotations

import base64
import dataclasses
import math
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from analysis.cam import NO_LAYER, OWN_MAP, explain
from analysis.detectors import load_detector
from analysis.explore.live import Snapshot
from analysis.explore.pictures import Album, Kept, shows_mask, webp, with_border
from analysis.explore.refusals import Refused
from analysis.explore.scores import Images
from analysis.predict import Answer, Predictor
from analysis.store import StoreError
from data.images import BadImage, decode
from grid.tasks import ATTRIBUTION, DETECTION
from models.detector import Detector, MemoryExhausted
from models.maps import may_have_maps
from models.memory import is_exhaustion

MAP_SIDE = 512  # pixels
KEPT = 2  # detectors of each kind in memory
_VERSION = 2  # increase it when maps are drawn in another way
_FLAT, _UNEVEN = b"f", b"u"  # the first byte of a map that is kept; the others are the picture
NO_MAPS = "This method has neither maps of its own nor a layer for Grad-CAM."

T = TypeVar("T")


class Workshop:
    """Works with one detector at a time.

    Args:
        album: pictures of the test images.
        kept: where maps are kept.
        device: torch device string.
        weight_files: see `load_detector`.
    """

    def __init__(self, album: Album, kept: Kept, *, device: str, weight_files: Mapping[str, Path]) -> None:
        self._album, self._kept = album, kept
        self._device, self._weight_files = device, weight_files
        self._lock = threading.RLock()
        self._detectors: OrderedDict[str, Detector] = OrderedDict()
        self._predictors: OrderedDict[str, Predictor] = OrderedDict()

    def map_kind(self, snapshot: Snapshot, run_id: str) -> dict[str, str]:
        """What a run's maps are, in words; `note` says why there is none, and `kind` is then empty.

        Raises:
            Refused: an unknown run, or a detector that cannot be loaded.
        """
        with self._lock:
            detector = self._detector(snapshot, run_id)
            if may_have_maps(detector):
                return {"kind": OWN_MAP, "note": "The detector's own map: the probability of fake of each place."}
            if detector.cam_target() is None:
                return {"kind": "", "note": NO_MAPS}
            return {
                "kind": "Grad-CAM",
                "note": "Grad-CAM: which places speak for “fake”, each map scaled to its own maximum.",
            }

    def map(self, snapshot: Snapshot, images: Images, run_id: str, image: int, condition: str) -> tuple[bytes, bool]:
        """A test image under the map of a run, with the border of its mask.

        Returns:
            the picture, WebP, and whether the map is flat: no place stands out.

        Raises:
            Refused: as `map_kind`, or as `Album.pixels`, or a method without maps, or memory ran out.
        """
        from analysis.figures.cam import overlay

        run = snapshot.finished(run_id, DETECTION)

        def make() -> bytes:
            pixels = self._album.pixels(images, image, condition)
            mask = self._album.mask(images, image) if shows_mask(condition) else None
            with self._lock:
                detector = self._detector(snapshot, run_id)
                found = _in_memory(lambda: explain(detector, [pixels]))
            if found is None:
                raise Refused(409, NO_LAYER)
            (over,) = found.maps
            flat = bool(over.min() == over.max())
            return (_FLAT if flat else _UNEVEN) + webp(with_border(overlay(pixels, over), mask), MAP_SIDE)

        key = self._album.key(images, image, condition)
        content = self._kept.get(f"maps-{_VERSION}/{run['run_id']}/{key}.map", make)
        return content[1:], content[:1] == _FLAT

    def score(self, snapshot: Snapshot, run_id: str, content: bytes) -> dict[str, Any]:
        """What a run says of a picture that is not of the data set, as `python -m analysis predict` says it.

        Args:
            snapshot: the grid.
            run_id: of a finished detection run.
            content: of the picture's file.

        Raises:
            Refused: as `map_kind`, or no picture that can be read, or one of a size that the method cannot take.
        """
        run = snapshot.finished(run_id, DETECTION)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "picture"
            path.write_bytes(content)
            try:
                pixels = decode(path)
            except BadImage as error:
                raise Refused(415, f"this file cannot be used: {error}") from error
            except MemoryError as error:
                raise Refused(413, "there is no memory to decode this picture; make it smaller") from error
        height, width, _ = pixels.shape
        with self._lock:
            predictor = self._kept_in(self._predictors, run_id, lambda: self._predictor(snapshot, run_id))
            if problem := predictor.size_check(width, height):
                raise Refused(415, f"{width} x {height} pixels: {problem}")
            answer = Answer("")
            _in_memory(lambda: predictor.answer([answer], [pixels]))
            shown = None
            if answer.label is not None and (predictor.has_maps or predictor.has_cam):
                (overlay,) = _in_memory(lambda: predictor.overlays([pixels]))
                shown = base64.b64encode(webp(overlay, MAP_SIDE)).decode()
            judge = predictor.judge
            return {
                **{name: value for name, value in dataclasses.asdict(answer).items() if name not in ("path", "cam")},
                "distance": answer.distance if answer.distance is None or math.isfinite(answer.distance) else None,
                "sure": "" if answer.score is None or answer.verdict is None else judge.probability(answer.score)[1],
                "log_odds": judge.log_odds,
                "threshold": predictor.threshold,
                "width": width,
                "height": height,
                "map": shown,
                "map_kind": OWN_MAP if predictor.has_maps else "Grad-CAM",
                "method": snapshot.label(run),
                "trained_on": snapshot.trained_on(run),
            }

    def _detector(self, snapshot: Snapshot, run_id: str) -> Detector:
        snapshot.finished(run_id, DETECTION, ATTRIBUTION)
        return self._kept_in(self._detectors, run_id, lambda: self._load(snapshot, run_id))

    def _load(self, snapshot: Snapshot, run_id: str) -> Detector:
        try:
            return load_detector(
                snapshot.store, run_id, device=self._device, weight_files=self._weight_files
            )[0]  # fmt: skip
        except StoreError as error:
            raise Refused(409, str(error)) from error

    def _predictor(self, snapshot: Snapshot, run_id: str) -> Predictor:
        try:
            return Predictor(snapshot.store, run_id, device=self._device, weight_files=self._weight_files)
        except StoreError as error:
            raise Refused(409, str(error)) from error

    def _kept_in(self, kept: OrderedDict[str, T], run_id: str, load: Callable[[], T]) -> T:
        if run_id not in kept:
            while len(kept) >= KEPT:  # before the next one needs the memory
                kept.popitem(last=False)
            kept[run_id] = load()
        kept.move_to_end(run_id)
        return kept[run_id]


def _in_memory(work: Callable[[], T]) -> T:
    """Do something that needs much memory. Raises `Refused` if there is not enough of it; other errors are raised."""
    try:
        return work()
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError | MemoryExhausted) or is_exhaustion(error):
            raise Refused(413, "memory ran out; take a smaller picture, or another method") from error
        raise
