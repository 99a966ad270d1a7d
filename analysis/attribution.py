"""Which generator made it: how often each class is taken for each other one."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.intervals import true_classes
from analysis.matrices import ordered
from models.scoring import confusion

REAL = "real"


def classes_of(scores: pd.DataFrame) -> list[str]:
    """Names of the classes, in the order of the `logit_<class>` columns."""
    return [str(name).removeprefix("logit_") for name in scores.columns if str(name).startswith("logit_")]


def display_order(classes: Sequence[str]) -> list[str]:
    """Classes in the order of the tables: real, then the generators."""
    return [name for name in (REAL,) if name in classes] + ordered(set(classes) - {REAL})


def confusion_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Counts: rows the true class, columns the predicted one.

    Args:
        scores: of an attribution run, columns generator, label and `logit_<class>`.

    Raises:
        ValueError: no logits, or images of a generator that is no class.
    """
    classes = classes_of(scores)
    if not classes:
        raise ValueError("these scores have no logit_<class> columns, so nothing was attributed")
    logits = scores[[f"logit_{name}" for name in classes]].to_numpy()
    counts = confusion(true_classes(scores, classes), logits, len(classes))
    order = display_order(classes)
    table = pd.DataFrame(counts, index=classes, columns=classes).loc[order, order]
    return table.rename_axis(index="true class", columns="predicted class")
