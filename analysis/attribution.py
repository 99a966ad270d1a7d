"""Which generator made it: how often each class is taken for each other one."""

from __future__ import annotations

import pandas as pd
from sklearn.metrics import confusion_matrix

from analysis.intervals import true_classes
from analysis.matrices import ordered
from models.scoring import attributed


def confusion_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Counts: rows the true class, columns the predicted one; real first, then the generators as in the tables.

    Args:
        scores: of an attribution run, columns generator, label and `logit_<class>`.

    Raises:
        ValueError: no logits, a logit that is not finite, or images of a generator that is no class.
    """
    classes = [str(name).removeprefix("logit_") for name in scores.columns if str(name).startswith("logit_")]
    if not classes:
        raise ValueError("these scores have no logit_<class> columns, so nothing was attributed")
    truth = true_classes(scores, classes)
    answered = attributed(truth, scores[[f"logit_{name}" for name in classes]].to_numpy(), len(classes))
    counts = confusion_matrix(truth, answered, labels=range(len(classes)))
    order = ["real", *ordered(set(classes) - {"real"})]
    table = pd.DataFrame(counts, index=classes, columns=classes).loc[order, order]
    return table.rename_axis(index="true class", columns="predicted class")
