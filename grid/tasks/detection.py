"""Detection: is a picture real or fake? One cell per generator that is tested on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from grid.tasks import DETECTION, Task, cell_rows, generators_of, register_task
from grid.train_sets import EACH, TrainSet

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


@register_task
class Detection(Task):
    """Trained on real images and the fakes of a training set, tested on every generator."""

    name = DETECTION
    heading = "accuracy (AUROC)"
    train_on = EACH
    is_binary = True
    needs_fakes = False

    def classes(self, train: TrainSet) -> tuple[str, ...]:
        """See `Task`."""
        from models.detector import DETECTION_CLASSES

        return DETECTION_CLASSES

    def class_numbers(self, rows: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
        """See `Task`: 0 real, 1 fake."""
        numbers: np.ndarray = rows["label"].to_numpy("int64")
        return numbers

    def cells(self, rows: pd.DataFrame, classes: Sequence[str]) -> dict[str, np.ndarray]:
        """See `Task`: a generator's fakes, with the real images that are shared or came with it."""
        return {generator: cell_rows(rows, generator) for generator in generators_of(rows)}
