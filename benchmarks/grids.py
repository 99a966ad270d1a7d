"""Small grids for the benchmarks: images, the trials of a method, and their plain compute."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measure import ROOT
from data.demo.recipe import DemoRecipe, make_demo
from data.manifest import Manifest, build_manifest
from grid.runner import distinct_inputs, prepare_shared
from grid.settings import RunSettings
from grid.spec import ATTRIBUTION, DETECTION, Scalar, TrialSpec
from grid.trial import TrialResult, run_trial
from models.detector import FitSession


def drawn_manifest(folder: Path, *, toy: bool) -> Manifest:
    """The demo's faces: where the launcher keeps them, drawn if need be; of a toy a few, below `folder`."""
    place, recipe = (folder, DemoRecipe(train=2, valid=2, test=2)) if toy else (ROOT / "runs" / "cache", DemoRecipe())
    return build_manifest("demo", make_demo(place / "demo", recipe), cache=folder / "facts")


def noise_manifest(folder: Path, generators: Sequence[str], counts: Mapping[str, int], side: int) -> Manifest:
    """Coloured clouds with noise on them, in the layout of Dolos: they decode as photographs do, and look like nothing.

    Args:
        folder: written to.
        generators: whose fakes are made, one of each real image.
        counts: split -> real images.
        side: pixels.
    """
    root = folder / "images" / "celebahq"
    random = np.random.default_rng(0)
    first = 0
    for split, number in counts.items():
        for name in ("real", *generators):
            place = root / "real" / split if name == "real" else root / "fake" / name / "images" / split
            place.mkdir(parents=True)
            for image in range(first, first + number):
                coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
                smooth = np.array(coarse.resize((side, side), Image.Resampling.BICUBIC), dtype=float)
                pixels = (smooth + random.normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{image:05d}.png")
        first += number
    return build_manifest("dolos", folder / "images", cache=folder / "facts")


def fresh_settings(folder: Path, manifest: Manifest, *, cpus_per_trial: float) -> RunSettings:
    """Settings with an empty cache and an empty store below `folder`, and the manifest where trials find it."""
    runs = folder / "runs"
    uri = f"sqlite:///{runs / 'mlflow.db'}"
    settings = RunSettings(folder / "cache", runs, uri, device="cpu", cpus_per_trial=cpus_per_trial)
    manifest.save(settings.manifests / manifest.digest)
    return settings


def frozen_trials(
    method: str, config: dict[str, Scalar], generators: Sequence[str], seeds: Sequence[int], data: str
) -> list[TrialSpec]:
    """What is asked of a frozen method: each generator, all but each generator, and which generator it was."""
    alone = [(DETECTION, (one,)) for one in generators]
    without = [(DETECTION, tuple(other for other in generators if other != one)) for one in generators]
    kinds = [*alone, *without, (ATTRIBUTION, tuple(generators))]
    pairs = tuple(config.items())
    return [TrialSpec(task, method, pairs, train, seed, data) for seed in seeds for task, train in kinds]


def prepare(specs: Sequence[TrialSpec], settings: RunSettings) -> float:
    """Decode or encode what the trials share; seconds."""
    started = time.perf_counter()
    for spec in distinct_inputs(specs):
        prepare_shared(spec, settings, 0.0, lambda done, total: None)
    return time.perf_counter() - started


def compute(spec: TrialSpec, settings: RunSettings, manifest: Manifest) -> TrialResult:
    """One trial's compute on the CPU, recorded nowhere."""
    with tempfile.TemporaryDirectory() as folder:
        return run_trial(spec, settings, manifest, FitSession(), device="cpu", checkpoint_to=Path(folder))
