"""What null controls share: labels that follow from a trial's seed and the photograph, and from nothing else."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from grid.tasks import Task

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


class Control(Task):
    """A question without an answer: a detector that does better than chance has seen what it must not see.

    A photograph has the same label in whatever split it is met, so an image that has leaked into the training set is
    recognised, and the control leaves chance.

    Attributes:
        seed: of the trial; None: not known, and then there are no labels.
    """

    is_binary = True
    is_control = True

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed

    def for_seed(self, seed: int) -> Task:
        """See `Task`."""
        return type(self)(seed)

    def classes(self, train: object) -> tuple[str, ...]:
        """See `Task`."""
        from models.detector import DETECTION_CLASSES

        return DETECTION_CLASSES

    def coins(self, rows: pd.DataFrame) -> np.ndarray:
        """0 or 1 for each row, alike for all images of a photograph: int64 (N,), one bit of a hash of seed and source.

        Args:
            rows: with the column source_id.

        Raises:
            ValueError: the seed is not known.
        """
        import pandas as pd

        if self.seed is None:
            raise ValueError(f"labels of {self.name} follow from the trial's seed: get_task({self.name!r}, seed)")
        codes, sources = pd.factorize(rows["source_id"])
        texts = (f"{self.name}\n{self.seed}\n{source}" for source in sources)
        coins = pd.array([hashlib.sha256(text.encode()).digest()[0] & 1 for text in texts], dtype="int64")
        return coins.to_numpy()[codes]
