"""Projections of test embeddings, and the separation of their classes without a projection."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from analysis.store import Store
from data.arrays import load_array
from grid import names
from grid.samples import drawn_images

PCA_WIDTH = 50  # as van der Maaten and Hinton (2008) did before t-SNE, and scikit-learn advises
PERPLEXITY = 30.0
ANGLE = 0.8  # of Barnes-Hut: a far group of points counts as one where its width over its distance is below this
NUM_ITERATIONS = 1000
NUM_NEIGHBOURS = 10
_MEBIBYTES = 128  # of distances at once


class EmbeddingError(ValueError):
    """These embeddings cannot be shown; the message says why."""


@dataclass(frozen=True, eq=False)
class Projection:
    """Embeddings in two dimensions.

    Attributes:
        points: float (N, 2).
        method: "t-SNE" or "UMAP".
        note: its settings in words: PCA, perplexity, angle, iterations, seed.
    """

    points: np.ndarray
    method: str
    note: str


@dataclass(frozen=True)
class Separation:
    """How well classes separate in the space of the embeddings.

    An image is never compared with an image of the same source photograph. Versions of one photograph lie close
    together whatever their class is, so they would hide how the classes separate.

    Attributes:
        silhouette: mean silhouette coefficient (Rousseeuw 1987), Euclidean; in [-1, 1].
        purity: share of each image's nearest neighbours in its own class; mean over images.
        chance: expected purity of neighbours drawn at random, from the same images that may be neighbours.
        num_neighbours: k; smaller than requested if there are few images of other photographs.
        num_dimensions: D.
    """

    silhouette: float
    purity: float
    chance: float
    num_neighbours: int
    num_dimensions: int


def shown_embeddings(store: Store, run_id: str, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The test embeddings of a run that are shown and compared, all or a sample, and of which images they are.

    Args:
        store: an open grid.
        run_id: of a finished run.
        classes: (N,), class names of the images in its scores.

    Returns:
        int (M,), rows of the scores in ascending order, as `drawn_images` gives them, or as a run that keeps no other
        embeddings does; and float16 (M, D).

    Raises:
        StoreError: no such run, or its embeddings are not kept, are missing or cannot be read.
        EmbeddingError: they are not those of so many images.
    """
    num_kept = store.tags(run_id).get(names.EMBEDDED)
    if num_kept == "0":
        raise EmbeddingError(f"run {run_id} keeps no embeddings: a large test set's are kept for attribution alone")
    vectors = store.embeddings(run_id)
    if num_kept is None:
        if len(vectors) != len(classes):
            raise EmbeddingError(f"run {run_id} has {len(vectors)} embeddings for {len(classes)} images")
        rows = drawn_images(classes)
        return rows, vectors[rows]
    try:
        rows = load_array(store.artifact(run_id, names.EMBEDDED_ROWS))
    except (OSError, ValueError) as error:
        raise store.broken(run_id, names.EMBEDDED_ROWS, error) from error
    if problem := problem_of_rows(rows, len(vectors), len(classes)):
        raise store.broken(run_id, names.EMBEDDED_ROWS, problem)
    return rows, vectors


def problem_of_rows(rows: np.ndarray, num_vectors: int, num_images: int) -> str:
    """Why these cannot be the rows of a run's embeddings; "" if they can."""
    if rows.dtype.kind != "i" or rows.shape != (num_vectors,):
        return f"its shape is {rows.shape}, of {rows.dtype}, for {num_vectors} embeddings"
    if (np.diff(rows) <= 0).any() or (num_vectors and not 0 <= rows[0] <= rows[-1] < num_images):
        return f"its numbers are not rows of {num_images} images in ascending order"
    return ""


def separate_and_project(
    embeddings: np.ndarray, classes: np.ndarray, sources: np.ndarray, *, kind: str
) -> tuple[Separation, Projection]:
    """Both `separation` and `project` of the same embeddings, for a process that draws; arguments as there."""
    return separation(embeddings, classes, sources), project(embeddings, kind=kind)


def project(embeddings: np.ndarray, *, kind: str = "tsne", num_iterations: int = NUM_ITERATIONS) -> Projection:
    """Project embeddings to two dimensions; the same embeddings always give the same points.

    Barnes-Hut t-SNE (van der Maaten 2014, scikit-learn), on one thread, because sums over threads come in any order;
    initialised with the first principal components. Its angle is .8, the coarse end of the range in which it hardly
    matters, as scikit-learn says: 4,500 points in nine groups take 23 s in place of 42 s at the default of .5, and
    their trustworthiness is .967 at both. Embeddings wider than 50 are reduced to 50 by a PCA first, whose singular
    vectors are found by a randomised method (Halko et al., arXiv 0909.4061) with a fixed seed. The note leaves out
    scikit-learn's KL divergence: its Barnes-Hut tree counts images that coincide as one, so that the value is too
    low, even negative, and after 250 iterations or fewer there is none.

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
    from threadpoolctl import threadpool_limits

    steps = []
    if points.shape[1] > PCA_WIDTH:
        from sklearn.decomposition import PCA

        width = min(PCA_WIDTH, len(points))
        with threadpool_limits(limits=1):
            reduction = PCA(width, svd_solver="randomized", random_state=0).fit(points)
            points = reduction.transform(points)
        kept = float(reduction.explained_variance_ratio_.sum())
        steps.append(
            f"PCA from {embeddings.shape[1]} to {width} dimensions first, which keeps {kept:.0%} of the variance"
        )
    if kind == "umap":
        return _umap(points, steps)
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(points) - 1) / 3)
    constant = not points.std(axis=0).any()
    start = np.random.default_rng(0).normal(scale=1e-4, size=(len(points), 2)).astype(np.float32)
    model = TSNE(
        perplexity=perplexity,
        max_iter=num_iterations,
        init=start if constant or points.shape[1] < 2 else "pca",
        angle=ANGLE,
        random_state=0,
        n_jobs=1,
    )
    with threadpool_limits(limits=1):
        projected = model.fit_transform(points)
    steps.append(f"perplexity {perplexity:g}, angle {ANGLE}, {num_iterations} iterations, seed 0")
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


def separation(
    embeddings: np.ndarray, classes: np.ndarray, sources: np.ndarray, *, num_neighbours: int = NUM_NEIGHBOURS
) -> Separation:
    """Silhouette and k-NN purity between photographs, in the embeddings' own space: Euclidean, no PCA, no scaling.

    An image's silhouette is (b - a) / max(a, b): a is its mean distance to images of its own class, b the smallest of
    its mean distances to the other classes. It is 0 where one of the two has no image of another photograph.

    Args:
        embeddings: float (N, D).
        classes: (N,), class names.
        sources: (N,), ids of the source photographs; images of the same photograph are left out of all comparisons.
        num_neighbours: k.

    Raises:
        EmbeddingError: fewer than 2 classes or 3 images, only one photograph, values that are not finite, or unequal
            lengths.
    """
    points = _checked(embeddings, at_least=3)
    if not len(classes) == len(sources) == len(points):
        raise EmbeddingError(f"{len(points)} embeddings, {len(classes)} classes and {len(sources)} source photographs")
    numbers, counts = np.unique(np.asarray(classes).astype(str), return_inverse=True, return_counts=True)[1:]
    if not 2 <= len(counts) < len(points):
        raise EmbeddingError(f"{len(counts)} classes among {len(points)} images: nothing to separate")
    photographs, sizes = np.unique(np.asarray(sources).astype(str), return_inverse=True, return_counts=True)[1:]
    if len(sizes) < 2:
        raise EmbeddingError("all images are of one photograph: nothing to compare")
    from sklearn.metrics import pairwise_distances_chunked

    members = np.eye(len(counts))[numbers]  # (N, C), 1 where an image is of the class
    in_class = np.zeros((len(sizes), len(counts)))
    np.add.at(in_class, photographs, members)
    others = counts - in_class[photographs]  # (N, C), images of other photographs
    k = min(num_neighbours, int(len(points) - sizes.max()))

    def compare(distances: np.ndarray, start: int) -> tuple[np.ndarray, np.ndarray]:
        """Sums of distances to each class (M, C), and the share of neighbours in the own class (M,)."""
        rows = slice(start, start + len(distances))
        same = photographs[rows, None] == photographs
        distances[same] = 0
        sums = distances @ members
        distances[same] = np.inf
        nearest = np.argpartition(distances, k - 1, axis=1)[:, :k]
        return sums, (numbers[nearest] == numbers[rows, None]).mean(axis=1)

    parts = list(pairwise_distances_chunked(points, reduce_func=compare, working_memory=_MEBIBYTES))
    sums, pure = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    means = np.divide(sums, others, out=np.full_like(sums, np.inf), where=others > 0)
    index = np.arange(len(points))
    within = means[index, numbers].copy()
    means[index, numbers] = np.inf
    between = means.min(axis=1)
    larger = np.maximum(within, between)
    known = np.isfinite(larger) & (larger > 0)
    silhouettes = np.zeros(len(points))
    silhouettes[known] = (between[known] - within[known]) / larger[known]
    chance = others[index, numbers] / others.sum(axis=1)
    return Separation(float(silhouettes.mean()), float(pure.mean()), float(chance.mean()), k, points.shape[1])


def _checked(embeddings: np.ndarray, *, at_least: int) -> np.ndarray:
    points = np.asarray(embeddings, dtype=np.float32)
    if points.ndim != 2 or len(points) < at_least:
        raise EmbeddingError(f"need at least {at_least} embeddings (N, D), got the shape {points.shape}")
    bad = ~np.isfinite(points).all(axis=1)
    if bad.any():
        raise EmbeddingError(f"{bad.sum()} of {len(points)} embeddings are not finite")
    return points
