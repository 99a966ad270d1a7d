"""Attribution: which generator made a picture, or is it real? One cell with all test images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from grid.tasks import ATTRIBUTION, WHOLE, register_task
from grid.tasks._by_generator import ByGenerator
from grid.train_sets import ALL, TrainSet, parse_train_sets

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


@register_task
class Attribution(ByGenerator):
    """One class for real images and one per generator; every generator is always trained on."""

    name = ATTRIBUTION
    heading = "accuracy over all classes, and of each class"
    train_on = ALL
    shows_embeddings = True

    def train_sets(self, train_on: str | None, generators: Sequence[str]) -> list[TrainSet]:
        """See `Task`; what the user asked for holds for detection alone."""
        return parse_train_sets(ALL, generators)

    def cells(self, rows: pd.DataFrame, classes: Sequence[str]) -> dict[str, np.ndarray]:
        """See `Task`: every image of one of the classes."""
        return {WHOLE: self.class_numbers(rows, classes) >= 0}

    def label(self, train: TrainSet, generators: Sequence[str]) -> str:
        """See `Task`."""
        return self.name

    def trial_name(self, train: TrainSet) -> str:
        """See `Task`."""
        return self.name
