"""What tasks share whose classes are real and one per generator that is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from grid.tasks import REAL, Task, class_names
from grid.train_sets import TrainSet

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


class ByGenerator(Task):
    """One class for real images and one per generator of the training set."""

    is_binary = False
    tests_what_it_trains = True

    def classes(self, train: TrainSet) -> tuple[str, ...]:
        """See `Task`."""
        return (REAL, *train.generators)

    def class_numbers(self, rows: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
        """See `Task`: -1 for the fakes of a generator that is no class."""
        import pandas as pd

        numbers: np.ndarray = pd.Index(list(classes)).get_indexer(pd.Index(class_names(rows))).astype("int64")
        return numbers
