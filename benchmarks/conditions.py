"""Scoring test images under one condition of each family, against as many forward passes of each image.

The images are the test split of a data set in which the launch has read nothing yet. Each condition is prepared and
scored as a launch does it, by the grid's own code in this process, from an empty cache: files are decoded (once), the
conditions are applied, pictures become squares, and the detector scores them. The limit is the detector alone: each
image forwarded once, from pixels that lie in memory in the form that it takes, times the number of conditions. MLflow's
records are left out. Nothing is fitted: an untrained detector takes as long.

A frozen method and one that trains its network have a target. `residual_linear` has none: its statistics take hardly
longer than a condition itself (WebP as long as they), so its ratio shows what conditions cost beside nothing else. Of
the published set `robustness`, half is JPEG, which is cheap: one of each family costs more, condition by condition.
Everything is held to one core and one thread, and seconds are those of this process on a CPU, so that what else the
machine does disturbs little.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.frozen import one_core
from benchmarks.grids import fresh_settings, noise_manifest, prepare
from benchmarks.measure import Measured, Outcome, Target, interleave, ratios, say
from data.images import decode
from data.manifest import Manifest
from grid.plan import TEST, Work, distinct_inputs
from grid.spec import TrialSpec
from grid.tasks import DETECTION
from grid.trial import build, score
from models.detector import Detector
from models.registry import resolve_config

BATCH = 32
WITHOUT_TARGET = ("residual_linear",)
FEWER = "a repeat takes minutes of a core, and both sides are seconds of the CPU, which other work disturbs little"


@dataclass(frozen=True)
class Size:
    """Settings of the methods, images per class and split (five classes), the side of the files, the conditions."""

    methods: dict[str, dict[str, str | int]]
    counts: dict[str, int]
    side: int
    conditions: tuple[str, ...]


FULL = Size(
    {
        "residual_linear": {},
        "xception_scratch": {"size": 192},
        "clip_linear": {"backbone": "ViT-B-32", "weights": "random"},
    },
    {"train": 1, "valid": 1, "test": 60},
    256,
    ("jpeg-75", "webp-80", "resize-50", "blur-1", "noise-4", "crop-90"),
)
TOY = Size(
    {
        "residual_linear": {},
        "xception_scratch": {"backbone": "test_resnet", "size": 32},
        "clip_linear": {"backbone": "demo-vit-64", "weights": "random"},
    },
    {"train": 1, "valid": 1, "test": 2},
    64,
    ("jpeg-75", "crop-90"),
)


def run(repeats: int, *, toy: bool = False) -> Outcome:
    """Target: 1.15 times N forward passes."""
    size = TOY if toy else FULL
    figures = {}
    with one_core(), threadpool_limits(1), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = noise_manifest(folder, size.counts, size.side)
        rows = manifest.select(TEST, manifest.generators)
        setup = f"{len(size.conditions)} conditions, {len(rows)} test images of {size.side} px; one core"
        say(setup)
        for method, settings in size.methods.items():
            spec = _spec(method, settings, manifest)
            forward, conditions = _sides(spec, manifest, folder / method, size.conditions)
            found = interleave(repeats, {"one forward pass": forward, "all conditions": conditions})
            limit = [seconds * len(size.conditions) for seconds in found["one forward pass"]]
            figures[method] = Measured(
                f"{method}{_in_words(settings)}: scoring under {setup}, over as many forward passes",
                "ratio",
                ratios(found["all conditions"], limit),
                None if method in WITHOUT_TARGET else Target(1.15),
                {"one forward pass of each image, core-s": found["one forward pass"],
                 "all conditions, core-s": found["all conditions"]},
                fewer_because=FEWER,
            )  # fmt: skip
    return Outcome(setup, figures)


def _spec(method: str, settings: dict[str, str | int], manifest: Manifest) -> TrialSpec:
    config = tuple(resolve_config(method, settings).items())
    return TrialSpec(DETECTION, method, config, manifest.generators[:1], 0, manifest.digest)


def _in_words(settings: dict[str, str | int]) -> str:
    return f" ({', '.join(f'{name} {value}' for name, value in settings.items())})" if settings else ""


def _sides(
    spec: TrialSpec, manifest: Manifest, folder: Path, conditions: tuple[str, ...]
) -> tuple[Callable[[], float], Callable[[], float]]:
    """One forward pass of each test image, and scoring under all conditions: core-seconds of each."""
    detector = build(spec, fresh_settings(folder / "build", manifest), "cpu")
    pixels = [decode(path) for path in manifest.paths(manifest.select(TEST, manifest.generators))]
    squares = pixels if detector.geometry is None else detector.squares(pixels)
    _forward(detector, squares[:BATCH])  # warms up
    numbers = count()

    def all_conditions() -> float:
        place = folder / f"grid{next(numbers)}"
        settings = dataclasses.replace(fresh_settings(place, manifest), keep_decoded=(TEST,))
        work = Work(spec, conditions, run_id="fitted before")
        started = time.process_time()
        for inputs in distinct_inputs([work]):
            prepare(inputs, settings)
        for condition in conditions:
            score(spec, detector, settings, threshold=0.0, condition=condition)
        seconds = time.process_time() - started
        shutil.rmtree(place)
        return seconds

    def forward() -> float:
        started = time.process_time()
        _forward(detector, squares)
        return time.process_time() - started

    return forward, all_conditions


def _forward(detector: Detector, squares: list[np.ndarray] | np.ndarray) -> None:
    for start in range(0, len(squares), BATCH):
        part = squares[start : start + BATCH]
        if detector.encoder is None:
            detector.predict(np.asarray(part))
        else:
            detector.encoder.encode(part)
