"""The accuracy of each class: `accuracy/<class>` among several classes, else `real_accuracy` and `fake_accuracy`."""

from __future__ import annotations

from typing import Literal

import numpy as np

from models.metrics import Answers, Metric, register_class_metric, register_metric


def of_class(label: str, name: str) -> Metric:
    """The share of a class's images that are answered with the class."""

    def images(answers: Answers) -> np.ndarray:
        return np.asarray(answers.labels == answers.classes.index(label))

    def value(answers: Answers, weights: np.ndarray | None = None) -> float:
        members = images(answers)
        right = answers.answered[members] == answers.labels[members]
        return float(np.average(right, weights=None if weights is None else weights[members]))

    task: Literal["binary", "several"] = "several" if "/" in name else "binary"
    return Metric(
        name,
        f"accuracy of {label}",
        value,
        task=task,
        position=None,
        shares=lambda answers: [(1.0, images(answers))],
    )


real_accuracy = register_metric(of_class("real", "real_accuracy"))
fake_accuracy = register_metric(of_class("fake", "fake_accuracy"))
register_class_metric("accuracy", lambda label: of_class(label, f"accuracy/{label}"))
