"""Images of no known class: scores of "unknown".

A classifier of generators meets images of a generator that it was not trained on. Each score here is one number per
image. Everywhere, **a higher score means more likely unknown**. Two scores follow from the logits alone, two from how
far the image's embedding lies from those of the training images. Nothing here sees a test image before it scores it.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

from models.detector import Detector, Examples, Rows
from models.metrics import Answers, get_metric

COLUMN = "unknown_"  # how the columns of the scores begin in a table of scores
MOST_PER_CLASS = 500  # training images that are kept per class, as many as `grid.plan.LOOK_IMAGES`
NUM_NEIGHBOURS = (1, 10, 20, 50, 100, 200, 500)  # candidates of Sun et al. 2022, as far as so few images allow
_CONSTANT = 1e-6  # a deviation of up to this share of the largest value is rounding
_NO_VARIANCE = 1e-12  # of the largest variance: directions of less do not count

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class KnownClasses:
    """The training embeddings of the known classes, and distances from them.

    Each dimension is centred and scaled to a deviation of 1 over these images first, as in `models.novelty`, because
    statistics such as those of residuals differ in size by orders of magnitude.

    Attributes:
        embeddings: float32 (N, D).
        labels: int64 (N,), class numbers; each class has an image.
        num_neighbours: k of the distance to the k-th nearest training image.
    """

    embeddings: np.ndarray
    labels: np.ndarray
    num_neighbours: int = 1

    @cached_property
    def _scaling(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean (D,) and 1 / deviation (D,), 0 for a dimension that is constant."""
        train = self.embeddings.astype(np.float64)
        mean, deviation = train.mean(axis=0), train.std(axis=0)
        varies = deviation > _CONSTANT * np.abs(train).max(axis=0)
        return mean, np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)

    def _scaled(self, embeddings: np.ndarray) -> np.ndarray:
        embeddings = np.asarray(embeddings, dtype=np.float64)
        if embeddings.ndim != 2 or embeddings.shape[1] != self.embeddings.shape[1]:
            raise ValueError(f"embeddings have shape {embeddings.shape}, expected (N, {self.embeddings.shape[1]})")
        mean, scale = self._scaling
        return np.asarray((embeddings - mean) * scale)

    @cached_property
    def _whitened(self) -> tuple[np.ndarray, np.ndarray]:
        """A map (D, K) after which the shared covariance is 1, and the classes' means in it (C, K)."""
        from sklearn.covariance import ledoit_wolf

        train = self._scaled(self.embeddings)
        numbers, index = np.unique(self.labels, return_inverse=True)
        means = np.stack([train[self.labels == number].mean(axis=0) for number in numbers])
        covariance, _ = ledoit_wolf(train - means[index], assume_centered=True)
        variances, directions = np.linalg.eigh(covariance)
        kept = variances > _NO_VARIANCE * max(variances[-1], 0.0)
        if not kept.any() and len(numbers) == len(self.labels):
            raise ValueError(
                "each class has one training image, so there is no deviation within a class to measure distances in; "
                "take more training images (a larger limit), or leave the open set out"
            )
        if not kept.any():
            raise ValueError(
                "all training embeddings of each class are equal, so there is no distance in deviations; the detector "
                "has collapsed in training, and another learning rate or seed may help"
            )
        whiten = directions[:, kept] / np.sqrt(variances[kept])
        return whiten, means @ whiten

    def mahalanobis(self, embeddings: np.ndarray) -> np.ndarray:
        """Embeddings (N, D) -> distance to the nearest class mean, float64 (N,), in deviations within a class.

        One covariance is shared by all classes (Lee et al. 2018); here it is that of Ledoit and Wolf, because there may
        be fewer training images than dimensions.

        Raises:
            ValueError: another D, or all training embeddings of each class are equal.
        """
        whiten, means = self._whitened
        points = self._scaled(embeddings) @ whiten
        return np.min([np.linalg.norm(points - mean, axis=1) for mean in means], axis=0)

    def neighbour_distances(self, embeddings: np.ndarray, num_neighbours: Sequence[int]) -> np.ndarray:
        """Embeddings (N, D) -> distances to the k-th nearest training image, float64 (N, len(num_neighbours)).

        Embeddings have length 1 first (Sun et al. 2022), after they are centred and scaled. Where there are fewer than
        k training images, the farthest counts.
        """
        from sklearn.neighbors import NearestNeighbors

        places = [min(k, len(self.embeddings)) for k in num_neighbours]
        bank = NearestNeighbors(n_neighbors=max(places), algorithm="brute").fit(_of_length_1(self._own))
        distances, _ = bank.kneighbors(_of_length_1(self._scaled(embeddings)))
        return np.asarray(distances[:, [place - 1 for place in places]])

    @cached_property
    def _own(self) -> np.ndarray:
        return self._scaled(self.embeddings)

    def save(self, path: Path) -> None:
        """Write one `.npz` file."""
        np.savez(path, embeddings=self.embeddings, labels=self.labels, num_neighbours=self.num_neighbours)

    @classmethod
    def load(cls, path: Path) -> KnownClasses:
        """Read a file of `save`. Raises `FileNotFoundError`, or `ValueError` if it is damaged."""
        try:
            with np.load(path, allow_pickle=False) as file:
                known = cls(file["embeddings"], file["labels"], int(file["num_neighbours"]))
        except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        if known.embeddings.ndim != 2 or known.labels.shape != known.embeddings.shape[:1] or known.num_neighbours < 1:
            raise ValueError(f"{path} is damaged: its arrays do not fit together")
        return known


def fit_known(detector: Detector, train: Examples, valid: Examples) -> KnownClasses:
    """What the known classes are like for a fitted detector.

    Args:
        detector: fitted on `train`.
        train: training images; of each class at most `MOST_PER_CLASS` are kept.
        valid: validation images of the same classes, which choose the number of neighbours.

    Raises:
        ValueError: some embeddings are not finite.
    """
    parts = []
    for examples in (train, valid):
        chosen = _at_most(examples.labels, MOST_PER_CLASS)
        embeddings = detector.predict(_Chosen(examples.inputs, chosen)).embeddings.astype(np.float32)
        if not np.isfinite(embeddings).all():
            raise ValueError("some embeddings are not finite")
        parts.append((embeddings, np.asarray(examples.labels)[chosen]))
    (of_train, labels), (of_valid, valid_labels) = parts
    return KnownClasses(of_train, labels, choose_num_neighbours(of_train, labels, of_valid, valid_labels))


def choose_num_neighbours(train: np.ndarray, labels: np.ndarray, valid: np.ndarray, valid_labels: np.ndarray) -> int:
    """The number of neighbours with the best AUROC on *validation* images, each generator in turn taken as unknown.

    A generator that is known plays the unknown one: its training embeddings are left out, and its validation images are
    held against those of all other classes. The mean over the generators decides; of equal means, the fewest
    neighbours. So no image of the real unknown takes part.

    Args:
        train: (N, D).
        labels: int (N,); 0 is real.
        valid: (V, D).
        valid_labels: int (V,).
    """
    auroc, values = get_metric("auroc"), []
    for number in np.unique(labels[labels > 0]):
        kept, unknown = labels != number, (valid_labels == number).astype(np.int64)
        if not kept.any() or len(set(unknown.tolist())) < 2:
            continue
        distances = KnownClasses(train[kept], labels[kept]).neighbour_distances(valid, NUM_NEIGHBOURS)
        values.append([auroc.value(Answers.from_scores(unknown, column)) for column in distances.T])
    if not values:
        log.warning("no validation image of a generator, so the nearest neighbour alone counts")
        return NUM_NEIGHBOURS[0]
    means = np.round(np.mean(values, axis=0), 12)
    return NUM_NEIGHBOURS[int(means.argmax())]


# Scores --------------------------------------------------------------------------------------------------------------

Values = Callable[[np.ndarray, np.ndarray, KnownClasses], np.ndarray]  # (logits, embeddings, known classes) -> (N,)


@dataclass(frozen=True)
class UnknownScore:
    """One score of "unknown".

    Attributes:
        name: in columns and in the names of metrics.
        words: its name in tables.
        is_distance: whether it is a distance from the training embeddings; else it follows from the logits.
        values: (logits (N, C), embeddings (N, D), known classes) -> float64 (N,).
    """

    name: str
    words: str
    is_distance: bool
    values: Values


def softmax_score(logits: np.ndarray) -> np.ndarray:
    """Logits (N, C) -> minus the logarithm of the largest softmax probability, float64 (N,), at least 0.

    The baseline of Hendrycks and Gimpel 2017, arXiv 1610.02136. The logarithm has the same order, and still tells
    images apart whose probability is 1 up to rounding.
    """
    logits = np.asarray(logits, dtype=np.float64)
    differences = np.sort(logits - logits.max(axis=1, keepdims=True), axis=1)
    return np.asarray(np.log1p(np.exp(differences[:, :-1]).sum(axis=1)))


def energy_score(logits: np.ndarray) -> np.ndarray:
    """Logits (N, C) -> the energy -log sum exp(logit), float64 (N,).

    Liu et al. 2020, arXiv 2010.03759, with temperature 1.
    """
    return -np.asarray(logsumexp(np.asarray(logits, dtype=np.float64), axis=1))


def mahalanobis_score(embeddings: np.ndarray, known: KnownClasses) -> np.ndarray:
    """Embeddings (N, D) -> Mahalanobis distance to the nearest class, float64 (N,).

    Lee et al. 2018, arXiv 1807.03888, on one layer and without their noise on the input; the square root changes no
    order.
    """
    return known.mahalanobis(embeddings)


def knn_score(embeddings: np.ndarray, known: KnownClasses) -> np.ndarray:
    """Embeddings (N, D) -> distance to the k-th nearest training embedding, float64 (N,), in [0, 2].

    Sun et al. 2022, arXiv 2204.06507, without the minus sign; k is from `choose_num_neighbours`.
    """
    return np.asarray(known.neighbour_distances(embeddings, [known.num_neighbours])[:, 0])


BASELINE = "softmax"  # the score that the others are held against
UNKNOWN_SCORES: Mapping[str, UnknownScore] = {
    score.name: score
    for score in (
        UnknownScore(BASELINE, "largest softmax", False, lambda logits, embeddings, known: softmax_score(logits)),
        UnknownScore("energy", "energy", False, lambda logits, embeddings, known: energy_score(logits)),
        UnknownScore(
            "mahalanobis",
            "Mahalanobis distance",
            True,
            lambda logits, embeddings, known: mahalanobis_score(embeddings, known),
        ),
        UnknownScore("knn", "k-NN distance", True, lambda logits, embeddings, known: knn_score(embeddings, known)),
    )
}


def unknown_scores(logits: np.ndarray, embeddings: np.ndarray, known: KnownClasses) -> dict[str, np.ndarray]:
    """Name of a score -> its value for each image, float64 (N,)."""
    return {score.name: score.values(logits, embeddings, known) for score in UNKNOWN_SCORES.values()}


def scores_of_table(rows: pd.DataFrame, logits: np.ndarray) -> dict[str, np.ndarray]:
    """Name of a score -> its values, float64 (N,): the columns of a table, and what follows from the logits alone.

    Args:
        rows: a table of scores, with a column `unknown_<name>` per score.
        logits: (N, C).
    """
    from_logits = {BASELINE: softmax_score(logits), "energy": energy_score(logits)}
    stored = {name: rows[COLUMN + name].to_numpy(float) for name in UNKNOWN_SCORES if COLUMN + name in rows.columns}
    return from_logits | stored


def _of_length_1(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0))


def _at_most(labels: np.ndarray, count: int) -> np.ndarray:
    """Indices of at most `count` images of each class, in order; a choice from seed 0."""
    labels = np.asarray(labels)
    order = np.random.default_rng(0).permutation(len(labels))
    return np.sort(np.concatenate([order[labels[order] == number][:count] for number in np.unique(labels)]))


class _Chosen:
    """Some rows of other rows."""

    def __init__(self, rows: Rows, index: np.ndarray) -> None:
        self._rows, self._index = rows, index

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        return self._rows[self._index[index]]
