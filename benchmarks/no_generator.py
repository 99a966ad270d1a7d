"""Do detectors that never saw a generator find the edits of four networks? Detection, and maps.

    GRID_REAL_FACES=DIR python -m benchmarks no-generator

Trials of the methods of the family "no-generator" that need no weights on the photographs in DIR (layout of Dolos), by
the grid's own code and recorded nowhere; one seed per repeat, and one fit of `real_only`, which does not depend on the
seed. A cell is one generator's test fakes with the test photographs. Maps are enlarged to the picture (bilinear) and
compared with the masks of the fakes: the AUROC of all pixels of a cell together, and the mean over its fakes of the
intersection over union at a log-odds of 0. Processor time of prediction is that of `predict` on decoded pictures, of
training that of `fit` of the grid with the edits and the statistics, whatever the number of cores.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.grids import fresh_settings, noise_manifest
from benchmarks.measure import Measured, NotHereError, Outcome, Target, say, time_is_up
from data.images import decode, read_mask
from data.manifest import Manifest, build_manifest
from grid.names import parse_metric
from grid.settings import RunSettings
from grid.spec import TrialSpec
from grid.tasks import DETECTION
from grid.trial import fit, score
from models.detector import Detector, FitSession
from models.metrics import Answers, get_metric
from models.registry import depends_on_seed, resolve_config

VARIABLE = "GRID_REAL_FACES"
# method -> AUROC wanted in each cell
WANTED = {"self_edited_linear": 0.93, "real_only": 0.88, "self_edited_windows": 0.97}
WITH_MAPS = "self_edited_windows"
JPEG = "jpeg-85"
JPEG_EACH, JPEG_MEAN = 0.72, 0.82
PIXELS, OVERLAP = 0.97, 0.65
MOST_MS, MOST_MINUTES = 60, 10
NUM_SEEDS = 3
_ENOUGH = "three seeds show the spread of a method; see docs/methods.md"
TOY = {"edits": 2, "most_edits": 8, "whole_edits": 2, "most_whole_edits": 8, "epochs": 1}

Parts = dict[str, list[float]]


def run(repeats: int, *, toy: bool = False) -> Outcome:
    """Targets: the values that were wanted of the methods."""
    figures: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory() as name:
        manifest = _manifest(Path(name), toy=toy)
        settings = fresh_settings(Path(name) / "run", manifest)
        for method, wanted in WANTED.items():
            config = resolve_config(method, TOY if toy and method == WITH_MAPS else {})
            seeded = depends_on_seed(method, config)
            cells: dict[str, Parts] = defaultdict(lambda: defaultdict(list))
            for seed in range(min(repeats, NUM_SEEDS) if seeded else 1):
                if seed and time_is_up():
                    break
                spec = TrialSpec(DETECTION, method, tuple(config.items()), (), seed, manifest.digest)
                _measure(spec, manifest, settings, cells)
            reason = _ENOUGH if seeded else "no seed changes the numbers of this method"
            for what, (unit, target) in _targets(method, wanted).items():
                parts = cells[what]
                values = [
                    min(row) if what != JPEG_ALL else sum(row) / len(row) for row in zip(*parts.values(), strict=True)
                ]
                figures[f"{method}: {what}"] = Measured(
                    f"{what} ({method})", unit, values, target, parts, fewer_because=reason
                )
        counts = manifest.table[manifest.table["split"] == "test"].groupby("generator").size()
        words = ", ".join(f"{count} {name}" for name, count in counts.items())
    return Outcome(f"{len(manifest.table)} images; in the test split {words}", figures)


LOWEST, JPEG_LOWEST, JPEG_ALL = "lowest AUROC", f"lowest AUROC under {JPEG}", f"mean AUROC under {JPEG}"
PIXEL_AUROC, MEAN_OVERLAP = "lowest AUROC of pixels", "lowest mean overlap of map and mask"
PREDICTING, TRAINING = "processor time of one image", "processor time of training"


def _targets(method: str, wanted: float) -> dict[str, tuple[str, Target | None]]:
    """What is measured of a method: its unit, and its target."""
    strict = method == WITH_MAPS
    found: dict[str, tuple[str, Target | None]] = {LOWEST: ("AUROC", Target(wanted, at_least=True))}
    found[JPEG_LOWEST] = ("AUROC", Target(JPEG_EACH, at_least=True) if strict else None)
    found[JPEG_ALL] = ("AUROC", Target(JPEG_MEAN, at_least=True) if strict else None)
    if strict:
        found[PIXEL_AUROC] = ("AUROC", Target(PIXELS, at_least=True))
        found[MEAN_OVERLAP] = ("IoU", Target(OVERLAP, at_least=True))
    found[PREDICTING] = ("ms", Target(MOST_MS))
    found[TRAINING] = ("min", Target(MOST_MINUTES))
    return found


def _measure(spec: TrialSpec, manifest: Manifest, settings: RunSettings, cells: dict[str, Parts]) -> None:
    """One trial: its values are added to the lists of `cells`: what -> part, mostly a generator -> values."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        fitted = fit(spec, settings, FitSession(), device="cpu", checkpoint_to=Path(folder))
        cells[TRAINING]["minutes"].append((time.process_time() - started) / 60)
        for condition in ("clean", JPEG):
            scored = score(spec, fitted.detector, settings, threshold=fitted.threshold, condition=condition)
            for name, value in scored.metrics.items():
                where = parse_metric(name)
                if where is not None and where[2] == "auroc":
                    for what in (LOWEST,) if condition == "clean" else (JPEG_LOWEST, JPEG_ALL):
                        cells[what][where[1]].append(value)
    test = manifest.select("test", manifest.generators)
    images = [decode(path) for path in manifest.paths(test[test["label"] == 0])]
    started = time.process_time()
    fitted.detector.predict(fitted.detector.inputs(images))
    cells[PREDICTING]["ms"].append(1000 * (time.process_time() - started) / len(images))
    if spec.method == WITH_MAPS:
        for generator in manifest.generators:
            pixels, overlap = map_values(fitted.detector, manifest, generator)
            cells[PIXEL_AUROC][generator].append(pixels)
            cells[MEAN_OVERLAP][generator].append(overlap)
    found = {what: {part: round(values[-1], 3) for part, values in parts.items()} for what, parts in cells.items()}
    say(f"{spec.name}: {found}")


def map_values(detector: Detector, manifest: Manifest, generator: str) -> tuple[float, float]:
    """Of one generator's test fakes: AUROC of all pixels, and mean intersection over union at a log-odds of 0."""
    rows = manifest.select("test", [generator])
    rows = rows[(rows["label"] == 1) & rows["mask"].notna()]
    maps, masks, overlaps = list[np.ndarray](), list[np.ndarray](), list[float]()
    for path, mask_path in zip(manifest.paths(rows), rows["mask"], strict=True):
        image, mask = decode(path), read_mask(manifest.file(mask_path))
        found = detector.maps(image[None])
        assert found is not None, "a method with maps"
        large = np.asarray(Image.fromarray(found[0]).resize(mask.shape[::-1], Image.Resampling.BILINEAR))
        maps.append(large.ravel())
        masks.append(mask.ravel())
        overlaps.append(float((mask & (large > 0)).sum() / max(1, (mask | (large > 0)).sum())))
    if not maps:  # pictures that were drawn have no masks
        return 0.0, 0.0
    answers = Answers.from_scores(np.concatenate(masks).astype(np.int64), np.concatenate(maps))
    return get_metric("auroc").value(answers), float(np.mean(overlaps))


def _manifest(folder: Path, *, toy: bool) -> Manifest:
    if toy:
        return noise_manifest(folder, {"train": 4, "valid": 2, "test": 3}, 64)
    faces = os.environ.get(VARIABLE)
    if not faces:
        raise NotHereError(f"{VARIABLE} names no folder of photographs in the layout of Dolos")
    return build_manifest("dolos", Path(faces), cache=folder / "facts-of-photographs")
