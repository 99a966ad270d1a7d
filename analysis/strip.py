"""One photograph, its fakes by every generator, and where one detector sees fake in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.cam import explain, read_images, read_masks
from analysis.detectors import load_detector
from analysis.store import Store
from data.manifest import Manifest
from data.sources.base import FAKE


@dataclass(frozen=True, eq=False)
class Strip:
    """One photograph and its fakes.

    Attributes:
        source: name of the photograph.
        real: uint8 (H, W, 3); None: the test split has no real picture of it.
        real_log_odds: the detector's log-odds of fake of `real`; None as `real`.
        generators: who made the fakes, in the order of tables.
        fakes: uint8 (H, W, 3) each.
        masks: bool (H, W) each, True where fake; None where a fake has none.
        log_odds: the detector's log-odds of fake of each.
        maps: float32 (H, W) each, as in `analysis.cam.Explanation`; None: not made, or the method has none.
        kind: what the maps are, "map" or "Grad-CAM"; "" without maps.
    """

    source: str
    real: np.ndarray | None
    real_log_odds: float | None
    generators: list[str]
    fakes: list[np.ndarray]
    masks: list[np.ndarray | None]
    log_odds: list[float]
    maps: list[np.ndarray] | None = None
    kind: str = ""


def median_photograph(scores: pd.DataFrame, generators: Sequence[str]) -> str | None:
    """The photograph whose fakes have the median score: not the best that a detector can do, and not the worst.

    Of the photographs with fakes by as many of the generators as any has, and where possible with a real picture. Each
    one's score is the mean log-odds of its fakes, over generators. Of an even number, the lower middle; equal scores
    are in the order of the names.

    Args:
        scores: of one detection run: columns source_id, generator, label, score.
        generators: the generators that count.

    Returns:
        its source id; None without such fakes.
    """
    fakes = scores[(scores["label"] == FAKE) & scores["generator"].isin(generators)]
    if fakes.empty:
        return None
    wide = fakes.pivot_table(index="source_id", columns="generator", values="score", aggfunc="mean")
    count = wide.notna().sum(axis=1)
    wide = wide[count == count.max()]
    real = wide[wide.index.isin(scores.loc[scores["label"] != FAKE, "source_id"])]
    means = (real if len(real) else wide).mean(axis=1)
    ordered = sorted((float(score), str(source)) for source, score in means.items())
    return ordered[(len(ordered) - 1) // 2][1]


def make_strip(manifest: Manifest, scores: pd.DataFrame, generators: Sequence[str]) -> Strip | None:
    """Read the pictures of the median photograph; without maps. None if the run was tested on no fake.

    Args:
        manifest: of the data set, whose pictures can be read.
        scores: from `Store.scores`, of one detection run.
        generators: in the order of tables.

    Raises:
        StoreError: a file is missing, or differs from the one in the manifest.
        BadImage: a picture cannot be decoded.
    """
    source = median_photograph(scores, generators)
    if source is None:
        return None
    test = manifest.table[(manifest.table["split"] == "test") & (manifest.table["source_id"].astype(str) == source)]
    of_digest = scores.drop_duplicates("digest").set_index("digest")["score"].astype(float)
    test = test[test["digest"].isin(of_digest.index)].sort_values("digest", kind="stable")
    real = test[test["label"] != FAKE].iloc[:1]
    fakes = test[test["label"] == FAKE].drop_duplicates("generator").set_index("generator", drop=False)
    fakes = fakes.loc[[name for name in generators if name in fakes.index]]
    return Strip(
        source=source,
        real=read_images(manifest, real)[0] if len(real) else None,
        real_log_odds=float(of_digest[real["digest"].iloc[0]]) if len(real) else None,
        generators=list(map(str, fakes.index)),
        fakes=read_images(manifest, fakes),
        masks=read_masks(manifest, fakes),
        log_odds=[float(of_digest[digest]) for digest in fakes["digest"]],
    )


def with_maps(
    strip: Strip, store: Store, run_id: str, *, device: str, weight_files: Mapping[str, Path] | None = None
) -> Strip:
    """The strip with the maps of a run's detector: its own, else Grad-CAM; without maps if it has neither.

    Raises:
        StoreError: the detector cannot be loaded.
    """
    detector, _ = load_detector(store, run_id, device=device, weight_files=weight_files)
    found = explain(detector, strip.fakes)
    return strip if found is None else replace(strip, maps=found.maps, kind=found.kind)
