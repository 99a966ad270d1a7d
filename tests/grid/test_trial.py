"""Fitting and scoring on a small data set whose fakes are obvious, with detectors on features and on pixels."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from threadpoolctl import threadpool_info, threadpool_limits

import data.store
from data.conditions import CLEAN
from data.images import decode
from data.manifest import Manifest
from data.store import ArrayStore
from grid import names
from grid.plan import Inputs
from grid.settings import InfeasibleError, RunSettings
from grid.spec import TrialSpec
from grid.tasks import ATTRIBUTION, WHOLE, get_task
from grid.trial import (
    Fitted,
    Scored,
    build,
    choose_device,
    fill_inputs,
    fit,
    missing_inputs,
    prepare_inputs,
    restore,
    score,
    shared_store,
)
from models.detector import Examples, FitSession, Prediction, Rows, fake_scores
from models.linear import LinearDetector
from models.scoring import choose_threshold
from models.training import NetworkDetector
from tests.corpora import picture, write_image
from tests.grid.grids import SIDE, make_manifest, make_settings, make_spec, write_obvious


@dataclasses.dataclass(frozen=True)
class Result:
    """A trial that was fitted, and scored on clean pictures."""

    fitted: Fitted
    scored: Scored
    checkpoint: Path
    copied: dict[str, float]

    @property
    def metrics(self) -> dict[str, float]:
        return self.fitted.metrics | self.scored.metrics

    @property
    def scores(self) -> pd.DataFrame:
        return self.scored.scores

    @property
    def embeddings(self) -> np.ndarray:
        return self.scored.embeddings


@dataclasses.dataclass(frozen=True)
class Bench:
    settings: RunSettings
    manifest: Manifest
    checkpoints: Path

    def spec(self, *arguments: Any, **overrides: Any) -> TrialSpec:
        return make_spec(self.manifest.digest, *arguments, **overrides)

    def run(self, spec: TrialSpec, **session: Any) -> Result:
        folder = self.checkpoints / f"{len(list(self.checkpoints.iterdir())):03d}"
        folder.mkdir()
        settings = self.settings
        copied = {names.COPIED_BYTES: 0.0, names.COPY_SECONDS: 0.0}
        given = FitSession(**session)
        fitted = fit(spec, settings, given, device="cpu", checkpoint_to=folder, copied=copied)
        scored = score(spec, fitted.detector, settings, threshold=fitted.threshold, copied=copied)
        return Result(fitted, scored, folder, copied)

    def score(self, spec: TrialSpec, fitted: Fitted, condition: str) -> Scored:
        return score(spec, fitted.detector, self.settings, threshold=fitted.threshold, condition=condition)

    def test_rows(self) -> pd.DataFrame:
        return self.manifest.select("test", self.manifest.generators)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("trial")
    settings = make_settings(folder)
    (folder / "checkpoints").mkdir()
    manifest = make_manifest(write_obvious(folder / "dolos"), settings)
    return Bench(settings, manifest, folder / "checkpoints")


def with_cache(bench: Bench, folder: Path, **changes: Any) -> Bench:
    """With a cache of its own in `folder`."""
    settings = make_settings(folder, **changes)
    bench.manifest.save(settings.manifests / bench.manifest.digest)
    return dataclasses.replace(bench, settings=settings)


NETWORK: dict[str, Any] = {"epochs": 3, "batch_size": 4, "learning_rate": 3e-3, "flip": False}


@pytest.fixture(scope="module", params=["residual_linear", "xception_scratch"])
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def detection(bench: Bench, method: str) -> tuple[TrialSpec, Result]:
    spec = bench.spec(method, **(NETWORK if method == "xception_scratch" else {}))
    return spec, bench.run(spec)


@pytest.fixture(scope="module")
def attribution(bench: Bench) -> tuple[TrialSpec, Result]:
    spec = bench.spec(task=ATTRIBUTION, train=("ldm", "lama"))
    return spec, bench.run(spec)


# Orientation ---------------------------------------------------------------------------------------------------------


def test_fakes_get_higher_scores_than_reals_from_the_files_to_the_figures(bench: Bench) -> None:
    result = bench.run(bench.spec("residual_linear", train=("lama",)))
    of = result.scores.groupby(["label", "generator"])["score"]
    assert of.min()[1, "lama"] > of.max()[0, "real"]
    assert result.metrics[names.metric_name("lama", "auroc")] == 1.0
    assert result.metrics[names.metric_name("lama", "accuracy")] == 1.0


def test_a_trained_network_has_the_same_orientation(bench: Bench) -> None:
    result = bench.run(bench.spec("xception_scratch", **NETWORK | {"epochs": 8}))
    of = result.scores.groupby(["label", "generator"])["score"]
    assert of.mean()[1, "lama"] > of.mean()[0, "real"]
    assert result.metrics[names.metric_name("lama", "auroc")] > 0.9


def test_swapping_the_labels_of_the_files_turns_the_scores_round(bench: Bench, tmp_path: Path) -> None:
    table = bench.manifest.table.copy()
    table = table[table["generator"] != "ldm"].reset_index(drop=True)
    table["label"] = 1 - table["label"]
    table["generator"] = table["generator"].map({"real": "lama", "lama": "real"})
    swapped = dataclasses.replace(bench.manifest, table=table)
    swapped.save(bench.settings.manifests / swapped.digest)
    turned = dataclasses.replace(bench, manifest=swapped)
    straight, reverse = (one.run(one.spec("residual_linear")).scores.set_index("path") for one in (bench, turned))
    both = straight.join(reverse["score"].rename("score_swapped"), how="inner")
    assert len(both) == 12
    assert (np.sign(both["score"]) == -np.sign(both["score_swapped"])).all()


# What is scored ------------------------------------------------------------------------------------------------------


def test_every_test_image_has_one_row_of_scores(bench: Bench, detection: tuple[TrialSpec, Result]) -> None:
    scores = detection[1].scores
    expected = bench.manifest.table.query("split == 'test'")
    assert sorted(scores["path"]) == sorted(expected["path"])
    assert scores["path"].is_unique
    merged = scores.merge(expected, on="path", suffixes=("", "_expected"))
    for column in ("label", "generator", "digest", "source_id"):
        assert (merged[column] == merged[f"{column}_expected"]).all()


def test_a_detector_sees_each_test_image_once_though_the_real_ones_are_in_every_cell(
    bench: Bench, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind: Any = NetworkDetector if method == "xception_scratch" else LinearDetector
    seen: list[int] = []
    plain = kind.predict

    def counted(self: Any, inputs: Rows) -> Prediction:
        seen.append(len(inputs))
        return plain(self, inputs)

    def no_fit(self: Any, *arguments: Any) -> None:
        """Training looks at the validation split as often as it likes."""

    monkeypatch.setattr(kind, "predict", counted)
    monkeypatch.setattr(kind, "fit", no_fit)
    bench.run(bench.spec(method))
    num_test, num_valid = 6 * 3, 6 * 2  # test: real, lama, ldm; validation: real and the generator trained on
    assert sorted(seen) == [num_valid, num_test]


def test_embeddings_are_in_the_order_of_the_scores(bench: Bench, detection: tuple[TrialSpec, Result]) -> None:
    spec, result = detection
    assert result.embeddings.dtype == np.float16
    assert len(result.embeddings) == len(result.scores)
    if spec.method == "residual_linear":
        detector = build(spec, bench.settings, "cpu")
        assert detector.encoder is not None
        features = detector.encoder.encode([decode(bench.manifest.root / result.scores["path"].iloc[3])])[0]
        np.testing.assert_array_equal(result.embeddings[3], features.astype(np.float16))


def test_scores_are_the_log_odds_of_fake(detection: tuple[TrialSpec, Result]) -> None:
    scores = detection[1].scores
    np.testing.assert_array_equal(scores["score"], scores["logit_fake"] - scores["logit_real"])


# Cells and thresholds ------------------------------------------------------------------------------------------------


def cells_of(spec: TrialSpec, scores: pd.DataFrame, threshold: float) -> dict[str, float]:
    """Every figure of the test split, from a table of scores alone."""
    logits = scores[[f"logit_{name}" for name in spec.classes]].to_numpy()
    measured = get_task(spec.task).measure(scores, logits, spec.classes, threshold)
    return {names.metric_name(cell, name): value for cell, values in measured.items() for name, value in values.items()}


def test_the_logged_cells_follow_from_the_scores_alone(detection: tuple[TrialSpec, Result]) -> None:
    spec, result = detection
    assert cells_of(spec, result.scores, result.metrics[names.THRESHOLD]) == result.scored.metrics
    assert {name.split("/")[1] for name in result.scored.metrics} == {"lama", "ldm"}
    assert {name for name in result.metrics if not name.startswith("test/")} == {names.THRESHOLD}


def test_they_follow_from_the_scores_that_were_written_to_disk(
    detection: tuple[TrialSpec, Result], tmp_path: Path
) -> None:
    spec, result = detection
    result.scores.to_parquet(tmp_path / "scores.parquet", index=False)
    back = pd.read_parquet(tmp_path / "scores.parquet")
    assert cells_of(spec, back, result.metrics[names.THRESHOLD]) == result.scored.metrics


def test_the_threshold_is_what_the_validation_split_says(bench: Bench, detection: tuple[TrialSpec, Result]) -> None:
    result = detection[1]
    valid = bench.manifest.select("valid", ["lama"])
    detector = result.fitted.detector
    inputs = detector.inputs([decode(path) for path in bench.manifest.paths(valid)])
    expected = choose_threshold(valid["label"].to_numpy(), fake_scores(detector.predict(inputs).logits))
    assert result.metrics[names.THRESHOLD] == result.fitted.threshold == pytest.approx(expected, abs=1e-4)


def test_a_threshold_that_the_method_chose_itself_is_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = LinearDetector.fit

    def choosing(self: LinearDetector, *arguments: Any) -> None:
        plain(self, *arguments)
        self.threshold = 12.5

    monkeypatch.setattr(LinearDetector, "fit", choosing)
    result = bench.run(bench.spec())
    assert result.fitted.threshold == result.metrics[names.THRESHOLD] == 12.5
    fakes = result.scores.query("label == 1 and generator == 'lama'")["score"]
    expected = (fakes > 12.5).mean()
    assert result.metrics["test/lama/fake_accuracy_valid_threshold"] == expected


def test_other_test_images_change_neither_threshold_nor_classifier(bench: Bench, tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    root = write_obvious(tmp_path / "dolos")
    for number, path in enumerate(sorted((root / "celebahq").glob("**/images/test/*.png"))):
        write_image(path, picture(f"another {number}", SIDE))
    other = dataclasses.replace(bench, settings=settings, manifest=make_manifest(root, settings))
    assert other.manifest.digest != bench.manifest.digest
    one, two = (b.run(b.spec("residual_linear")) for b in (bench, other))
    assert one.metrics[names.THRESHOLD] == two.metrics[names.THRESHOLD]
    reals = [result.scores.query("label == 0").set_index("path")["score"] for result in (one, two)]
    pd.testing.assert_series_equal(*reals)
    fakes = [result.scores.query("label == 1").set_index("path")["score"] for result in (one, two)]
    assert (fakes[0] != fakes[1]).all()


# Attribution ---------------------------------------------------------------------------------------------------------


def test_the_classes_of_attribution_are_real_then_the_generators_in_order(
    attribution: tuple[TrialSpec, Result],
) -> None:
    spec, result = attribution
    assert spec.classes == ("real", "lama", "ldm")
    assert [name for name in result.scores if name.startswith("logit_")] == ["logit_real", "logit_lama", "logit_ldm"]
    assert "score" not in result.scores


def test_each_class_of_obvious_images_gets_its_own_name(attribution: tuple[TrialSpec, Result]) -> None:
    scores = attribution[1].scores
    answers = scores[["logit_real", "logit_lama", "logit_ldm"]].idxmax(axis=1).str.removeprefix("logit_")
    assert (answers == scores["generator"]).all()
    metrics = attribution[1].metrics
    for metric in ("accuracy", "accuracy/real", "accuracy/lama", "accuracy/ldm", "balanced_accuracy"):
        assert metrics[names.metric_name(WHOLE, metric)] == 1.0


def test_attribution_has_no_threshold(attribution: tuple[TrialSpec, Result]) -> None:
    assert attribution[1].fitted.threshold is None
    assert attribution[1].fitted.metrics == {}


# The rest of the contract --------------------------------------------------------------------------------------------


def test_a_generator_that_the_data_lacks_is_refused_with_those_it_has(bench: Bench) -> None:
    with pytest.raises(ValueError, match="no generator repaint; there are: lama, ldm"):
        bench.run(bench.spec(train=("repaint",)))


def test_the_same_trial_twice_gives_the_same_scores(bench: Bench, detection: tuple[TrialSpec, Result]) -> None:
    spec, first = detection
    second = bench.run(spec)
    pd.testing.assert_frame_equal(second.scores, first.scores, check_exact=True)
    np.testing.assert_array_equal(second.embeddings, first.embeddings)
    assert second.metrics == first.metrics


def test_another_seed_trains_another_network(bench: Bench) -> None:
    one, two = (bench.run(bench.spec("xception_scratch", seed=seed, epochs=1)) for seed in (0, 1))
    assert (one.scores["score"] != two.scores["score"]).any()


def test_what_is_saved_is_the_detector_that_was_tested(bench: Bench, detection: tuple[TrialSpec, Result]) -> None:
    spec, result = detection
    detector = build(spec, bench.settings, "cpu")
    detector.load(result.checkpoint)
    logits = detector.predict(
        prepare_inputs(detector, bench.manifest, bench.test_rows(), bench.settings, Inputs(spec))
    ).logits
    np.testing.assert_array_equal(logits[:, 1], result.scores["logit_fake"])


def test_a_fitted_detector_is_restored_from_its_checkpoint_and_scores_as_before(
    bench: Bench, detection: tuple[TrialSpec, Result]
) -> None:
    spec, result = detection
    detector = restore(spec, {}, "cpu", result.checkpoint)
    again = score(spec, detector, bench.settings, threshold=result.fitted.threshold)
    pd.testing.assert_frame_equal(again.scores, result.scores, check_exact=True)
    assert again.metrics == result.scored.metrics


def test_a_checkpoint_of_another_trial_is_refused(bench: Bench, attribution: tuple[TrialSpec, Result]) -> None:
    with pytest.raises(ValueError, match="classes"):
        restore(bench.spec(), {}, "cpu", attribution[1].checkpoint)


def test_a_result_says_where_its_weights_come_from_and_what_computed_it(
    detection: tuple[TrialSpec, Result],
) -> None:
    spec, result = detection
    tags = result.fitted.tags
    assert tags[names.DEVICE] == "cpu"
    assert tags[names.WEIGHTS] == {"residual_linear": "weight-free", "xception_scratch": "random weights"}[spec.method]
    assert {"torch", "timm", "numpy", "python"} <= json.loads(tags[names.VERSIONS]).keys()
    assert tags[names.BATCH_HALVED] == "false"


def test_every_figure_is_finite(detection: tuple[TrialSpec, Result]) -> None:
    assert np.isfinite(list(detection[1].metrics.values())).all()
    assert np.isfinite(detection[1].scores["score"]).all()


@pytest.mark.parametrize(
    ("device", "share", "has_gpu", "expected"),
    [
        ("auto", 0.25, True, "cuda"),
        ("auto", 0.0, True, "cpu"),
        ("auto", 0.25, False, "cpu"),  # a share of a logical GPU
        ("cpu", 1.0, True, "cpu"),
        ("cuda", 0.5, True, "cuda"),
    ],
)
def test_a_trial_computes_on_the_gpu_that_it_has_a_share_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, share: float, has_gpu: bool, expected: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_gpu)
    assert choose_device(make_settings(tmp_path, device=device), share) == expected


@pytest.mark.parametrize(("cores", "expected"), [(0.25, 1), (1.0, 1), (2.0, 2), (2.6, 3)])
def test_a_trial_computes_with_the_cores_that_it_was_given(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, cores: float, expected: int
) -> None:
    seen: dict[str, int] = {}

    def look(self: Any, *arguments: Any) -> None:
        pools = {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}
        seen.update(pools, torch=torch.get_num_threads())

    monkeypatch.setattr(LinearDetector, "fit", look)
    before = torch.get_num_threads()
    with threadpool_limits(None):  # whatever the trial sets is undone
        settings = dataclasses.replace(bench.settings, cpus_per_trial=cores)
        dataclasses.replace(bench, settings=settings).run(bench.spec("residual_linear"))
    torch.set_num_threads(before)
    assert set(seen.values()) == {expected}
    assert len(seen) > 1


def test_cuda_without_a_gpu_is_refused_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InfeasibleError, match="use --device auto or cpu"):
        choose_device(make_settings(tmp_path, device="cuda"), 0.5)


# Conditions ----------------------------------------------------------------------------------------------------------


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
    with pytest.raises(KeyError, match="no condition named 'blur'; there are: clean, jpeg-1…100"):
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


# Copies on the node's own disk ---------------------------------------------------------------------------------------


def with_copies(bench: Bench, folder: Path) -> Bench:
    """With a cache of its own, and copies in `folder`/local."""
    return with_cache(bench, folder, local_copies=folder / "local")


def test_a_trial_reads_what_it_needs_from_its_nodes_disk(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, detection: tuple[TrialSpec, Result]
) -> None:
    monkeypatch.setattr(data.store, "_SHARD_ROWS", 8)
    spec, expected = detection
    local = with_copies(bench, tmp_path)
    first = local.run(spec)
    assert first.metrics == expected.metrics
    pd.testing.assert_frame_equal(first.scores, expected.scores, check_exact=True)
    (copy,) = (tmp_path / "local").glob("*/*")
    original = tmp_path / "cache" / copy.relative_to(tmp_path / "local")
    copies = list(copy.glob("shard-*/rows.npy"))
    assert len(copies) == len(list(original.glob("shard-*")))
    assert first.copied[names.COPIED_BYTES] == sum(path.stat().st_size for path in copies)
    assert first.copied[names.COPY_SECONDS] > 0

    shutil.rmtree(original)  # the second trial neither reads the cache nor computes anything
    second = local.run(spec)
    assert second.metrics == first.metrics
    assert second.copied[names.COPIED_BYTES] == 0
    assert not original.exists()


def test_preparing_for_all_nodes_copies_nothing(bench: Bench, tmp_path: Path) -> None:
    from grid.preparing import prepare_input

    local = with_copies(bench, tmp_path)
    prepare_input(Inputs(bench.spec()), local.settings, 0.0, lambda done, total: None)
    assert list((tmp_path / "cache" / "features").glob("*/shard-*"))
    assert not (tmp_path / "local").exists()


def test_a_shard_that_has_changed_in_the_cache_is_computed_again_and_copied(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    local = with_copies(bench, tmp_path)
    spec = bench.spec("xception_scratch", epochs=1)
    detector = build(spec, local.settings, "cpu")
    fill_inputs(detector, bench.manifest, local.settings, Inputs(spec))
    store = shared_store(detector, local.settings.cache, CLEAN)
    digests = bench.manifest.table["digest"].tolist()
    expected = store.open(digests)[:]
    rows = next(store.folder.glob("shard-*/rows.npy"))
    content = bytearray(rows.read_bytes())
    content[-1] ^= 64
    rows.write_bytes(content)
    assert (store.open(digests)[:] != expected).any()
    found = prepare_inputs(detector, bench.manifest, bench.manifest.table, local.settings, Inputs(spec))
    np.testing.assert_array_equal(found[:], expected)
    assert f"{rows.parent} is damaged" in caplog.text


def test_a_full_disk_of_a_node_is_said_and_the_cache_is_read(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    spec = bench.spec()
    result = with_copies(bench, tmp_path).run(spec)
    assert result.metrics == bench.run(spec).metrics
    assert result.copied[names.COPIED_BYTES] == 0
    assert "no local copy" in caplog.text
    assert f"reading from {tmp_path / 'cache'}" in caplog.text
    assert "--local-copies names the folder" in caplog.text


def test_a_folder_of_a_node_that_may_not_be_written_is_said_and_the_cache_is_read(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", "copies")

    monkeypatch.setattr(ArrayStore, "copy_from", refuse)
    result = with_copies(bench, tmp_path).run(bench.spec())
    assert result.copied[names.COPIED_BYTES] == 0
    assert "no local copy" in caplog.text


def test_a_trial_that_has_to_compute_its_inputs_says_so(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fresh = with_copies(bench, tmp_path)
    fresh.run(bench.spec())
    assert "the trial itself computes them" in caplog.text
    caplog.clear()
    fresh.run(bench.spec())
    assert "the trial itself computes them" not in caplog.text
