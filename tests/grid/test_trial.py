"""Fitting and scoring on a small data set whose fakes are obvious, with detectors on features and on pixels."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from data.images import decode
from grid import names
from grid.plan import Inputs
from grid.spec import TrialSpec
from grid.tasks import WHOLE
from grid.trial import (
    build,
    prepare_inputs,
    restore,
    score,
)
from models.detector import Prediction, Rows, fake_scores
from models.linear import LinearDetector
from models.scoring import choose_threshold
from models.training import NetworkDetector
from tests.corpora import picture, write_image
from tests.grid.fitting import NETWORK, Bench, Result, cells_of
from tests.grid.grids import SIDE, make_manifest, make_settings, write_obvious

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
    weights = {"residual_linear": "weight-free", "xception_scratch": "random weights, small form"}
    assert tags[names.WEIGHTS] == weights[spec.method]
    assert {"torch", "timm", "numpy", "python"} <= json.loads(tags[names.VERSIONS]).keys()
    assert tags[names.BATCH_HALVED] == "false"


def test_every_figure_is_finite(detection: tuple[TrialSpec, Result]) -> None:
    assert np.isfinite(list(detection[1].metrics.values())).all()
    assert np.isfinite(detection[1].scores["score"]).all()


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
