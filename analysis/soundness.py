"""Whether a table of scores has the form that everything else relies on; and which of its rows are which cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from grid.tasks import Task

SOURCE_COLUMNS = ["source_id", "generator", "label"]
_KEPT = 4
SCORE_COLUMNS = ["path", "digest", "source_id", "generator", "label"]  # then condition, logit_<class>, maybe score


def problem_of(scores: pd.DataFrame, numbers: Sequence[str]) -> str:
    """What is wrong with the form of these scores, in words; "" if nothing is.

    Args:
        scores: a run's scores.
        numbers: the columns beside `SCORE_COLUMNS`, which must hold finite numbers.
    """
    needed = [*SCORE_COLUMNS, *numbers]
    if absent := [column for column in needed if column not in scores.columns]:
        return f"no column {', '.join(absent)}"
    if scores.empty:
        return "no rows"
    for column in [*numbers, "label"]:
        if not pd.api.types.is_numeric_dtype(scores[column].dtype):
            return f"the column {column} holds no numbers"
        if bad := int((~np.isfinite(scores[column].to_numpy(dtype=float, na_value=np.nan))).sum()):
            return f"the column {column} has {bad} {'value that is' if bad == 1 else 'values that are'} not finite"
    if not scores["label"].isin([0, 1]).all() or scores[SCORE_COLUMNS].isna().to_numpy().any():
        return f"a value of {', '.join(SCORE_COLUMNS)} is missing, or a label is neither 0 nor 1"
    if twice := int(scores["path"].astype(str).duplicated().sum()):
        return f"{len(scores)} rows hold {len(scores) - twice} images: at least one image is there twice"
    return ""


@dataclass
class CellRows:
    """Which rows are which cell: the runs of a grid mostly have the same rows, so that it is found out once."""

    _known: list[tuple[Task, tuple[str, ...], pd.DataFrame, np.ndarray, Mapping[str, np.ndarray]]] = field(
        default_factory=list
    )

    def of(
        self, task: Task, classes: Sequence[str], scores: pd.DataFrame
    ) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """`Task.class_numbers` and `Task.cells` of scores with `SOURCE_COLUMNS`."""
        images = scores[SOURCE_COLUMNS]
        for known, of_classes, of_images, numbers, cells in self._known:
            if known is task and of_classes == tuple(classes) and of_images.equals(images):
                return numbers, cells
        numbers, cells = task.class_numbers(scores, classes), task.cells(scores, classes)
        self._known = [(task, tuple(classes), images, numbers, cells), *self._known[: _KEPT - 1]]
        return numbers, cells
