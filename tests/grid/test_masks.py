"""Methods that learn from masks, in trials and launches."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data.conditions import get_condition
from data.pictures import File
from grid import names
from grid.localisation import Localised, localise
from models.detector import Detector, Examples, FitSession
from models.localisation import chance, metric_names
from models.patch_head import PatchHeadDetector
from models.token_linear import LinearMapDetector
from tests.corpora import write_dolos
from tests.grid.command import Command, mlflow_runs
from tests.grid.fitting import Bench, Result

ALL = ["fixed", "valid", "oracle"]


@pytest.fixture(scope="module")
def mapped(bench: Bench) -> tuple[Result, Localised]:
    spec = bench.spec("mask_linear", train=("lama",))
    result = bench.run(spec)
    localised = localise(spec, result.fitted.detector, bench.settings)
    assert localised is not None
    return result, localised


# Trials


def test_fit_gets_the_masks_of_its_pictures_once_per_condition(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Examples] = []
    fit = LinearMapDetector.fit

    def seen(self: Detector, train: Examples, valid: Examples, session: FitSession) -> None:
        given.extend([train, valid])
        fit(self, train, valid, session)  # type: ignore[arg-type]

    monkeypatch.setattr(LinearMapDetector, "fit", seen)
    bench.run(bench.spec("mask_linear", train=("lama",), train_condition="clean+jpeg-75"))
    for examples in given:
        assert examples.masks is not None
        assert len(examples.masks) == len(examples.labels) == len(examples.inputs)
        masks = examples.masks[np.arange(len(examples.labels))]
        shares = np.array([mask.mean() for mask in masks if mask is not None])
        np.testing.assert_array_equal(shares, np.where(examples.labels == 1, 0.25, 0))


def test_a_method_that_does_not_ask_gets_none(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> np.ndarray:
        raise AssertionError("a mask was read")

    monkeypatch.setattr("data.masks.ManifestMasks.__getitem__", refuse)
    spec = bench.spec("residual_linear")
    result = bench.run(spec)
    assert localise(spec, result.fitted.detector, dataclasses.replace(bench.settings)) is None


@pytest.mark.parametrize("supervision", ["image", "mask"])
def test_a_setting_says_whether_masks_are_read(bench: Bench, supervision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Examples] = []
    fit = PatchHeadDetector.fit

    def seen(self: PatchHeadDetector, train: Examples, valid: Examples, session: FitSession) -> None:
        given.append(train)
        fit(self, train, valid, session)

    monkeypatch.setattr(PatchHeadDetector, "fit", seen)
    spec = bench.spec("patch_head", train=("lama",), supervision=supervision, epochs=1)
    result = bench.run(spec)
    assert (given[0].masks is None) == (supervision == "image")
    assert localise(spec, result.fitted.detector, bench.settings) is not None  # its maps are measured in any case


def test_every_test_fake_has_a_row_of_numbers(bench: Bench, mapped: tuple[Result, Localised]) -> None:
    images, facts = mapped[1].images, mapped[1].facts
    fakes = bench.manifest.table.query("split == 'test' and label == 1")
    assert sorted(images["path"]) == sorted(fakes["path"])
    assert images.groupby("tested_on").size().to_dict() == {"lama": 6, "ldm": 6}
    assert (images["area"] == 0.25).all()  # the middle of every picture
    own = images[metric_names(ALL)]
    others = images[[f"{prefix}_{name}" for prefix in ("mean_mask", "shuffled") for name in metric_names(ALL)]]
    assert own.stack().between(0, 1).all()
    assert others.stack().between(0, 1).all()
    assert facts["thresholds"] == ALL
    assert facts["left_out"] == {}
    assert facts["validation_fakes"] == 6
    assert facts["training_masks"] == 8


def test_the_mean_of_masks_that_are_all_the_same_finds_them_exactly(mapped: tuple[Result, Localised]) -> None:
    """And other pictures' masks are as good as the own."""
    images = mapped[1].images
    for name in metric_names(ALL):
        assert (images[f"mean_mask_{name}"] == 1).all()
        np.testing.assert_array_equal(images[f"shuffled_{name}"], images[name])


def test_the_oracle_is_no_worse_than_any_threshold(mapped: tuple[Result, Localised]) -> None:
    means = mapped[1].images.groupby("tested_on")[["iou_fixed", "iou_valid", "iou_oracle"]].mean()
    assert (means["iou_oracle"] >= means["iou_valid"] - 1e-12).all()
    assert (means["iou_oracle"] >= means["iou_fixed"] - 1e-12).all()
    assert means.loc["lama", "iou_oracle"] > chance("iou", 0.25)


def test_without_fakes_in_training_there_is_no_threshold_from_validation(bench: Bench) -> None:
    spec = bench.spec("mask_linear", train=("lama",))
    detector = bench.run(spec).fitted.detector
    found = localise(dataclasses.replace(spec, train_generators=()), detector, bench.settings)
    assert found is not None
    assert found.facts["thresholds"] == ["fixed", "oracle"]
    assert "iou_valid" not in found.images.columns
    assert found.facts["training_masks"] == 16  # of all generators


class Planted(Detector):
    """Knows the masks by the pictures' pixels: what a map is measured as, whatever a detector is."""

    classes = ("real", "fake")
    geometry = None

    def __init__(self, maps: Callable[[np.ndarray], np.ndarray]) -> None:
        self._maps = maps

    def maps(self, pixels: np.ndarray) -> np.ndarray:
        return self._maps(pixels)

    def fit(self, train: Examples, valid: Examples, session: FitSession) -> None: ...
    def predict(self, inputs: object) -> None: ...  # type: ignore[override]
    def save(self, folder: Path) -> None: ...
    def load(self, folder: Path) -> None: ...


def perfect(pixels: np.ndarray) -> np.ndarray:
    maps = np.full(pixels.shape[:3], -2.0, dtype=np.float32)
    maps[:, 16:48, 16:48] = 3.0
    return maps


def test_a_perfect_map_of_native_pictures_has_perfect_numbers(bench: Bench) -> None:
    found = localise(bench.spec("mask_linear"), Planted(perfect), bench.settings)
    assert found is not None
    assert (found.images[metric_names(ALL)] == 1).all(axis=None)
    assert found.metrics[names.map_metric("ldm", "iou_fixed")] == 1


@pytest.mark.parametrize(("value", "iou"), [(-1.0, 0.0), (1.0, 0.25)])
def test_a_constant_map_finds_nothing_or_everything(bench: Bench, value: float, iou: float) -> None:
    flat = Planted(lambda pixels: np.full((len(pixels), 4, 4), value, dtype=np.float32))
    found = localise(bench.spec("mask_linear"), flat, bench.settings)
    assert found is not None
    assert found.images["flat"].all()
    assert (found.images["iou_fixed"] == iou).all()
    assert (found.images["ap"] == 0.25).all()
    assert (found.images["auroc"] == 0.5).all()
    assert not found.images.isna().any(axis=None)


def test_a_map_that_is_not_finite_is_refused(bench: Bench) -> None:
    broken = Planted(lambda pixels: np.full((len(pixels), 4, 4), np.nan, dtype=np.float32))
    with pytest.raises(ValueError, match="a map must be finite"):
        localise(bench.spec("mask_linear"), broken, bench.settings)


def test_fakes_without_a_place_to_find_are_counted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty mask, a full one and none: three fakes of one generator."""
    table = bench.manifest.table.copy()
    chosen = table.index[(table["split"] == "test") & (table["label"] == 1) & (table["generator"] == "lama")][:3]
    table.loc[chosen[0], ["mask", "mask_digest"]] = pd.NA
    changed = dataclasses.replace(bench.manifest, table=table)
    changed.save(bench.settings.manifests / changed.digest)
    masks = {str(table.loc[chosen[1], "mask"]): False, str(table.loc[chosen[2], "mask"]): True}
    read = File.read

    def other(self: File, function: Callable[[Path], np.ndarray]) -> np.ndarray:
        name = self.path.relative_to(bench.manifest.root).as_posix()
        return np.full((64, 64), masks[name]) if name in masks else read(self, function)

    monkeypatch.setattr(File, "read", other)
    spec = dataclasses.replace(bench.spec("mask_linear"), data=changed.digest)
    found = localise(spec, Planted(perfect), bench.settings)
    assert found is not None
    assert found.facts["left_out"] == {"lama": {"without a mask": 1, "with an empty mask": 1, "with a full mask": 1}}
    assert (found.images["tested_on"] == "lama").sum() == 3


def test_a_picture_that_is_gone_costs_no_trial(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    moved = dataclasses.replace(bench.manifest, root=tmp_path)
    moved.save(bench.settings.manifests / moved.digest)
    try:
        assert localise(bench.spec("mask_linear"), Planted(perfect), bench.settings) is None
        assert "the maps are not compared with the masks" in caplog.text
    finally:
        bench.manifest.save(bench.settings.manifests / bench.manifest.digest)


# Launches

SMALL = ("--set", "mask_linear.backbone=demo-vit-64", "--weights", "mask_linear=random", "--tasks", "detection")


@pytest.fixture
def local(command: Command) -> Command:
    """`dolos` in this process with `mask_linear`; data and further options follow."""
    return lambda *more: command("dolos", "--local", "--seeds", "0", "--methods", "mask_linear", *SMALL, *more)


@pytest.fixture(scope="module")
def regional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fakes that differ from their originals inside the mask alone."""
    counts = {"train": 8, "valid": 6, "test": 6}
    return write_dolos(tmp_path_factory.mktemp("regional") / "dolos", ("lama", "ldm"), counts, size=64)


def test_values_are_in_mlflow_and_with_the_run(local: Command, regional: Path, runs: Path, store: str) -> None:
    assert local("--data", regional, "--train-on", "lama").status == 0
    (run,) = mlflow_runs(runs, names.TRIAL_ROLE)
    (file,) = runs.rglob("localisation.parquet")
    images, facts = pd.read_parquet(file), json.loads(file.with_suffix(".json").read_text())
    for generator, rows in images.groupby("tested_on"):
        for metric in metric_names(facts["thresholds"]):
            assert run.data.metrics[f"maps/{generator}/{metric}"] == pytest.approx(rows[metric].mean())


def changed(root: Path, folder: Path, function: Callable[[np.ndarray], np.ndarray] | None) -> Path:
    """A copy whose masks of lama are changed, or gone."""
    copy = Path(shutil.copytree(root, folder))
    for path in copy.glob("celebahq/fake/lama/masks/*/*.png"):
        if function is None:
            path.unlink()
        else:
            Image.fromarray(function(np.asarray(Image.open(path)))).save(path)
    return copy


def test_data_without_masks_are_refused_before_anything_runs(
    local: Command, regional: Path, runs: Path, tmp_path: Path
) -> None:
    lacking = changed(regional, tmp_path / "lacking", None)
    for more in ((), ("--plan",)):
        outcome = local("--data", lacking, *more)
        assert outcome.status == 2
        refusal = outcome.text.partition("mask_linear learns from masks, and cannot be trained on these data:")[2]
        assert "lama: no training and no validation fake has a mask" in refusal
        assert "ldm:" not in refusal
        assert "choose other generators (--generators)" in refusal
    assert local("--data", lacking, "--generators", "ldm", "--plan").status == 0
    assert mlflow_runs(runs, names.TRIAL_ROLE) == []


def test_masks_that_the_audit_doubts_are_refused_unless_they_are_accepted(
    local: Command, regional: Path, tmp_path: Path, store: str
) -> None:
    turned = changed(regional, tmp_path / "turned", lambda mask: 255 - mask)
    outcome = local("--data", turned, "--train-on", "lama")
    assert outcome.status == 2
    refusal = outcome.text.partition("learns from masks")[2]
    assert "lama: 20 of 20 masks are inverted" in refusal
    assert "give --accept-audit masks" in refusal
    assert local("--data", turned, "--train-on", "ldm", "--plan").status == 0
    assert local("--data", turned, "--train-on", "lama", "--accept-audit", "masks").status == 0


def test_a_condition_that_moves_pixels_is_refused_for_training(local: Command, regional: Path) -> None:
    outcome = local("--data", regional, "--train-condition", "crop-90", "--plan")
    assert outcome.status == 2
    assert "under crop-90, masks do not fit the pictures any more" in outcome.text
    assert local("--data", regional, "--train-condition", "jpeg-75", "--plan").status == 0
    assert get_condition("crop-90").moves
    assert not get_condition("resize-50").moves
