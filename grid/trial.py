"""One trial: fit a detector and score it. Joins data and models; knows neither Ray nor MLflow."""

from __future__ import annotations

import errno
import json
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from platform import python_version

import numpy as np
import pandas as pd

from data.conditions import CLEAN, Condition, get_condition
from data.manifest import Manifest
from data.masks import ManifestMasks
from data.pictures import Decoded, JoinedRows, PictureRows, Pictures
from data.self_edited import SelfEdited, SelfEditedMasks, Version
from data.store import DISK_FULL, ArrayStore, feature_store, fill_features, fill_pixels, pixel_store
from grid import names
from grid.equal_size import choose
from grid.plan import TEST, TRAIN, VALID, Inputs, splits_of_training
from grid.samples import kept_embeddings
from grid.settings import RunSettings
from grid.spec import TrialSpec
from grid.tasks import get_task
from models.detector import BuildContext, Detector, Examples, FitSession, Rows, fake_scores
from models.geometry import Geometry
from models.metrics import is_at_half
from models.open_set import COLUMN, KnownClasses, fit_known, unknown_scores
from models.registry import create_detector, gives_log_odds, is_small, reads_masks, self_edits, size_check
from models.scoring import choose_threshold

# The packages that a result may depend on.
PACKAGES = ("torch", "timm", "open_clip_torch", "segment-anything", "scikit-learn", "numpy", "pillow")
Progress = Callable[[int, int], None]
SMALL = ", small form"  # after the origin of the weights, in every table that says it

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fitted:
    """A trained detector.

    Attributes:
        detector: the detector.
        threshold: log-odds of fake, chosen on the validation split; None for a task without a threshold.
        metrics: the threshold, under its name in `grid.names`; empty without a threshold.
        tags: names of `grid.names` -> device, weights and whether it is the method's small form, whether the batch was
            halved, versions of packages.
    """

    detector: Detector
    threshold: float | None
    metrics: dict[str, float]
    tags: dict[str, str]


@dataclass(frozen=True)
class Scored:
    """Scores of the test split under a condition.

    Attributes:
        condition: name in `data.conditions`.
        metrics: metrics of every cell, by their names in `grid.names`.
        scores: one row per unique test image: path, digest, source_id, generator, label (0 real, 1 fake), condition,
            one column `logit_<class>` per class, for a binary task `score` (log-odds of fake), and for a task with
            images of no class one column `unknown_<score>` per score of `models.open_set`.
        embeddings: float16 (M, D), the rows of `scores` that `embedded` names.
        embedded: int (M,), rows of `scores` in ascending order; None: all of them.
    """

    condition: str
    metrics: dict[str, float]
    scores: pd.DataFrame
    embeddings: np.ndarray
    embedded: np.ndarray | None = None


def build(spec: TrialSpec, settings: RunSettings, device: str) -> Detector:
    """The spec's detector, not fitted."""
    context = BuildContext(spec.classes, spec.seed, device, settings.weight_files)
    return create_detector(spec.method, dict(spec.config), context)


def restore(spec: TrialSpec, weight_files: dict[str, Path], device: str, checkpoint: Path) -> Detector:
    """The spec's fitted detector, loaded from its checkpoint.

    The checkpoint of a network that was trained in full holds every tensor. A frozen encoder is not in the checkpoint,
    so its weights are loaded from their original source.

    Raises:
        WeightsError: the weights of a frozen encoder cannot be loaded.
        ValueError: the checkpoint is damaged or belongs to another detector; the detector cannot be built.
    """
    context = BuildContext(spec.classes, spec.seed, device, weight_files, restoring=True)
    detector = create_detector(spec.method, dict(spec.config), context)
    detector.load(checkpoint)
    if get_task(spec.task).scores_unknown:
        detector.known = KnownClasses.load(checkpoint / names.KNOWN_CLASSES)
    return detector


# Inputs --------------------------------------------------------------------------------------------------------------


def shared_store(detector: Detector, cache: Path, condition: str | Condition) -> ArrayStore | None:
    """The store of the features or clean squares of pixels that this detector takes; None for other pixels."""
    condition = get_condition(condition) if isinstance(condition, str) else condition
    if detector.encoder is not None:
        return feature_store(cache, detector.encoder.key, detector.encoder.num_features, condition)
    stored = condition.name == CLEAN and detector.geometry is not None
    return pixel_store(cache, _geometry(detector)) if stored else None


def missing_inputs(detector: Detector, manifest: Manifest, settings: RunSettings, inputs: Inputs) -> int:
    """The number of pictures whose pixels or features are not in the store; 0 for inputs that are not stored."""
    pictures = _pictures(manifest, inputs, settings)
    store = shared_store(detector, settings.cache, pictures.condition)
    return store.missing(set(pictures.keys(_rows(manifest, inputs)))) if store else 0


def fill_inputs(
    detector: Detector,
    manifest: Manifest,
    settings: RunSettings,
    inputs: Inputs,
    *,
    progress: Progress | None = None,
) -> None:
    """Decode or encode the pictures that are missing in the store.

    Processes that fill the same store at the same time share the work.
    """
    pictures, rows = _pictures(manifest, inputs, settings), _rows(manifest, inputs)
    store = shared_store(detector, settings.cache, pictures.condition)
    if store is None:
        return
    workers = _threads(settings)
    if detector.encoder is None:
        fill_pixels(store, pictures, rows, _geometry(detector), workers=workers, progress=progress)
    else:
        encoder = detector.encoder
        fill_features(
            store, pictures, rows, detector.geometry, encoder.encode,
            batch=32, at_once=1 if encoder.device == "cpu" else 2, workers=workers,
            size_check=size_check([(inputs.spec.method, dict(inputs.spec.config))]), progress=progress,
        )  # fmt: skip


def prepare_inputs(
    detector: Detector,
    manifest: Manifest,
    rows: pd.DataFrame,
    settings: RunSettings,
    inputs: Inputs,
    *,
    copied: dict[str, float] | None = None,
) -> Rows:
    """The detector's inputs for the given manifest rows, read from the store.

    If some are missing, all of `inputs` are computed first, because the next trial needs the rest. With
    `settings.local_copies` the rows are copied to this node's disk and read there. If that disk is full or read-only,
    they are read from the shared store, with a warning. Bytes and seconds of copying are added to the totals
    `COPIED_BYTES` and `COPY_SECONDS` in `copied`.
    """
    pictures = _pictures(manifest, inputs, settings)
    store = shared_store(detector, settings.cache, pictures.condition)
    source = shared_store(detector, settings.local_copies or settings.cache, pictures.condition)
    if store is None or source is None:
        return PictureRows(pictures, rows, detector.geometry, workers=_threads(settings))
    keys = pictures.keys(rows)
    for _ in range(2):  # the copy of a damaged shard fails; the second round computes the shard again and copies it
        with suppress(KeyError):
            return source.open(keys)
        if missing := store.missing(set(keys)):
            log.warning("%d images are missing in %s; the trial itself computes them", missing, store.folder)
            fill_inputs(detector, manifest, settings, inputs)
        if settings.local_copies is None:
            break
        started = time.perf_counter()
        try:
            num_bytes = source.copy_from(store, keys)
        except OSError as error:
            if error.errno not in (*DISK_FULL, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
                raise
            log.warning("no local copy: %s; reading from %s (--local-copies names the folder)", error, store.folder)
            return store.open(keys)
        if copied is not None:
            copied[names.COPIED_BYTES] += num_bytes
            copied[names.COPY_SECONDS] += time.perf_counter() - started
    return source.open(keys)


def pictures_under(condition: str, manifest: Manifest, settings: RunSettings) -> Pictures:
    """A data set's pictures; where a launch reads them under several conditions, each file is decoded once."""
    return Pictures(manifest, condition, decoded=_decoded(settings))


def _pictures(manifest: Manifest, inputs: Inputs, settings: RunSettings) -> Pictures:
    """The pictures of inputs, self-edited where a recipe says so."""
    if inputs.recipe:
        return _self_edited(manifest, inputs, settings)
    return pictures_under(inputs.condition, manifest, settings)


def _self_edited(manifest: Manifest, inputs: Inputs, settings: RunSettings) -> SelfEdited:
    spec = inputs.spec
    (edits,) = (edits for edits in self_edits(spec.method, dict(spec.config)) if edits.recipe == inputs.recipe)
    return SelfEdited(
        manifest, edits.recipe, seed=spec.seed, versions=edits.versions,
        most={TRAIN: edits.most, VALID: edits.most_valid}, condition=inputs.condition, decoded=_decoded(settings),
    )  # fmt: skip


def edited_versions(
    spec: TrialSpec, manifest: Manifest, settings: RunSettings, split: str, conditions: Sequence[str]
) -> list[tuple[SelfEdited, Version]]:
    """The self-edited versions of a split, and what reads each; empty for a trial that learns from other images.

    Args:
        spec: the trial.
        manifest: of its data set.
        settings: folders.
        split: "train" or "valid".
        conditions: under each of which all versions are there once, in the order of `examples`.
    """
    rows = training_rows(spec, manifest, split)
    parts = [
        _self_edited(manifest, Inputs(spec, condition, (TRAIN, VALID), recipe), settings)
        for recipe in recipes(spec)
        for condition in conditions
    ]
    return [(part, version) for part in parts for version in part.versions(rows)]


def recipes(spec: TrialSpec) -> tuple[str, ...]:
    """The recipes of the self-edited pictures that a trial learns from; empty: it learns from the data set's images."""
    return tuple(edits.recipe for edits in self_edits(spec.method, dict(spec.config)))


def _decoded(settings: RunSettings) -> Decoded | None:
    return Decoded(settings.cache, settings.keep_decoded) if settings.keep_decoded else None


def _rows(manifest: Manifest, inputs: Inputs) -> pd.DataFrame:
    """The manifest's rows of inputs; of self-edited pictures the rows of the photographs."""
    if not inputs.recipe:
        return inputs.rows(manifest)
    return pd.concat([training_rows(inputs.spec, manifest, split) for split in (TRAIN, VALID)])


def training_inputs(
    spec: TrialSpec,
    detector: Detector,
    manifest: Manifest,
    rows: pd.DataFrame,
    settings: RunSettings,
    splits: tuple[str, ...],
    *,
    copied: dict[str, float] | None = None,
) -> Rows:
    """The detector's inputs for these rows under each of the trial's training conditions, one after the other."""
    parts = [
        prepare_inputs(detector, manifest, rows, settings, Inputs(spec, condition, splits), copied=copied)
        for condition in spec.train_conditions
    ]
    return parts[0] if len(parts) == 1 else JoinedRows(parts)


def _geometry(detector: Detector) -> Geometry:
    if detector.geometry is None:
        raise TypeError("a detector that trains on pixels must name their geometry")
    return detector.geometry


def _threads(settings: RunSettings) -> int:
    return max(1, round(settings.cpus_per_trial))


# Fitting and scoring -------------------------------------------------------------------------------------------------


def training_rows(spec: TrialSpec, manifest: Manifest, split: str) -> pd.DataFrame:
    """The manifest's rows that a trial is trained on, or validated on.

    Args:
        spec: the trial.
        manifest: of its data set.
        split: "train" or "valid".

    Raises:
        ValueError: a generator has fewer images than the trial's equal size needs.
    """
    rows = manifest.select(split, spec.train_generators)
    if spec.equal_size is None:
        return rows
    numbers = get_task(spec.task, spec.seed).class_numbers(rows, spec.classes)
    return choose(rows, numbers, spec.equal_size.of(split))


def examples(
    spec: TrialSpec,
    detector: Detector,
    manifest: Manifest,
    settings: RunSettings,
    split: str,
    *,
    copied: dict[str, float] | None = None,
) -> Examples:
    """What a trial is trained on, or validated on: the data set's images, or self-edited versions of real ones.

    Args:
        spec: the trial.
        detector: of `spec`.
        manifest: of its data set.
        settings: folders and cores.
        split: "train" or "valid".
        copied: as in `prepare_inputs`.
    """
    rows, conditions = training_rows(spec, manifest, split), spec.train_conditions
    if not recipes(spec):
        inputs = training_inputs(spec, detector, manifest, rows, settings, splits_of_training(spec), copied=copied)
        labels = get_task(spec.task, spec.seed).class_numbers(rows, spec.classes)
        copies = len(conditions)
        masks = ManifestMasks(manifest, rows, copies=copies) if reads_masks(spec.method, dict(spec.config)) else None
        return Examples(inputs, np.tile(labels, copies), masks)
    everything = [
        Inputs(spec, condition, (TRAIN, VALID), recipe) for recipe in recipes(spec) for condition in conditions
    ]
    parts = [prepare_inputs(detector, manifest, rows, settings, inputs, copied=copied) for inputs in everything]
    pictures = [_self_edited(manifest, inputs, settings) for inputs in everything]
    labels = np.concatenate([part.labels(rows) for part in pictures])
    numbers = [recipes(spec).index(inputs.recipe) for inputs in everything]
    return Examples(
        parts[0] if len(parts) == 1 else JoinedRows(parts),
        labels,
        SelfEditedMasks(pictures, rows),
        np.repeat(numbers, [len(part) for part in parts]),
    )


def fit(
    spec: TrialSpec,
    settings: RunSettings,
    session: FitSession,
    *,
    device: str,
    checkpoint_to: Path,
    copied: dict[str, float] | None = None,
) -> Fitted:
    """Train the detector on a torch device, and choose a threshold on the validation split.

    Args:
        spec: the trial.
        settings: folders, cores and weights files; the manifest of `spec.data` is in `settings.manifests`.
        session: call-backs for progress and checkpoints, and the state to resume from.
        device: a torch device string.
        checkpoint_to: an existing empty folder; the fitted detector is saved there.
        copied: as in `prepare_inputs`.

    Raises:
        ValueError: the training or validation split is empty.
        TrainingDiverged, MemoryExhausted, WeightsError: from the detector.
    """
    set_threads(settings)
    manifest = Manifest.load(settings.manifests / spec.data)
    task, detector = get_task(spec.task, spec.seed), build(spec, settings, device)
    train, valid = (examples(spec, detector, manifest, settings, split, copied=copied) for split in (TRAIN, VALID))
    detector.fit(train, valid, session)
    detector.save(checkpoint_to)
    if task.scores_unknown:
        detector.known = fit_known(detector, train, valid)
        detector.known.save(checkpoint_to / names.KNOWN_CLASSES)
    threshold, metrics = None, dict[str, float]()
    if task.is_binary:
        threshold = detector.threshold
        if threshold is None:
            threshold = choose_threshold(valid.labels, fake_scores(detector.predict(valid.inputs).logits))
        metrics[names.THRESHOLD] = threshold
    tags = {
        names.DEVICE: device,
        names.WEIGHTS: detector.weights_note + (SMALL if is_small(spec.method, dict(spec.config)) else ""),
        names.BATCH_HALVED: str(detector.batch_halved).lower(),
        names.VERSIONS: versions(),
    }
    return Fitted(detector, threshold, metrics, tags)


def score(
    spec: TrialSpec,
    detector: Detector,
    settings: RunSettings,
    *,
    threshold: float | None,
    condition: str = CLEAN,
    copied: dict[str, float] | None = None,
) -> Scored:
    """Score each unique test image once under a condition, and compute the metrics of every cell from the scores.

    Args:
        spec: the trial.
        detector: fitted for `spec`.
        settings: folders and cores; the manifest of `spec.data` is in `settings.manifests`.
        threshold: log-odds of fake, from the validation split; None for a task without a threshold.
        condition: name in `data.conditions`.
        copied: as in `prepare_inputs`.

    Raises:
        ValueError: a cell has no image of a class.
        MemoryExhausted: from the detector.
    """
    set_threads(settings)
    task, manifest = get_task(spec.task, spec.seed), Manifest.load(settings.manifests / spec.data)
    rows = manifest.select(TEST, manifest.generators)
    inputs = Inputs(spec, condition, () if condition == CLEAN else (TEST,))
    prediction = detector.predict(prepare_inputs(detector, manifest, rows, settings, inputs, copied=copied))
    scores = rows[["path", "digest", "source_id", "generator", "label"]].reset_index(drop=True)
    scores["condition"] = condition
    for index, name in enumerate(spec.classes):
        scores[f"logit_{name}"] = prediction.logits[:, index]
    if task.is_binary:
        scores["score"] = fake_scores(prediction.logits)
    if task.scores_unknown:
        if detector.known is None:
            raise ValueError(f"a detector of the task {task.name} must know what its classes are like")
        for name, values in unknown_scores(prediction.logits, prediction.embeddings, detector.known).items():
            scores[COLUMN + name] = values
    measured = task.measure(scores, prediction.logits, spec.classes, threshold)
    metrics = {
        names.metric_name(tested_on, metric, condition): value
        for tested_on, values in measured.items()
        for metric, value in values.items()
        if gives_log_odds(spec.method) or not is_at_half(metric)
    }
    embedded = kept_embeddings(scores, task)
    kept = prediction.embeddings if embedded is None else prediction.embeddings[embedded]
    return Scored(condition, metrics, scores, kept.astype(np.float16), embedded)


def versions() -> str:
    """Versions of Python and of the packages that a result may depend on, as JSON."""
    return json.dumps({"python": python_version()} | {name: version(name) for name in PACKAGES})


def set_threads(settings: RunSettings) -> None:
    """Use as many threads as the trial has cores, at least one, so that trials on one machine share its cores.

    Applies to torch, BLAS and OpenMP until the next call. Ray sets a limit of its own: one thread for any share below
    two cores, and in a reused worker the limit of its first task.
    """
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(_threads(settings))
    threadpool_limits(_threads(settings))
