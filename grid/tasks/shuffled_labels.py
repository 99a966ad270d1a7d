"""Null control: detection, where a coin per photograph says whether its real and its fake images swap their labels.

The labels of training, validation and test images are all shuffled. With the true labels on the test images a detector
would not be at chance. From shuffled labels it learns some direction in its features, and along it fakes differ from
real images, in whichever sense. All test photographs agree in this sense, so the value would be far from .5, above or
below, and an interval over photographs would not hold .5.

One coin serves all images of a photograph. So a cell of pairs has as many images of each class as before, and images of
one photograph are right or wrong together, as they are in detection: what is at chance is then the interval over
photographs, too. `benchmarks/controls.py` compares this rule with a coin per image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from grid.tasks import cell_rows, generators_of, register_task
from grid.tasks._control import Control
from grid.train_sets import ALL, TrainSet, parse_train_sets

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


@register_task
class ShuffledLabels(Control):
    """Trained on real images and the fakes of all generators, tested on every generator, with labels by coins."""

    name = "shuffled_labels"
    heading = "accuracy (AUROC) with shuffled labels: .5 is expected"
    train_on = ALL

    def train_sets(self, train_on: str | None, generators: Sequence[str]) -> list[TrainSet]:
        """See `Task`: one set with every generator, whatever the user asked for; so a control is cheap."""
        return parse_train_sets(ALL, generators)

    def class_numbers(self, rows: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
        """See `Task`: the true class, or the other one, as the photograph's coin says."""
        numbers: np.ndarray = rows["label"].to_numpy("int64") ^ self.coins(rows)
        return numbers

    def cells(self, rows: pd.DataFrame, classes: Sequence[str]) -> dict[str, np.ndarray]:
        """See `Task`: as for detection."""
        return {generator: cell_rows(rows, generator) for generator in generators_of(rows)}

    def label(self, train: TrainSet, generators: Sequence[str]) -> str:
        """See `Task`."""
        return "control: shuffled labels"

    def trial_name(self, train: TrainSet) -> str:
        """See `Task`."""
        return self.name
