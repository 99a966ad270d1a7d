"""Which generator made it: overall and per-class accuracy with intervals, and who is taken for whom."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.intervals import NUM_RESAMPLES, Resampler, proportion_interval, true_classes
from analysis.matrices import ordered
from models.scoring import confusion

OVERALL, REAL = "overall", "real"


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


def attribution(
    scores: pd.DataFrame | Sequence[pd.DataFrame], *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """Overall and per-class accuracy, with 95 % bootstrap intervals over source images.

    Args:
        scores: of an attribution run: source_id, generator, label, `logit_<class>`. A sequence holds one frame a seed;
            figures are then means over seeds, and sources are drawn jointly.
        num_resamples: B.
        seed: of the draws.

    Returns:
        one row for "overall" and each class; columns class, num_images, accuracy, low, high.

    Raises:
        ValueError: as `confusion_table`, or no frame.
    """
    frames = [scores] if isinstance(scores, pd.DataFrame) else list(scores)
    if not frames:
        raise ValueError("there are no scores")
    counts = confusion_table(frames[0]).sum(axis=1)
    resampler = Resampler(frames, num_resamples=num_resamples, seed=seed)
    answers = [resampler.answers(frame) for frame in frames]
    rows = []
    for name in (OVERALL, *counts.index):
        metric = "accuracy" if name == OVERALL else f"accuracy/{name}"
        accuracy = float(np.mean([resampler.value(one, metric) for one in answers]))
        distribution = np.mean([resampler.distribution(one, metric) for one in answers], axis=0)
        interval = proportion_interval(distribution, answers[0], metric, accuracy)
        rows.append(
            {
                "class": name,
                "num_images": int(counts.sum() if name == OVERALL else counts[name]),
                "accuracy": accuracy,
                "low": interval.low,
                "high": interval.high,
            }
        )
    return pd.DataFrame(rows)
