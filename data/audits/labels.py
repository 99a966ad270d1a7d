"""Photographs whose real image and fake, or whose fakes of two generators, have each other's label.

It needs fakes of two generators of one photograph. They resemble the original more than each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.audits import Evidence, Found, Level, register_audit
from data.sources.base import FAKE, REAL, SHARED_REAL

T = TypeVar("T")

MANY = 0.01  # of the photographs
_FEWEST = 12  # photographs, below which the usual value of a generator is not known
_CLEAR = 3.0  # spreads between the usual value and 0, below which a generator is not judged
_FAR = 5.0  # spreads between the usual value and that of a swapped photograph
_FEW_PLACES = 20
_FLOOR = 0.05  # levels; smaller differences are as good as none


@register_audit("labels", decodes=True)
def labels(evidence: Evidence) -> Iterator[Found]:
    """Find the few photographs that differ from all others in which image the fakes resemble."""
    if evidence.measured is None:
        return
    rows = evidence.manifest.table.join(evidence.measured)
    rows = rows[rows["measured"] & rows["sample"].map(len).astype(bool)]
    photographs = list(_photographs(rows))
    nearness: defaultdict[str, dict[int, float]] = defaultdict(dict)  # generator -> photograph -> see `_nearer`
    sizes: defaultdict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for number, photograph in enumerate(photographs):
        for generator in photograph.fakes:
            nearness[generator][number] = photograph.nearer(generator)
        for one, other in combinations(sorted(photograph.fakes), 2):
            sizes[one, other][number] = photograph.change(one) - photograph.change(other)
    swapped = _likeliest({generator: _reversed(values, above=True) for generator, values in nearness.items()})
    known = {number for numbers in swapped.values() for number in numbers}
    for generator, numbers in swapped.items():
        words = f"in {_counted(numbers)} the fake of {generator} resembles the other fakes as the original should"
        text = f"{words}, and the image that is labelled real does not: real and fake may be swapped"
        yield _swapped([photographs[number].paths[generator] for number in numbers], len(photographs), text)
    reverse = {pair: _reversed(values, above=False) for pair, values in sizes.items()}
    unknown = {pair: {n: off for n, off in found.items() if n not in known} for pair, found in reverse.items()}
    for (one, other), numbers in _likeliest(unknown).items():
        words = f"in {_counted(numbers)} the sizes of the changes by {one} and {other} are in reverse order"
        files = [photographs[number].paths[generator] for number in numbers for generator in (one, other)]
        yield _swapped(files, len(photographs), f"{words}: the two fakes may be swapped", len(numbers))


class _Photograph:
    """The samples of a photograph's real image and of its fakes.

    Attributes:
        fakes: generator -> luminance at the sampled places, float32.
        paths: generator -> the fake's path.
    """

    def __init__(self, real: bytes, fakes: dict[str, tuple[str, bytes, bytes]]) -> None:
        self._real = _levels(real)
        self.paths = {generator: path for generator, (path, _, _) in fakes.items()}
        self.fakes = {generator: _levels(sample) for generator, (_, sample, _) in fakes.items()}
        everywhere = np.ones(len(self._real), np.bool_)
        self._masks = {
            generator: np.frombuffer(mask, np.uint8) > 0 if mask else everywhere
            for generator, (_, _, mask) in fakes.items()
        }

    def change(self, generator: str) -> float:
        return _distance(self._real, self.fakes[generator])

    def nearer(self, generator: str) -> float:
        """How much farther this fake is from the other fakes than the real image is; below 0: it is nearer.

        Where the masks differ, only the places count that this mask marks and the other does not: there, the other fake
        should show the original.
        """
        others = [name for name in self.fakes if name != generator]
        fakes = np.stack([self.fakes[name] for name in others])
        masks = np.stack([self._masks[name] for name in others])
        places = self._masks[generator] & ~masks
        either = self._masks[generator] | masks
        either |= ~either.any(axis=1, keepdims=True)
        places = np.where((places.sum(axis=1) < _FEW_PLACES)[:, None], either, places)
        counts = places.sum(axis=1)
        far = [
            np.log(np.sqrt(((fakes - one) ** 2 * places).sum(axis=1) / counts) + _FLOOR)
            for one in (self.fakes[generator], self._real)
        ]
        return float(np.mean(far[0] - far[1]))


def _levels(sample: bytes) -> NDArray[np.float32]:
    return np.frombuffer(sample, np.uint8).astype(np.float32)


def _distance(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(np.log(np.sqrt(np.mean((one - other) ** 2)) + _FLOOR))


def _photographs(rows: pd.DataFrame) -> Iterator[_Photograph]:
    """The photographs with fakes of two generators or more, and one real image."""
    reals: defaultdict[tuple[str, str], list[bytes]] = defaultdict(list)
    fakes: defaultdict[tuple[str, str], list[tuple[str, tuple[str, bytes, bytes]]]] = defaultdict(list)
    names = ("split", "source_id", "generator", "label", "paired", "path", "sample", "sample_mask")
    for split, source, generator, label, paired, *found in zip(*(rows[name] for name in names), strict=True):
        path, sample, mask = found
        if label == REAL and generator == SHARED_REAL:
            reals[split, source].append(sample)
        elif label == FAKE and paired:
            fakes[split, source].append((generator, (path, sample, mask)))
    for photograph, of_photograph in fakes.items():
        by_generator = dict(of_photograph)
        if 1 < len(by_generator) == len(of_photograph) and len(reals[photograph]) == 1:
            yield _Photograph(reals[photograph][0], by_generator)


def _reversed(values: dict[int, float], *, above: bool) -> dict[int, float]:
    """The photographs whose value lies on the other side of 0 than nearly all others', and far from them.

    Args:
        values: photograph -> value; a swap changes its sign.
        above: the usual value must be above 0.

    Returns:
        photograph -> how far it is from the usual value with the other sign, in spreads.
    """
    if len(values) < _FEWEST:
        return {}
    numbers, array = list(values), np.array(list(values.values()))
    usual = np.median(array)
    spread = max(1.4826 * float(np.median(np.abs(array - usual))), 1e-3)
    if (above and usual < 0) or abs(usual) < _CLEAR * spread:
        return {}
    towards = array * np.sign(usual)
    flagged = (towards < -abs(usual) / 2) & (towards < abs(usual) - _FAR * spread)
    off = np.abs(array + usual) / spread
    return {numbers[index]: float(off[index]) for index in np.flatnonzero(flagged)}


def _likeliest(found: dict[T, dict[int, float]]) -> dict[T, list[int]]:
    """Each photograph once, under the swap that explains most photographs, and explains them best.

    A swap of one fake moves the values of the photograph's other fakes too, so a photograph may be found several times.
    """
    left = {what: dict(photographs) for what, photographs in found.items()}
    chosen: dict[T, list[int]] = {}
    while any(left.values()):
        best = max(left, key=lambda what: (len(left[what]), -sum(left[what].values())))
        chosen[best] = sorted(left.pop(best))
        left = {what: {n: off for n, off in some.items() if n not in chosen[best]} for what, some in left.items()}
    return chosen


def _counted(numbers: list[int]) -> str:
    return f"{len(numbers)} photograph{'s' if len(numbers) > 1 else ''}"


def _swapped(files: list[str], num_photographs: int, text: str, swapped: int | None = None) -> Found:
    """The finding that photographs have each other's label; `swapped` is their number, if it is not that of files."""
    count = len(files) if swapped is None else swapped
    level: Level = "fail" if count > MANY * num_photographs else "warn"
    remedy = "look at these pictures, and put the right files into the folders"
    return level, text, remedy, files, {"photographs": num_photographs, "swapped": count}
