"""`run_trial` on a small data set whose fakes are obvious, with a detector on features and one on pixels."""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

import data.store
from data.manifest import Manifest
from data.store import ArrayStore
from grid import names
from grid.settings import InfeasibleError, RunSettings
from grid.spec import ATTRIBUTION, DETECTION, TrialSpec
from grid.trial import (
    TrialResult,
    build,
    choose_device,
    class_numbers,
    detection_cells,
    fill_inputs,
    prepare_inputs,
    run_trial,
    shared_store,
)
from models.detector import FitSession, Prediction, Rows
from models.linear import LinearDetector
from models.scoring import choose_threshold
from models.training import NetworkDetector
from tests.corpora import picture, write_image
from tests.grid.grids import SIDE, make_manifest, make_settings, make_spec, write_obvious


@dataclasses.dataclass(frozen=True)
class Bench:
    settings: RunSettings
    manifest: Manifest
    checkpoints: Path

    def spec(self, *arguments: Any, **overrides: Any) -> TrialSpec:
        return make_spec(self.manifest.digest, *arguments, **overrides)

    def run(self, spec: TrialSpec, **session: Any) -> TrialResult:
        folder = self.checkpoints / f"{len(list(self.checkpoints.iterdir())):03d}"
        folder.mkdir()
        return run_trial(spec, self.settings, self.manifest, FitSession(**session), device="cpu", checkpoint_to=folder)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("trial")
    settings = make_settings(folder)
    (folder / "checkpoints").mkdir()
    manifest = make_manifest(write_obvious(folder / "dolos"), settings)
    return Bench(settings, manifest, folder / "checkpoints")


NETWORK: dict[str, Any] = {"epochs": 3, "batch_size": 4}


@pytest.fixture(scope="module", params=["residual_linear", "xception_scratch"])
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def detection(bench: Bench, method: str) -> tuple[TrialSpec, TrialResult]:
    spec = bench.spec(method, **(NETWORK if method == "xception_scratch" else {}))
    return spec, bench.run(spec)


@pytest.fixture(scope="module")
def attribution(bench: Bench) -> tuple[TrialSpec, TrialResult]:
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
    result = bench.run(bench.spec("xception_scratch", epochs=8, batch_size=4))
    of = result.scores.groupby(["label", "generator"])["score"]
    assert of.mean()[1, "lama"] > of.mean()[0, "real"]
    assert result.metrics[names.metric_name("lama", "auroc")] > 0.9


def test_swapping_the_labels_of_the_files_turns_the_scores_round(bench: Bench, tmp_path: Path) -> None:
    table = bench.manifest.table.copy()
    table = table[table["generator"] != "ldm"].reset_index(drop=True)
    table["label"] = 1 - table["label"]
    table["generator"] = table["generator"].map({"real": "lama", "lama": "real"})
    swapped = dataclasses.replace(bench.manifest, table=table)
    turned = dataclasses.replace(bench, manifest=swapped)
    straight, reverse = (one.run(one.spec("residual_linear")).scores.set_index("path") for one in (bench, turned))
    both = straight.join(reverse["score"].rename("score_swapped"), how="inner")
    assert len(both) == 12
    assert (np.sign(both["score"]) == -np.sign(both["score_swapped"])).all()


# What is scored ------------------------------------------------------------------------------------------------------


def test_every_test_image_has_one_row_of_scores(bench: Bench, detection: tuple[TrialSpec, TrialResult]) -> None:
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


def test_embeddings_are_in_the_order_of_the_scores(bench: Bench, detection: tuple[TrialSpec, TrialResult]) -> None:
    spec, result = detection
    assert result.embeddings.dtype == np.float16
    assert len(result.embeddings) == len(result.scores)
    if spec.method == "residual_linear":
        detector = build(spec, bench.settings, "cpu")
        assert detector.encoder is not None
        first = bench.manifest.root / result.scores["path"].iloc[3]
        from data.images import decode

        features = detector.encoder.encode([decode(first)])[0]
        np.testing.assert_array_equal(result.embeddings[3], features.astype(np.float16))


def test_scores_are_the_log_odds_of_fake(detection: tuple[TrialSpec, TrialResult]) -> None:
    scores = detection[1].scores
    np.testing.assert_array_equal(scores["score"], scores["logit_fake"] - scores["logit_real"])


# Cells and thresholds ------------------------------------------------------------------------------------------------


def test_the_logged_cells_follow_from_the_scores_alone(bench: Bench, detection: tuple[TrialSpec, TrialResult]) -> None:
    result = detection[1]
    cells = detection_cells(result.scores, bench.manifest.generators, result.metrics[names.THRESHOLD])
    assert cells == {name: value for name, value in result.metrics.items() if name.startswith("test/")}
    assert {name.split("/")[1] for name in cells} == {"lama", "ldm"}


def test_they_follow_from_the_scores_that_were_written_to_disk(
    bench: Bench, detection: tuple[TrialSpec, TrialResult], tmp_path: Path
) -> None:
    result = detection[1]
    result.scores.to_parquet(tmp_path / "scores.parquet", index=False)
    back = pd.read_parquet(tmp_path / "scores.parquet")
    cells = detection_cells(back, bench.manifest.generators, result.metrics[names.THRESHOLD])
    assert cells.items() <= result.metrics.items()


def scores_table(rows: list[tuple[str, int, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["generator", "label", "score"])


def test_a_cell_holds_the_shared_reals_and_one_generators_fakes() -> None:
    scores = scores_table([("real", 0, -1), ("real", 0, 1), ("lama", 1, 2), ("ldm", 1, -2)])
    cells = detection_cells(scores, ["lama", "ldm"], 1.5)
    assert cells["test/lama/accuracy"] == 2 / 3
    assert cells["test/ldm/accuracy"] == 1 / 3
    assert cells["test/lama/accuracy_valid_threshold"] == 1.0
    assert cells["test/ldm/accuracy_valid_threshold"] == 2 / 3
    assert (cells["test/lama/auroc"], cells["test/ldm/auroc"]) == (1.0, 0.0)


def test_reals_that_came_with_one_generator_are_in_its_cell_alone() -> None:
    scores = scores_table([("progan", 0, -1), ("glide", 0, 1), ("progan", 1, 2), ("glide", 1, 3)])
    cells = detection_cells(scores, ["glide", "progan"], 0.0)
    assert cells["test/progan/real_accuracy"] == 1.0
    assert cells["test/glide/real_accuracy"] == 0.0


def test_a_cell_without_fakes_is_refused() -> None:
    with pytest.raises(ValueError, match="no fake image"):
        detection_cells(scores_table([("real", 0, -1), ("lama", 1, 2)]), ["ldm"], 0.0)


def test_the_threshold_is_what_the_validation_split_says(
    bench: Bench, detection: tuple[TrialSpec, TrialResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    from grid import trial

    asked: list[np.ndarray] = []

    def noted(labels: np.ndarray, scores: np.ndarray) -> float:
        asked.append(labels)
        return choose_threshold(labels, scores)

    monkeypatch.setattr(trial, "choose_threshold", noted)
    spec, result = detection
    assert bench.run(spec).metrics[names.THRESHOLD] == result.metrics[names.THRESHOLD]
    (labels,) = asked
    valid = bench.manifest.select("valid", ["lama"])
    np.testing.assert_array_equal(labels, valid["label"])


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
    attribution: tuple[TrialSpec, TrialResult],
) -> None:
    spec, result = attribution
    assert spec.classes == ("real", "lama", "ldm")
    assert [name for name in result.scores if name.startswith("logit_")] == ["logit_real", "logit_lama", "logit_ldm"]
    assert "score" not in result.scores


def test_each_class_of_obvious_images_gets_its_own_name(attribution: tuple[TrialSpec, TrialResult]) -> None:
    scores = attribution[1].scores
    answers = scores[["logit_real", "logit_lama", "logit_ldm"]].idxmax(axis=1).str.removeprefix("logit_")
    assert (answers == scores["generator"]).all()
    metrics = attribution[1].metrics
    for metric in ("accuracy", "accuracy/real", "accuracy/lama", "accuracy/ldm", "balanced_accuracy"):
        assert metrics[names.metric_name(names.ALL, metric)] == 1.0


def test_attribution_has_no_threshold(attribution: tuple[TrialSpec, TrialResult]) -> None:
    assert names.THRESHOLD not in attribution[1].metrics


def test_a_real_image_that_came_with_a_generator_is_of_class_real() -> None:
    rows = pd.DataFrame({"label": [0, 1, 0, 1], "generator": ["glide", "glide", "real", "progan"]})
    spec = TrialSpec(ATTRIBUTION, "m", (), ("progan", "glide"), 0, "d")
    np.testing.assert_array_equal(class_numbers(rows, spec), [0, 1, 0, 2])
    np.testing.assert_array_equal(class_numbers(rows, dataclasses.replace(spec, task=DETECTION)), [0, 1, 0, 1])


# The rest of the contract --------------------------------------------------------------------------------------------


def test_another_data_sets_manifest_is_refused_before_any_work(bench: Bench) -> None:
    spec = dataclasses.replace(bench.spec(), data="0" * 16)
    with pytest.raises(ValueError, match=f"about data set {'0' * 16}, but the manifest given is") as caught:
        bench.run(spec)
    assert bench.manifest.digest in str(caught.value)


def test_a_generator_that_the_data_lacks_is_refused_with_those_it_has(bench: Bench) -> None:
    with pytest.raises(ValueError, match="no generator repaint; there are: lama, ldm"):
        bench.run(bench.spec(train=("repaint",)))


def test_the_same_trial_twice_gives_the_same_scores(bench: Bench, detection: tuple[TrialSpec, TrialResult]) -> None:
    spec, first = detection
    second = bench.run(spec)
    pd.testing.assert_frame_equal(second.scores, first.scores, check_exact=True)
    np.testing.assert_array_equal(second.embeddings, first.embeddings)
    assert {**second.metrics, names.SECONDS: 0} == {**first.metrics, names.SECONDS: 0}


def test_another_seed_trains_another_network(bench: Bench) -> None:
    one, two = (bench.run(bench.spec("xception_scratch", seed=seed, epochs=1)) for seed in (0, 1))
    assert (one.scores["score"] != two.scores["score"]).any()


def test_what_is_saved_is_the_detector_that_was_tested(
    bench: Bench, detection: tuple[TrialSpec, TrialResult], tmp_path: Path
) -> None:
    spec, result = detection
    run_trial(spec, bench.settings, bench.manifest, FitSession(), device="cpu", checkpoint_to=tmp_path)
    detector = build(spec, bench.settings, "cpu")
    detector.load(tmp_path)
    rows = bench.manifest.select("test", bench.manifest.generators)
    logits = detector.predict(prepare_inputs(detector, bench.manifest, rows, bench.settings)).logits
    np.testing.assert_array_equal(logits[:, 1], result.scores["logit_fake"])


def test_a_result_says_where_its_weights_come_from_and_what_computed_it(
    detection: tuple[TrialSpec, TrialResult],
) -> None:
    spec, result = detection
    assert result.tags[names.DEVICE] == "cpu"
    assert (
        result.tags[names.WEIGHTS]
        == {"residual_linear": "weight-free", "xception_scratch": "random weights"}[spec.method]
    )
    assert {"torch", "timm", "numpy", "python"} <= json.loads(result.tags[names.VERSIONS]).keys()
    assert result.metrics[names.SECONDS] > 0


def test_every_figure_is_finite(detection: tuple[TrialSpec, TrialResult]) -> None:
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


# Copies on the node's own disk ---------------------------------------------------------------------------------------


def with_copies(bench: Bench, folder: Path) -> Bench:
    """With a cache of its own, and copies in `folder`/local."""
    settings = make_settings(folder, local_copies=folder / "local")
    bench.manifest.save(settings.manifests / bench.manifest.digest)
    return dataclasses.replace(bench, settings=settings)


def without_times(result: TrialResult) -> dict[str, float]:
    return {name: value for name, value in result.metrics.items() if not name.startswith(("time/", "copy/"))}


def test_a_trial_reads_what_it_needs_from_its_nodes_disk(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, detection: tuple[TrialSpec, TrialResult]
) -> None:
    monkeypatch.setattr(data.store, "_SHARD_ROWS", 8)
    spec, expected = detection
    local = with_copies(bench, tmp_path)
    first = local.run(spec)
    assert without_times(first) == without_times(expected)
    pd.testing.assert_frame_equal(first.scores, expected.scores, check_exact=True)
    (copy,) = (tmp_path / "local").glob("*/*")
    original = tmp_path / "cache" / copy.relative_to(tmp_path / "local")
    copies = list(copy.glob("shard-*/rows.npy"))
    assert len(copies) == len(list(original.glob("shard-*")))
    assert first.metrics[names.COPIED_BYTES] == sum(path.stat().st_size for path in copies)
    assert first.metrics[names.COPY_SECONDS] > 0

    shutil.rmtree(original)  # the second trial neither reads the cache nor computes anything
    second = local.run(spec)
    assert without_times(second) == without_times(first)
    assert second.metrics[names.COPIED_BYTES] == 0
    assert not original.exists()


def test_preparing_for_all_nodes_copies_nothing(bench: Bench, tmp_path: Path) -> None:
    from grid.runner import prepare_shared

    local = with_copies(bench, tmp_path)
    prepare_shared(bench.spec(), local.settings, 0.0, lambda done, total: None)
    assert list((tmp_path / "cache" / "features").glob("*/shard-*"))
    assert not (tmp_path / "local").exists()


def test_a_shard_that_has_changed_in_the_cache_is_computed_again_and_copied(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    local = with_copies(bench, tmp_path)
    spec = bench.spec("xception_scratch", epochs=1)
    detector = build(spec, local.settings, "cpu")
    fill_inputs(detector, bench.manifest, local.settings)
    store = shared_store(detector, local.settings)
    digests = bench.manifest.table["digest"].tolist()
    expected = store.open(digests)[:]
    rows = next(store.folder.glob("shard-*/rows.npy"))
    content = bytearray(rows.read_bytes())
    content[-1] ^= 64
    rows.write_bytes(content)
    assert (store.open(digests)[:] != expected).any()
    found = prepare_inputs(detector, bench.manifest, bench.manifest.table, local.settings)
    np.testing.assert_array_equal(found[:], expected)
    assert f"{rows.parent} is damaged" in caplog.text


def test_a_full_disk_of_a_node_is_said_and_the_cache_is_read(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    spec = bench.spec()
    result = with_copies(bench, tmp_path).run(spec)
    assert without_times(result) == without_times(bench.run(spec))
    assert result.metrics[names.COPIED_BYTES] == 0
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
    assert result.metrics[names.COPIED_BYTES] == 0
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
