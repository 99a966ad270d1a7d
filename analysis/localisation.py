"""How well a CAM finds the repainted region, as numbers, each beside what a map gets that knows nothing.

Shuffled. A map is enlarged from a few places and its values hang together, so what it gets without looking depends on
its own grid and on where it likes to point. The same maps are therefore held against the masks of other pictures of
the cell, each against one other: what is left of a figure when map and mask have nothing to do with each other.

Chance is the mask's share of the picture's area: what a flat map has, that singles nothing out, and in expectation the
share of energy of a map whose pixels are shuffled one by one. Maps of few places do not keep to it, see above.

Prior. Faces are centred and so are masks: a map that is the mean of the validation masks, the same for every picture,
beats chance without looking. A CAM that does not beat it has found where masks usually lie, no more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.metrics import average_precision_score

from analysis.cam import answers, choose_images, image_maps, read_images, read_masks
from analysis.detectors import load_detector
from analysis.store import Store
from data.manifest import Manifest
from grid.spec import TrialSpec
from models.detector import Detector

log = logging.getLogger(__name__)

METRICS = ("iou", "iou_fixed", "pointing", "energy", "ap")
FIXED_THRESHOLD = 0.5
THRESHOLDS = np.arange(1, 101) / 100  # not 0, at which every map calls every pixel fake
LEVEL, NUM_RESAMPLES = 0.95, 1000
SUBSETS = ("all", "correct", "wrong")
TABLE_COLUMNS = [
    "run_id", "task", "method", "variant", "trained_on", "seed", "tested_on", "subset", "metric", "value", "low",
    "high", "chance", "shuffled", "prior", "flat", "num_images", "threshold",
]  # fmt: skip

Maps = Sequence[np.ndarray] | np.ndarray
Progress = Callable[[int, int], None]
BATCH = 8


def localise(maps: Maps, masks: Maps, *, threshold: float) -> pd.DataFrame:
    """Compare maps with masks, one row a picture.

    Args:
        maps: (N, H, W), or N arrays (H, W) of any sizes; in [0, 1].
        masks: the same shapes, bool, True where fake.
        threshold: a pixel is called fake where its map is at least this; in (0, 1], from `best_iou_threshold` on the
            validation split.

    Returns:
        columns, all in [0, 1]: `iou`, intersection over union at the threshold; `iou_fixed`, the same at
        `FIXED_THRESHOLD`; `pointing`, 1 where the map's highest pixel lies in the mask (of several equally high ones
        the part that does); `energy`, the part of the map's sum that lies in the mask (Wang et al., arXiv 1910.01279);
        `ap`, average precision over pixels; `chance`, the mask's share of the picture. And `flat`, bool: the map has
        one value everywhere, as where no place speaks for the class. Such a map singles nothing out and has the mask's
        share of the picture in every metric, whatever its value and the threshold.

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


def localise_shuffled(maps: Maps, masks: Maps, *, threshold: float, seed: int = 0) -> pd.DataFrame:
    """Compare each map with the mask of another picture, which is stretched to the map's size where they differ.

    Args:
        maps: as in `localise`.
        masks: as in `localise`.
        threshold: as in `localise`.
        seed: of who gets whose mask; nobody gets his own.

    Returns:
        columns `METRICS`, one row a picture; NaN where there is a single picture.
    """
    num_images = len(maps)
    if num_images < 2:
        return pd.DataFrame(np.nan, index=range(num_images), columns=list(METRICS))
    order = np.random.default_rng(seed).permutation(num_images)
    other = np.empty(num_images, dtype=np.int64)
    other[order] = np.roll(order, 1)  # one ring of all pictures
    strange = [_stretched(masks[int(index)], cam.shape) for index, cam in zip(other, maps, strict=True)]
    return localise(maps, strange, threshold=threshold)[list(METRICS)]


def best_iou_threshold(maps: Maps, masks: Maps) -> float:
    """The threshold of `THRESHOLDS` with the best mean IoU; of equally good ones the middle one.

    Flat maps have no part in it.

    To be called with the *validation* split. Arguments and errors as in `localise`.
    """
    sums = np.zeros(len(THRESHOLDS))
    for cam, mask in _checked(maps, masks):
        if cam.min() == cam.max():
            continue  # flat: the same for every threshold
        level = np.searchsorted(THRESHOLDS, cam, side="right")  # number of thresholds that the pixel reaches
        called = [
            np.bincount(level[where], minlength=len(THRESHOLDS) + 1)[::-1].cumsum()[::-1][1:] for where in (mask, ~mask)
        ]
        sums += called[0] / (mask.sum() + called[1])
    best = np.flatnonzero(sums >= sums.max() - 1e-12 * len(masks))
    return float(THRESHOLDS[best[len(best) // 2]])


def mask_prior(masks: Maps) -> np.ndarray:
    """Where masks lie: the mean of masks, float64 (H, W) in [0, 1] with a maximum of 1; in the first mask's size."""
    shape = masks[0].shape
    total = np.zeros(shape)
    for mask in masks:
        total += _resized(mask.astype(np.float32), shape)
    return total / max(total.max(), 1e-9)


def localise_run(
    store: Store,
    run_id: str,
    manifest: Manifest,
    *,
    images_per_cell: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    loaded: tuple[Detector, TrialSpec] | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """One finished run's CAMs against the masks of every generator's test fakes, one row a picture.

    The threshold, and the prior with its own, come from validation fakes of the generators that the run was trained on:
    the test split and unseen generators choose nothing. The class that is explained is "fake" for detection, the
    predicted one for attribution. Right and wrong are as in the accuracy at p = 0.5: by the logged scores.

    Args:
        store: an open grid.
        run_id: of a finished run with a CAM.
        manifest: from `analysis.cam.open_images`.
        images_per_cell: at most so many of a generator's test fakes, and as many validation fakes; None: all.
        seed: of that choice.
        device: torch device string.
        loaded: the run's detector and specification, where they are at hand.
        progress: called with (pictures done, pictures in all).

    Returns:
        columns tested_on, path, digest, source_id, correct, `METRICS`, chance, flat, `prior_<metric>`,
        `shuffled_<metric>`, threshold.

    Raises:
        NoCam: the method has none.
        StoreError: as `load_detector`.
        ValueError: trained without fakes, or no mask in the validation split.
    """
    detector, spec = loaded or load_detector(store, run_id, device=device)
    if not spec.train_generators:
        raise ValueError("trained without fakes, so there is no validation fake to choose a threshold with")
    cells = {
        generator: _with_masks(choose_images(manifest, generator, images_per_cell, seed=seed))
        for generator in manifest.generators
    }
    per_generator = images_per_cell and max(1, images_per_cell // len(spec.train_generators))
    chosen = [
        _with_masks(choose_images(manifest, generator, per_generator, seed=seed, split="valid"))
        for generator in spec.train_generators
    ]
    valid = pd.concat(chosen)
    if valid.empty:
        raise ValueError(
            f"no validation fake of {', '.join(spec.train_generators)} has a mask to choose a threshold with"
        )
    total, done = len(valid) + sum(map(len, cells.values())), 0

    valid_maps: list[np.ndarray] = []
    valid_masks: list[np.ndarray] = []
    for _, maps, masks in _explained(detector, manifest, valid):
        valid_maps += maps
        valid_masks += masks
        done = _tell(progress, done + len(maps), total)
    threshold = best_iou_threshold(valid_maps, valid_masks)
    prior = mask_prior(valid_masks)
    prior_threshold = best_iou_threshold([_resized(prior, mask.shape) for mask in valid_masks], valid_masks)
    del valid_maps

    scores = store.scores(run_id)
    correct = pd.Series(
        answers(scores, spec).correct, index=pd.MultiIndex.from_frame(scores[["generator", "digest"]])
    ).sort_index()
    correct = correct[~correct.index.duplicated()]  # copies of a picture have the same answer
    parts = []
    for generator, rows in cells.items():
        cell: list[pd.DataFrame] = []
        cell_maps: list[np.ndarray] = []
        cell_masks: list[np.ndarray] = []
        for batch, maps, masks in _explained(detector, manifest, rows):
            measured = localise(maps, masks, threshold=threshold)
            base = localise([_resized(prior, mask.shape) for mask in masks], masks, threshold=prior_threshold)
            facts = batch[["path", "digest", "source_id"]].reset_index(drop=True)
            facts.insert(0, "tested_on", generator)
            facts["correct"] = correct.loc[generator].loc[facts["digest"]].to_numpy()
            base = base[list(METRICS)].add_prefix("prior_")
            cell.append(pd.concat([facts, measured, base], axis=1))
            cell_maps += maps
            cell_masks += masks
            done = _tell(progress, done + len(maps), total)
        if cell:
            strange = localise_shuffled(cell_maps, cell_masks, threshold=threshold, seed=seed)
            whole = [pd.concat(cell, ignore_index=True), strange.add_prefix("shuffled_")]
            parts.append(pd.concat(whole, axis=1).assign(threshold=threshold))
    if not parts:
        raise ValueError("no test fake of the data set has a mask")
    return pd.concat(parts, ignore_index=True)


def source_intervals(values: pd.DataFrame, sources: pd.Series, *, seed: int = 0) -> np.ndarray:
    """95 % percentile intervals of means, by the bootstrap over source photographs (see `analysis.intervals`).

    Args:
        values: one row a picture, one column a metric.
        sources: of each row.
        seed: of the draws.

    Returns:
        float64 (columns, 2): low and high; NaN where there is one source alone.
    """
    per_source = values.groupby(sources.to_numpy()).agg(["sum", "count"])
    num_sources = len(per_source)
    if num_sources < 2:
        return np.full((values.shape[1], 2), np.nan)
    uniform = np.full(num_sources, 1 / num_sources)
    draws = np.random.default_rng(seed).multinomial(num_sources, uniform, size=NUM_RESAMPLES)
    sums, counts = (per_source.xs(kind, axis=1, level=1).to_numpy(float) for kind in ("sum", "count"))
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    return np.quantile((draws @ sums) / (draws @ counts), tails, axis=0).T


def localisation_table(images: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Means over pictures: every run, generator and metric, over all pictures and split by right and wrong.

    Args:
        images: `localise_run`'s rows of one or more runs, with a column run_id.
        runs: `Store.runs()`.

    Returns:
        columns `TABLE_COLUMNS`; `subset` is "all", "correct" or "wrong" (absent where there is no such picture);
        `value`, `chance`, `shuffled` and `prior` in [0, 1]; `low` and `high`, of the value's 95 % interval over source
        photographs (`source_intervals`); `flat`, the share of flat maps. With `subset` chosen it has what the accuracy
        matrices are made of.
    """
    rows = []
    for (run_id, tested_on), cell in images.groupby(["run_id", "tested_on"], sort=False):
        right = cell["correct"].astype(bool)
        for subset, part in zip(SUBSETS, (cell, cell[right], cell[~right]), strict=True):
            if part.empty:
                continue
            shared = (run_id, tested_on, subset)
            intervals = source_intervals(part[list(METRICS)], part["source_id"])
            rows += [
                (
                    *shared,
                    metric,
                    part[metric].mean(),
                    *interval,
                    *part[["chance", f"shuffled_{metric}", f"prior_{metric}", "flat"]].mean(),
                    len(part),
                    *part["threshold"][:1],
                )
                for metric, interval in zip(METRICS, intervals, strict=True)
            ]
    columns = [
        "run_id", "tested_on", "subset", "metric", "value", "low", "high", "chance", "shuffled", "prior", "flat",
        "num_images", "threshold",
    ]  # fmt: skip
    shared_columns = ["run_id", "task", "method", "variant", "trained_on", "seed"]
    return pd.DataFrame(rows, columns=columns).merge(runs[shared_columns], on="run_id", how="left")[TABLE_COLUMNS]


def _checked(maps: Maps, masks: Maps) -> list[tuple[np.ndarray, np.ndarray]]:
    """(map as float64, mask) of each picture."""
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
            raise ValueError(f"picture {index}: the mask is empty, so there is nothing to find; leave it out")
        if not (cam.min() >= 0 and cam.max() <= 1):  # a NaN fails too
            raise ValueError(f"picture {index}: the map must lie in [0, 1], got {cam.min()} .. {cam.max()}")
        pairs.append((cam.astype(np.float64), mask))
    return pairs


def _iou(called: np.ndarray, mask: np.ndarray) -> float:
    return float((called & mask).sum() / (called | mask).sum())


def _resized(picture: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if picture.shape == shape:
        return picture
    size = (shape[1], shape[0])
    resized = Image.fromarray(picture.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    return np.clip(np.asarray(resized), 0, 1)


def _stretched(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A mask in another size; one pixel at least stays marked."""
    if mask.shape == shape:
        return mask
    rows, columns = (
        np.minimum((np.arange(new) + 0.5) * old / new, old - 1).astype(np.int64)
        for new, old in zip(shape, mask.shape, strict=True)
    )
    stretched: np.ndarray = mask[np.ix_(rows, columns)]
    if not stretched.any():
        row, column = np.argwhere(mask).mean(axis=0) / mask.shape
        stretched = stretched.copy()
        stretched[int(row * shape[0]), int(column * shape[1])] = True
    return stretched


def _with_masks(rows: pd.DataFrame) -> pd.DataFrame:
    masked = rows[rows["mask"].notna()]
    if len(masked) < len(rows):
        log.warning("%d of %d pictures have no mask and are left out", len(rows) - len(masked), len(rows))
    return masked


def _explained(
    detector: Detector, manifest: Manifest, rows: pd.DataFrame
) -> Iterator[tuple[pd.DataFrame, list[np.ndarray], list[np.ndarray]]]:
    """(rows, maps, masks) in batches; pictures whose mask marks nothing are left out."""
    for start in range(0, len(rows), BATCH):
        batch = rows.iloc[start : start + BATCH]
        masks = [mask for mask in read_masks(manifest, batch) if mask is not None]
        marked = np.array([bool(mask.any()) for mask in masks])
        if not marked.all():
            log.warning("the masks of %s mark nothing", ", ".join(batch["path"][~marked]))
            batch, masks = batch[marked], [mask for mask in masks if mask.any()]
        if masks:
            yield batch, image_maps(detector, read_images(manifest, batch)), masks


def _tell(progress: Progress | None, done: int, total: int) -> int:
    if progress is not None:
        progress(done, total)
    return done
