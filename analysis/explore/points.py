"""Points of attribution runs by t-SNE or UMAP, computed once in the background with the report's code, kept on disk."""

from __future__ import annotations

import io
import logging
import threading
import time
from concurrent.futures import Future
from typing import Any

import numpy as np
import pandas as pd

from analysis.embeddings import EmbeddingError, project, shown_embeddings
from analysis.explore.live import Snapshot
from analysis.explore.pictures import Kept
from analysis.explore.refusals import Refused, unknown
from analysis.explore.scores import Images
from analysis.store import SCORE_COLUMNS, StoreError
from grid.tasks import ATTRIBUTION, REAL

logger = logging.getLogger(__name__)

KINDS = ("tsne", "umap")
_VERSION = 3  # increase it when `project` gives other points than before


class Points:
    """Projections of the embeddings of attribution runs.

    Args:
        kept: where they are kept.
    """

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._lock, self._one_at_a_time = threading.Lock(), threading.Lock()
        self._begun: dict[tuple[str, str], tuple[float, Future[tuple[np.ndarray, str]]]] = {}

    def get(self, snapshot: Snapshot, images: Images, run_id: str, kind: str = "tsne") -> dict[str, Any]:
        """The points of a run by one of `KINDS`, or that they are being computed: ask again.

        Returns:
            `state` is "ready" or "computing", and `seconds` says for how long. Ready points have `x` and `y` in [0, 1],
            the ids of their `images` and their `sources`, the position of each image's class in `classes`, and a `note`
            on how they were made.

        Raises:
            Refused: an unknown run or kind, embeddings that cannot be shown, or umap-learn is not installed.
        """
        if kind not in KINDS:
            raise unknown("projection", kind)
        run = snapshot.finished(run_id, ATTRIBUTION)
        with self._lock:
            asked = (run_id, kind)
            if asked not in self._begun:
                self._begun[asked] = (time.monotonic(), self._begin(snapshot, images, run_id, kind))
            since, future = self._begun[asked]
        shared = {"run": run_id, "kind": kind, "label": snapshot.label(run), "seconds": round(time.monotonic() - since)}
        if not future.done():
            return shared | {"state": "computing"}
        try:
            points, note = future.result()
            rows, _, _ = _drawn(snapshot, images, run_id)
        except (EmbeddingError, StoreError) as error:
            raise Refused(409, f"{run['variant']}: no picture of its embeddings: {error}") from error
        present = {str(name) for name in images.made_by[rows]}
        classes = [name for name in [REAL, *snapshot.store.ordered(present - {REAL})] if name in present]
        numbers = pd.Index(classes).get_indexer(images.made_by[rows].astype(str))
        middle, size = (points.min(axis=0) + points.max(axis=0)) / 2, np.ptp(points, axis=0).max() or 1.0
        x, y = (0.5 + (points - middle) / size).T
        return shared | {
            "state": "ready", "note": note, "images": rows.tolist(), "classes": classes, "numbers": numbers.tolist(),
            "sources": images.source[rows].tolist(), "x": np.round(x, 4).tolist(),
            "y": np.round(1 - y, 4).tolist(),
        }  # fmt: skip

    def _begin(self, snapshot: Snapshot, images: Images, run_id: str, kind: str) -> Future[tuple[np.ndarray, str]]:
        """Compute the points of a run in a thread that does not keep the command from ending, as a pool's would."""
        future: Future[tuple[np.ndarray, str]] = Future()

        def work() -> None:
            try:
                with self._one_at_a_time:
                    future.set_result(self._projected(snapshot, images, run_id, kind))
            except BaseException as error:  # whoever asks for the points raises it
                future.set_exception(error)

        threading.Thread(target=work, name="points", daemon=True).start()
        return future

    def _projected(self, snapshot: Snapshot, images: Images, run_id: str, kind: str) -> tuple[np.ndarray, str]:
        def make() -> bytes:
            _, vectors, num_images = _drawn(snapshot, images, run_id)
            projection = project(vectors, kind=kind)
            shown = f"{len(vectors)} of {num_images} images; " if len(vectors) < num_images else ""
            buffer, note = io.BytesIO(), f"{shown}{projection.note}"
            np.savez(buffer, points=projection.points.astype(np.float32), note=np.array(note))
            return buffer.getvalue()

        name = f"points-{_VERSION}/{run_id}-{kind}.npz"
        try:
            return _read(self._kept.get(name, make))
        except (ValueError, KeyError, OSError) as error:
            if isinstance(error, EmbeddingError | StoreError):
                raise
            logger.warning("%s is damaged and is made again (%s)", self._kept.folder / name, error)
            (self._kept.folder / name).unlink(missing_ok=True)
            return _read(self._kept.get(name, make))


def _read(content: bytes) -> tuple[np.ndarray, str]:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return arrays["points"], str(arrays["note"])


def _drawn(snapshot: Snapshot, images: Images, run_id: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Ids of the images that are drawn, as in the report, int (M,); their embeddings (M, D); and of how many images."""
    scores = snapshot.store.scores(run_id, SCORE_COLUMNS)
    ids = images.index.get_indexer(pd.Index(scores["path"].astype(str)))
    if (ids < 0).any():
        raise EmbeddingError(f"run {run_id} has embeddings of images that other runs of this grid lack")
    drawn, vectors = shown_embeddings(snapshot.store, run_id, images.made_by[ids].astype(str))
    return ids[drawn], vectors, len(ids)
