"""Peak memory of one trial, and of a node with several, as the data set grows; each trial in a process of its own.

The images are random rows of a store at a small side, so that it is the number of images that shows and not their
pixels; the manifest speaks of files that are nowhere, which a trial with a full store never opens. `trained` is a small
network that trains on pixels, `probe` a linear classifier on the demo encoder's (random) features. Peak resident memory
counts pages of the store that are mapped in, which the kernel takes back when it needs them; the part that is the
process's own is shown beside it. A node's memory is that of two trained trials at once, pages that they share counted
once (the kernel's "proportional set size"), looked at every few milliseconds.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
from pydantic import TypeAdapter

from benchmarks.grids import GENERATORS, compute, fill_with_noise, fresh_settings, paper_manifest
from benchmarks.measure import (
    AnonymousPeak,
    Measured,
    Outcome,
    Target,
    column,
    in_new_process,
    interleave,
    peak_resident,
    ratios,
    timed,
)
from data.conditions import CLEAN, get_condition
from data.pictures import Pictures
from data.store import feature_store
from grid.settings import RunSettings
from grid.spec import Scalar, TrialSpec
from grid.tasks import DETECTION
from grid.trial import build, shared_store
from models.registry import detector_info, resolve_config
from models.residuals import NUM_FEATURES, ResidualEncoder

METHODS: dict[str, tuple[str, Mapping[str, Scalar]]] = {
    "trained": ("xception_scratch", {"backbone": "test_resnet", "size": 16, "batch_size": 128}),
    "probe": ("clip_linear", detector_info("clip_linear").small),
}
FLAT = 1.10


@dataclass(frozen=True)
class Size:
    """Images in the data sets that are compared, from the smallest, and in the data sets for the probe."""

    trained: tuple[int, ...] = (1_000, 10_000, 100_000)
    probe: tuple[int, ...] = (10_000, 100_000)


TOY = Size((50, 100, 200), (100, 200))


def run(repeats: int, *, toy: bool = False) -> Outcome:
    """Target: the peak at the largest size is at most 1.10 times that at a tenth of it."""
    size = TOY if toy else Size()
    with tempfile.TemporaryDirectory() as name:
        cases = [(kind, num) for kind in METHODS for num in getattr(size, kind)]
        prepared = {(kind, num): stored(Path(name) / f"{kind}{num}", kind, num) for kind, num in cases}

        def trial(kind: str, num: int) -> dict[str, float]:
            arguments = prepared[kind, num]
            found: dict[str, float] = in_new_process("benchmarks.memory", "measured_trial", arguments, threads=1)
            return found

        sides = {f"{kind} {num:,}": partial(trial, kind, num) for kind, num in cases}
        _, *compared = size.trained
        for num in compared:
            sides[f"node {num:,}"] = partial(two_at_once, prepared["trained", num])
        found = interleave(repeats, sides)

    def each(kind: str, num: int, what: str) -> list[float]:
        return column(found[f"{kind} {num:,}"], what)

    figures = {}
    for kind, (method, config) in METHODS.items():
        *_, small, large = getattr(size, kind)
        peaks = {num: each(kind, num, "peak_gb") for num in getattr(size, kind)}
        own = {num: each(kind, num, "own_gb") for num in getattr(size, kind)}
        parts = {f"peak at {num:,} images, GB": values for num, values in peaks.items()}
        parts |= {f"of that its own at {num:,} images, GB": values for num, values in own.items()}
        figures[kind] = Measured(
            f"peak memory of a trial of {method} ({config['backbone']}) with {large:,} images over {small:,}",
            "ratio",
            ratios(peaks[large], peaks[small]),
            Target(FLAT),
            parts,
        )
        seconds = {num: each(kind, num, "seconds") for num in getattr(size, kind)}
        figures[f"{kind} time"] = Measured(
            f"seconds of that trial for each image, {large:,} images over {small:,}",
            "ratio",
            [ratio * small / large for ratio in ratios(seconds[large], seconds[small])],
            parts={f"trial with {num:,} images, s": values for num, values in seconds.items()},
        )
    small, large = compared
    on_node = {num: each("node", num, "peak_gb") for num in compared}
    figures["node"] = Measured(
        f"peak memory of a node with two trained trials at once, with {large:,} images over {small:,}",
        "ratio",
        ratios(on_node[large], on_node[small]),
        Target(FLAT),
        {f"peak at {num:,} images, GB": values for num, values in on_node.items()},
    )
    return Outcome("rows of random pixels (16 px) or features (128); one generator trained on; one thread", figures)


def stored(folder: Path, kind: str, num_images: int) -> dict[str, str]:
    """A data set with its store filled: the arguments of `measured_trial`."""
    method, overrides = METHODS[kind]
    manifest = paper_manifest(folder, num_images)
    settings = fresh_settings(folder, manifest)
    config = tuple(resolve_config(method, overrides).items())
    spec = TrialSpec(DETECTION, method, config, GENERATORS[:1], 0, manifest.digest)
    store = shared_store(build(spec, settings, "cpu"), settings.cache, CLEAN)
    assert store is not None
    # What pictures of the data set are like is learned from these, too.
    residuals = feature_store(settings.cache, ResidualEncoder.key, NUM_FEATURES, get_condition(CLEAN))
    for shared in (store, residuals):
        fill_with_noise(shared, Pictures(manifest).keys(manifest.table), batch=1024)
    return {"spec": json.dumps(spec.to_dict()), "settings": TypeAdapter(RunSettings).dump_json(settings).decode()}


def two_at_once(arguments: dict[str, str]) -> dict[str, float]:
    """The most memory that two processes with the trial take together, in GB."""
    with ThreadPoolExecutor(2) as pool:
        trials = [
            pool.submit(in_new_process, "benchmarks.memory", "measured_trial", arguments, threads=1) for _ in range(2)
        ]
        peak = 0.0
        while not all(trial.done() for trial in trials):
            peak = max(peak, sum(map(_proportional, psutil.Process().children(recursive=True))))
            time.sleep(0.02)
        for trial in trials:
            trial.result()
    return {"peak_gb": peak / 1e9}


def _proportional(process: psutil.Process) -> float:
    try:
        return float(process.memory_full_info().pss)
    except psutil.Error:  # ended meanwhile
        return 0.0


def measured_trial(spec: str, settings: str) -> dict[str, float]:
    """The trial as a worker computes it, manifest and all: seconds after the imports, and memory in GB."""
    run_settings = TypeAdapter(RunSettings).validate_json(settings)
    trial = TrialSpec.from_dict(json.loads(spec))
    build(trial, run_settings, "cpu")  # imports what it needs; a worker does that once
    with AnonymousPeak() as own:
        seconds = timed(lambda: compute(trial, run_settings))
    return {"peak_gb": peak_resident() / 1e9, "own_gb": own.bytes / 1e9, "seconds": seconds}
