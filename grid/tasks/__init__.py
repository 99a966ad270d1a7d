"""What a grid asks of its detectors, one file per task. A new file in this package is a new task."""

from __future__ import annotations

import abc
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, ClassVar

from data.register import Register
from data.sources.base import rows_of_cells
from grid.train_sets import TrainSet, parse_train_sets

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

DETECTION, ATTRIBUTION, OPEN_SET = "detection", "attribution", "open_set"
REAL = "real"  # the class of every real image
WHOLE = "all"  # where a task tests the whole test set as one cell


class Task(abc.ABC):
    """One question to the detectors: its classes, training sets, test cells and metrics.

    Attributes:
        name: as on the command line, in tags and in tables.
        heading: a line above the task's table in the terminal.
        train_on: the training sets of a grid that names none (see `grid.train_sets`).
        is_binary: the classes are real and fake. An image then has a score, the log-odds of fake; a threshold comes
            from the validation split; and results form a matrix with one cell per generator that is tested on.
        needs_fakes: it makes no sense for methods that are trained without fakes.
        tests_what_it_trains: generators without test images are not trained on: each is a class, whose accuracy would
            not be known.
        scores_unknown: test images may be of no class, so a trial keeps scores of "unknown" (`models.open_set`), in
            columns of its scores.
        shows_embeddings: reports show the test embeddings of its trials, so they are kept of large test sets, too.
        is_control: a null control. Its values are no results: they stand in a section of their own, and say whether
            results can be believed. Methods that are trained without fakes have no trials of it.
    """

    name: ClassVar[str]
    heading: ClassVar[str]
    train_on: ClassVar[str]
    is_binary: ClassVar[bool]
    needs_fakes: ClassVar[bool] = True
    tests_what_it_trains: ClassVar[bool] = False
    scores_unknown: ClassVar[bool] = False
    shows_embeddings: ClassVar[bool] = False
    is_control: ClassVar[bool] = False

    def for_seed(self, seed: int) -> Task:
        """The task as trials with this seed have it: labels of a control follow from the seed."""
        return self

    def train_sets(self, train_on: str | None, generators: Sequence[str]) -> list[TrainSet]:
        """The training sets of a grid.

        Args:
            train_on: what the user asked for; None: the task's own.
            generators: all generators of the data set.

        Raises:
            ValueError: as `parse_train_sets`.
        """
        return parse_train_sets(self.train_on if train_on is None else train_on, generators)

    @abc.abstractmethod
    def classes(self, train: TrainSet) -> tuple[str, ...]:
        """Class names in the order of the logits; "real" is always the first."""

    @abc.abstractmethod
    def class_numbers(self, rows: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
        """Each row's class: int64 (N,), its position in `classes`; -1 where it has none.

        Args:
            rows: columns label, generator and source_id.
            classes: from `classes`.
        """

    @abc.abstractmethod
    def cells(self, rows: pd.DataFrame, classes: Sequence[str]) -> dict[str, np.ndarray]:
        """What is tested on -> which rows are its cell: bool (N,).

        Args:
            rows: of the test split, columns label, generator and source_id.
            classes: from `classes`.
        """

    def measure(
        self, rows: pd.DataFrame, logits: np.ndarray, classes: Sequence[str], threshold: float | None = None
    ) -> dict[str, dict[str, float]]:
        """Every metric of every cell: tested on -> metric -> value.

        Args:
            rows: of the test split, columns label, generator and source_id.
            logits: float (N, C).
            classes: C names.
            threshold: log-odds of fake, from the validation split; only where the task is binary.

        Raises:
            ValueError: a class without images in a cell, or values that are not finite.
        """
        from models.detector import fake_scores
        from models.scoring import attribution_metrics, cell_metrics

        numbers, measured = self.class_numbers(rows, classes), {}
        for tested_on, cell in self.cells(rows, classes).items():
            if threshold is None:
                measured[tested_on] = attribution_metrics(numbers[cell], logits[cell], classes)
            else:
                measured[tested_on] = cell_metrics(numbers[cell], fake_scores(logits[cell]), threshold)
        return measured

    def label(self, train: TrainSet, generators: Sequence[str]) -> str:
        """A trial in words, such as "trained on lama"."""
        return f"trained on {train.label(generators)}"

    def trial_name(self, train: TrainSet) -> str:
        """The part of a trial's short name that says what it is trained on."""
        return str(train)


_tasks: Register[Task] = Register("task", __name__)


def register_task(task: type[Task]) -> type[Task]:
    """Register a task under its name. Raises `ValueError` where the name is taken."""
    _tasks.add(task.name, task())
    return task


def list_tasks() -> list[str]:
    """Names of all tasks: detection and attribution first, then the others in alphabetical order."""
    names = _tasks.names()
    return sorted(names, key=lambda name: (name != DETECTION, name != ATTRIBUTION, name))


def list_controls() -> list[str]:
    """Names of the null controls."""
    return [name for name in list_tasks() if get_task(name).is_control]


def get_task(name: str, seed: int | None = None) -> Task:
    """Look a task up.

    Args:
        name: of the task.
        seed: of a trial. Needed wherever images have labels: those of a control follow from it.

    Raises:
        KeyError: no such task; the message lists the tasks.
    """
    task = _tasks.get(name)
    return task if seed is None else task.for_seed(seed)


def to_train_on(
    tasks: Sequence[str], generators: Sequence[str], untested: Collection[str]
) -> list[tuple[list[str], list[str]]]:
    """(tasks, generators that their trials may be trained on); see `Task.tests_what_it_trains`.

    Args:
        tasks: names in `grid.tasks`.
        generators: those of the data set that can be trained on.
        untested: generators without test images.
    """
    tested = [name for name in generators if name not in untested]
    if len(tested) == len(generators):
        return [(list(tasks), tested)]
    parts = ([name for name in tasks if get_task(name).tests_what_it_trains is strict] for strict in (False, True))
    return [(part, names) for part, names in zip(parts, (list(generators), tested), strict=True) if part]


def class_names(rows: pd.DataFrame) -> np.ndarray:
    """Each row's class by who made it: "real" for every real image, else its generator; object (N,)."""
    names: np.ndarray = rows["generator"].where(rows["label"] == 1, REAL).to_numpy(object)
    return names


def cell_rows(rows: pd.DataFrame, generator: str) -> np.ndarray:
    """Which rows make the cell of a generator: its fakes, and the real images shared or its own; bool (N,)."""
    return rows_of_cells(rows, [generator])


def generators_of(rows: pd.DataFrame) -> list[str]:
    """Who made the fakes among these rows, in the order in which they come."""
    return [str(name) for name in rows.loc[rows["label"] == 1, "generator"].unique()]
