"""What a fitted detector's own maps say of the masks: measured once, at the end of a trial."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import logit

from data.conditions import CLEAN
from data.images import decode
from data.manifest import Manifest
from data.masks import ManifestMasks
from data.pictures import File, FileError
from data.sources.base import FAKE
from grid import names
from grid.plan import TEST, TRAIN, VALID
from grid.settings import RunSettings
from grid.spec import TrialSpec
from grid.tasks import DETECTION
from grid.trial import edited_versions
from models.detector import Detector
from models.localisation import (
    BY_VALIDATION,
    FIXED,
    ORACLE,
    RankedMap,
    best_threshold,
    candidates,
    mean_of_masks,
    metric_names,
    other_pictures,
    scaled_mask,
)
from models.maps import may_have_maps, over_picture, picture_maps, resized

VALIDATION_FAKES = 500  # at most so many choose the threshold
MEAN_MASKS = 1000  # at most so many training masks are in the mean mask
PER_READ = 16  # pictures that are decoded at once
MEAN_MASK, SHUFFLED = "mean_mask", "shuffled"  # what stands beside a map
_CERTAIN = 1e-6  # a pixel that is fake in all training masks, or in none, has the log-odds of this probability

log = logging.getLogger(__name__)

Pairs = list[tuple[np.ndarray, np.ndarray]]  # of each picture its cells' log-odds, and its mask


@dataclass(frozen=True)
class Localised:
    """How well a detector's own maps find the edited areas of the test fakes.

    Attributes:
        images: one row per test fake with a mask that is neither empty nor full: tested_on, path, digest, source_id,
            area (the mask's share of the picture), flat (the map is constant), the numbers of
            `models.localisation.RankedMap`, and the same of the mean mask (`mean_mask_…`; NaN without training masks)
            and of the map beside another picture's mask (`shuffled_…`; NaN for a generator with one such fake).
        facts: thresholds, and how many fakes were left out and why.
    """

    images: pd.DataFrame
    facts: dict[str, Any]

    @property
    def metrics(self) -> dict[str, float]:
        """Means over the fakes of each generator, by their names in `grid.names`."""
        known = metric_names(self.facts["thresholds"])
        return {
            names.map_metric(str(generator), metric): float(rows[metric].mean())
            for generator, rows in self.images.groupby("tested_on", sort=False)
            for metric in known
        }

    def write(self, folder: Path) -> None:
        """Write the artifacts below a folder, under their names in `grid.names`."""
        (folder / names.LOCALISATION).parent.mkdir(exist_ok=True)
        self.images.to_parquet(folder / names.LOCALISATION, index=False)
        (folder / names.LOCALISATION_FACTS).write_text(json.dumps(self.facts, indent=1), encoding="utf-8")


def localise(spec: TrialSpec, detector: Detector, settings: RunSettings) -> Localised | None:
    """Compare the maps of a detector with the masks of every generator's test fakes, on clean pictures.

    The threshold from validation has the best mean IoU on validation fakes of the generators in the training set, or on
    self-edited validation photographs if the method learns from such; another trial without fakes has none. The
    oracle's has the best mean IoU on the test fakes of the generator themselves. The mean mask is that of the training
    fakes of the training set, or of all generators if the trial had no fakes.

    Args:
        spec: the trial.
        detector: fitted for `spec`.
        settings: the manifest of `spec.data` is in `settings.manifests`.

    Returns:
        None for another task than detection, for a method without maps, for a data set without masks, and, with a
        warning, where a picture or mask cannot be read any more.
    """
    if spec.task != DETECTION or not may_have_maps(detector):
        return None
    manifest = Manifest.load(settings.manifests / spec.data)
    if not (manifest.table["mask"].notna() & (manifest.table["split"] == TEST)).any():
        return None
    try:
        return _localise(spec, detector, manifest, settings)
    except FileError as error:  # a trial whose pixels are stored needs no pictures otherwise
        log.warning("the maps are not compared with the masks: %s", error)
        return None


def _localise(spec: TrialSpec, detector: Detector, manifest: Manifest, settings: RunSettings) -> Localised | None:
    left_out: dict[str, dict[str, int]] = {}
    thresholds, geometry = {FIXED: 0.0}, detector.geometry

    def over(pairs: Pairs) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return ((over_picture(cells, geometry, (mask.shape[0], mask.shape[1])), mask) for cells, mask in pairs)

    valid = _edited_pairs(spec, detector, manifest, settings)
    if spec.train_generators:
        rows = _spread(_fakes(manifest, VALID, spec.train_generators), VALIDATION_FAKES)
        found = _pairs(detector, manifest, rows)
        if found is None:
            return None
        valid = found[1]
    if valid:
        thresholds[BY_VALIDATION] = best_threshold(over(valid), candidates([cells for cells, _ in valid]))
    mean = MeanMask(manifest, spec.train_generators or manifest.generators, [mask for _, mask in valid])
    frames, oracles = list[pd.DataFrame](), dict[str, float]()
    for generator in manifest.tested_generators:
        rows = _fakes(manifest, TEST, (generator,))
        found = _pairs(detector, manifest, rows, left_out=left_out.setdefault(generator, {}))
        if found is None:
            return None
        rows, pairs = found
        if not pairs:
            continue
        tried = candidates([cells for cells, _ in pairs], thresholds.values())
        oracles[generator] = best_threshold(over(pairs), tried)
        masks, at = [mask for _, mask in pairs], thresholds | {ORACLE: oracles[generator]}
        frames.append(_measured(rows, over(pairs), masks, at, mean))
    if not frames:
        return None
    facts = {
        "thresholds": [*thresholds, ORACLE],
        "threshold": thresholds.get(BY_VALIDATION),
        "oracle_thresholds": oracles,
        "validation_fakes": len(valid),
        "training_masks": mean.num_masks,
        "left_out": {generator: counts for generator, counts in left_out.items() if counts},
    }
    return Localised(pd.concat(frames, ignore_index=True), facts)


def _measured(
    rows: pd.DataFrame,
    pairs: Iterator[tuple[np.ndarray, np.ndarray]],
    masks: Sequence[np.ndarray],
    thresholds: dict[str, float],
    mean: MeanMask,
) -> pd.DataFrame:
    """The numbers of a generator's fakes; `pairs` are over the pixels of whole pictures."""
    of_mean = mean.thresholds(masks, thresholds)
    others = other_pictures(len(masks)) if len(masks) > 1 else None
    measured = []
    for number, (values, mask) in enumerate(pairs):
        ranked = RankedMap(values)
        row = {"area": float(mask.mean()), "flat": bool(values.min() == values.max())}
        row |= ranked.measure(mask, thresholds)
        if mean.num_masks:
            beside = mean.ranked(mask.shape).measure(mask, of_mean)
            row |= {f"{MEAN_MASK}_{name}": value for name, value in beside.items()}
        if others is not None:
            shuffled = ranked.measure(scaled_mask(masks[int(others[number])], mask.shape), thresholds)
            row |= {f"{SHUFFLED}_{name}": value for name, value in shuffled.items()}
        measured.append(row)
    facts = rows[["generator", "path", "digest", "source_id"]].rename(columns={"generator": "tested_on"})
    return pd.concat([facts.reset_index(drop=True), pd.DataFrame(measured)], axis=1)


class MeanMask:
    """The mean of training masks as a map: the same log-odds for every picture.

    Args:
        manifest: describes the data set.
        generators: whose training fakes count; at most `MEAN_MASKS` of them, chosen by digest.
        valid: masks of validation fakes, which choose a threshold; may be empty.

    Attributes:
        num_masks: how many masks are in the mean; 0: there is no mean mask.
    """

    def __init__(self, manifest: Manifest, generators: Sequence[str], valid: Sequence[np.ndarray]) -> None:
        rows = _spread(_fakes(manifest, TRAIN, generators).dropna(subset="mask"), MEAN_MASKS)
        reader = ManifestMasks(manifest, rows)
        found = (reader[np.array([number])][0] for number in range(len(rows)))
        mean, self.num_masks = mean_of_masks(mask for mask in found if mask is not None)
        self._values = logit(np.clip(mean, _CERTAIN, 1 - _CERTAIN)).astype(np.float32)
        self._ranked: dict[tuple[int, ...], RankedMap] = {}
        self._by_validation = self._best(valid) if valid and len(rows) else 0.0

    def ranked(self, shape: tuple[int, ...]) -> RankedMap:
        """The map in the size (H, W) of a picture."""
        if shape not in self._ranked:
            self._ranked[shape] = RankedMap(resized(self._values, shape))
        return self._ranked[shape]

    def thresholds(self, masks: Sequence[np.ndarray], names_of: dict[str, float]) -> dict[str, float]:
        """The mean mask's own thresholds under these names; the oracle's is the best for these masks."""
        own = {FIXED: 0.0, BY_VALIDATION: self._by_validation}
        return {name: own[name] if name in own else self._best(masks) for name in names_of} if self.num_masks else {}

    def _best(self, masks: Sequence[np.ndarray]) -> float:
        return best_threshold(((self.ranked(mask.shape).values, mask) for mask in masks), candidates([self._values]))


def _edited_pairs(spec: TrialSpec, detector: Detector, manifest: Manifest, settings: RunSettings) -> Pairs:
    """The maps and masks of self-edited validation photographs; empty if the method does not learn from such."""
    pairs: Pairs = []
    for pictures, version in edited_versions(spec, manifest, settings, VALID, (CLEAN,)):
        if not version.edited or len(pairs) == VALIDATION_FAKES:
            continue
        mask = pictures.mask(version)
        if mask.any() and not mask.all():
            (cells,) = picture_maps(detector, [pictures.read(version)]) or (None,)
            if cells is None:
                return []
            pairs.append((cells, mask))
    return pairs


def _fakes(manifest: Manifest, split: str, generators: Sequence[str]) -> pd.DataFrame:
    table = manifest.table
    return table[(table["split"] == split) & (table["label"] == FAKE) & table["generator"].isin(generators)]


def _spread(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """At most so many rows, as many of each generator, chosen by digest; in the order of the manifest."""
    if len(rows) <= count:
        return rows
    each = max(1, count // rows["generator"].nunique())
    return rows.sort_values("digest", kind="stable").groupby("generator", sort=False).head(each).sort_index()


def _pairs(
    detector: Detector, manifest: Manifest, rows: pd.DataFrame, *, left_out: dict[str, int] | None = None
) -> tuple[pd.DataFrame, Pairs] | None:
    """The rows whose mask is neither empty nor full, with their maps and masks; None for a method without maps."""
    reader, masks, kept = ManifestMasks(manifest, rows), list[np.ndarray](), list[int]()
    for number in range(len(rows)):
        (mask,) = reader[np.array([number])]
        if mask is not None and mask.any() and not mask.all():
            masks.append(mask)
            kept.append(number)
        elif left_out is not None:
            why = "without a mask" if mask is None else "with a full mask" if mask.any() else "with an empty mask"
            left_out[why] = left_out.get(why, 0) + 1
    rows, maps = rows.iloc[kept], list[np.ndarray]()
    files = [File(path, digest) for path, digest in zip(manifest.paths(rows), rows["digest"], strict=True)]
    for start in range(0, len(files), PER_READ):
        found = picture_maps(detector, [file.read(decode) for file in files[start : start + PER_READ]])
        if found is None:
            return None
        maps += found
    return rows, list(zip(maps, masks, strict=True))
