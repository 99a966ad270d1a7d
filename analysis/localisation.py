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

from analysis.cam import ReadOnce, choose_images, image_maps, scores_of_fakes
from analysis.intervals import Level, interval
from analysis.store import Store
from data.manifest import Manifest
from grid.spec import TrialSpec
from models.detector import Detector
from models.localisation import RankedMap, best_threshold, mean_of_masks, other_pictures, scaled_mask
from models.maps import resized

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


def localise(maps: Maps, masks: Maps, *, threshold: float, ranked: Sequence[RankedMap] | None = None) -> pd.DataFrame:
    """Compare maps with masks, one row per picture.

    Args:
        maps: (N, H, W), or N arrays (H, W) of any sizes; in [0, 1].
        masks: the same shapes, bool, True where fake.
        threshold: a pixel counts as found if its map is at least this; in (0, 1], from `best_iou_threshold` on the
            validation split.
        ranked: the maps, whose pixels are sorted already; None: they are sorted here.

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
    for number, (cam, mask) in enumerate(pairs):
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
                "ap": (ranked[number] if ranked else RankedMap(cam)).average_precision(mask),
                "chance": share,
                "flat": flat,
            }
        )
    return pd.DataFrame(rows, columns=[*METRICS, "chance", "flat"])


def localise_shuffled(
    maps: Maps, masks: Maps, *, threshold: float, ranked: Sequence[RankedMap] | None = None
) -> pd.DataFrame:
    """Compare each map with the mask of another picture, scaled to the map's size. Arguments as in `localise`.

    Returns:
        columns `METRICS`, one row per picture; NaN for a single picture.
    """
    num_images = len(maps)
    if num_images < 2:
        return pd.DataFrame(np.nan, index=range(num_images), columns=list(METRICS))
    scaled = [scaled_mask(masks[int(i)], cam.shape) for i, cam in zip(other_pictures(num_images), maps, strict=True)]
    return localise(maps, scaled, threshold=threshold, ranked=ranked)[list(METRICS)]


def best_iou_threshold(maps: Maps, masks: Maps) -> float:
    """The threshold of `THRESHOLDS` with the best mean IoU; of equally good ones the middle one.

    Flat maps are left out. Call it with the *validation* split. Arguments and errors as in `localise`.
    """
    pairs = ((cam, mask) for cam, mask in _checked(maps, masks) if cam.min() != cam.max())
    return best_threshold(pairs, THRESHOLDS, at_least=True)


def mask_prior(masks: Maps) -> np.ndarray:
    """The mean of masks: float64 (H, W) in the first mask's size, in [0, 1] with a maximum of 1."""
    mean, _ = mean_of_masks(masks)
    return mean / max(mean.max(), 1e-9)


def localise_run(
    store: Store,
    run_id: str,
    pictures: ReadOnce,
    detector: Detector,
    spec: TrialSpec,
    *,
    images_per_cell: int | None = None,
    priors: dict[tuple[str, ...], pd.DataFrame] | None = None,
) -> pd.DataFrame:
    """One finished detection run's maps against the masks of every generator's test fakes, one row per picture.

    The threshold, and the prior with its own threshold, come from validation fakes of the generators in the training
    set: the test split and unseen generators choose nothing. `correct` is the answer at p = 0.5, by the logged scores.

    Args:
        store: an open grid.
        run_id: id of a finished detection run with Grad-CAM.
        pictures: of the manifest from `analysis.cam.open_images`.
        detector: the run's detector.
        spec: the run's specification.
        images_per_cell: at most so many test fakes per generator, and as many validation fakes in all; None: all.
        priors: what the prior says of the masks, kept here for the next run of the same manifest and `images_per_cell`:
            it depends on the training set alone, not on the detector. None: it is computed anew.

    Returns:
        columns tested_on, path, digest, source_id, correct, `METRICS`, chance, flat, `prior_<metric>`,
        `shuffled_<metric>`, threshold.

    Raises:
        ValueError: trained without fakes, no mask in the validation or test split, or a method without Grad-CAM.
    """
    if not spec.train_generators:
        raise ValueError("trained without fakes, so there is no validation fake to choose a threshold with")
    manifest = pictures.manifest
    per_generator = images_per_cell and max(1, images_per_cell // len(spec.train_generators))
    valid = pd.concat(
        choose_images(manifest, generator, per_generator, split="valid").dropna(subset="mask")
        for generator in spec.train_generators
    )
    if valid.empty:
        generators = ", ".join(spec.train_generators)
        raise ValueError(f"no validation fake of {generators} has a mask to choose a threshold with")
    _, valid_maps, valid_masks = _explained(detector, pictures, valid)
    threshold = best_iou_threshold(valid_maps, valid_masks)
    del valid_maps
    priors = {} if priors is None else priors

    scores, prior = store.scores(run_id), None
    cells = []
    for generator in manifest.tested_generators:
        chosen = choose_images(manifest, generator, images_per_cell).dropna(subset="mask")
        rows, maps, masks = _explained(detector, pictures, chosen)
        if rows.empty:
            continue
        facts = rows[["path", "digest", "source_id"]].reset_index(drop=True)
        facts.insert(0, "tested_on", generator)
        facts["correct"] = (scores_of_fakes(scores, generator).loc[facts["digest"]] > 0).to_numpy()
        of_prior = (*spec.train_generators, generator)
        if of_prior not in priors:
            prior = _prior(valid_masks) if prior is None else prior
            priors[of_prior] = _of_prior(*prior, masks)
        ranked = [RankedMap(cam) for cam in maps]
        parts = [
            facts,
            localise(maps, masks, threshold=threshold, ranked=ranked),
            priors[of_prior],
            localise_shuffled(maps, masks, threshold=threshold, ranked=ranked).add_prefix("shuffled_"),
        ]
        cells.append(pd.concat(parts, axis=1).assign(threshold=threshold))
    if not cells:
        raise ValueError("no test fake of the data set has a mask")
    return pd.concat(cells, ignore_index=True)


def _prior(valid_masks: Maps) -> tuple[np.ndarray, float]:
    """The mean of validation masks, and its threshold."""
    prior = mask_prior(valid_masks)
    return prior, best_iou_threshold([resized(prior, mask.shape) for mask in valid_masks], valid_masks)


def _of_prior(prior: np.ndarray, threshold: float, masks: Maps) -> pd.DataFrame:
    """Columns `prior_<metric>`: the prior as if it were the map of every picture."""
    found = localise([resized(prior, mask.shape) for mask in masks], masks, threshold=threshold)
    return found[list(METRICS)].add_prefix("prior_")


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


def _explained(
    detector: Detector, pictures: ReadOnce, rows: pd.DataFrame
) -> tuple[pd.DataFrame, list[np.ndarray], list[np.ndarray]]:
    """(rows, maps, masks) of the pictures whose mask is not empty; pictures are read in batches."""
    maps, masks = list[np.ndarray](), [mask for mask in pictures.masks(rows) if mask is not None]
    marked = np.array([mask.any() for mask in masks], dtype=bool)
    if not marked.all():
        log.warning("the masks of %s are empty", ", ".join(rows["path"][~marked]))
        rows, masks = rows[marked], [mask for mask in masks if mask.any()]
    for start in range(0, len(rows), BATCH):
        maps += image_maps(detector, pictures.images(rows.iloc[start : start + BATCH]))
    return rows, maps, masks
