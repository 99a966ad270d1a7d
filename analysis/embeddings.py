"""Test embeddings in the plane, and numbers about them that no projection can bend."""

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
    """Embeddings in the plane.

    Attributes:
        points: float (N, 2).
        method: "t-SNE" or "UMAP".
        note: how it was made, in words: perplexity, iterations, KL divergence.
        kl_divergence: of t-SNE, what it minimised; NaN for UMAP.
    """

    points: np.ndarray
    method: str
    note: str
    kl_divergence: float


@dataclass(frozen=True)
class Separation:
    """How well classes part in the space that the embeddings came in.

    Attributes:
        silhouette: mean silhouette coefficient (Rousseeuw 1987), Euclidean; in [-1, 1].
        purity: share of each image's nearest neighbours that are of its class, itself left out; mean over images.
        chance: what `purity` is in expectation when neighbours are drawn at random.
        num_neighbours: k, less than asked for when there are few images.
        num_dimensions: D.
    """

    silhouette: float
    purity: float
    chance: float
    num_neighbours: int
    num_dimensions: int


def project(
    embeddings: np.ndarray,
    *,
    kind: str = "tsne",
    perplexity: float = PERPLEXITY,
    num_iterations: int = NUM_ITERATIONS,
    seed: int = 0,
) -> Projection:
    """Lay embeddings into the plane; the same ones always come to lie in the same places.

    t-SNE by Barnes and Hut (van der Maaten 2014, scikit-learn), on one thread, because sums over threads come in any
    order; started from the first principal components. Embeddings wider than 50 go through a PCA to 50 first.

    Args:
        embeddings: float (N, D), of any width of float.
        kind: "tsne", or "umap" where umap-learn is installed.
        perplexity: of t-SNE; less where there are few images, (N - 1) / 3 at most.
        num_iterations: of t-SNE.
        seed: of what is left to chance.

    Raises:
        EmbeddingError: fewer than 5 images, values that are not finite, or umap-learn is asked for and missing.
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
        return _umap(points, steps, seed)
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(perplexity, (len(points) - 1) / 3)
    constant = not points.std(axis=0).any()
    start = np.random.default_rng(seed).normal(scale=1e-4, size=(len(points), 2)).astype(np.float32)
    model = TSNE(
        perplexity=perplexity,
        max_iter=num_iterations,
        init=start if constant or points.shape[1] < 2 else "pca",
        learning_rate="auto",
        random_state=seed,
        n_jobs=1,
    )
    with threadpool_limits(limits=1):
        placed = model.fit_transform(points)
    steps.append(
        f"perplexity {perplexity:g}, {num_iterations} iterations, KL divergence {model.kl_divergence_:.3f}, seed {seed}"
    )
    return Projection(placed, "t-SNE", "; ".join(steps), float(model.kl_divergence_))


def _umap(points: np.ndarray, steps: list[str], seed: int) -> Projection:
    try:
        from umap import UMAP
    except ImportError as error:
        raise EmbeddingError("UMAP needs umap-learn, which is not installed: pip install umap-learn") from error
    num_neighbours = min(15, len(points) - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that a seed leaves it one thread, which is what we want
        placed = UMAP(n_neighbors=num_neighbours, min_dist=0.1, random_state=seed, n_jobs=1).fit_transform(points)
    steps.append(f"{num_neighbours} neighbours, minimum distance 0.1, seed {seed}")
    return Projection(np.asarray(placed), "UMAP", "; ".join(steps), float("nan"))


def separation(embeddings: np.ndarray, classes: np.ndarray, *, num_neighbours: int = NUM_NEIGHBOURS) -> Separation:
    """Silhouette and k-NN purity in the embeddings' own space: Euclidean, without PCA or scaling.

    Args:
        embeddings: float (N, D).
        classes: (N,), names.
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
    # without an argument, `kneighbors` leaves each point itself out, also where others lie on the same spot
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
        raise EmbeddingError(f"{bad.sum()} of {len(points)} embeddings are not finite, so they have no place")
    return points
