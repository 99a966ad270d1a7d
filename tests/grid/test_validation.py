"""Every trial scores the validation images of all generators, finished ones from their checkpoints."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from data.images import decode
from grid import names, runner
from grid.plan import TRAIN, VALID, Work
from grid.runner import DONE, FAILED
from grid.spec import TrialSpec
from grid.trial import restore
from grid.validation import Validated
from models.calibration import fit_temperature
from models.detector import fake_scores
from models.novelty import Novelty
from models.residuals import ResidualEncoder
from tests.grid.running import Calls, Grid, MakeGrid


def made_older(grid: Grid, spec: TrialSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finish a trial as before there were such values."""
    with monkeypatch.context() as patched:
        patched.setattr(runner, "validate", lambda *arguments, **named: Validated())
        grid.launch(spec)
    for tag in (names.VALIDATED, names.CALIBRATED):
        grid.tracker.client.delete_tag(grid.run_of(spec).info.run_id, tag)
    shutil.rmtree(grid.settings.runs / "artifacts" / grid.run_of(spec).info.run_id / "artifacts" / "validation")
    assert not validation(grid, spec)


def validation(grid: Grid, spec: TrialSpec) -> dict[str, float]:
    metrics = grid.run_of(spec).data.metrics
    return {name: value for name, value in metrics.items() if name.startswith("valid.")}


def by_hand(grid: Grid, spec: TrialSpec, folder: Path) -> dict[str, float]:
    """From the validation pictures themselves and the run's checkpoint."""
    checkpoint = grid.artifact(spec, names.CHECKPOINT, folder / "run")
    detector = restore(spec, {}, "cpu", checkpoint)
    values = {}
    for generator in grid.manifest.generators:
        rows = grid.manifest.select(VALID, [generator])
        images = [decode(path) for path in grid.manifest.paths(rows)]
        scores = fake_scores(detector.predict(detector.inputs(images)).logits)
        values[f"valid.{generator}/auroc"] = roc_auc_score(rows["label"], scores)
    return values


@pytest.mark.parametrize("method", ["residual_linear", "xception_scratch"])
def test_a_new_trial_has_the_values_of_generators_that_it_was_not_trained_on(
    make_grid: MakeGrid, method: str, tmp_path: Path
) -> None:
    grid = make_grid()
    spec = grid.spec(method, **({"epochs": 1} if method == "xception_scratch" else {}))
    assert len(spec.train_generators) == 1
    grid.launch(spec)
    assert set(validation(grid, spec)) == {f"valid.{name}/auroc" for name in grid.manifest.generators}
    assert validation(grid, spec) == pytest.approx(by_hand(grid, spec, tmp_path), abs=1e-6)
    assert grid.plan(spec).pending == ()


def test_a_finished_trial_of_an_older_checkout_gets_the_same_values_without_training(
    make_grid: MakeGrid, monkeypatch: pytest.MonkeyPatch, calls: Calls
) -> None:
    grid, fresh = make_grid(), make_grid("fresh")
    spec = grid.spec()
    made_older(grid, spec, monkeypatch)
    before = grid.run_of(spec)
    (left,) = grid.plan(spec).pending
    assert left == Work(spec, (), before.info.run_id, validates=True)
    calls.fits.clear()
    calls.predicted.clear()
    grid.launch(spec)
    assert calls.fits == []
    assert calls.predicted == [len(grid.manifest.select(split, grid.manifest.generators)) for split in (VALID, TRAIN)]
    assert grid.plan(spec).pending == ()
    after = grid.run_of(spec)
    assert after.info.run_id == before.info.run_id
    assert after.data.metrics.items() >= before.data.metrics.items()
    fresh.launch(spec)
    assert validation(grid, spec) == validation(fresh, spec)
    kept = {name: digest for name, digest in fresh.artifacts(spec).items() if name.startswith("validation/")}
    assert set(kept) == {
        "validation/calibration.json",
        "validation/novelty-embeddings.npz",
        "validation/scores.parquet",
    }
    assert {name: digest for name, digest in grid.artifacts(spec).items() if name in kept} == kept
    assert after.data.tags[names.CALIBRATED] == "true"


def test_a_run_keeps_its_validation_scores_a_temperature_and_both_looks(make_grid: MakeGrid, tmp_path: Path) -> None:
    grid = make_grid()
    spec = grid.spec("xception_scratch", epochs=1)
    grid.launch(spec)
    folder = grid.artifact(spec, names.VALIDATION_FOLDER, tmp_path / "run")
    scores = pd.read_parquet(folder / "scores.parquet")
    rows = grid.manifest.select(VALID, grid.manifest.generators)
    assert scores["path"].tolist() == rows["path"].tolist()
    for generator in grid.manifest.generators:
        cell = scores[(scores["label"] == 0) | (scores["generator"] == generator)]
        logged = validation(grid, spec)[f"valid.{generator}/auroc"]
        assert roc_auc_score(cell["label"], cell["score"]) == pytest.approx(logged, abs=1e-6)
    facts = json.loads((folder / "calibration.json").read_text())
    own = scores[(scores["label"] == 0) | scores["generator"].isin(spec.train_generators)]
    fitted = fit_temperature(own["label"].to_numpy(), own["score"].to_numpy())
    assert facts["temperature"] == pytest.approx(dataclasses.asdict(fitted))
    metrics = grid.run_of(spec).data.metrics
    assert metrics[names.TEMPERATURE] == pytest.approx(fitted.value)
    assert metrics[names.ECE_AFTER] <= metrics[names.ECE_BEFORE]
    assert set(facts["looks"]) == {"embeddings", "residuals"}
    train = [decode(path) for path in grid.manifest.paths(grid.manifest.select(TRAIN, grid.manifest.generators))]
    residuals = Novelty.load(folder / "novelty-residuals.npz")
    np.testing.assert_allclose(residuals.mean, ResidualEncoder().encode(train).mean(axis=0), rtol=1e-4, atol=1e-6)
    assert residuals.facts["num_train"] == len(train)


def test_a_picture_under_several_training_conditions_counts_once(make_grid: MakeGrid, tmp_path: Path) -> None:
    grid = make_grid()
    spec = dataclasses.replace(grid.spec(), train_condition="clean+jpeg-75")
    grid.launch(spec)
    facts = json.loads(
        (grid.artifact(spec, names.VALIDATION_FOLDER, tmp_path / "run") / "calibration.json").read_text()
    )
    rows = grid.manifest.select(VALID, grid.manifest.generators)
    assert facts["temperature"]["num_images"] == len(grid.manifest.select(VALID, spec.train_generators))
    assert facts["looks"]["embeddings"]["num_valid"] == len(rows)
    assert f" of {len(rows)} validation images of " in facts["looks"]["embeddings"]["fitted"]


def test_an_error_on_validation_images_is_with_the_run_until_they_are_scored(
    make_grid: MakeGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = make_grid()
    spec = grid.spec()
    made_older(grid, spec, monkeypatch)

    def breaks(*arguments: object, **named: object) -> dict[str, float]:
        raise ValueError("no such picture")

    with monkeypatch.context() as patched:
        patched.setattr(runner, "validate", breaks)
        watcher = grid.launch(spec, conditions=["jpeg-75"])
        assert watcher.kinds(spec)[-1] == FAILED
    run = grid.run_of(spec)
    assert run.info.status == "FINISHED"
    assert run.data.tags[names.CONDITION_ERROR] == "validation: ValueError: no such picture"
    assert run.data.tags[names.CONDITIONS] == "jpeg-75"  # one error costs nothing but itself
    assert grid.launch(spec, conditions=["jpeg-75"]).kinds(spec)[-1] == DONE
    assert names.CONDITION_ERROR not in grid.run_of(spec).data.tags
    assert validation(grid, spec)


def test_a_lost_checkpoint_is_recorded_once_and_its_trial_is_finished(
    make_grid: MakeGrid, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    grid = make_grid()
    spec = grid.spec()
    made_older(grid, spec, monkeypatch)
    run_id = grid.run_of(spec).info.run_id
    artifacts = grid.settings.runs / "artifacts" / run_id / "artifacts"

    artifacts.rename(artifacts.with_name("away"))  # as a disk that is not there: it may come back
    assert grid.launch(spec).kinds(spec)[-1] == FAILED
    assert len(grid.plan(spec).pending) == 1
    shutil.rmtree(artifacts)  # the record of that error
    artifacts.with_name("away").rename(artifacts)

    shutil.rmtree(artifacts / names.CHECKPOINT)
    assert grid.launch(spec).kinds(spec)[-1] == DONE
    assert f"the checkpoint of run {run_id} is gone" in caplog.text
    tags = grid.run_of(spec).data.tags
    assert tags[names.VALIDATED] == names.NEVER
    assert tags[names.CONDITION_ERROR].startswith("validation: LostCheckpointError: the checkpoint of run")
    assert f"mlflow runs delete --run-id {run_id}" in tags[names.CONDITION_ERROR]
    assert grid.plan(spec).pending == ()
    assert grid.launch(spec, conditions=["jpeg-75"]).kinds(spec)[-1] == FAILED  # what was asked for is not there
