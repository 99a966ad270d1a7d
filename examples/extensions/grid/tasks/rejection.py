"""Rejection: attribution with one generator left out. Is the detector less certain about images of that one?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from grid.tasks import REAL, Task, class_names, register_task
from grid.train_sets import TrainSet

if TYPE_CHECKING:
    import pandas as pd


@register_task
class Rejection(Task):
    """One class for real images and one per generator that is trained on; one cell per generator that is left out."""

    name = "rejection"
    heading = "AUROC of the certainty: images of known classes against those of the generator that was left out"
    train_on = "all-but-one"
    is_binary = False

    def classes(self, train: TrainSet) -> tuple[str, ...]:
        """See `Task`."""
        return (REAL, *train.generators)

    def class_numbers(self, rows: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
        """See `Task`: -1 for a generator that is left out."""
        number = {name: position for position, name in enumerate(classes)}
        return np.array([number.get(name, -1) for name in class_names(rows)], dtype=np.int64)

    def cells(self, rows: pd.DataFrame, classes: Sequence[str]) -> dict[str, np.ndarray]:
        """See `Task`: the images of the known classes, and those of one generator that is none."""
        names = class_names(rows)
        known = np.isin(names.astype(str), classes)
        return {str(name): known | (names == name) for name in dict.fromkeys(names[~known])}

    def measure(
        self, rows: pd.DataFrame, logits: np.ndarray, classes: Sequence[str], threshold: float | None = None
    ) -> dict[str, dict[str, float]]:
        """See `Task`: the certainty is the largest logit."""
        from sklearn.metrics import roc_auc_score

        known, certainty = self.class_numbers(rows, classes) >= 0, logits.max(axis=1)
        return {
            name: {"rejection_auroc": float(roc_auc_score(known[cell], certainty[cell]))}
            for name, cell in self.cells(rows, classes).items()
        }
