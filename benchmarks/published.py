"""How many images the published experiment trains on, scores and encodes, by method; from its own list of trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import heavy
from benchmarks.grids import GENERATORS, TASKS
from grid.experiments.dolos import dolos
from grid.plan import LOOK_IMAGES
from grid.tasks import get_task

TRAIN, TEST = 9_000, 900  # images a class of the Dolos data set (arXiv 2311.04584)
VALID = 900  # images a class; of RePaint's the number is not known and is taken to be the same


@dataclass(frozen=True)
class Images:
    """Images over the whole grid, each counted as often as it is worked on."""

    trained: int = 0
    scored: int = 0
    encoded: int = 0


def images(
    method: str,
    *,
    seeds: Sequence[int] = dolos.seeds,
    tasks: Sequence[str] = TASKS,
    train_on: str | None = None,
    conditions: int = 0,
) -> Images:
    """What one method does in the whole experiment, or in another one on the same data set.

    A method that trains its network passes over its training images `epochs` times, scores the validation images after
    each, those of a detection trial once more for the threshold and those of every class once, and every test image of
    every class once. A detection trial also embeds some training images of every class (`grid.plan.look_rows`). A
    frozen encoder sees each image of the data set once; the linear classifiers on its features are not counted.

    Args:
        method: of the published experiment.
        seeds: training seeds.
        tasks: names in `grid.tasks`.
        train_on: training sets, as on the command line.
        conditions: besides clean pictures, under each of which every test image is scored or encoded too.
    """
    num_classes = 1 + len(GENERATORS)
    tested = num_classes * TEST * (1 + conditions)
    if not heavy.trains(method):
        return Images(encoded=num_classes * (TRAIN + VALID) + tested)
    config = heavy.settings(method)
    epochs = int(config["epochs"])
    trained = scored = 0
    trials = dolos.trials(
        generators=GENERATORS, configs={method: config}, tasks=tasks, seeds=seeds, data="", train_on=train_on
    )
    for trial in trials:
        classes = 1 + len(trial.train_generators)
        trained += epochs * classes * TRAIN
        is_binary = get_task(trial.task).is_binary
        scored += (epochs + is_binary) * classes * VALID + tested
        scored += is_binary * num_classes * (VALID + LOOK_IMAGES)
    return Images(trained, scored)
