"""Photographs of which two images, real and fake or the fakes of two generators, have each other's label.

It needs fakes of two generators of one photograph. Then every two of its images can be compared by how far each is from
the others, and by how sharp it is. In most photographs the difference has the same sign; a swap reverses it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.audits import Evidence, Found, Level, register_audit
from data.sources.base import FAKE, REAL, SHARED_REAL

MANY = 0.01  # of the photographs
_FEWEST = 12  # photographs, below which no usual value is known
_CLEAR = 2.25  # spreads between the usual value and 0, below which two images are not told apart
_FAR = 5.0  # spreads between the usual value and that of a swapped photograph
_CENTRAL = 0.75  # of the photographs; the spread of the differences is that of so many
_PASSES = 3
_FEW_PLACES = 20
_FLOOR = 0.05  # levels; smaller differences are as good as none


@register_audit("labels", decodes=True)
def labels(evidence: Evidence) -> Iterator[Found]:
    """Find the few photographs in which two images are the other way round than in all others."""
    if evidence.measured is None:
        return
    rows = evidence.manifest.table.join(evidence.measured)
    rows = rows[rows["measured"] & rows["sample"].map(len).astype(bool)]
    by_images: defaultdict[tuple[str, ...], list[_Photograph]] = defaultdict(list)
    for photograph in _photographs(rows):
        by_images[tuple(sorted(photograph.paths))].append(photograph)
    swapped: defaultdict[tuple[str, str], list[_Photograph]] = defaultdict(list)
    for names, alike in by_images.items():
        for number, two in _likeliest(names, alike).items():
            swapped[two].append(alike[number])
    total = sum(map(len, by_images.values()))
    for (one, other), photographs in sorted(swapped.items()):
        count = len(photographs)
        images = f"the real image and the fake of {other}" if one == SHARED_REAL else f"the fakes of {one} and {other}"
        words = f"in {count} photograph{'s' if count > 1 else ''} {images} may have each other's label"
        why = "their distances from its other images, and how sharp they are, are the reverse of what is usual"
        level: Level = "fail" if count > MANY * total else "warn"
        files = [path for photograph in photographs for path in (photograph.paths[one], photograph.paths[other])]
        remedy = "look at these pictures, and put the right files into the folders"
        yield level, f"{words}: {why}", remedy, files, {"photographs": total, "swapped": count}


class _Photograph:
    """The samples of a photograph's images.

    Attributes:
        paths: generator, or `SHARED_REAL` -> path.
    """

    def __init__(
        self, paths: dict[str, str], places: dict[str, NDArray[np.float32]], masks: dict[str, NDArray[np.bool_]]
    ) -> None:
        """Args: places: luminance (N, 3), a pixel between its neighbours; masks: (N,), False without a mask."""
        self.paths, self._places, self._masks = paths, places, masks
        self._squares = {
            frozenset((one, other)): _mean_squares(places[one] - places[other])
            for one, other in combinations(places, 2)
        }
        self._bends = {name: np.abs(2 * each[:, 1] - each[:, 0] - each[:, 2]) for name, each in places.items()}

    def exchanged(self, one: str, other: str) -> _Photograph:
        """This photograph, two images of which have each other's name; masks stay with the names."""
        names = {one: other, other: one}
        places = {name: self._places[names.get(name, name)] for name in self._places}
        return _Photograph(self.paths, places, self._masks)

    def differences(self, one: str, other: str) -> NDArray[np.float64]:
        """How much farther the first image is from each image but these two, and how much sharper it is.

        All are differences of logarithms: exchanging the images changes their signs. The distance from each image is
        taken twice: where the mask of the first alone says fake, and where that of the second alone does. There, the
        two others should show the original. Without such places, it is taken where any of the three masks says fake.
        """
        found: list[list[NDArray[np.float32]]] = []
        for third in (name for name in self._places if name not in (one, other)):
            masks = [self._masks[name] for name in (one, other, third)]
            for own, rest in ((masks[0], masks[1] | masks[2]), (masks[1], masks[0] | masks[2])):
                weights = _weights(own & ~rest, own | rest)
                found.append([self._squares[frozenset((name, third))] @ weights for name in (one, other)])
        weights = _weights(self._masks[one] | self._masks[other])
        sharp = [self._bends[name] @ weights for name in (one, other)]
        logarithms = np.log(np.vstack([np.sqrt(found), sharp]) + _FLOOR)
        return logarithms[:, 0] - logarithms[:, 1]


def _mean_squares(differences: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, 3) -> (N,)."""
    squares: NDArray[np.float32] = np.einsum("ij,ij->i", differences, differences) / np.float32(3)
    return squares


def _weights(*choices: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Equal weights, whose sum is 1, of the first choice of places that has enough of them; else of all places."""
    for where in choices:
        if (count := np.count_nonzero(where)) >= _FEW_PLACES:
            return where.astype(np.float32) / np.float32(count)
    return np.full(len(choices[0]), 1 / len(choices[0]), np.float32)


def _photographs(rows: pd.DataFrame) -> Iterator[_Photograph]:
    """The photographs with fakes of two generators or more, and one real image."""
    images: defaultdict[tuple[str, str], list[tuple[str, tuple[str, bytes, bytes]]]] = defaultdict(list)
    names = ("split", "source_id", "generator", "label", "paired", "path", "sample", "sample_mask")
    for split, source, generator, label, paired, *found in zip(*(rows[name] for name in names), strict=True):
        path, sample, mask = found
        if (label == REAL and generator == SHARED_REAL) or (label == FAKE and paired):
            images[split, source].append((generator, (path, sample, mask)))
    for of_photograph in images.values():
        by_name = dict(sorted(of_photograph))
        if len(by_name) == len(of_photograph) > 2 and SHARED_REAL in by_name:
            places = {name: _triples(sample).astype(np.float32) for name, (_, sample, _) in by_name.items()}
            masks = {
                name: _triples(mask)[:, 1] > 0 if mask else np.zeros(len(places[name]), np.bool_)
                for name, (_, _, mask) in by_name.items()
            }
            yield _Photograph({name: path for name, (path, _, _) in by_name.items()}, places, masks)


def _triples(sample: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(sample, np.uint8).reshape(-1, 3)


def _likeliest(names: tuple[str, ...], photographs: list[_Photograph]) -> dict[int, tuple[str, str]]:
    """The photographs with two images that are the other way round, and the two that explain it best.

    A swap reverses differences of the swapped images from others too, so several pairs of names may be found.

    Args:
        names: what the photographs have: `SHARED_REAL` and generators.
        photographs: all with the same images.

    Returns:
        number of the photograph -> the names of two images, `SHARED_REAL` first.
    """
    if len(photographs) < _FEWEST:
        return {}
    pairs = list(combinations(sorted(names, key=lambda name: (name != SHARED_REAL, name)), 2))
    usual, directions, reversed_ = {}, {}, set[int]()
    for two in pairs:
        differences = np.array([photograph.differences(*two) for photograph in photographs])
        others = np.ones(len(differences), np.bool_)
        for _ in range(_PASSES):  # without those that the pass before found: many of them widen the spread
            directions[two], usual[two] = _direction(differences[others])
            limit = min(-usual[two] / 2, usual[two] - _FAR) if usual[two] >= _CLEAR else -np.inf
            others = differences @ directions[two] >= limit
        reversed_ |= set(np.flatnonzero(~others).tolist())

    def unusual(photograph: _Photograph) -> float:
        values = np.array([photograph.differences(*two) @ directions[two] - usual[two] for two in pairs])
        return float(np.sum(values**2))

    return {
        number: min(pairs, key=lambda two: unusual(photographs[number].exchanged(*two))) for number in sorted(reversed_)
    }


def _direction(differences: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """The direction that best tells the usual differences from their reverse, and the usual value along it.

    It is Fisher's linear discriminant between the differences and the same with the other sign, from medians and from
    the central photographs, so that a few swapped ones do not move it.

    Args:
        differences: (photographs, differences).

    Returns:
        (direction (differences,), so long that values along it have a spread of 1; the median value, above 0).
    """
    from sklearn.covariance import LedoitWolf

    usual = np.median(differences, axis=0)
    spreads = np.maximum(1.4826 * np.median(np.abs(differences - usual), axis=0), 1e-3)
    far = np.abs((differences - usual) / spreads).max(axis=1)
    central = differences[np.argsort(far, kind="stable")[: int(np.ceil(_CENTRAL * len(far)))]]
    direction = np.linalg.solve(LedoitWolf().fit(central / spreads).covariance_, usual / spreads) / spreads
    values = differences @ direction
    middle = float(np.median(values))
    spread = max(1.4826 * float(np.median(np.abs(values - middle))), 1e-9)
    return direction / spread, middle / spread
