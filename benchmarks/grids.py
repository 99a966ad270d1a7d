"""Small grids for the benchmarks: images, trials, and what a trial computes."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.measure import ROOT
from data.demo.recipe import FIRST, DemoRecipe, make_demo
from data.manifest import COLUMNS, Manifest, build_manifest
from data.sources import get_source
from data.store import ArrayStore
from grid.experiments.demo1 import demo1
from grid.plan import Inputs
from grid.preparing import prepare_input
from grid.settings import RunSettings
from grid.spec import TrialSpec
from grid.tasks import ATTRIBUTION, DETECTION
from grid.trial import fit, score
from grid.uris import STORE, sqlite_uri
from models.detector import FitSession
from models.registry import detector_info, resolve_config

GENERATORS = tuple(get_source("dolos").order)
TASKS = (DETECTION, ATTRIBUTION)
SHARES = {"train": 0.6, "valid": 0.1, "test": 0.3}  # of the images of a data set without files


def drawn_manifest(folder: Path, *, toy: bool) -> Manifest:
    """The faces of the demo's first version: where the launcher keeps them; of a toy a few, below `folder`."""
    few = DemoRecipe(size=64, train=2, valid=2, test=2, version=1)
    place, recipe = (folder, few) if toy else (ROOT / "runs" / "cache", FIRST)
    return build_manifest("demo1", make_demo(place / "demo", recipe), cache=folder / "facts")


def noise_manifest(folder: Path, counts: Mapping[str, int], side: int) -> Manifest:
    """Coloured clouds with noise on them, in the layout of Dolos: they decode as photographs do, and look like nothing.

    Args:
        folder: written to.
        counts: split -> real images; each generator has one fake of each.
        side: pixels.
    """
    root = folder / "images" / "celebahq"
    random = np.random.default_rng(0)
    first = 0
    for split, number in counts.items():
        for name in ("real", *GENERATORS):
            place = root / "real" / split if name == "real" else root / "fake" / name / "images" / split
            place.mkdir(parents=True)
            for image in range(first, first + number):
                coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
                smooth = np.array(coarse.resize((side, side), Image.Resampling.BICUBIC), dtype=float)
                pixels = (smooth + random.normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{image:05d}.png")
        first += number
    return build_manifest("dolos", folder / "images", cache=folder / "facts")


def paper_manifest(root: Path, num_images: int) -> Manifest:
    """A data set without files: so many images, in equal parts real and of each generator."""
    classes = ("real", *GENERATORS)
    rows = []
    for split, share in SHARES.items():
        for number in range(round(num_images * share / len(classes))):
            for name in classes:
                path = f"{name}/{split}/{number:06d}.png"
                digest = hashlib.sha256(path.encode()).hexdigest()
                rows.append((path, int(name != "real"), name, f"{split}{number:06d}", split, digest))
    table = pd.DataFrame(rows, columns=["path", "label", "generator", "source_id", "split", "digest"])
    nothing = {name: pd.Series([pd.NA] * len(table), dtype="string") for name in ("mask", "mask_digest")}
    table = table.assign(
        **nothing,
        width=16,
        height=16,
        format="PNG",
        mode="RGB",
        quantisation="",
        profile="",
        metadata="",
        num_bytes=100,
    )
    return Manifest(root, "dolos", table[list(COLUMNS)])


def fresh_settings(folder: Path, manifest: Manifest) -> RunSettings:
    """Settings with an empty cache and an empty store below `folder`, and the manifest where trials find it."""
    runs = folder / "runs"
    runs.mkdir(parents=True)
    settings = RunSettings(folder / "cache", runs, sqlite_uri(runs / STORE), device="cpu", cpus_per_trial=1)
    manifest.save(settings.manifests / manifest.digest)
    return settings


def fill_with_noise(store: ArrayStore, keys: Iterable[str], *, batch: int) -> None:
    """Fill a store with random rows, pixels or features: one per key, `batch` of them at a time."""
    random = np.random.default_rng(0)

    def rows(items: list[None]) -> np.ndarray:
        shape = (len(items), *store.row_shape)
        if store.dtype == np.uint8:
            return random.integers(0, 256, shape, dtype=np.uint8)
        return random.standard_normal(shape).astype(store.dtype)

    store.fill(dict.fromkeys(keys), rows, batch=batch)


def demo_trials(manifest: Manifest, methods: Sequence[str]) -> list[TrialSpec]:
    """The demo's trials of these methods in the launcher's order, the longest first."""
    configs = {method: resolve_config(method, detector_info(method).small) for method in methods}
    trials = demo1.trials(
        generators=manifest.generators, configs=configs, tasks=TASKS, seeds=demo1.seeds, data=manifest.digest
    )
    return sorted(trials, key=lambda trial: -len(trial.train_generators))


def prepare(inputs: Inputs, settings: RunSettings) -> None:
    """Decode or encode what trials share, on the CPU."""
    prepare_input(inputs, settings, 0.0, lambda done, total: None)


def compute(spec: TrialSpec, settings: RunSettings) -> float:
    """One trial's compute on the CPU, recorded nowhere: its seconds."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit(spec, settings, FitSession(), device="cpu", checkpoint_to=Path(folder))
        score(spec, fitted.detector, settings, threshold=fitted.threshold)
    return time.perf_counter() - started
