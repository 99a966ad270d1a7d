"""How often `predict` gives no verdict: on pictures like the training images, and on photographs of other pipelines.

The demo grid and a grid on the photographs of GRID_REAL_FACES (a folder in the layout of Dolos) are run, with the
methods that train no network. Then test pictures of the data set, the same after common changes, and real photographs
of the other data set are judged by each run, as `python -m analysis predict` does. The mechanism was chosen on
validation images alone (docs/believe/thresholds.md).

Nothing is timed, and every repeat would be the same.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

import launch
from analysis.cam import open_images
from analysis.detectors import load_detector
from analysis.store import Store, open_store
from analysis.verdicts import Judge
from benchmarks.measure import Measured, NotHereError, Outcome, Target, say
from data.images import decode
from models.detector import Detector, fake_scores

METHODS = ("residual_linear", "clip_linear", "sam_linear")
FACES = "GRID_REAL_FACES"
DEMO, REAL_FACES = "demo", "real faces"
HELD_IN, OTHER_FAKES, OTHER = "reals, unchanged", "fakes of other generators", "reals of the other data set"
OWN_FAKES = "fakes of its own generator"
MOST_FLAGGED = {DEMO: 0.03, REAL_FACES: 0.12}  # 3 of 100 and 3 of 25 test images
SAME = "every repeat gives the same"


def _saved(kind: str, **settings: object) -> Callable[[Image.Image], Image.Image]:
    def save(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, kind, **settings)
        return Image.open(buffer).convert("RGB")

    return save


def _resized(factor: float) -> Callable[[Image.Image], Image.Image]:
    def resize(image: Image.Image) -> Image.Image:
        return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)

    return resize


def _noise(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image, dtype=float)
    return Image.fromarray(
        np.clip(np.rint(pixels + np.random.default_rng(0).normal(0, 5, pixels.shape)), 0, 255).astype(np.uint8)
    )


# of the real test photographs; those with a target first
CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "reals after a resize to .75": _resized(0.75),
    "reals as JPEG 60": _saved("JPEG", quality=60),
    "reals as WebP 80": _saved("WEBP", quality=80),
    "reals after a resize to .97": _resized(0.97),
    "reals after a resize to .5": _resized(0.5),
    "reals as JPEG 30": _saved("JPEG", quality=30),
    "reals as JPEG 95": _saved("JPEG", quality=95),
    "reals, blurred": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "reals with noise": _noise,
}
KINDS = (HELD_IN, OWN_FAKES, OTHER_FAKES, OTHER, *CHANGES)
NUM_KNOWN = 3  # of these kinds, the first ones, are pictures that should have a verdict
WITH_TARGET = (OTHER, "reals after a resize to .75")


@dataclass(frozen=True)
class Count:
    """What a run says of pictures of one kind."""

    flagged: int
    called_real: int
    of: int

    def __str__(self) -> str:
        return f"{self.flagged} flagged, {self.called_real} called real of {self.of}"


def measure(store: Store, others: Sequence[np.ndarray], *, num_runs: int) -> dict[str, dict[str, list[Count]]]:
    """Method -> kind of picture -> what each of its runs says.

    Args:
        store: a finished grid.
        others: real photographs of another data set.
        num_runs: runs per method.
    """
    manifest, found = open_images(store), dict[str, dict[str, list[Count]]]()
    reals = [decode(path) for path in manifest.paths(manifest.select("test", []))]
    changed = {name: [np.asarray(change(Image.fromarray(one))) for one in reals] for name, change in CHANGES.items()}
    fakes = {
        name: [decode(path) for path in manifest.paths(rows[rows["label"] == 1])]
        for name in manifest.generators
        for rows in (manifest.select("test", [name]),)
    }
    runs = store.runs()
    for method in dict.fromkeys(runs["method"]):
        of_kind: dict[str, list[Count]] = defaultdict(list)
        for run in runs[runs["method"] == method].head(num_runs).to_dict("records"):
            run_id, own = str(run["run_id"]), str(run["trained_on"])
            detector, _ = load_detector(store, run_id)
            judge, threshold = Judge(store, run_id), store.threshold(run_id)
            rest = [image for name, images in fakes.items() if name != own for image in images]
            sets = {HELD_IN: reals, OWN_FAKES: fakes[own], OTHER_FAKES: rest, OTHER: others} | changed
            for kind, images in sets.items():
                of_kind[kind].append(_count(detector, judge, threshold, images))
        found[str(method)] = of_kind
        say(f"{method}: " + "; ".join(f"{kind}: {counts[0]}" for kind, counts in of_kind.items()))
    return found


def _count(detector: Detector, judge: Judge, threshold: float, images: Sequence[np.ndarray]) -> Count:
    flagged = called_real = 0
    for start in range(0, len(images), 32):
        part = images[start : start + 32]
        prediction = detector.predict(detector.inputs(part))
        outside = np.array([judgement.inside is False for judgement in judge.judge(part, prediction.embeddings)])
        flagged += int(outside.sum())
        called_real += int((~outside & (fake_scores(prediction.logits) <= threshold)).sum())
    return Count(flagged, called_real, len(images))


def _grid(folder: Path, *arguments: str) -> Store:
    status = launch.main([*arguments, "--tasks=detection", "--local", f"--runs={folder}", "--cpus-per-trial=2"])
    if status:
        raise RuntimeError(f"launch.py {' '.join(arguments)} ended with {status}")
    return open_store(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")


def run(repeats: int, *, toy: bool = False) -> Outcome:
    """Targets: reals and own fakes flagged at most 3 of 100 (3 of 25); of other pipelines 9 of 10 not called fake."""
    faces = os.environ.get(FACES, "")
    if not faces and not toy:
        raise NotHereError(f"the photographs are missing: set {FACES} to a folder in the layout of Dolos")
    methods = METHODS[:1] if toy else METHODS
    chosen = f"--methods={','.join(methods)}"
    with tempfile.TemporaryDirectory() as name:
        small = ["--limit=12", "--generators=renoise,fourier_fill"] if toy else []
        stores = {DEMO: _grid(Path(name) / "demo", "demo1", chosen, *small)}
        if not toy:
            stores[REAL_FACES] = _grid(
                Path(name) / "faces", "dolos", f"--data={faces}", chosen, "--seeds=0",
                "--set=clip_linear.backbone=demo-vit-64", "--weights=clip_linear=random",
                "--set=sam_linear.backbone=demo", "--weights=sam_linear=random",
            )  # fmt: skip
        reals = {
            data: [decode(path) for path in manifest.paths(manifest.table[manifest.table["label"] == 0])][:200]
            for data, manifest in ((data, open_images(store)) for data, store in stores.items())
        }
        others = {data: reals[REAL_FACES if data == DEMO and not toy else DEMO] for data in stores}
        found = {data: measure(store, others[data], num_runs=1 if toy else 99) for data, store in stores.items()}
    figures = {
        f"{data}, {method}, {kind}": _figure(data, method, kind, counts)
        for data, of_data in found.items()
        for method, of_method in of_data.items()
        for kind, counts in of_method.items()
    }
    setup = "; ".join(f"{data}: {len(reals[data])} reals in all" for data in stores)
    return Outcome(f"{setup}; the worst run of each method, over its training sets", figures)


def _figure(data: str, method: str, kind: str, counts: Sequence[Count]) -> Measured:
    """The worst run: most flagged of pictures like the training images, else fewest flagged or called real."""
    parts: Mapping[str, Sequence[float]] = {
        "flagged, of all": [max(one.flagged / one.of for one in counts)],
        "flagged, least": [min(one.flagged / one.of for one in counts)],
        "flagged or called real, least": [min((one.flagged + one.called_real) / one.of for one in counts)],
    }
    of = counts[0].of
    if kind in (HELD_IN, OWN_FAKES, OTHER_FAKES):
        target = None if kind == OTHER_FAKES else Target(MOST_FLAGGED[data])
        words = f"share of {of} {kind} without a verdict, {method} on {data}"
        return Measured(words, "ratio", parts["flagged, of all"], target, parts, SAME)
    target = Target(0.9, at_least=True) if kind in WITH_TARGET else None
    words = f"share of {of} {kind} without a verdict or called real, {method} on {data}"
    return Measured(words, "ratio", parts["flagged or called real, least"], target, parts, SAME)
