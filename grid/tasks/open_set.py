"""Open set: attribution with one generator left out of training. Is it seen that its images are of no known class?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from data.sources.base import rows_of_cells
from grid.tasks import OPEN_SET, generators_of, register_task
from grid.tasks._by_generator import ByGenerator
from grid.train_sets import ALL_BUT_ONE, TrainSet, parse_train_sets

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

FEWEST_GENERATORS = 3


@register_task
class OpenSet(ByGenerator):
    """One class for real images and one per generator that is trained on; one cell per generator that is left out."""

    name = OPEN_SET
    heading = "AUROC of images of the generator that was left out against those of known classes"
    train_on = ALL_BUT_ONE
    scores_unknown = True

    def train_sets(self, train_on: str | None, generators: Sequence[str]) -> list[TrainSet]:
        """See `Task`: each generator is left out in turn.

        Of the training sets that the user asked for, those that leave out exactly one generator; if there is none, all.

        Raises:
            ValueError: fewer than three generators, or as `parse_train_sets`.
        """
        if len(generators) < FEWEST_GENERATORS:
            raise ValueError(
                f"the task {self.name} leaves each generator out in turn and tells at least two others apart, so it "
                f"needs at least {FEWEST_GENERATORS} generators to train on; the data have {len(generators)}: "
                f"{', '.join(generators)}. Leave the task out of --tasks, or add images of another generator"
            )
        asked = [] if train_on is None else parse_train_sets(train_on, generators)
        chosen = [train for train in asked if len(train) == len(generators) - 1]
        return chosen or parse_train_sets(self.train_on, generators)

    def cells(self, rows: pd.DataFrame, classes: Sequence[str]) -> dict[str, np.ndarray]:
        """See `Task`: the images of the known classes, and the fakes of one generator that is none.

        Real images that came with the left-out generator are in no cell: nothing like them was trained on, and they
        are real.
        """
        known = rows_of_cells(rows, classes[1:])
        fakes_of = rows["generator"].where(rows["label"] == 1)
        left_out = [name for name in generators_of(rows) if name not in classes]
        return {name: known | (fakes_of == name).to_numpy() for name in left_out}

    def measure(
        self, rows: pd.DataFrame, logits: np.ndarray, classes: Sequence[str], threshold: float | None = None
    ) -> dict[str, dict[str, float]]:
        """See `Task`: with the scores of "unknown" that the rows have in columns, and those of the logits."""
        from models.open_set import scores_of_table
        from models.open_set_metrics import open_set_metrics

        numbers, scores = self.class_numbers(rows, classes), scores_of_table(rows, logits)
        return {
            name: open_set_metrics(
                numbers[cell], logits[cell], classes, {score: values[cell] for score, values in scores.items()}
            )
            for name, cell in self.cells(rows, classes).items()
        }

    def label(self, train: TrainSet, generators: Sequence[str]) -> str:
        """See `Task`."""
        return f"{self.name}, {super().label(train, generators)}"

    def trial_name(self, train: TrainSet) -> str:
        """See `Task`."""
        return f"{self.name}-{train}"
