"""Which test images a report shows and compares by their embeddings, and which embeddings a trial keeps for that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from grid.tasks import Task, class_names

if TYPE_CHECKING:
    import pandas as pd

# Images of a projection and of a separation: t-SNE of more takes minutes and their points cover each other, and the
# distances between all pairs grow with the square. Embeddings of more are not kept: a million take 1.5 GB per trial.
MOST_DRAWN = 5000


def drawn_images(classes: np.ndarray, most: int = MOST_DRAWN) -> np.ndarray:
    """Which images are shown and compared: all, or of more than `most` a sample with the same share of every class.

    Args:
        classes: (N,), class names.
        most: images at most, but for one more per class, because shares are rounded.

    Returns:
        int (M,), rows in ascending order. The same classes always give the same rows.
    """
    names = np.asarray(classes).astype(str)
    if len(names) <= most:
        return np.arange(len(names))
    random, rows = np.random.default_rng(0), list[np.ndarray]()
    for name in np.unique(names):
        own = np.flatnonzero(names == name)
        rows.append(random.choice(own, max(1, round(most * len(own) / len(names))), replace=False))
    return np.sort(np.concatenate(rows))


def kept_embeddings(scores: pd.DataFrame, task: Task, most: int = MOST_DRAWN) -> np.ndarray | None:
    """Which test images a trial keeps the embeddings of.

    Args:
        scores: one row per test image, columns label and generator.
        task: of the trial.
        most: up to so many test images, every trial keeps the embeddings of all.

    Returns:
        None: of all. Else int (M,), rows of `scores` in ascending order: `drawn_images` for a task whose embeddings a
        report shows, and none for another task.
    """
    if len(scores) <= most:
        return None
    return drawn_images(class_names(scores), most) if task.shows_embeddings else np.arange(0)
