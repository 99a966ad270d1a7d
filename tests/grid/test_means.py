"""Means over own and unseen generators, and what MLflow shows of them, on values that were set by hand."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score, roc_curve

from data.conditions import CLEAN
from data.manifest import Manifest
from grid import names
from grid.means import CROSS_GENERATOR, IN_DOMAIN, mean_of, means_over_cells, summary_of_method, summary_of_trial
from grid.overview import OVERALL, OWN, UNSEEN, accuracies_of
from grid.previews import make_previews, roc_points, worst_mistakes
from grid.settings import RunSettings
from grid.tasks import ATTRIBUTION, OPEN_SET
from grid.train_sets import TrainSet
from grid.trial import Scored
from tests.grid.grids import make_spec, open_grid, paper_manifest

LAMA, BOTH, NONE = TrainSet(("lama",)), TrainSet(("lama", "ldm")), TrainSet(())


def aurocs(**values: float) -> dict[str, float]:
    return {names.metric_name(name, "auroc"): value for name, value in values.items()}


def test_a_cell_is_in_domain_if_its_generator_was_trained_on() -> None:
    cells = {(LAMA, "lama"): 1.0, (LAMA, "ldm"): 0.6, (LAMA, "repaint"): 0.8, (BOTH, "ldm"): 0.5}
    means = means_over_cells(cells)
    assert means == {IN_DOMAIN: 0.75, CROSS_GENERATOR: pytest.approx(0.7)}
    assert means_over_cells({(NONE, "lama"): 0.9}) == {CROSS_GENERATOR: 0.9}
    assert means_over_cells({}) == {}
    assert np.isnan(mean_of([]))
    assert mean_of([1.0, float("nan"), 0.5]) == 0.75


def test_a_trial_has_its_means_on_clean_pictures_alone() -> None:
    metrics = aurocs(lama=0.9, ldm=0.6, repaint=0.8) | {
        names.metric_name("ldm", "accuracy"): 0.55, names.metric_name("ldm", "auroc", "jpeg-75"): 0.1,
        names.THRESHOLD: 3.0, names.validation_metric("ldm"): 0.2,
    }  # fmt: skip
    assert summary_of_trial(LAMA, metrics) == {
        "summary/in-domain/auroc": 0.9,
        "summary/cross-generator/auroc": pytest.approx(0.7),
        "summary/cross-generator/accuracy": 0.55,
    }
    assert summary_of_trial(NONE, aurocs(lama=0.9)) == {"summary/cross-generator/auroc": 0.9}
    assert summary_of_trial(LAMA, {}) == {}


def test_a_method_has_the_mean_of_the_cells_each_of_them_over_its_seeds() -> None:
    trials = [(LAMA, aurocs(lama=0.9, ldm=0.6)), (LAMA, aurocs(lama=0.7, ldm=0.6)),
              (TrainSet(("ldm",)), aurocs(lama=0.4, ldm=1.0))]  # fmt: skip
    found = summary_of_method("clip_linear (lr=0.1, size=64)", trials)
    assert found == {
        "summary/clip_linear lr 0.1 size 64/in-domain/auroc": pytest.approx((0.8 + 1.0) / 2),
        "summary/clip_linear lr 0.1 size 64/cross-generator/auroc": pytest.approx((0.6 + 0.4) / 2),
    }


def test_the_progress_of_a_grid_says_the_same_means(tmp_path: Path) -> None:
    spec = make_spec(paper_manifest(tmp_path).digest, train=("lama",))
    metrics = {names.metric_name(name, "accuracy"): value for name, value in (("lama", 0.9), ("ldm", 0.5))}
    assert accuracies_of(metrics, spec) == {OWN: 0.9, UNSEEN: 0.5}
    others = {names.metric_name("all", "accuracy"): 0.7, names.metric_name("all", "macro_f1"): 0.6} | metrics
    assert accuracies_of(others, replace(spec, task="attribution")) == {OVERALL: 0.7}
    assert accuracies_of(others, replace(spec, task="shuffled_labels")) == {}


# In MLflow -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return paper_manifest(tmp_path / "images")


def test_the_grids_run_has_each_methods_means_and_a_description(store: str, manifest: Manifest, tmp_path: Path) -> None:
    specs = [make_spec(manifest.digest, train=(name,), seed=seed) for name in ("lama", "ldm") for seed in (0, 1)]
    control = make_spec(manifest.digest, "mean_brightness", train=("lama",))
    unfinished = make_spec(manifest.digest, "clip_linear", train=("lama",))
    tracker = open_grid(store, "dolos", manifest, [*specs, control, unfinished], tmp_path / "artifacts")
    checkpoint = tmp_path / "fitted"
    checkpoint.mkdir()
    (checkpoint / "head.json").write_text("{}")
    scores = pd.DataFrame({"score": [0.5]})
    for number, spec in enumerate([*specs, control]):
        own, other = spec.train_generators[0], "ldm" if spec.train_generators[0] == "lama" else "lama"
        metrics = aurocs(**{own: 0.9 + number / 100, other: 0.5 + number / 100})
        run = tracker.open_trial(spec, {})
        run.finish(Scored(CLEAN, metrics, scores, np.zeros((1, 2), np.float16)), {}, {}, checkpoint)
    tracker.close_grid(complete=False)
    client = tracker.client
    grid = client.get_run(tracker.parent_id)
    method = specs[0].method
    expected = {f"summary/{method}/in-domain/auroc": 0.915, f"summary/{method}/cross-generator/auroc": 0.515}
    assert {name: value for name, value in grid.data.metrics.items() if name.startswith(names.SUMMARY)} == {
        name: pytest.approx(value) for name, value in expected.items()
    }
    note = grid.data.tags[names.DESCRIPTION]
    assert f"| `{method}` | 0.515 | none | 0.915 | none |" in note
    assert "mean_brightness" not in note
    client.set_tag(tracker.parent_id, names.DESCRIPTION, "my own words")
    tracker.close_grid(complete=False)  # nothing new: no second point
    assert len(client.get_metric_history(tracker.parent_id, f"summary/{method}/in-domain/auroc")) == 1
    assert client.get_run(tracker.parent_id).data.tags[names.DESCRIPTION] == "my own words"
    runs = client.search_runs([tracker.experiment_id])
    assert all(value for run in runs for value in run.data.tags.values())  # no tag is empty
    (first,) = tracker.records.runs_of(specs[0].key)
    assert method in first.data.tags[names.DESCRIPTION]
    assert "seed 0" in first.data.tags[names.DESCRIPTION]


# Pictures ------------------------------------------------------------------------------------------------------------


def test_the_curve_is_that_of_scikit_learn_with_its_area() -> None:
    rng = np.random.default_rng(0)
    labels, scores = np.repeat([0, 1], 40), np.round(rng.normal(size=80) + np.repeat([0, 1], 40), 1)
    points = roc_points(labels, scores)
    rates = roc_curve(labels, scores, drop_intermediate=False)[:2]
    assert points == pytest.approx(np.stack(rates, axis=1))
    assert np.trapezoid(points[:, 1], points[:, 0]) == pytest.approx(roc_auc_score(labels, scores))


def test_the_worst_mistakes_are_the_most_certain_wrong_answers() -> None:
    scores = pd.DataFrame(
        {"label": [0, 0, 1, 1, 1, 0], "score": [3.0, -9.0, -5.0, 8.0, -3.0, 0.0], "digest": list("cbdaef")}
    )
    assert worst_mistakes(scores, 9)["digest"].tolist() == ["d", "c", "e"]  # of equal ones, c before e
    assert worst_mistakes(scores, 1)["digest"].tolist() == ["d"]
    assert worst_mistakes(scores, 9, threshold=-4.0)["digest"].tolist() == ["c", "f", "d"]


def test_pictures_of_a_trial_are_files_and_a_photograph_that_is_gone_is_said(
    tmp_path: Path, manifest: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    settings = RunSettings(cache=tmp_path / "cache", runs=tmp_path / "runs", tracking_uri=uri)
    manifest.save(settings.manifests / manifest.digest)
    spec = make_spec(manifest.digest, train=("lama",))
    rows = manifest.select("test", manifest.generators)
    scores = rows[["path", "digest", "source_id", "generator", "label"]].reset_index(drop=True)
    for number, path in enumerate(manifest.paths(rows)[1:]):  # the first one is gone
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (8 * number, 90, 120)).save(path)
    scores["score"] = np.where(scores["label"] == 1, -1.0, 1.0) * np.arange(len(scores), 0, -1)  # all are wrong
    metrics = {names.metric_name(name, metric): 0.25 for name in ("lama", "ldm") for metric in ("auroc", "accuracy")}
    scored = Scored(CLEAN, metrics, scores, np.zeros((len(scores), 2), np.float16))
    previews = make_previews(spec, scored, settings)
    assert previews is not None
    assert [record.args[0] for record in caplog.records if record.args] == [rows["path"].iloc[0]]
    shutil.rmtree(manifest.paths(rows)[1].parent)
    caplog.clear()
    assert make_previews(spec, scored, settings) is not None
    assert len(caplog.records) > 1
    previews.write(tmp_path / "out")
    written = sorted(path.name for path in (tmp_path / "out" / names.PREVIEW).iterdir())
    assert written == ["cells.png", "roc.png", "worst_mistakes.png"]
    for name in written:
        with Image.open(tmp_path / "out" / names.PREVIEW / name) as picture:
            assert picture.width <= 1280
            assert len(set(picture.convert("L").tobytes())) > 2
    assert make_previews(make_spec(manifest.digest, task=OPEN_SET, train=("lama",)), scored, settings) is None


def test_the_answers_of_attribution_are_a_picture(tmp_path: Path) -> None:
    settings = RunSettings(cache=tmp_path / "cache", runs=tmp_path / "runs", tracking_uri="sqlite://")
    scores = pd.DataFrame(
        {"generator": ["real", "lama", "lama", "ldm"], "label": [0, 1, 1, 1], "logit_real": [1.0, 0, 0, 0],
         "logit_lama": [0.0, 1, 0, 0], "logit_ldm": [0.0, 0, 1, 1]}
    )  # fmt: skip
    spec = make_spec("0" * 16, task=ATTRIBUTION, train=("lama", "ldm"))
    previews = make_previews(spec, Scored(CLEAN, {}, scores, np.zeros((4, 2), np.float16)), settings)
    assert previews is not None
    previews.write(tmp_path / "out")
    with Image.open(tmp_path / "out" / names.PREVIEW / "confusion.png") as picture:
        assert picture.width <= 1280
        assert len(set(picture.convert("L").tobytes())) > 2
