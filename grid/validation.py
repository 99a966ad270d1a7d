"""What a fitted detector makes of the validation images: scores, a temperature, and what pictures it knows."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.conditions import get_condition
from data.manifest import Manifest
from data.pictures import ConditionError, FileError
from data.store import feature_store, fill_features
from grid import names
from grid.plan import LOOK, TRAIN, VALID, look_rows
from grid.settings import RunSettings
from grid.spec import TrialSpec
from grid.tasks import get_task
from grid.trial import edited_versions, examples, pictures_under, recipes, set_threads, training_inputs, training_rows
from models.calibration import Temperature, fit_temperature
from models.detector import Detector, fake_scores
from models.novelty import Novelty, fit_novelty
from models.registry import gives_log_odds
from models.residuals import MIN_SIDE, NUM_FEATURES, ResidualEncoder
from models.scoring import cell_metrics

FEW_EDITS = 100  # self-edited validation pictures below which a run notes that its threshold rests on few

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Validated:
    """What a run keeps of its validation images.

    Attributes:
        metrics: by their names in `grid.names`: AUROC per generator, and the temperature with its calibration errors.
        scores: one row per validation image of every generator: path, digest, source_id, generator, label,
            condition, and score (log-odds of fake).
        temperature: from the validation images of the trial's own training set, or from self-edited ones where the
            method learns from these; None if those have no fakes, or the score is no log-odds.
        looks: name in `names.LOOKS` -> what pictures of the data set are like, by that look.
        notes: why a look or the temperature is missing or uncertain, in words.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    scores: pd.DataFrame | None = None
    temperature: Temperature | None = None
    looks: Mapping[str, Novelty] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Write the artifacts below a folder, under their names in `grid.names`."""
        (folder / names.VALIDATION_FOLDER).mkdir()
        if self.scores is not None:
            self.scores.to_parquet(folder / names.VALIDATION_SCORES, index=False)
        for name, look in self.looks.items():
            look.save(folder / names.novelty_artifact(name))
        (folder / names.CALIBRATION).write_text(json.dumps(self._facts(), indent=2), encoding="utf-8")

    def _facts(self) -> dict[str, Any]:
        return {
            "temperature": None if self.temperature is None else dataclasses.asdict(self.temperature),
            "looks": {name: {"limit": look.limit, **look.facts} for name, look in self.looks.items()},
            "notes": list(self.notes),
        }


def validate(
    spec: TrialSpec,
    detector: Detector,
    settings: RunSettings,
    *,
    copied: dict[str, float] | None = None,
) -> Validated:
    """Score the validation images of every generator, whatever the detector was trained on.

    The pictures are under the trial's training condition, or once under each of them. With the AUROCs, detectors of
    different training sets can be compared without the test split. What pictures of the data set are like is learned
    from training images of all generators, and its limits from their validation images: a generator that the detector
    has not seen is no other kind of picture.

    Args:
        spec: the trial, of a binary task.
        detector: fitted for `spec`.
        settings: folders and cores; the manifest of `spec.data` is in `settings.manifests`.
        copied: as in `prepare_inputs`.

    Raises:
        MemoryExhausted: from the detector.
    """
    set_threads(settings)
    task, manifest = get_task(spec.task, spec.seed), Manifest.load(settings.manifests / spec.data)
    rows = manifest.select(VALID, manifest.generators)
    splits = (VALID, LOOK)
    train = look_rows(manifest.table, TRAIN)
    validated, known = (
        detector.predict(training_inputs(spec, detector, manifest, part, settings, splits, copied=copied))
        for part in (rows, train)
    )
    rows = pd.concat([rows.assign(condition=condition) for condition in spec.train_conditions])
    scores = rows[["path", "digest", "source_id", "generator", "label", "condition"]].reset_index(drop=True)
    scores["score"] = fake_scores(validated.logits)
    numbers, metrics = task.class_numbers(rows, spec.classes), dict[str, float]()
    for generator, cell in task.cells(rows, spec.classes).items():
        if len(set(numbers[cell])) == 2:
            values = cell_metrics(numbers[cell], scores["score"].to_numpy()[cell], 0.0)
            metrics[names.validation_metric(generator)] = values["auroc"]
    if not gives_log_odds(spec.method):
        temperature, notes = None, [f"no temperature: the score of {spec.method} is no log-odds"]
    elif recipes(spec):
        own = examples(spec, detector, manifest, settings, VALID, copied=copied)
        versions = edited_versions(spec, manifest, settings, VALID, spec.train_conditions[:1])
        distinct = len({version.key for _, version in versions})  # a real version may be there several times
        scored = fake_scores(detector.predict(own.inputs).logits)
        temperature, notes = fit_temperature(own.labels, scored, num_images=distinct), []
        if (edits := sum(version.edited for _, version in versions)) < FEW_EDITS:
            photographs = len({version.image.digest for _, version in versions})
            notes.append(
                f"the threshold and the temperature rest on {edits} edits of {photographs} validation photographs, "
                f"fewer than {FEW_EDITS}: they may lie far from the best ones"
            )
    else:
        temperature, notes = _temperature(spec, manifest, rows, scores["score"].to_numpy(), numbers)
    if temperature is not None:
        metrics |= {
            names.TEMPERATURE: temperature.value,
            names.ECE_BEFORE: temperature.ece_before,
            names.ECE_AFTER: temperature.ece_after,
        }
    valid = rows.index.isin(look_rows(manifest.table, VALID).index)
    looks = dict[str, Novelty]()
    found = list(_looks(spec, detector, manifest, settings, known.embeddings, validated.embeddings[valid]))
    num_looks = sum(not isinstance(embeddings, str) for _, embeddings in found)
    for name, embeddings in found:
        if isinstance(embeddings, str):
            notes.append(f"{name}: {embeddings}")
            continue
        try:
            looks[name] = fit_novelty(
                *embeddings,
                rows["source_id"].to_numpy()[valid],
                num_looks=num_looks,
                num_images=rows.index[valid].nunique(),
            )
        except ValueError as error:
            notes.append(f"{name}: {error}")
    return Validated(metrics, scores, temperature, looks, tuple(notes))


def _temperature(
    spec: TrialSpec, manifest: Manifest, rows: pd.DataFrame, scores: np.ndarray, numbers: np.ndarray
) -> tuple[Temperature | None, list[str]]:
    own = rows.index.isin(training_rows(spec, manifest, VALID).index)
    if len(set(numbers[own])) < 2:
        return None, ["no temperature: the trial's own validation images have no fakes"]
    num_images = int(own.sum()) // len(spec.train_conditions)  # each picture is scored under each condition
    return fit_temperature(numbers[own], scores[own], num_images=num_images), []


def _looks(
    spec: TrialSpec, detector: Detector, manifest: Manifest, settings: RunSettings, train: np.ndarray, valid: np.ndarray
) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray] | str]]:
    """Each look's (training embeddings, validation embeddings), or why it has none, in words."""
    yield names.OWN_LOOK, (train, valid)
    if isinstance(detector.encoder, ResidualEncoder):
        return  # the same statistics
    rows = [look_rows(manifest.table, split) for split in (TRAIN, VALID)]
    smallest = int(pd.concat(rows)[["width", "height"]].to_numpy().min())
    if smallest < MIN_SIDE:
        yield names.RESIDUAL_LOOK, f"a picture has a side of {smallest} pixels, and {MIN_SIDE} are needed"
        return
    try:
        parts = [_residuals(manifest, rows, settings, condition) for condition in spec.train_conditions]
        of_train, of_valid = (np.concatenate(of_split) for of_split in zip(*parts, strict=True))
    except (ConditionError, FileError) as error:  # a trial whose features are stored needs no pictures otherwise
        log.warning("pictures cannot be compared by their residuals with the training images: %s", error)
        yield names.RESIDUAL_LOOK, str(error)
    else:
        yield names.RESIDUAL_LOOK, (of_train, of_valid)


def _residuals(manifest: Manifest, rows: list[pd.DataFrame], settings: RunSettings, condition: str) -> list[np.ndarray]:
    """Residual statistics of the pictures of each frame, from the store of features that all trials share."""
    encoder = ResidualEncoder()
    store = feature_store(settings.cache, encoder.key, NUM_FEATURES, get_condition(condition))
    pictures = pictures_under(condition, manifest, settings)
    workers = max(1, round(settings.cpus_per_trial))
    fill_features(
        store, pictures, pd.concat(rows), None, encoder.encode, batch=32, workers=workers,
        size_check=lambda width, height: "" if min(width, height) >= MIN_SIDE else f"{MIN_SIDE} are needed",
    )  # fmt: skip
    return [store.open(pictures.keys(part))[np.arange(len(part))] for part in rows]
