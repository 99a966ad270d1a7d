"""Confusion matrices of attribution."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from grid.tasks import ATTRIBUTION, REAL, get_task
from models.scoring import attributed


def confusion_table(scores: pd.DataFrame, generators: Sequence[str] = ()) -> pd.DataFrame:
    """Counts: rows true class, columns predicted class; real first, then the generators.

    Args:
        scores: of an attribution run, columns generator, label and `logit_<class>`. Images of a generator that is not
            a class are left out.
        generators: generators in the order of tables; others follow in alphabetical order.

    Raises:
        ValueError: no logits, or a logit that is not finite.
    """
    from sklearn.metrics import confusion_matrix  # not for a plan, which imports this module too

    classes = [str(name).removeprefix("logit_") for name in scores.columns if str(name).startswith("logit_")]
    if not classes:
        raise ValueError("these scores have no logit_<class> columns, so nothing was attributed")
    truth = get_task(ATTRIBUTION).class_numbers(scores, classes)
    has_class = truth >= 0
    logits = scores.loc[has_class, [f"logit_{name}" for name in classes]].to_numpy()
    answered = attributed(truth[has_class], logits, len(classes))
    counts = confusion_matrix(truth[has_class], answered, labels=range(len(classes)))
    order = [name for name in (REAL, *generators) if name in classes]
    order += sorted(set(classes) - set(order))
    table = pd.DataFrame(counts, index=classes, columns=classes).loc[order, order]
    return table.rename_axis(index="true class", columns="predicted class")
