"""`--equal-size`: every training set of a grid with the same number of images, in equal parts.

A task's classes get the same number of images each, and inside a class every generator gives the same number. So
detection is trained on as many fakes as real images, whatever the number of generators in the training set; and
attribution on as many real images as of each generator.

Which images, the digests of the files say: there is no seed. The sources go to the generators in turn, each with its
real image and one fake, as long as there are such pairs. So a set with several generators holds no more photographs
than a set with one.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.sources.base import REAL, SPLITS
from grid.tasks import get_task
from grid.train_sets import TrainSet

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from data.manifest import Manifest

TRAIN, VALID, _ = SPLITS
SMALLEST = "smallest"  # what the option means without numbers


@dataclass(frozen=True, order=True)
class EqualSize:
    """Images of each class.

    Attributes:
        train: in the training split.
        valid: in the validation split.
    """

    train: int
    valid: int

    @classmethod
    def parse(cls, text: str) -> EqualSize:
        """From "TRAIN,VALID", such as "24,8". Raises `ValueError` for other text."""
        numbers = text.split(",")
        if len(numbers) != 2 or not all(number.strip().isdecimal() and int(number) > 0 for number in numbers):
            raise ValueError(
                "--equal-size wants nothing, or the images of each class in training and in validation as TRAIN,VALID, "
                f"such as 24,8; got {text!r} (an experiment's name goes before it)"
            )
        return cls(*map(int, numbers))

    def __str__(self) -> str:
        return f"{self.train},{self.valid}"

    @property
    def words(self) -> str:
        """For a table or a message."""
        return f"{self.train} images of each class in training and {self.valid} in validation"

    def of(self, split: str) -> int:
        """The number of a split. Raises `KeyError` for the test split, which stays whole."""
        return {TRAIN: self.train, VALID: self.valid}[split]


def largest(manifest: Manifest, task: str, train_sets: Iterable[TrainSet]) -> EqualSize:
    """The largest numbers that every one of these training sets of a task can have.

    Raises:
        ValueError: a generator has too few images; the message names it, with its number.
    """
    train_sets = list(train_sets)
    return EqualSize(*(_largest(manifest, task, train_sets, split) for split in (TRAIN, VALID)))


def check(manifest: Manifest, task: str, train_sets: Iterable[TrainSet], size: EqualSize) -> None:
    """Raise `ValueError` if one of these training sets cannot have these numbers."""
    for train in train_sets:
        for split in (TRAIN, VALID):
            groups = _groups(manifest, task, train, split)
            for name, counts in groups.items():
                wanted = size.of(split)
                if wanted % len(counts):
                    raise ValueError(
                        f"--equal-size {size}: {wanted} {split} images of class {name} cannot be split evenly over the "
                        f"{len(counts)} generators of {train}; give a multiple of {len(counts)}"
                    )
                smallest = min(counts, key=lambda generator: counts[generator])
                if counts[smallest] < wanted // len(counts):
                    raise ValueError(
                        f"--equal-size {size}: {smallest} has {counts[smallest]} {split} images of class {name}, and "
                        f"{train} needs {wanted // len(counts)} of it; give smaller numbers, or more images of it"
                    )


def _largest(manifest: Manifest, task: str, train_sets: Sequence[TrainSet], split: str) -> int:
    divisor, most = 1, math.inf
    tightest = ""
    for train in train_sets:
        for name, counts in _groups(manifest, task, train, split).items():
            divisor = math.lcm(divisor, len(counts))
            smallest = min(counts, key=lambda generator: counts[generator])
            if len(counts) * counts[smallest] < most:
                most = len(counts) * counts[smallest]
                tightest = f"{smallest} has {counts[smallest]} {split} images of class {name}"
    number = int(most) // divisor * divisor
    if number < 1:
        raise ValueError(
            f"--equal-size: {tightest}, which is too few to be split evenly over the generators of every training set "
            f"({divisor} images of each class or a multiple of it); leave that generator out (--generators), give more "
            "images of it, or ask for training sets of one size"
        )
    return number


def _groups(manifest: Manifest, task: str, train: TrainSet, split: str) -> dict[str, dict[str, int]]:
    """Class -> generator -> number of images. Real images that generators share are those of "real"."""
    found = get_task(task)
    rows, classes = manifest.select(split, train.generators), found.classes(train)
    groups: dict[str, dict[str, int]] = defaultdict(dict)
    numbers = found.class_numbers(rows, classes)
    counts = Counter(zip(numbers.tolist(), rows["generator"], strict=True))
    for (number, generator), count in sorted(counts.items()):
        if number >= 0:
            groups[classes[number]][generator] = count
    return groups


def choose(rows: pd.DataFrame, numbers: np.ndarray, num_images: int) -> pd.DataFrame:
    """`num_images` of each class among these rows of a manifest, in equal parts of each generator, in their order.

    Sources come in the order of a digest: that of their real image, if there is one. First, every source with an image
    of each class gives one of each, by the generator that lacks most; then the other images follow in the same order.

    Args:
        rows: of one split.
        numbers: int (N,), each row's class; negative: none.
        num_images: a multiple of the number of generators of each class.

    Raises:
        ValueError: a generator has too few images.
    """
    import numpy as np

    digests = rows["digest"].to_numpy(object)
    reals = rows[rows["label"] == REAL].groupby("source_id")["digest"].min()
    others = rows.groupby("source_id")["digest"].min()
    first = reals.reindex(others.index).fillna(others)
    order = np.lexsort((digests, rows["source_id"].map(first).to_numpy(object)))
    classes, generators, sources = (column.tolist() for column in (numbers, rows["generator"], rows["source_id"]))

    lacking: dict[tuple[int, str], int] = {}
    groups = sorted({(classes[row], generators[row]) for row in order if classes[row] >= 0})
    per_class = Counter(number for number, _ in groups)
    for group in groups:
        if num_images % per_class[group[0]]:
            raise ValueError(f"{num_images} images cannot be split evenly over {per_class[group[0]]} generators")
        lacking[group] = num_images // per_class[group[0]]
    by_source: dict[str, list[int]] = defaultdict(list)
    for row in order.tolist():
        if classes[row] >= 0:
            by_source[sources[row]].append(row)

    chosen: set[int] = set()
    for of_source in by_source.values():
        one_each: dict[int, int] = {}
        names: set[str] = set()
        for number in sorted(per_class, reverse=True):  # fakes first: a real image may belong to one of them
            candidates = [row for row in of_source if classes[row] == number and lacking[number, generators[row]]]
            if not candidates:
                break
            row = max(candidates, key=lambda row: (generators[row] in names, lacking[classes[row], generators[row]]))
            one_each[number] = row
            names.add(generators[row])
        if len(one_each) == len(per_class):
            for row in one_each.values():
                lacking[classes[row], generators[row]] -= 1
            chosen |= set(one_each.values())
    for row in (row for of_source in by_source.values() for row in of_source if row not in chosen):
        if lacking[classes[row], generators[row]]:
            lacking[classes[row], generators[row]] -= 1
            chosen.add(row)
    if short := [f"{generator} lacks {count}" for (_, generator), count in lacking.items() if count]:
        raise ValueError(f"too few images for {num_images} of each class: {', '.join(short)}")
    return rows.iloc[sorted(chosen)]
