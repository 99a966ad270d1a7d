"""Whether a picture is like the training images: how far its embedding lies from theirs.

The distance is that of Mahalanobis, with the covariance of Ledoit and Wolf (2004, Journal of Multivariate Analysis 88)
of the training embeddings of all classes, each dimension scaled to a deviation of 1. The limit follows from the
distances of the validation images, which the covariance has not seen. Nothing here sees a test image.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm, t

QUANTILE = 0.995  # of images that are like the training images, so many are within the limits of all looks together
ENOUGH = 400  # validation images of which that quantile can be counted; of fewer, a distribution is fitted
MOST_COMPONENTS = 1024
_CONSTANT = 1e-6  # a deviation of up to this share of the largest value is rounding
_NARROWEST = 0.02  # deviation of the logarithm of distances; equal validation images would have none


@dataclass(frozen=True, eq=False)
class Novelty:
    """What the embeddings of training images are like.

    Attributes:
        mean: float32 (D,), of the training embeddings.
        scale: float32 (D,), 1 / deviation; 0 for a dimension that is constant.
        components: float16 (K, D), principal components of the scaled embeddings; half the size of float32, and the
            rounding moves a distance by less than 1 %.
        variances: float32 (K,), shrunk.
        rest: variance in every other direction.
        limit: distance up to which a picture counts as like the training images.
        facts: in words and numbers, for people: shrinkage, num_train, num_valid, num_photographs, fitted (how the limit
            was found).
    """

    mean: np.ndarray
    scale: np.ndarray
    components: np.ndarray
    variances: np.ndarray
    rest: float
    limit: float
    facts: Mapping[str, Any]

    def distances(self, embeddings: np.ndarray) -> np.ndarray:
        """Embeddings (N, D) -> Mahalanobis distances, float64 (N,). Raises `ValueError` for another D."""
        embeddings = np.asarray(embeddings, dtype=np.float64)
        if embeddings.ndim != 2 or embeddings.shape[1] != len(self.mean):
            raise ValueError(f"embeddings have shape {embeddings.shape}, expected (N, {len(self.mean)})")
        scaled = (embeddings - self.mean) * self.scale
        along = scaled @ self.components.T.astype(np.float64)
        beside = np.maximum(np.square(scaled).sum(axis=1) - np.square(along).sum(axis=1), 0.0)
        return np.asarray(np.sqrt((np.square(along) / self.variances).sum(axis=1) + beside / self.rest))

    def ratios(self, embeddings: np.ndarray) -> np.ndarray:
        """Distance over limit, float64 (N,): above 1, a picture is not like the training images."""
        return self.distances(embeddings) / self.limit

    def save(self, path: Path) -> None:
        """Write one `.npz` file."""
        facts = np.array(json.dumps(dict(self.facts)))
        np.savez(
            path, mean=self.mean, scale=self.scale, components=self.components, variances=self.variances,
            rest=self.rest, limit=self.limit, facts=facts,
        )  # fmt: skip

    @classmethod
    def load(cls, path: Path) -> Novelty:
        """Read a file of `save`. Raises `ValueError` or `OSError` if it is damaged."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = [file[name] for name in ("mean", "scale", "components", "variances")]
                rest, limit, facts = float(file["rest"]), float(file["limit"]), json.loads(str(file["facts"]))
        except (zipfile.BadZipFile, KeyError, EOFError) as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        if not (np.isfinite(limit) and limit > 0 and rest > 0):
            raise ValueError(f"its limit is {limit}, its variance {rest}")
        mean, scale, components, variances = arrays
        return cls(mean, scale, components, variances, rest, limit, facts)


def fit_novelty(
    train: np.ndarray,
    valid: np.ndarray,
    photographs: np.ndarray,
    *,
    num_looks: int = 1,
    num_images: int | None = None,
) -> Novelty:
    """Learn what training embeddings are like, and find the limit on validation embeddings.

    Args:
        train: (N, D), at least 2 images.
        valid: (V, D), of at least 2 source photographs.
        photographs: (V,), the source photograph of each validation image: a photograph and its fakes resemble each
            other, so that the fitted limit rests on as many observations as there are photographs.
        num_looks: how many embeddings of the same pictures have a limit each; they share what may be beyond
            (Bonferroni).
        num_images: distinct validation images, where each takes part under several conditions; None: V.

    Raises:
        ValueError: too few images, or embeddings that are not finite.
    """
    train, valid = np.asarray(train, dtype=np.float64), np.asarray(valid, dtype=np.float64)
    num_photographs = len(set(np.asarray(photographs).tolist()))
    if len(train) < 2 or num_photographs < 2:
        raise ValueError(
            f"{len(train)} training images and {num_photographs} validation photographs are too few to say what "
            "training images are like; 2 of each are the least"
        )
    if not np.isfinite(valid).all():
        raise ValueError("some embeddings are not finite")
    novelty = without_limit(train)
    num_images = len(valid) if num_images is None else num_images
    limit, fitted = limit_of(novelty.distances(valid), num_photographs, num_looks=num_looks, num_images=num_images)
    facts = {
        **novelty.facts,
        "num_valid": num_images,
        "num_photographs": num_photographs,
        "fitted": fitted,
    }
    return dataclasses.replace(novelty, limit=limit, facts=facts)


def without_limit(train: np.ndarray) -> Novelty:
    """What training embeddings (N, D) are like, with a limit of 1.

    Raises:
        ValueError: fewer than 2 embeddings, all of them equal, or one that is not finite.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    train = np.asarray(train, dtype=np.float64)
    if len(train) < 2:
        raise ValueError(
            f"{len(train)} training images are too few to say what they are like: 2 are the least; "
            "add real training photographs, or leave the method out"
        )
    if not np.isfinite(train).all():
        raise ValueError("some embeddings are not finite")
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    varies = deviation > _CONSTANT * np.abs(train).max(axis=0)
    if not varies.any():
        raise ValueError("all training embeddings are equal")
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
    scaled = (train - mean) * scale
    shrinkage = float(ledoit_wolf_shrinkage(scaled[:, varies], assume_centered=True))
    _, singular, directions = np.linalg.svd(scaled, full_matrices=False)
    num_kept = min(MOST_COMPONENTS, int((singular > singular[0] * 1e-9).sum()))
    own = np.square(singular[:num_kept]) / len(train)
    total, dimensions = np.square(singular).sum() / len(train), int(varies.sum())
    mean_variance = total / dimensions
    left = max(dimensions - num_kept, 1)
    rest = (1 - shrinkage) * max(total - own.sum(), 0.0) / left + shrinkage * mean_variance
    return Novelty(
        mean.astype(np.float32),
        scale.astype(np.float32),
        directions[:num_kept].astype(np.float16),
        ((1 - shrinkage) * own + shrinkage * mean_variance).astype(np.float32),
        float(max(rest, np.finfo(np.float32).tiny)),
        1.0,
        {"shrinkage": shrinkage, "num_train": len(train)},
    )


def limit_of(
    distances: np.ndarray, num_photographs: int, *, num_looks: int = 1, num_images: int | None = None
) -> tuple[float, str]:
    """The limit from the distances of validation images, and in words how it was found.

    From `ENOUGH` images on: the quantile itself. Of fewer: that of a new observation of a log-normal distribution,
    whose centre and width are the median and the quartiles of the logarithms, so that one odd photograph among 15 does
    not move the limit; as a Student t quantile, because they come from few photographs.

    Args:
        distances: (V,), above 0.
        num_photographs: distinct source photographs, at least 2.
        num_looks: as in `fit_novelty`.
        num_images: as in `fit_novelty`.
    """
    num_images = len(distances) if num_images is None else num_images
    quantile = 1 - (1 - QUANTILE) / num_looks
    share = f"{100 * quantile:g} %"
    if num_images >= ENOUGH:
        return float(np.quantile(distances, quantile)), f"{share} quantile of {num_images} validation images"
    low, middle, high = np.quantile(np.log(distances), [0.25, 0.5, 0.75])
    width = max((high - low) / (2 * norm.ppf(0.75)), _NARROWEST)
    reach = t.ppf(quantile, num_photographs - 1) * np.sqrt(1 + 1 / num_photographs)
    words = (
        f"{share} of a log-normal distribution fitted to the quartiles of {num_images} validation images of "
        f"{num_photographs} photographs"
    )
    return float(np.exp(min(middle + reach * width, 500.0))), words
