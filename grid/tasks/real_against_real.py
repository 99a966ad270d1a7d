"""Null control: real photographs against real photographs. A coin per photograph says which half is called fake."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from grid.tasks import WHOLE, register_task
from grid.tasks._control import Control
from grid.train_sets import NONE, TrainSet

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


@register_task
class RealAgainstReal(Control):
    """Trained and tested on real images alone; one cell with all real test images."""

    name = "real_against_real"
    heading = "accuracy (AUROC) of one half of the real photographs against the other: .5 is expected"
    train_on = NONE
    needs_fakes = False

    def train_sets(self, train_on: str | None, generators: Sequence[str]) -> list[TrainSet]:
        """See `Task`: no generator, whatever the user asked for."""
        return [TrainSet(())]

    def class_numbers(self, rows: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
        """See `Task`: the photograph's coin; -1 for fakes."""
        import numpy as np

        return np.where(rows["label"] == 0, self.coins(rows), -1)

    def cells(self, rows: pd.DataFrame, classes: Sequence[str]) -> dict[str, np.ndarray]:
        """See `Task`."""
        return {WHOLE: (rows["label"] == 0).to_numpy()}

    def label(self, train: TrainSet, generators: Sequence[str]) -> str:
        """See `Task`."""
        return "control: real against real"

    def trial_name(self, train: TrainSet) -> str:
        """See `Task`."""
        return self.name
