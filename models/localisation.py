"""How well maps find the edited area of pictures: numbers per picture, over its pixels.

A map has a log-odds of fake per pixel. A pixel counts as found if its log-odds is *above* a threshold. A constant map
is a map like any other: it finds everything or nothing, its average precision is the mask's share of the picture, and
its AUROC is 0.5.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from models.maps import resized

# Thresholds: log-odds 0; chosen on validation masks; chosen on the very masks that are measured.
FIXED, BY_VALIDATION, ORACLE = "fixed", "valid", "oracle"
OVERLAPS = ("iou", "f1")
RANKINGS = ("ap", "auroc")
_CANDIDATES = 401


class RankedMap:
    """A map whose pixels are sorted once, to be compared with any number of masks.

    Args:
        values: float (H, W).
    """

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        flat = values.ravel()
        self._order = np.argsort(-flat)  # the order of equal values changes no number
        steps = np.flatnonzero(np.diff(flat[self._order]))
        self._called = np.append(steps, flat.size - 1) + 1  # pixels called fake, at each distinct value

    def average_precision(self, mask: np.ndarray) -> float:
        """Average precision over the pixels of a mask, bool (H, W), not empty: that of scikit-learn."""
        hits = self._hits(mask)
        return float((np.diff(hits / int(mask.sum()), prepend=0.0) * hits / self._called).sum())

    def _hits(self, mask: np.ndarray) -> np.ndarray:
        """Marked pixels among those called fake, at each distinct value."""
        return np.cumsum(mask.ravel()[self._order])[self._called - 1].astype(np.float64)

    def measure(self, mask: np.ndarray, thresholds: dict[str, float]) -> dict[str, float]:
        """The numbers of this map and a mask.

        Args:
            mask: bool (H, W), neither empty nor full.
            thresholds: name -> log-odds.

        Returns:
            in [0, 1]: `ap`, average precision; `auroc`; per threshold `iou_<name>`, intersection over union, and
            `f1_<name>`, 2 TP / (2 TP + FP + FN).
        """
        marked = int(mask.sum())
        if not 0 < marked < mask.size:
            raise ValueError("the mask is empty or full, so there is no place to find; leave the picture out")
        hits = self._hits(mask)
        recall, false_alarms = hits / marked, (self._called - hits) / (mask.size - marked)
        numbers = {
            "ap": self.average_precision(mask),
            "auroc": float(np.trapezoid(np.append(0.0, recall), np.append(0.0, false_alarms))),
        }
        for name, threshold in thresholds.items():
            found = self.values > threshold
            both, either = int((found & mask).sum()), int((found | mask).sum())
            numbers[f"iou_{name}"] = both / either
            numbers[f"f1_{name}"] = 2 * both / (int(found.sum()) + marked)
        return numbers


def metric_names(thresholds: Iterable[str]) -> list[str]:
    """Names of the numbers of `RankedMap.measure`."""
    return [*RANKINGS, *(f"{metric}_{name}" for name in thresholds for metric in OVERLAPS)]


def chance(metric: str, area: np.ndarray | float) -> np.ndarray | float:
    """The number of a map that calls every pixel fake, which is that of no knowledge, by the mask's share `area`."""
    if metric == "auroc":
        return np.full_like(area, 0.5) if isinstance(area, np.ndarray) else 0.5
    return 2 * area / (1 + area) if metric.startswith("f1") else area


def candidates(maps: Sequence[np.ndarray], also: Iterable[float] = (0.0,)) -> np.ndarray:
    """Thresholds to choose from, ascending: quantiles of all values of some maps, one below them all, and others."""
    values = np.concatenate([np.asarray(each, dtype=np.float64).ravel() for each in maps])
    return np.unique([*np.quantile(values, np.linspace(0, 1, _CANDIDATES)), values.min() - 1, *also])


def best_threshold(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]], thresholds: np.ndarray, *, at_least: bool = False
) -> float:
    """The threshold with the best mean IoU; of equally good ones the middle one.

    Args:
        pairs: of each picture its map, float (H, W), and its mask, bool (H, W), not empty.
        thresholds: float (T,), ascending.
        at_least: a pixel at the threshold counts as found, too.
    """
    sums, count = np.zeros(len(thresholds)), 0
    for values, mask in pairs:
        # the number of thresholds that the pixel is above, or reaches
        level = np.searchsorted(thresholds, values, side="right" if at_least else "left")
        inside, outside = (
            np.bincount(level[where], minlength=len(thresholds) + 1)[::-1].cumsum()[::-1][1:] for where in (mask, ~mask)
        )
        sums += inside / (mask.sum() + outside)
        count += 1
    best = np.flatnonzero(sums >= sums.max() - 1e-12 * count)
    return float(thresholds[best[len(best) // 2]])


def mean_of_masks(masks: Iterable[np.ndarray]) -> tuple[np.ndarray, int]:
    """The mean of masks, bool (H, W) each, in the first one's size: float64 (H, W), and how many they are.

    Without a mask: zeros (1, 1), and 0.
    """
    total, count = np.zeros((1, 1)), 0
    for mask in masks:
        total = total if count else np.zeros(mask.shape)
        total += resized(mask.astype(np.float32), total.shape)
        count += 1
    return total / max(count, 1), count


def other_pictures(count: int) -> np.ndarray:
    """Int (count,): for each picture another one, in one ring of all, so that none keeps its own; at least two."""
    order = np.random.default_rng(0).permutation(count)
    other = np.empty(count, dtype=np.int64)
    other[order] = np.roll(order, 1)
    return other


def scaled_mask(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A mask in another size. With a pixel that is marked, it keeps one; with a pixel that is not, likewise."""
    if mask.shape == shape:
        return mask
    rows, columns = (
        np.minimum((np.arange(new) + 0.5) * old / new, old - 1).astype(np.int64)
        for new, old in zip(shape, mask.shape, strict=True)
    )
    scaled: np.ndarray = mask[np.ix_(rows, columns)]
    for value, kept in ((True, mask), (False, ~mask)):
        if kept.any() and not (scaled == value).any():
            row, column = np.argwhere(kept).mean(axis=0) / mask.shape
            scaled[int(row * shape[0]), int(column * shape[1])] = value
    return scaled
