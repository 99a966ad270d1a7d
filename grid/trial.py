"""One trial: a `TrialSpec` in, a `TrialResult` out. Joins data and models; knows neither a scheduler nor a tracker."""

from __future__ import annotations

import errno
import json
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.manifest import Manifest
from data.store import DISK_FULL, ArrayStore, feature_store, fill_features, fill_pixels, pixel_store
from grid import names
from grid.settings import InfeasibleError, RunSettings
from grid.spec import DETECTION, TrialSpec
from models.detector import BuildContext, Detector, Examples, FitSession, Rows, fake_scores
from models.geometry import Geometry
from models.registry import create_detector
from models.scoring import attribution_metrics, cell_metrics, choose_threshold

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int], None]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrialResult:
    """What a trial leaves behind.

    Attributes:
        metrics: final figures under the names of `grid.names`: `test/<generator>/<metric>`, the validation threshold.
        scores: one row a unique test image: path, digest, source_id, generator, label (0 real, 1 fake), `logit_<class>`
            for each class, and for detection `score` (log-odds of fake).
        embeddings: float16 (N, D), rows as in `scores`.
        tags: facts about how it was computed (device, weights, whether memory ran out).
    """

    metrics: dict[str, float]
    scores: pd.DataFrame
    embeddings: np.ndarray
    tags: dict[str, str] = field(default_factory=dict)


def choose_device(settings: RunSettings, share: float) -> str:
    """The torch device of a trial with this share of a GPU; a share may be of a logical GPU where there is no real one.

    Raises:
        InfeasibleError: "cuda" was asked for, and torch sees no GPU.
    """
    import torch

    available = torch.cuda.is_available()
    if settings.device == "cuda" and not available:
        raise InfeasibleError("--device cuda was asked for but torch sees no GPU; use --device auto or cpu")
    return "cuda" if available and share > 0 and settings.device != "cpu" else "cpu"


def build(spec: TrialSpec, settings: RunSettings, device: str) -> Detector:
    """The spec's detector, unfitted."""
    context = BuildContext(spec.classes, spec.seed, device, settings.weight_files)
    return create_detector(spec.method, dict(spec.config), context)


def shared_store(detector: Detector, settings: RunSettings) -> ArrayStore:
    """Where the decoded pixels or the features that this detector takes are kept for all nodes."""
    return _store(detector, settings.cache)


def _store(detector: Detector, cache: Path) -> ArrayStore:
    if detector.encoder is not None:
        return feature_store(cache, detector.encoder.key, detector.encoder.num_features)
    return pixel_store(cache, _geometry(detector))


def fill_inputs(
    detector: Detector, manifest: Manifest, settings: RunSettings, *, progress: Progress | None = None
) -> None:
    """Decode or encode every image of the data set for the detector, as far as that is not done already.

    Builders that ask for the same share the work.
    """
    store = shared_store(detector, settings)
    workers = max(1, round(settings.cpus_per_trial))
    if detector.encoder is None:
        fill_pixels(store, manifest, manifest.table, _geometry(detector), workers=workers, progress=progress)
    else:
        encode, geometry = detector.encoder.encode, detector.geometry
        fill_features(store, manifest, manifest.table, geometry, encode, batch=32, workers=workers, progress=progress)


@dataclass
class Copied:
    """What a trial has copied to its node's disk so far."""

    bytes: int = 0
    seconds: float = 0.0


def prepare_inputs(
    detector: Detector, manifest: Manifest, rows: pd.DataFrame, settings: RunSettings, *, copied: Copied | None = None
) -> Rows:
    """What the detector takes for the given manifest rows, decoded or encoded once and read back from the store.

    Where some are missing, the whole data set is prepared, because the next trial needs the rest. With
    `settings.local_copies` the rows are read from this node's disk, to which whoever needs them first copies them;
    `copied` counts that. Where that disk is full or may not be written, they are read from the shared store, with a
    warning.
    """
    store = shared_store(detector, settings)
    digests: list[str] = rows["digest"].tolist()

    def fill() -> None:
        if missing := store.missing(digests):
            log.warning("%d images are missing in %s; the trial itself computes them", missing, store.folder)
            fill_inputs(detector, manifest, settings)

    if settings.local_copies is None:
        with suppress(KeyError):
            return store.open(digests)
        fill()
        return store.open(digests)

    copy = _store(detector, settings.local_copies)
    for _ in range(2):  # a shard that turns out to be damaged when it is copied is made again and copied then
        with suppress(KeyError):
            return copy.open(digests)
        fill()
        started = time.perf_counter()
        try:
            num_bytes = copy.copy_from(store, digests)
        except OSError as error:
            if error.errno not in (*DISK_FULL, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
                raise
            log.warning("no local copy: %s; reading from %s (--local-copies names the folder)", error, store.folder)
            return store.open(digests)
        if copied is not None:
            copied.bytes += num_bytes
            copied.seconds += time.perf_counter() - started
    return copy.open(digests)


def _geometry(detector: Detector) -> Geometry:
    if detector.geometry is None:
        raise TypeError("a detector that trains on pixels must name their geometry")
    return detector.geometry


def class_numbers(rows: pd.DataFrame, spec: TrialSpec) -> np.ndarray:
    """int64 (N,): 0 for real; 1 for fake, or the generator's place in `spec.classes` for attribution."""
    if spec.task == DETECTION:
        return rows["label"].to_numpy(np.int64)
    number = {name: place for place, name in enumerate(spec.classes)}
    names_of = np.where(rows["label"] == 0, "real", rows["generator"])
    return np.array([number[name] for name in names_of], dtype=np.int64)


def run_trial(
    spec: TrialSpec,
    settings: RunSettings,
    manifest: Manifest,
    session: FitSession,
    *,
    device: str,
    checkpoint_to: Path,
) -> TrialResult:
    """Train, choose a threshold on the validation split, then score each unique test image once.

    Args:
        spec: what to do.
        settings: with what.
        manifest: of the data set that `spec.data` names.
        session: progress, checkpoints, and the state to go on from.
        device: a torch device string.
        checkpoint_to: an existing empty folder, into which the fitted detector is saved.

    Raises:
        ValueError: the manifest is another data set's, or a split that is needed is empty.
        TrainingDiverged, MemoryExhausted, WeightsError: from the detector.
    """
    started = time.perf_counter()
    if manifest.digest != spec.data:
        raise ValueError(f"the trial is about data set {spec.data}, but the manifest given is {manifest.digest}")
    set_threads(settings)
    detector = build(spec, settings, device)

    copied = Copied()
    train, valid = (manifest.select(split, spec.train_generators) for split in ("train", "valid"))
    train_examples, valid_examples = (
        Examples(prepare_inputs(detector, manifest, rows, settings, copied=copied), class_numbers(rows, spec))
        for rows in (train, valid)
    )
    detector.fit(train_examples, valid_examples, session)
    detector.save(checkpoint_to)

    test = manifest.select("test", manifest.generators)
    prediction = detector.predict(prepare_inputs(detector, manifest, test, settings, copied=copied))
    scores = test[["path", "digest", "source_id", "generator", "label"]].reset_index(drop=True)
    for place, name in enumerate(spec.classes):
        scores[f"logit_{name}"] = prediction.logits[:, place]
    if spec.task == DETECTION:
        scores["score"] = fake_scores(prediction.logits)
        threshold = choose_threshold(valid_examples.labels, fake_scores(detector.predict(valid_examples.inputs).logits))
        metrics = {names.THRESHOLD: threshold} | detection_cells(scores, manifest.generators, threshold)
    else:
        found = attribution_metrics(class_numbers(test, spec), prediction.logits, spec.classes)
        metrics = {names.metric_name(names.ALL, metric): value for metric, value in found.items()}
    if settings.local_copies is not None:
        metrics |= {names.COPY_SECONDS: copied.seconds, names.COPIED_BYTES: float(copied.bytes)}
    metrics[names.SECONDS] = time.perf_counter() - started
    tags = {
        names.DEVICE: device,
        names.WEIGHTS: detector.weights_note,
        names.BATCH_HALVED: str(detector.batch_halved).lower(),
        names.VERSIONS: json.dumps(versions()),
    }
    return TrialResult(metrics, scores, prediction.embeddings.astype(np.float16), tags)


def detection_cells(scores: pd.DataFrame, generators: Sequence[str], threshold: float) -> dict[str, float]:
    """Every test cell of a detection trial from one set of scores.

    A generator's cell holds its fakes, and the real images that are shared or came with it.

    Args:
        scores: columns generator, label, score.
        generators: one cell each.
        threshold: chosen on the validation split.
    """
    cells: dict[str, float] = {}
    for generator in generators:
        reals = (scores["label"] == 0) & scores["generator"].isin(["real", generator])
        cell = scores[reals | ((scores["label"] == 1) & (scores["generator"] == generator))]
        found = cell_metrics(cell["label"].to_numpy(), cell["score"].to_numpy(), threshold)
        cells |= {names.metric_name(generator, metric): value for metric, value in found.items()}
    return cells


def set_threads(settings: RunSettings) -> None:
    """Compute with the cores that the trial was given, at least one, so that trials on one machine divide them.

    Holds for torch, BLAS and OpenMP until the next call. Ray's own limit is one thread for any share below two cores,
    and the first task's for all that a reused worker does later.
    """
    import torch
    from threadpoolctl import threadpool_limits

    num_threads = max(1, round(settings.cpus_per_trial))
    torch.set_num_threads(num_threads)
    threadpool_limits(num_threads)


@cache
def versions() -> dict[str, str]:
    """Versions of what a result may depend on."""
    import platform
    from importlib.metadata import version

    packages = ("torch", "timm", "open_clip_torch", "segment-anything", "scikit-learn", "numpy", "pillow")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
