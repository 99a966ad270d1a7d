"""Fitting and scoring under conditions."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from data.images import decode
from grid import names
from grid.plan import Inputs, Work, distinct_inputs
from grid.spec import TrialSpec
from grid.trial import (
    build,
    fill_inputs,
    missing_inputs,
    shared_store,
)
from grid.validation import validate
from models.detector import Examples, FitSession, fake_scores
from models.linear import LinearDetector
from models.scoring import choose_threshold
from models.training import NetworkDetector
from tests.grid.fitting import Bench, Result, cells_of, with_cache


def as_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=2)
    return np.asarray(Image.open(io.BytesIO(buffer.getvalue())).convert("RGB"))


def jpegs_of(bench: Bench, rows: pd.DataFrame, quality: int) -> list[np.ndarray]:
    """The pictures of these rows as JPEG, made by hand."""
    return [as_jpeg(decode(path), quality) for path in bench.manifest.paths(rows)]


def test_scores_under_a_condition_are_those_of_a_detector_that_is_handed_the_jpegs(
    bench: Bench, detection: tuple[TrialSpec, Result]
) -> None:
    spec, result = detection
    detector, rows = result.fitted.detector, bench.test_rows()
    scored = bench.score(spec, result.fitted, "jpeg-75")
    expected = detector.predict(detector.inputs(jpegs_of(bench, rows, 75)))
    np.testing.assert_allclose(scored.scores[["logit_real", "logit_fake"]], expected.logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scored.scores["score"], fake_scores(expected.logits), rtol=1e-4, atol=1e-4)
    assert scored.scores["path"].tolist() == result.scores["path"].tolist() == rows["path"].tolist()
    assert scored.condition == "jpeg-75"
    assert set(scored.scores["condition"]) == {"jpeg-75"}
    assert set(result.scores["condition"]) == {"clean"}
    assert (scored.scores["score"] != result.scores["score"]).any()


def test_figures_under_a_condition_are_at_the_threshold_that_clean_validation_pictures_gave(
    bench: Bench, detection: tuple[TrialSpec, Result]
) -> None:
    spec, result = detection
    scored = bench.score(spec, result.fitted, "jpeg-75")
    expected = cells_of(spec, scored.scores, result.metrics[names.THRESHOLD])
    assert scored.metrics == {name.replace("test/", "test.jpeg-75/"): value for name, value in expected.items()}
    assert {names.parse_metric(name) for name in scored.metrics} >= {
        ("jpeg-75", "lama", "accuracy"),
        ("jpeg-75", "ldm", "auroc"),
    }


def test_attribution_is_scored_under_a_condition_too(bench: Bench, attribution: tuple[TrialSpec, Result]) -> None:
    spec, result = attribution
    scored = bench.score(spec, result.fitted, "jpeg-40")
    answers = scored.scores[["logit_real", "logit_lama", "logit_ldm"]].idxmax(axis=1).str.removeprefix("logit_")
    assert scored.metrics["test.jpeg-40/all/accuracy"] == (answers == scored.scores["generator"]).mean()


def test_scoring_under_a_condition_changes_nothing_of_what_is_clean(
    bench: Bench, detection: tuple[TrialSpec, Result]
) -> None:
    spec, result = detection
    bench.score(spec, result.fitted, "jpeg-60")
    again = bench.score(spec, result.fitted, "clean")
    pd.testing.assert_frame_equal(again.scores, result.scores, check_exact=True)
    assert again.metrics == result.scored.metrics
    assert bench.score(spec, result.fitted, "jpeg-60").metrics == bench.score(spec, result.fitted, "jpeg-60").metrics


def test_an_unknown_condition_is_answered_with_those_that_exist(
    bench: Bench, detection: tuple[TrialSpec, Result]
) -> None:
    spec, result = detection
    with pytest.raises(
        KeyError, match=r"no condition named 'blur' .*there are: blur-1…10, clean, crop-1…99, jpeg-1…100"
    ):
        bench.score(spec, result.fitted, "blur")


def fitted_on(bench: Bench, spec: TrialSpec, monkeypatch: pytest.MonkeyPatch) -> list[tuple[np.ndarray, np.ndarray]]:
    """Inputs and labels that a trial's detector is given for training, then for validation."""
    kind: Any = NetworkDetector if spec.method == "xception_scratch" else LinearDetector
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    plain = kind.fit

    def spy(self: Any, train: Examples, valid: Examples, session: FitSession) -> None:
        seen.extend((one.inputs[np.arange(len(one.inputs))], one.labels) for one in (train, valid))
        plain(self, train, valid, session)

    with monkeypatch.context() as patched:
        patched.setattr(kind, "fit", spy)
        bench.run(spec)
    return seen


@pytest.mark.parametrize("train_condition", ["clean", "jpeg-95"])
def test_a_detector_is_trained_on_pictures_under_the_training_condition(
    bench: Bench, method: str, monkeypatch: pytest.MonkeyPatch, train_condition: str
) -> None:
    spec = bench.spec(method, train_condition=train_condition)
    seen = fitted_on(bench, spec, monkeypatch)
    detector = build(spec, bench.settings, "cpu")
    for split, (inputs, labels) in zip(("train", "valid"), seen, strict=True):
        rows = bench.manifest.select(split, ["lama"])
        clean = [decode(path) for path in bench.manifest.paths(rows)]
        expected = detector.inputs(clean if train_condition == "clean" else [as_jpeg(image, 95) for image in clean])
        np.testing.assert_allclose(inputs, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(labels, rows["label"])
        if train_condition != "clean":
            assert not np.allclose(inputs, detector.inputs(clean), rtol=1e-4, atol=1e-5)


def test_a_detector_that_was_trained_under_a_condition_is_tested_on_clean_pictures(bench: Bench) -> None:
    spec = bench.spec(train_condition="jpeg-95")
    result = bench.run(spec)
    detector = result.fitted.detector
    clean = [decode(path) for path in bench.manifest.paths(bench.test_rows())]
    expected = fake_scores(detector.predict(detector.inputs(clean)).logits)
    np.testing.assert_allclose(result.scores["score"], expected, rtol=1e-4, atol=1e-4)
    assert (result.scores["score"] != bench.run(bench.spec()).scores["score"]).any()
    valid = bench.manifest.select("valid", ["lama"])
    on_jpeg = fake_scores(detector.predict(detector.inputs(jpegs_of(bench, valid, 95))).logits)
    assert result.fitted.threshold == pytest.approx(choose_threshold(valid["label"].to_numpy(), on_jpeg), abs=1e-4)


def test_pixels_under_a_condition_are_kept_nowhere_and_features_are(bench: Bench, tmp_path: Path) -> None:
    fresh = with_cache(bench, tmp_path)
    on_pixels, on_features = (
        fresh.spec(name, train_condition="jpeg-95") for name in ("xception_scratch", "residual_linear")
    )
    for spec, stored in ((on_pixels, False), (on_features, True)):
        detector = build(spec, fresh.settings, "cpu")
        assert shared_store(detector, fresh.settings.cache, "clean") is not None
        assert (shared_store(detector, fresh.settings.cache, "jpeg-95") is not None) == stored
        result = fresh.run(spec)
        fresh.score(spec, result.fitted, "jpeg-75")
    cache = tmp_path / "cache"
    kept = {path.relative_to(cache).parts[:-2] for path in cache.rglob("shard-*")}
    assert kept == {
        ("pixels",),
        ("features",),
        ("conditions", "jpeg-75", "features"),
        ("conditions", "jpeg-95", "features"),
    }


def test_only_the_pictures_that_are_needed_are_encoded(bench: Bench, tmp_path: Path) -> None:
    fresh = with_cache(bench, tmp_path)
    spec = fresh.spec(train_condition="jpeg-95")
    detector = build(spec, fresh.settings, "cpu")
    num = {split: int((bench.manifest.table["split"] == split).sum()) for split in ("train", "valid", "test")}

    def missing(condition: str, *splits: str) -> int:
        return missing_inputs(detector, bench.manifest, fresh.settings, Inputs(spec, condition, splits))

    assert missing("jpeg-95", "train", "valid") == num["train"] + num["valid"]
    assert missing("clean") == sum(num.values())
    result = fresh.run(spec)
    assert missing("jpeg-95", "train", "valid") == 0
    assert missing("jpeg-95", "test") == num["test"]
    assert missing("jpeg-75", "test") == num["test"]
    fresh.score(spec, result.fitted, "jpeg-75")
    assert missing("jpeg-75", "test") == 0
    assert missing("jpeg-75") == num["train"] + num["valid"]


def test_nothing_is_missing_of_pixels_that_are_never_kept(bench: Bench, tmp_path: Path) -> None:
    fresh = with_cache(bench, tmp_path)
    spec = fresh.spec("xception_scratch")
    detector = build(spec, fresh.settings, "cpu")
    inputs = Inputs(spec, "jpeg-75", ("test",))
    assert missing_inputs(detector, bench.manifest, fresh.settings, inputs) == 0
    fill_inputs(detector, bench.manifest, fresh.settings, inputs)
    assert not (tmp_path / "cache" / "pixels").exists()
    assert missing_inputs(detector, bench.manifest, fresh.settings, Inputs(spec)) == len(bench.manifest.table)


@pytest.mark.parametrize("name", ["xception_scratch", "residual_linear"])
def test_training_under_a_condition_twice_gives_the_same_scores(bench: Bench, name: str) -> None:
    spec = bench.spec(name, train_condition="jpeg-95", **({"epochs": 1} if name == "xception_scratch" else {}))
    one, two = bench.run(spec), bench.run(spec)
    pd.testing.assert_frame_equal(one.scores, two.scores, check_exact=True)


# Trained under a set of conditions


def test_a_detector_may_be_trained_on_each_picture_under_several_conditions(
    bench: Bench, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = bench.spec(method, train_condition="clean+jpeg-50")
    seen = fitted_on(bench, spec, monkeypatch)
    detector = build(spec, bench.settings, "cpu")
    for split, (inputs, labels) in zip(("train", "valid"), seen, strict=True):
        rows = bench.manifest.select(split, ["lama"])
        clean = [decode(path) for path in bench.manifest.paths(rows)]
        expected = detector.inputs([*clean, *(as_jpeg(image, 50) for image in clean)])
        np.testing.assert_allclose(inputs, expected, rtol=1e-4, atol=1e-5)
        assert labels.tolist() == [*rows["label"], *rows["label"]]


def test_its_validation_images_take_part_once_per_condition(bench: Bench) -> None:
    spec = bench.spec(train_condition="clean+jpeg-50")
    detector = bench.run(spec).fitted.detector
    validated = validate(spec, detector, bench.settings)
    values = validated.metrics
    assert validated.looks[names.OWN_LOOK].facts["num_valid"] == (bench.manifest.table["split"] == "valid").sum()
    rows = bench.manifest.select("valid", ["ldm"])
    clean = [decode(path) for path in bench.manifest.paths(rows)]
    scores = fake_scores(detector.predict(detector.inputs([*clean, *(as_jpeg(image, 50) for image in clean)])).logits)
    labels = np.tile(rows["label"], 2)
    assert values[names.validation_metric("ldm")] == pytest.approx(roc_auc_score(labels, scores), abs=1e-6)


def test_what_such_a_trial_reads_is_prepared_under_each_of_its_conditions(bench: Bench) -> None:
    spec = bench.spec(train_condition="clean+jpeg-50")
    assert [(inputs.condition, inputs.splits) for inputs in distinct_inputs([Work(spec, ("clean", "blur-1"))])] == [
        ("clean", ("train", "valid", "test")), ("jpeg-50", ("train", "valid")), ("blur-1", ("test",)),
    ]  # fmt: skip
