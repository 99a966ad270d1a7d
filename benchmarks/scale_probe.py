"""A linear classifier on the stored features of very many images: memory by solver, and the time of L-BFGS.

The features are random numbers with classes a little apart, in a store of the grid's own. Each fit runs in a process of
its own. Memory is what the fit adds to the process's own memory, without files that are mapped into it; L-BFGS is
compared with the features in float32, which it holds once. The anchor of time is scikit-learn's `LogisticRegression`
on the same rows in float64, standardised beforehand, with the same penalties in the same order: seconds of the
processor, on one thread. The largest difference of log-odds between both is a figure, too.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import AnonymousPeak, Measured, Outcome, Target, column, in_new_process, interleave, ratios
from data.store import ArrayStore, StoredRows, feature_store
from models.configs import ProbeConfig
from models.detector import Examples, FitSession
from models.geometry import Geometry
from models.linear import CONSTANT, L2_CHOICES, LinearDetector

CLASSES = ("real", "one", "two", "three", "four")  # of attribution
WIDTH, SIZES = 768, (10_000, 30_000, 100_000)
TOY_WIDTH, TOY = 16, (100, 200, 400)
EPOCHS = 2
L2S = L2_CHOICES[:2]
MODULE = "benchmarks.scale_probe"
_APART = 0.05  # the deviation of a class's centre, in that of an image


def run(repeats: int, *, toy: bool = False) -> Outcome:
    """Targets: L-BFGS 1.3 times its features in float32, Adam 1 GB; 1.3 times scikit-learn; log-odds within 0.001."""
    sizes, width = (TOY, TOY_WIDTH) if toy else (SIZES, WIDTH)
    with tempfile.TemporaryDirectory() as name:
        for size in sizes:
            fill(Path(name), size, width)
        sides = {
            f"{solver} {size}": partial(
                in_new_process, MODULE, solver, {"folder": name, "size": size, "width": width}, threads=1
            )
            for size in sizes
            for solver in ("lbfgs", "adam", "plain")
        }
        found = interleave(repeats, sides)

    def each(solver: str, what: str, size: int = sizes[-1]) -> list[float]:
        return column(found[f"{solver} {size}"], what)

    largest = sizes[-1]
    features = 4e-9 * width * num_rows(largest)
    small = f"at {sizes[0]:,} images, GB"
    figures = {
        "lbfgs memory": Measured(
            f"memory that a fit by L-BFGS adds, with {largest:,} training images, over its features in float32",
            "ratio",
            [value / features for value in each("lbfgs", "own_gb")],
            Target(1.3),
            {"added, GB": each("lbfgs", "own_gb"), small: each("lbfgs", "own_gb", sizes[0])},
        ),
        "adam memory": Measured(
            f"memory that a fit by Adam adds, with {largest:,} training images",
            "GB",
            each("adam", "own_gb"),
            Target(1.0),
            {small: each("adam", "own_gb", sizes[0])},
        ),
        "lbfgs time": Measured(
            f"seconds of the processor of a fit by L-BFGS with {largest:,} training images over scikit-learn's",
            "ratio",
            ratios(each("lbfgs", "seconds"), each("plain", "seconds")),
            Target(1.3),
            {"ours, s": each("lbfgs", "seconds"), "scikit-learn, s": each("plain", "seconds")},
        ),
        "log-odds": Measured(
            "largest difference of a log-odds between both, of a thousand images, and one more millionth",
            "nats",
            [
                1e-6 + float(np.abs(np.array(ours) - np.array(theirs)).max())
                for ours, theirs in zip(
                    *([one["log_odds"] for one in found[f"{solver} {largest}"]] for solver in ("lbfgs", "plain")),
                    strict=True,
                )
            ],
            Target(1e-3),
        ),
    }
    return Outcome(f"{len(CLASSES)} classes, {width} features, a tenth as many validation images; one thread", figures)


def num_rows(size: int) -> int:
    """Training and validation images."""
    return size + size // 10


def labels_of(size: int) -> np.ndarray:
    """The classes in turn: int (num_rows(size),)."""
    return np.arange(num_rows(size)) % len(CLASSES)


def _store(folder: Path, size: int, width: int) -> ArrayStore:
    return feature_store(folder, f"made-{size}", width)


def fill(folder: Path, size: int, width: int) -> None:
    """Put the features of all images of a size into a store."""
    centres = _APART * np.random.default_rng(0).normal(size=(len(CLASSES), width))
    classes = labels_of(size)

    def compute(rows: list[int]) -> np.ndarray:
        noise = np.stack([np.random.default_rng(row).standard_normal(width, np.float32) for row in rows])
        return (noise + centres[classes[rows]] + 0.5).astype(np.float32)

    _store(folder, size, width).fill({_digest(row): row for row in range(num_rows(size))}, compute, batch=1024)


def _digest(row: int) -> str:
    return f"{row:064x}"


def examples(folder: str, size: int, width: int) -> tuple[Examples, Examples]:
    """(training, validation)."""
    rows: StoredRows = _store(Path(folder), size, width).open([_digest(row) for row in range(num_rows(size))])
    labels = labels_of(size)
    train, valid = np.arange(size), np.arange(size, num_rows(size))
    return Examples(Part(rows, train), labels[train]), Examples(Part(rows, valid), labels[valid])


class Part:
    """Some rows of a store."""

    def __init__(self, rows: StoredRows, index: np.ndarray) -> None:
        self._rows, self._index = rows, index
        self.shape = (len(index), *rows.shape[1:])

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self._rows[self._index[index]]


class Made:
    """Stands for an encoder: the features are in the store."""

    geometry: Geometry | None = None
    device, key = "cpu", "made"

    def __init__(self, num_features: int) -> None:
        self.num_features = num_features

    def encode(self, pixels: Any) -> np.ndarray:
        """Nothing is encoded."""
        raise NotImplementedError


def lbfgs(folder: str, size: int, width: int) -> dict[str, Any]:
    """A fit by L-BFGS with each penalty of `L2S`, as the grid does it; log-odds by the last one."""
    return _fitted([ProbeConfig(l2=l2) for l2 in L2S], folder, size, width)


def adam(folder: str, size: int, width: int) -> dict[str, Any]:
    """A fit by Adam."""
    return _fitted([ProbeConfig(solver="adam", epochs=EPOCHS)], folder, size, width)


def _fitted(configs: list[ProbeConfig], folder: str, size: int, width: int) -> dict[str, Any]:
    train, valid = examples(folder, size, width)
    seconds = 0.0
    before = AnonymousPeak.now()
    with AnonymousPeak() as own:
        for config in configs:
            detector = LinearDetector(Made(width), CLASSES, config, weights_note="made")
            started = time.process_time()
            detector.fit(train, valid, FitSession())
            seconds += time.process_time() - started
    logits = detector.predict(valid.inputs[np.arange(min(1000, len(valid.inputs)))]).logits
    return {
        "seconds": seconds,
        "own_gb": max(own.bytes - before, 1.0) / 1e9,
        "log_odds": (logits - logits.mean(axis=1, keepdims=True)).tolist(),
    }


def plain(folder: str, size: int, width: int) -> dict[str, Any]:
    """The same by scikit-learn, in float64."""
    from sklearn.linear_model import LogisticRegression

    train, valid = examples(folder, size, width)
    started = time.process_time()
    for l2 in L2S:
        rows = train.inputs[np.arange(size)].astype(np.float64)
        mean, deviation = rows.mean(axis=0), rows.std(axis=0)
        assert (deviation > CONSTANT * np.abs(rows).max(axis=0)).all(), "no feature is constant"
        rows -= mean
        rows /= deviation
        model = LogisticRegression(C=1 / (l2 * size), max_iter=1000, tol=1e-5).fit(rows, train.labels)
    seconds = time.process_time() - started
    scores = model.decision_function((valid.inputs[np.arange(min(1000, len(valid.inputs)))] - mean) / deviation)
    return {"seconds": seconds, "log_odds": (scores - scores.mean(axis=1, keepdims=True)).tolist()}
