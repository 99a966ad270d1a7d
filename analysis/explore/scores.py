"""The test images as arrays, and each run's scores of them: read once, ahead of the clicks where there is time."""

from __future__ import annotations

import itertools
import logging
import queue
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.explore.live import Snapshot
from analysis.explore.refusals import Refused
from analysis.store import SCORE_COLUMNS, Store, StoreError
from data.conditions import CLEAN
from data.sources.base import FAKE
from grid.plan import FINISHED
from grid.tasks import ATTRIBUTION, DETECTION, WHOLE, cell_rows, class_names, get_task
from grid.train_sets import TrainSet

log = logging.getLogger(__name__)

KEPT_BYTES = 2**30  # of scores in memory: 2,600 runs with 100,000 images
_NOW, _LATER = 0, 1  # how soon scores are read that nobody waits for

Key = tuple[str, str]  # run id, condition


class Images:
    """The test images of a grid; an image's id is its position.

    Args:
        scores: of any run of the grid, columns `SCORE_COLUMNS`.
        areas: digest -> share of the mask that is fake.
    """

    def __init__(self, scores: pd.DataFrame, areas: dict[str, float]) -> None:
        self.frame = scores[SCORE_COLUMNS].reset_index(drop=True)
        self.path, self.digest, self.source = (
            self.frame[name].astype(str).to_numpy(object) for name in ("path", "digest", "source_id")
        )
        self.label = self.frame["label"].to_numpy(np.int8)
        self.made_by = class_names(self.frame)
        self.classes = {str(name) for name in self.made_by}
        self.area = np.array(self.frame["digest"].map(areas), dtype=np.float32)
        self.area[self.label != FAKE] = np.nan
        self.index = pd.Index(self.path)
        self.by_source = {str(key): rows for key, rows in self.frame.groupby("source_id", sort=False).indices.items()}
        self._cells: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.frame)

    def cell(self, tested_on: str) -> np.ndarray:
        """Which images are in the cell of a generator, bool (N,); `WHOLE`: all images."""
        if tested_on not in self._cells:
            whole = np.ones(len(self), dtype=bool)
            self._cells[tested_on] = whole if tested_on == WHOLE else cell_rows(self.frame, tested_on)
        return self._cells[tested_on]


@dataclass(frozen=True)
class Scores:
    """One run's answers under one condition, in the order of `Images`.

    Attributes:
        score: float32 (N,): log-odds of fake, or of a method without log-odds its score; of attribution, the logit of
            the image's own class minus the largest other one. NaN: the run has no score of the image.
        answer: int16 (N,), the answered class of attribution; empty for detection.
        classes: of the run.
    """

    score: np.ndarray
    answer: np.ndarray
    classes: tuple[str, ...]

    @property
    def num_bytes(self) -> int:
        """In memory."""
        return self.score.nbytes + self.answer.nbytes

    def margin(self, images: Images, threshold: float) -> np.ndarray:
        """How far each image is on the right side, float32 (N,): below 0 is a mistake, and so is a real image at 0.

        Of detection an image on the threshold counts as real.
        """
        if len(self.answer):
            return self.score
        above = self.score - np.float32(threshold)
        return np.where(images.label == FAKE, above, -above)

    def right(self, images: Images, threshold: float) -> np.ndarray:
        """Whether each answer is right, bool (N,)."""
        if len(self.answer):
            names = np.asarray(self.classes, dtype=object)[self.answer]
            return names == images.made_by
        return (self.score > threshold) == (images.label == FAKE)


class Shelf:
    """The scores that were read so far. A thread reads others ahead, because the first reading checks them.

    Each call gets the newest reading of the grid.
    """

    def __init__(self) -> None:
        self._images: Images | None = None
        self._scores: OrderedDict[Key, Scores] = OrderedDict()
        self._broken: dict[Key, str] = {}
        self._lock, self._reading = threading.Lock(), threading.Lock()
        self._wanted: queue.PriorityQueue[tuple[int, int, Key, Snapshot, Mapping[Any, Any]]] = queue.PriorityQueue()
        self._queued: set[tuple[int, Key]] = set()
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None

    def images(self, snapshot: Snapshot) -> Images:
        """The test images, by the first finished run whose scores can be read.

        Raises:
            Refused: no trial is finished, or no scores can be read.
        """
        with self._reading:
            if self._images is None:
                self._images = _first_images(snapshot)
            return self._images

    def scores(self, snapshot: Snapshot, run: Mapping[Any, Any], condition: str) -> Scores:
        """A finished run's scores. Raises `Refused` if they cannot be read, or not under this condition."""
        key = (str(run["run_id"]), condition)
        if (known := self._known(key)) is not None:
            return known
        if condition not in snapshot.store.scored(key[0]):
            raise Refused(409, f"this run was not scored under the condition {condition}")
        images = self.images(snapshot)
        try:
            scores = _aligned(snapshot.store, run, condition, images)
        except StoreError as error:
            with self._lock:
                self._broken[key] = str(error)
            raise Refused(409, str(error)) from error
        with self._lock:
            self._scores[key] = scores
            while len(self._scores) > 1 and len(self._scores) * scores.num_bytes > KEPT_BYTES:
                self._scores.popitem(last=False)
        return scores

    def known(self, snapshot: Snapshot, run: Mapping[Any, Any], condition: str) -> Scores | str | None:
        """A finished run's scores if they were read; why they cannot be read; None: they are being read."""
        key = (str(run["run_id"]), condition)
        if (known := self._known(key)) is not None:
            return known
        if key in self._broken:
            return self._broken[key]
        self._want(_NOW, key, snapshot, run)
        return None

    def read_ahead(self, snapshot: Snapshot) -> None:
        """Read the clean scores of all finished runs, in the order of the matrices, while nobody waits."""
        tasks = snapshot.runs["task"].isin([DETECTION, ATTRIBUTION])
        for run in snapshot.runs[tasks & (snapshot.runs["state"] == FINISHED)].to_dict("records"):
            self._want(_LATER, (str(run["run_id"]), CLEAN), snapshot, run)

    def _known(self, key: Key) -> Scores | None:
        with self._lock:
            if key in self._scores:
                self._scores.move_to_end(key)
            return self._scores.get(key)

    def _want(self, soon: int, key: Key, snapshot: Snapshot, run: Mapping[Any, Any]) -> None:
        with self._lock:
            if key in self._scores or key in self._broken or (soon, key) in self._queued:
                return
            self._queued.add((soon, key))
            self._wanted.put((soon, next(self._numbers), key, snapshot, run))
            if self._thread is None:
                self._thread = threading.Thread(target=self._read_on, name="scores", daemon=True)
                self._thread.start()

    def _read_on(self) -> None:
        while True:
            soon, _, key, snapshot, run = self._wanted.get()
            try:
                self.scores(snapshot, run, key[1])
            except Refused as error:
                with self._lock:
                    self._broken[key] = str(error)
            except Exception as error:  # the others are read nevertheless
                log.exception("the scores of run %s cannot be read", key[0])
                with self._lock:
                    self._broken[key] = f"the scores cannot be read: {type(error).__name__}: {error}"
            with self._lock:
                self._queued.discard((soon, key))


def _first_images(snapshot: Snapshot) -> Images:
    runs = snapshot.runs[(snapshot.runs["state"] == FINISHED) & snapshot.runs["task"].isin([DETECTION, ATTRIBUTION])]
    problem = "no trial is finished yet: wait until the first matrix has a value"
    for run_id in runs["run_id"]:
        try:
            return Images(snapshot.store.scores(run_id, SCORE_COLUMNS), snapshot.store.edited_areas)
        except StoreError as error:
            problem = str(error)
    raise Refused(409, problem)


def _aligned(store: Store, run: Mapping[Any, Any], condition: str, images: Images) -> Scores:
    task = get_task(str(run["task"]), int(run["seed"]))
    classes = tuple(task.classes(TrainSet.parse(str(run["trained_on"]))))
    columns = ["score"] if task.is_binary else [f"logit_{name}" for name in classes]
    table = store.scores(str(run["run_id"]), [*SCORE_COLUMNS, *columns], condition=condition)
    place = images.index.get_indexer(pd.Index(table["path"].astype(str)))
    if (place < 0).any():
        raise StoreError(
            f"run {run['run_id']} has scores of {int((place < 0).sum())} images that other runs of this grid lack; "
            "`python -m analysis` says which run is damaged"
        )
    score = np.full(len(images), np.nan, dtype=np.float32)
    if task.is_binary:
        score[place] = table["score"].to_numpy(np.float32)
        return Scores(score, np.empty(0, dtype=np.int16), classes)
    logits = np.array(table[columns], dtype=np.float32)
    answer = np.zeros(len(images), dtype=np.int16)
    answer[place] = logits.argmax(axis=1)
    own, rows = task.class_numbers(table, classes), np.arange(len(table))
    truth = logits[rows, own].copy()
    logits[rows, own] = -np.inf
    score[place] = np.where(own < 0, np.nan, truth - logits.max(axis=1))
    return Scores(score, answer, classes)
