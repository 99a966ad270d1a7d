"""How well Grad-CAM maps find the repainted region, in numbers, each beside the value of a map without knowledge.

Shuffled: maps are enlarged from few positions, so neighbouring values are alike and the values of a map without
knowledge depend on that grid and on where maps tend to point. So the same maps are also compared with the masks of
other pictures of the cell: this is the value when map and mask are unrelated.

Chance is the mask's share of the picture: the value of a flat map, and the expected energy of a map whose pixels are
shuffled one by one.

Prior: faces are centred, and so are masks. The mean of the validation masks, the same map for every picture, beats
chance without looking; a Grad-CAM map that does not beat it has found where masks usually lie, no more.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.metrics import average_precision_score

from analysis.cam import choose_images, image_maps, read_images, read_masks, scores_of_fakes
from analysis.intervals import Level, interval
from analysis.store import Store
from data.manifest import Manifest
from grid.spec import TrialSpec
from models.detector import Detector

log = logging.getLogger(__name__)

METRICS = ("iou", "iou_fixed", "pointing", "energy", "ap")
FIXED_THRESHOLD = 0.5
THRESHOLDS = np.arange(1, 101) / 100  # not 0, at which every map calls every pixel fake
SUBSETS = ("all", "correct", "wrong")
TABLE_COLUMNS = [
    "run_id", "task", "method", "variant", "trained_on", "seed", "tested_on", "subset", "metric", "value", "low",
    "high", "chance", "shuffled", "prior", "flat", "num_images", "threshold",
]  # fmt: skip

Maps = Sequence[np.ndarray] | np.ndarray
BATCH = 8


def localise(maps: Maps, masks: Maps, *, threshold: float) -> pd.DataFrame:
    """Compare maps with masks, one row per picture.

    Args:
        maps: (N, H, W), or N arrays (H, W) of any sizes; in [0, 1].
        masks: the same shapes, bool, True where fake.
        threshold: a pixel counts as found if its map is at least this; in (0, 1], from `best_iou_threshold` on the
            validation split.

    Returns:
        columns, all in [0, 1]: `iou`, intersection over union at the threshold; `iou_fixed`, the same at
        `FIXED_THRESHOLD`; `pointing`, 1 if the map's highest pixel lies in the mask (of several highest pixels, the
        share that does); `energy`, the share of the map's sum inside the mask (Wang et al., arXiv 1910.01279); `ap`,
        average precision over pixels; `chance`, the mask's share of the picture. And `flat`, bool: the map is constant.
        A flat map gets the mask's share of the picture in every metric, whatever its value and the threshold.

    Raises:
        ValueError: no picture, an empty mask, shapes that disagree, values outside [0, 1], or such a threshold.
    """
    pairs = _checked(maps, masks)
    if not 0 < threshold <= 1:
        raise ValueError(f"the threshold must lie in (0, 1], got {threshold}")
    rows = []
    for cam, mask in pairs:
        total, share, flat = cam.sum(), float(mask.mean()), bool(cam.min() == cam.max())
        if flat:
            rows.append(dict.fromkeys([*METRICS, "chance"], share) | {"flat": True})
            continue
        rows.append(
            {
                "iou": _iou(cam >= threshold, mask),
                "iou_fixed": _iou(cam >= FIXED_THRESHOLD, mask),
                "pointing": float(mask[cam == cam.max()].mean()),
                "energy": float(cam[mask].sum() / total),
                "ap": float(average_precision_score(mask.ravel(), cam.ravel())),
                "chance": share,
                "flat": flat,
            }
        )
    return pd.DataFrame(rows, columns=[*METRICS, "chance", "flat"])


def localise_shuffled(maps: Maps, masks: Maps, *, threshold: float) -> pd.DataFrame:
    """Compare each map with the mask of another picture, scaled to the map's size. Arguments as in `localise`.

    Returns:
        columns `METRICS`, one row per picture; NaN for a single picture.
    """
    num_images = len(maps)
    if num_images < 2:
        return pd.DataFrame(np.nan, index=range(num_images), columns=list(METRICS))
    order = np.random.default_rng(0).permutation(num_images)
    other = np.empty(num_images, dtype=np.int64)
    other[order] = np.roll(order, 1)  # one ring of all pictures, so that none keeps its own mask
    scaled = [_scaled_mask(masks[int(index)], cam.shape) for index, cam in zip(other, maps, strict=True)]
    return localise(maps, scaled, threshold=threshold)[list(METRICS)]


def best_iou_threshold(maps: Maps, masks: Maps) -> float:
    """The threshold of `THRESHOLDS` with the best mean IoU; of equally good ones the middle one.

    Flat maps are left out. Call it with the *validation* split. Arguments and errors as in `localise`.
    """
    sums = np.zeros(len(THRESHOLDS))
    for cam, mask in _checked(maps, masks):
        if cam.min() == cam.max():
            continue
        level = np.searchsorted(THRESHOLDS, cam, side="right")  # number of thresholds that the pixel reaches
        inside, outside = (
            np.bincount(level[where], minlength=len(THRESHOLDS) + 1)[::-1].cumsum()[::-1][1:] for where in (mask, ~mask)
        )
        sums += inside / (mask.sum() + outside)
    best = np.flatnonzero(sums >= sums.max() - 1e-12 * len(masks))
    return float(THRESHOLDS[best[len(best) // 2]])


def mask_prior(masks: Maps) -> np.ndarray:
    """The mean of masks: float64 (H, W) in the first mask's size, in [0, 1] with a maximum of 1."""
    total = np.zeros(masks[0].shape)
    for mask in masks:
        total += _resized(mask.astype(np.float32), total.shape)
    return total / max(total.max(), 1e-9)


def localise_run(
    store: Store,
    run_id: str,
    manifest: Manifest,
    detector: Detector,
    spec: TrialSpec,
    *,
    images_per_cell: int | None = None,
) -> pd.DataFrame:
    """One finished detection run's maps against the masks of every generator's test fakes, one row per picture.

    The threshold, and the prior with its own threshold, come from validation fakes of the generators in the training
    set: the test split and unseen generators choose nothing. `correct` is the answer at p = 0.5, by the logged scores.

    Args:
        store: an open grid.
        run_id: id of a finished detection run with Grad-CAM.
        manifest: from `analysis.cam.open_images`.
        detector: the run's detector.
        spec: the run's specification.
        images_per_cell: at most so many test fakes per generator, and as many validation fakes in all; None: all.

    Returns:
        columns tested_on, path, digest, source_id, correct, `METRICS`, chance, flat, `prior_<metric>`,
        `shuffled_<metric>`, threshold.

    Raises:
        ValueError: trained without fakes, no mask in the validation or test split, or a method without Grad-CAM.
    """
    if not spec.train_generators:
        raise ValueError("trained without fakes, so there is no validation fake to choose a threshold with")
    per_generator = images_per_cell and max(1, images_per_cell // len(spec.train_generators))
    valid = pd.concat(
        choose_images(manifest, generator, per_generator, split="valid").dropna(subset="mask")
        for generator in spec.train_generators
    )
    if valid.empty:
        generators = ", ".join(spec.train_generators)
        raise ValueError(f"no validation fake of {generators} has a mask to choose a threshold with")
    _, valid_maps, valid_masks = _explained(detector, manifest, valid)
    threshold = best_iou_threshold(valid_maps, valid_masks)
    prior = mask_prior(valid_masks)
    prior_threshold = best_iou_threshold([_resized(prior, mask.shape) for mask in valid_masks], valid_masks)
    del valid_maps

    scores = store.scores(run_id)
    cells = []
    for generator in manifest.generators:
        chosen = choose_images(manifest, generator, images_per_cell).dropna(subset="mask")
        rows, maps, masks = _explained(detector, manifest, chosen)
        if rows.empty:
            continue
        facts = rows[["path", "digest", "source_id"]].reset_index(drop=True)
        facts.insert(0, "tested_on", generator)
        facts["correct"] = (scores_of_fakes(scores, generator).loc[facts["digest"]] > 0).to_numpy()
        priors = localise([_resized(prior, mask.shape) for mask in masks], masks, threshold=prior_threshold)
        parts = [
            facts,
            localise(maps, masks, threshold=threshold),
            priors[list(METRICS)].add_prefix("prior_"),
            localise_shuffled(maps, masks, threshold=threshold).add_prefix("shuffled_"),
        ]
        cells.append(pd.concat(parts, axis=1).assign(threshold=threshold))
    if not cells:
        raise ValueError("no test fake of the data set has a mask")
    return pd.concat(cells, ignore_index=True)


def without_masks(manifest: Manifest, generators: Collection[str]) -> Manifest:
    """The manifest without the masks of these generators."""
    kept = manifest.table["mask"].where(~manifest.table["generator"].isin(generators))
    return dataclasses.replace(manifest, table=manifest.table.assign(mask=kept))


def source_intervals(values: pd.DataFrame, sources: pd.Series) -> np.ndarray:
    """95 % intervals of means over source photographs (`analysis.intervals.interval`).

    Args:
        values: one row per picture, one column per metric, in [0, 1].
        sources: the source photograph of each row.

    Returns:
        float64 (columns, 2): low and high; NaN if there is only one source.
    """
    means = values.mean()
    influence = ((values - means) / len(values)).groupby(sources.to_numpy()).sum().to_numpy(float)
    if len(influence) < 2:
        return np.full((values.shape[1], 2), np.nan)
    levels = [Level(column, len(influence)) for column in influence.T]
    return np.array([interval(value, [level]) for value, level in zip(means, levels, strict=True)])


def localisation_table(images: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Means over pictures for every run, generator and metric, over all pictures and split by right and wrong answers.

    Args:
        images: rows of `localise_run` of one or more runs, with a column run_id.
        runs: `Store.runs()`.

    Returns:
        columns `TABLE_COLUMNS`; `subset` is "all", "correct" or "wrong" (absent without such pictures); `value`,
        `chance`, `shuffled` and `prior` in [0, 1]; `low` and `high`, the value's 95 % interval over source photographs
        (`source_intervals`); `flat`, the share of flat maps.
    """
    rows = []
    for (run_id, tested_on), cell in images.groupby(["run_id", "tested_on"], sort=False):
        right = cell["correct"].astype(bool)
        for subset, part in zip(SUBSETS, (cell, cell[right], cell[~right]), strict=True):
            if part.empty:
                continue
            intervals = source_intervals(part[list(METRICS)], part["source_id"])
            for metric, (low, high) in zip(METRICS, intervals, strict=True):
                rows.append(
                    {
                        "run_id": run_id, "tested_on": tested_on, "subset": subset, "metric": metric,
                        "value": part[metric].mean(), "low": low, "high": high, "chance": part["chance"].mean(),
                        "shuffled": part[f"shuffled_{metric}"].mean(), "prior": part[f"prior_{metric}"].mean(),
                        "flat": part["flat"].mean(), "num_images": len(part), "threshold": part["threshold"].iloc[0],
                    }
                )  # fmt: skip
    shared = runs[["run_id", "task", "method", "variant", "trained_on", "seed"]]
    return pd.DataFrame(rows).merge(shared, on="run_id", how="left")[TABLE_COLUMNS]


def _checked(maps: Maps, masks: Maps) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs (map as float64, mask)."""
    if len(maps) != len(masks) or len(maps) == 0:
        raise ValueError(f"need at least one picture and as many maps as masks, got {len(maps)} and {len(masks)}")
    pairs = []
    for index, (cam, mask) in enumerate(zip(maps, masks, strict=True)):
        if cam.shape != mask.shape or cam.ndim != 2 or mask.dtype != np.bool_:
            raise ValueError(
                f"picture {index}: need a map and a bool mask of one shape (H, W), got {cam.shape} and {mask.dtype} "
                f"{mask.shape}"
            )
        if not mask.any():
            raise ValueError(f"picture {index}: the mask is empty, so there is nothing to find; leave the picture out")
        if not (cam.min() >= 0 and cam.max() <= 1):  # a NaN fails too
            raise ValueError(f"picture {index}: the map must lie in [0, 1], got {cam.min()} .. {cam.max()}")
        pairs.append((cam.astype(np.float64), mask))
    return pairs


def _iou(found: np.ndarray, mask: np.ndarray) -> float:
    return float((found & mask).sum() / (found | mask).sum())


def _resized(picture: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if picture.shape == shape:
        return picture
    size = (shape[1], shape[0])
    resized = Image.fromarray(picture.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    return np.clip(np.asarray(resized), 0, 1)


def _scaled_mask(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A mask in another size, with at least one marked pixel."""
    if mask.shape == shape:
        return mask
    rows, columns = (
        np.minimum((np.arange(new) + 0.5) * old / new, old - 1).astype(np.int64)
        for new, old in zip(shape, mask.shape, strict=True)
    )
    scaled: np.ndarray = mask[np.ix_(rows, columns)]
    if not scaled.any():
        row, column = np.argwhere(mask).mean(axis=0) / mask.shape
        scaled[int(row * shape[0]), int(column * shape[1])] = True
    return scaled


def _explained(
    detector: Detector, manifest: Manifest, rows: pd.DataFrame
) -> tuple[pd.DataFrame, list[np.ndarray], list[np.ndarray]]:
    """(rows, maps, masks) of the pictures whose mask is not empty; pictures are read in batches."""
    maps, masks = list[np.ndarray](), [mask for mask in read_masks(manifest, rows) if mask is not None]
    marked = np.array([mask.any() for mask in masks], dtype=bool)
    if not marked.all():
        log.warning("the masks of %s are empty", ", ".join(rows["path"][~marked]))
        rows, masks = rows[marked], [mask for mask in masks if mask.any()]
    for start in range(0, len(rows), BATCH):
        maps += image_maps(detector, read_images(manifest, rows.iloc[start : start + BATCH]))
    return rows, maps, masks
