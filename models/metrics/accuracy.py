"""The share of images that are answered with their class."""

from __future__ import annotations

import numpy as np

from models.metrics import Answers, Metric, register_metric


def value(answers: Answers, weights: np.ndarray | None = None) -> float:
    """Right answers over all answers."""
    return float(np.average(answers.labels == answers.answered, weights=weights))


def shares(answers: Answers) -> list[tuple[float, np.ndarray]]:
    """The accuracy of each class, by the class's share of the images: how many a class has is fixed by design."""
    classes = [answers.labels == number for number in np.unique(answers.labels)]
    return [(float(images.mean()), images) for images in classes]


accuracy = register_metric(
    Metric("accuracy", "accuracy", value, chance=0.5, position=10, position_at_validation=40, shares=shares)
)
