"""How well a CAM finds the repainted region, as numbers, each beside what a map gets that knows nothing.

Chance. Let a be the mask's share of the picture's area. A map whose values are shuffled over the pixels has a as its
expected share of energy, as its chance to hit in the pointing game and (nearly) as its average precision. Calling
every pixel fake has IoU a, and no shuffled map has more in expectation: with p pixels called fake, m in the mask, n
in all and I in both, IoU = I / (p + m - I) <= I / p, of which the mean is m / n = a. So chance is a, for every
figure.

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
SUBSETS = ("all", "correct", "wrong")
TABLE_COLUMNS = [
    "run_id", "task", "method", "variant", "trained_on", "seed", "tested_on", "subset", "metric", "value", "chance",
    "prior", "num_images", "threshold",
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
        `ap`, average precision over pixels; `chance`, see above. A constant map, all zeros too, has the chance level in
        `pointing`, `energy` and `ap`.

    Raises:
        ValueError: no picture, an empty mask, shapes that disagree, values outside [0, 1], or such a threshold.
    """
    pairs = _checked(maps, masks)
    if not 0 < threshold <= 1:
        raise ValueError(f"the threshold must lie in (0, 1], got {threshold}")
    rows = []
    for cam, mask in pairs:
        total = cam.sum()
        rows.append(
            {
                "iou": _iou(cam >= threshold, mask),
                "iou_fixed": _iou(cam >= FIXED_THRESHOLD, mask),
                "pointing": float(mask[cam == cam.max()].mean()),
                "energy": float(cam[mask].sum() / total) if total > 0 else float(mask.mean()),
                "ap": float(average_precision_score(mask.ravel(), cam.ravel())),
                "chance": float(mask.mean()),
            }
        )
    return pd.DataFrame(rows, columns=[*METRICS, "chance"])


def best_iou_threshold(maps: Maps, masks: Maps) -> float:
    """The threshold of `THRESHOLDS` with the best mean IoU; of equally good ones the middle one.

    To be called with the *validation* split. Arguments and errors as in `localise`.
    """
    sums = np.zeros(len(THRESHOLDS))
    for cam, mask in _checked(maps, masks):
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
        columns tested_on, path, digest, source_id, correct, `METRICS`, chance, `prior_<metric>`, threshold.

    Raises:
        NoCam: the method has none.
        StoreError: as `load_detector`.
        ValueError: no mask in the validation split.
    """
    detector, spec = loaded or load_detector(store, run_id, device=device)
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
    parts = []
    for generator, rows in cells.items():
        for batch, maps, masks in _explained(detector, manifest, rows):
            found = localise(maps, masks, threshold=threshold)
            base = localise([_resized(prior, mask.shape) for mask in masks], masks, threshold=prior_threshold)
            facts = batch[["path", "digest", "source_id"]].reset_index(drop=True)
            facts.insert(0, "tested_on", generator)
            facts["correct"] = correct.loc[generator].loc[facts["digest"]].to_numpy()
            base = base[list(METRICS)].add_prefix("prior_")
            parts.append(pd.concat([facts, found, base], axis=1).assign(threshold=threshold))
            done = _tell(progress, done + len(maps), total)
    if not parts:
        raise ValueError("no test fake of the data set has a mask")
    return pd.concat(parts, ignore_index=True)


def localisation_table(images: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Means over pictures: every run, generator and metric, over all pictures and split by right and wrong.

    Args:
        images: `localise_run`'s rows of one or more runs, with a column run_id.
        runs: `Store.runs()`.

    Returns:
        columns `TABLE_COLUMNS`; `subset` is "all", "correct" or "wrong" (absent where there is no such picture);
        `value`, `chance` and `prior` in [0, 1]. With `subset` chosen it has what the accuracy matrices are made of.
    """
    rows = []
    for (run_id, tested_on), cell in images.groupby(["run_id", "tested_on"], sort=False):
        right = cell["correct"].astype(bool)
        for subset, part in zip(SUBSETS, (cell, cell[right], cell[~right]), strict=True):
            if part.empty:
                continue
            shared = (run_id, tested_on, subset)
            rows += [
                (
                    *shared,
                    metric,
                    *part[[metric, "chance", f"prior_{metric}"]].mean(),
                    len(part),
                    *part["threshold"][:1],
                )
                for metric in METRICS
            ]
    columns = ["run_id", "tested_on", "subset", "metric", "value", "chance", "prior", "num_images", "threshold"]
    shared_columns = ["run_id", "task", "method", "variant", "trained_on", "seed"]
    return pd.DataFrame(rows, columns=columns).merge(runs[shared_columns], on="run_id", how="left")[TABLE_COLUMNS]


def _checked(maps: Maps, masks: Maps) -> list[tuple[np.ndarray, np.ndarray]]:
    """(map as float64, mask) of each picture."""
    if len(maps) != len(masks) or len(maps) == 0:
        raise ValueError(f"need at least one picture and as many maps as masks, got {len(maps)} and {len(masks)}")
    pairs = []
    for place, (cam, mask) in enumerate(zip(maps, masks, strict=True)):
        if cam.shape != mask.shape or cam.ndim != 2 or mask.dtype != np.bool_:
            raise ValueError(
                f"picture {place}: need a map and a bool mask of one shape (H, W), got {cam.shape} and {mask.dtype} "
                f"{mask.shape}"
            )
        if not mask.any():
            raise ValueError(f"picture {place}: the mask is empty, so there is nothing to find; leave it out")
        if not (cam.min() >= 0 and cam.max() <= 1):  # a NaN fails too
            raise ValueError(f"picture {place}: the map must lie in [0, 1], got {cam.min()} .. {cam.max()}")
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


def _with_masks(rows: pd.DataFrame) -> pd.DataFrame:
    found = rows[rows["mask"].notna()]
    if len(found) < len(rows):
        log.warning("%d of %d pictures have no mask and are left out", len(rows) - len(found), len(rows))
    return found


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
