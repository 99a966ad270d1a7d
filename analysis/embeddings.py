"""Projections of test embeddings, and the separation of their classes without a projection."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

PCA_WIDTH = 50  # as van der Maaten and Hinton (2008) did before t-SNE, and scikit-learn advises
PERPLEXITY = 30.0
NUM_ITERATIONS = 1000
NUM_NEIGHBOURS = 10


class EmbeddingError(ValueError):
    """These embeddings cannot be shown; the message says why."""


@dataclass(frozen=True, eq=False)
class Projection:
    """Embeddings in two dimensions.

    Attributes:
        points: float (N, 2).
        method: "t-SNE" or "UMAP".
        note: its settings in words: PCA, perplexity, iterations, KL divergence, seed.
    """

    points: np.ndarray
    method: str
    note: str


@dataclass(frozen=True)
class Separation:
    """How well classes separate in the space of the embeddings.

    Attributes:
        silhouette: mean silhouette coefficient (Rousseeuw 1987), Euclidean; in [-1, 1].
        purity: share of each image's nearest neighbours in its own class, without the image itself; mean over images.
        chance: expected purity of neighbours drawn at random.
        num_neighbours: k; smaller than requested if there are few images.
        num_dimensions: D.
    """

    silhouette: float
    purity: float
    chance: float
    num_neighbours: int
    num_dimensions: int


def project(embeddings: np.ndarray, *, kind: str = "tsne", num_iterations: int = NUM_ITERATIONS) -> Projection:
    """Project embeddings to two dimensions; the same embeddings always give the same points.

    Barnes-Hut t-SNE (van der Maaten 2014, scikit-learn), on one thread, because sums over threads come in any order;
    initialised with the first principal components. Embeddings wider than 50 are reduced to 50 by a PCA first.

    Args:
        embeddings: float (N, D).
        kind: "tsne", or "umap" if umap-learn is installed.
        num_iterations: of t-SNE, whose perplexity is 30, or (N - 1) / 3 if that is less.

    Raises:
        EmbeddingError: fewer than 5 images, values that are not finite, no such kind, or umap-learn is not installed.
    """
    if kind not in ("tsne", "umap"):
        raise EmbeddingError(f"no projection {kind!r}; there are: tsne, umap")
    points = _checked(embeddings, at_least=5)
    steps = []
    if points.shape[1] > PCA_WIDTH:
        from sklearn.decomposition import PCA

        width = min(PCA_WIDTH, len(points))
        reduction = PCA(width, svd_solver="full").fit(points)
        points = reduction.transform(points)
        kept = float(reduction.explained_variance_ratio_.sum())
        steps.append(
            f"PCA from {embeddings.shape[1]} to {width} dimensions first, which keeps {kept:.0%} of the variance"
        )
    if kind == "umap":
        return _umap(points, steps)
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(PERPLEXITY, (len(points) - 1) / 3)
    constant = not points.std(axis=0).any()
    start = np.random.default_rng(0).normal(scale=1e-4, size=(len(points), 2)).astype(np.float32)
    model = TSNE(
        perplexity=perplexity,
        max_iter=num_iterations,
        init=start if constant or points.shape[1] < 2 else "pca",
        random_state=0,
        n_jobs=1,
    )
    with threadpool_limits(limits=1):
        projected = model.fit_transform(points)
    steps.append(
        f"perplexity {perplexity:g}, {num_iterations} iterations, KL divergence {model.kl_divergence_:.3f}, seed 0"
    )
    return Projection(projected, "t-SNE", "; ".join(steps))


def _umap(points: np.ndarray, steps: list[str]) -> Projection:
    try:
        from umap import UMAP
    except ImportError as error:
        raise EmbeddingError("UMAP needs umap-learn, which is not installed: pip install umap-learn") from error
    num_neighbours = min(15, len(points) - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning that a seed allows one thread only, as intended
        projected = UMAP(n_neighbors=num_neighbours, min_dist=0.1, random_state=0, n_jobs=1).fit_transform(points)
    steps.append(f"{num_neighbours} neighbours, minimum distance 0.1, seed 0")
    return Projection(np.asarray(projected), "UMAP", "; ".join(steps))


def separation(embeddings: np.ndarray, classes: np.ndarray, *, num_neighbours: int = NUM_NEIGHBOURS) -> Separation:
    """Silhouette and k-NN purity in the space of the embeddings: Euclidean, without PCA or scaling.

    Args:
        embeddings: float (N, D).
        classes: (N,), class names.
        num_neighbours: k.

    Raises:
        EmbeddingError: fewer than 2 classes or 3 images, values that are not finite, or unequal lengths.
    """
    points = _checked(embeddings, at_least=3)
    if len(classes) != len(points):
        raise EmbeddingError(f"{len(points)} embeddings and {len(classes)} classes")
    numbers, counts = np.unique(np.asarray(classes).astype(str), return_inverse=True, return_counts=True)[1:]
    if not 2 <= len(counts) < len(points):
        raise EmbeddingError(f"{len(counts)} classes among {len(points)} images: nothing to separate")
    from sklearn.metrics import silhouette_score
    from sklearn.neighbors import NearestNeighbors

    k = min(num_neighbours, len(points) - 1)
    # without an argument, `kneighbors` leaves each point itself out, even if others coincide with it
    nearest = NearestNeighbors(n_neighbors=k).fit(points).kneighbors(return_distance=False)
    purity = float((numbers[nearest] == numbers[:, None]).mean())
    chance = float((counts / len(points) * (counts - 1) / (len(points) - 1)).sum())
    return Separation(float(silhouette_score(points, numbers)), purity, chance, k, points.shape[1])


def _checked(embeddings: np.ndarray, *, at_least: int) -> np.ndarray:
    points = np.asarray(embeddings, dtype=np.float32)
    if points.ndim != 2 or len(points) < at_least:
        raise EmbeddingError(f"need at least {at_least} embeddings (N, D), got the shape {points.shape}")
    bad = ~np.isfinite(points).all(axis=1)
    if bad.any():
        raise EmbeddingError(f"{bad.sum()} of {len(points)} embeddings are not finite")
    return points
