"""One trial: fit a detector, score it. Joins data and models; knows neither a scheduler nor a tracker."""

from __future__ import annotations

import errno
import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.conditions import CLEAN, get_condition
from data.manifest import Manifest
from data.pictures import PictureRows, Pictures
from data.store import DISK_FULL, ArrayStore, feature_store, fill_features, fill_pixels, pixel_store
from grid import names
from grid.plan import TEST, TRAIN, VALID, Inputs
from grid.settings import InfeasibleError, RunSettings
from grid.spec import TrialSpec
from grid.tasks import get_task
from models.detector import BuildContext, Detector, Examples, FitSession, Rows, fake_scores
from models.geometry import Geometry
from models.registry import create_detector
from models.scoring import choose_threshold

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int], None]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fitted:
    """A detector that was trained.

    Attributes:
        detector: it.
        threshold: log-odds of fake, chosen on the validation split; None for a task without one.
        metrics: the threshold, under the name of `grid.names`.
        tags: facts about how it was computed: device, weights, whether memory ran out.
    """

    detector: Detector
    threshold: float | None
    metrics: dict[str, float]
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Scored:
    """What a detector makes of the test split under a condition.

    Attributes:
        condition: name in `data.conditions`.
        metrics: of every cell, under the names of `grid.names`.
        scores: one row per unique test image: path, digest, source_id, generator, label (0 real, 1 fake), condition,
            `logit_<class>` for each class, and for a binary task `score` (log-odds of fake).
        embeddings: float16 (N, D), rows as in `scores`.
    """

    condition: str
    metrics: dict[str, float]
    scores: pd.DataFrame
    embeddings: np.ndarray


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


def restore(spec: TrialSpec, weight_files: dict[str, Path], device: str, checkpoint: Path) -> Detector:
    """The spec's detector as it was fitted.

    A network of which everything trained needs no pretrained weights again: its checkpoint holds every tensor. A frozen
    encoder is not in the checkpoint, so its weights must be had again, from where the trial had them.

    Raises:
        WeightsError: the weights of a frozen encoder cannot be had.
        ValueError: the checkpoint is damaged, or another detector's; the detector cannot be built.
    """
    context = BuildContext(spec.classes, spec.seed, device, weight_files, restoring=True)
    detector = create_detector(spec.method, dict(spec.config), context)
    detector.load(checkpoint)
    return detector


# Inputs --------------------------------------------------------------------------------------------------------------


def is_stored(detector: Detector, condition: str) -> bool:
    """Whether inputs are kept on disk: features always, pixels of clean pictures alone."""
    return detector.encoder is not None or condition == CLEAN


def shared_store(detector: Detector, cache: Path, condition: str) -> ArrayStore:
    """Where the decoded pixels or the features that this detector takes are kept."""
    if detector.encoder is not None:
        return feature_store(cache, detector.encoder.key, detector.encoder.num_features, get_condition(condition))
    return pixel_store(cache, _geometry(detector))


def missing_inputs(detector: Detector, manifest: Manifest, settings: RunSettings, inputs: Inputs) -> int:
    """How many pictures are neither decoded nor encoded yet."""
    if not is_stored(detector, inputs.condition):
        return 0
    keys = Pictures(manifest, inputs.condition).keys(inputs.rows(manifest))
    return shared_store(detector, settings.cache, inputs.condition).missing(keys)


def fill_inputs(
    detector: Detector,
    manifest: Manifest,
    settings: RunSettings,
    inputs: Inputs,
    *,
    progress: Progress | None = None,
) -> None:
    """Decode or encode these pictures for the detector, as far as that is not done already.

    Builders that ask for the same share the work.
    """
    if not is_stored(detector, inputs.condition):
        return
    store = shared_store(detector, settings.cache, inputs.condition)
    pictures, rows = Pictures(manifest, inputs.condition), inputs.rows(manifest)
    workers = _threads(settings)
    if detector.encoder is None:
        fill_pixels(store, pictures, rows, _geometry(detector), workers=workers, progress=progress)
    else:
        encode, geometry = detector.encoder.encode, detector.geometry
        fill_features(store, pictures, rows, geometry, encode, batch=32, workers=workers, progress=progress)


@dataclass
class Copied:
    """What a trial has copied to its node's disk so far."""

    bytes: int = 0
    seconds: float = 0.0


def prepare_inputs(
    detector: Detector,
    manifest: Manifest,
    rows: pd.DataFrame,
    settings: RunSettings,
    inputs: Inputs,
    *,
    copied: Copied | None = None,
) -> Rows:
    """What the detector takes for the given manifest rows, decoded or encoded once and read back from the store.

    Where some are missing, all of `inputs` are prepared, because the next trial needs the rest. With
    `settings.local_copies` the rows are read from this node's disk, to which whoever needs them first copies them;
    `copied` counts that. Where that disk is full or may not be written, they are read from the shared store, with a
    warning.
    """
    pictures = Pictures(manifest, inputs.condition)
    if not is_stored(detector, inputs.condition):
        return PictureRows(pictures, rows, _geometry(detector), workers=_threads(settings))
    store = shared_store(detector, settings.cache, inputs.condition)
    keys = pictures.keys(rows)

    def fill() -> None:
        if missing := store.missing(keys):
            log.warning("%d images are missing in %s; the trial itself computes them", missing, store.folder)
            fill_inputs(detector, manifest, settings, inputs)

    if settings.local_copies is None:
        with suppress(KeyError):
            return store.open(keys)
        fill()
        return store.open(keys)

    copy = shared_store(detector, settings.local_copies, inputs.condition)
    for _ in range(2):  # a shard that turns out to be damaged when it is copied is made again and copied then
        with suppress(KeyError):
            return copy.open(keys)
        fill()
        started = time.perf_counter()
        try:
            num_bytes = copy.copy_from(store, keys)
        except OSError as error:
            if error.errno not in (*DISK_FULL, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
                raise
            log.warning("no local copy: %s; reading from %s (--local-copies names the folder)", error, store.folder)
            return store.open(keys)
        if copied is not None:
            copied.bytes += num_bytes
            copied.seconds += time.perf_counter() - started
    return copy.open(keys)


def _geometry(detector: Detector) -> Geometry:
    if detector.geometry is None:
        raise TypeError("a detector that trains on pixels must name their geometry")
    return detector.geometry


def _threads(settings: RunSettings) -> int:
    return max(1, round(settings.cpus_per_trial))


# Fitting and scoring -------------------------------------------------------------------------------------------------


def check_data(spec: TrialSpec, manifest: Manifest) -> None:
    """Raise `ValueError` where the manifest is another data set's."""
    if manifest.digest != spec.data:
        raise ValueError(f"the trial is about data set {spec.data}, but the manifest given is {manifest.digest}")


def fit(
    spec: TrialSpec,
    settings: RunSettings,
    manifest: Manifest,
    session: FitSession,
    *,
    device: str,
    checkpoint_to: Path,
    copied: Copied | None = None,
) -> Fitted:
    """Train, and choose a threshold on the validation split.

    Args:
        spec: what to do.
        settings: with what.
        manifest: of the data set that `spec.data` names.
        session: progress, checkpoints, and the state to go on from.
        device: a torch device string.
        checkpoint_to: an existing empty folder, into which the fitted detector is saved.
        copied: counts what is copied to this node's disk.

    Raises:
        ValueError: the manifest is another data set's, or a split that is needed is empty.
        TrainingDiverged, MemoryExhausted, WeightsError: from the detector.
    """
    check_data(spec, manifest)
    set_threads(settings)
    task, detector = get_task(spec.task), build(spec, settings, device)
    whole = (TRAIN, VALID) if spec.train_condition != CLEAN else ()
    inputs = Inputs(spec, spec.train_condition, whole)
    train, valid = (
        Examples(
            prepare_inputs(detector, manifest, rows, settings, inputs, copied=copied),
            task.class_numbers(rows, spec.classes),
        )
        for rows in (manifest.select(split, spec.train_generators) for split in (TRAIN, VALID))
    )
    detector.fit(train, valid, session)
    detector.save(checkpoint_to)
    threshold, metrics = None, dict[str, float]()
    if task.is_binary:
        threshold = detector.threshold
        if threshold is None:
            threshold = choose_threshold(valid.labels, fake_scores(detector.predict(valid.inputs).logits))
        metrics[names.THRESHOLD] = threshold
    tags = {
        names.DEVICE: device,
        names.WEIGHTS: detector.weights_note,
        names.BATCH_HALVED: str(detector.batch_halved).lower(),
        names.VERSIONS: json.dumps(versions()),
    }
    return Fitted(detector, threshold, metrics, tags)


def score(
    spec: TrialSpec,
    detector: Detector,
    settings: RunSettings,
    manifest: Manifest,
    *,
    threshold: float | None,
    condition: str = CLEAN,
    copied: Copied | None = None,
) -> Scored:
    """Score each unique test image once under a condition; every cell is made from these scores.

    Args:
        spec: what the detector was fitted for.
        detector: fitted.
        settings: with what.
        manifest: of the data set that `spec.data` names.
        threshold: log-odds of fake, from the validation split; None for a task without one.
        condition: name in `data.conditions`.
        copied: as in `fit`.

    Raises:
        ValueError: the manifest is another data set's, or a cell lacks a class.
        MemoryExhausted: from the detector.
    """
    check_data(spec, manifest)
    set_threads(settings)
    task = get_task(spec.task)
    rows = manifest.select(TEST, manifest.generators)
    inputs = Inputs(spec, condition, () if condition == CLEAN else (TEST,))
    prediction = detector.predict(prepare_inputs(detector, manifest, rows, settings, inputs, copied=copied))
    scores = rows[["path", "digest", "source_id", "generator", "label"]].reset_index(drop=True)
    scores["condition"] = condition
    for position, name in enumerate(spec.classes):
        scores[f"logit_{name}"] = prediction.logits[:, position]
    if task.is_binary:
        scores["score"] = fake_scores(prediction.logits)
    measured = task.measure(scores, prediction.logits, spec.classes, threshold)
    metrics = {
        names.metric_name(tested_on, metric, condition): value
        for tested_on, values in measured.items()
        for metric, value in values.items()
    }
    return Scored(condition, metrics, scores, prediction.embeddings.astype(np.float16))


def set_threads(settings: RunSettings) -> None:
    """Compute with the cores that the trial was given, at least one, so that trials on one machine divide them.

    Holds for torch, BLAS and OpenMP until the next call. Ray's own limit is one thread for any share below two cores,
    and the first task's for all that a reused worker does later.
    """
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(_threads(settings))
    threadpool_limits(_threads(settings))


@cache
def versions() -> dict[str, str]:
    """Versions of what a result may depend on."""
    import platform
    from importlib.metadata import version

    packages = ("torch", "timm", "open_clip_torch", "segment-anything", "scikit-learn", "numpy", "pillow")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
