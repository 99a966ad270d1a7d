"""Null controls and the references that need no pictures, by hand; a control can be built for every method."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.controls import control_trials, outcomes
from data.manifest import Manifest
from grid.controls import (
    CONTROL,
    HEADERS_ONLY,
    MASK_AREA,
    METHOD,
    REFERENCE,
    control_problems,
    kind_of,
    references,
    task_words,
)
from grid.experiments import PUBLISHED, cross_generator_trials
from grid.spec import TrialSpec
from grid.tasks import DETECTION, WHOLE, get_task, list_controls
from grid.train_sets import TrainSet
from grid.trial import build, fit, score
from models.detector import DETECTION_CLASSES, FitSession
from models.registry import detector_info, list_detectors, list_references
from tests.grid.grids import make_manifest, make_settings, make_spec, paper_manifest, write_obvious

METHODS = list_detectors()


def rows_of(*rows: tuple[int, str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["label", "generator", "source_id"])


def coin(task: str, seed: int, source: str) -> int:
    """The lowest bit of the first byte of a SHA-256, computed apart from the code."""
    return hashlib.sha256(f"{task}\n{seed}\n{source}".encode()).digest()[0] % 2


# Labels --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_shuffled_labels_by_hand(seed: int) -> None:
    sources = list("abcdefgh")
    rows = rows_of(*[(0, "real", s) for s in sources], *[(1, "lama", s) for s in sources], *[(1, "ldm", "a")])
    task = get_task("shuffled_labels", seed)
    coins = [coin("shuffled_labels", seed, source) for source in sources]
    assert task.class_numbers(rows, DETECTION_CLASSES).tolist() == [*coins, *(1 - c for c in coins), 1 - coins[0]]
    cells = task.cells(rows, DETECTION_CLASSES)
    assert list(cells) == ["lama", "ldm"]
    numbers = task.class_numbers(rows, DETECTION_CLASSES)
    assert numbers[cells["lama"]].sum() == 8  # of a cell of pairs, half is fake whatever the coins say


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_real_against_real_by_hand(seed: int) -> None:
    rows = rows_of((0, "real", "a"), (1, "lama", "a"), (0, "lama", "b"), (0, "real", "c"))
    task = get_task("real_against_real", seed)
    a, b, c = (coin("real_against_real", seed, source) for source in "abc")
    assert task.class_numbers(rows, DETECTION_CLASSES).tolist() == [a, -1, b, c]
    assert {name: cell.tolist() for name, cell in task.cells(rows, DETECTION_CLASSES).items()} == {
        WHOLE: [True, False, True, True]
    }


@pytest.mark.parametrize("name", list_controls())
def test_without_a_seed_there_are_no_labels(name: str) -> None:
    with pytest.raises(ValueError, match=rf"labels of {name} follow from the trial's seed: get_task\('{name}', seed\)"):
        get_task(name).class_numbers(rows_of((0, "real", "a")), DETECTION_CLASSES)


@pytest.mark.parametrize("name", list_controls())
def test_half_of_many_photographs_are_called_fake_and_seeds_do_not_agree(name: str) -> None:
    rows = rows_of(*[(0, "real", str(number)) for number in range(4000)])
    first, second = (get_task(name, seed).class_numbers(rows, DETECTION_CLASSES) for seed in (0, 1))
    for share in (first.mean(), second.mean(), (first == second).mean()):
        assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(4000)


# Trials --------------------------------------------------------------------------------------------------------------


def trials_of(methods: Iterable[str], **options: object) -> list[TrialSpec]:
    return list(
        cross_generator_trials(
            generators=("lama", "ldm"), configs={method: {} for method in methods}, tasks=[DETECTION, *list_controls()],
            seeds=[0, 1], data="d", **options,  # type: ignore[arg-type]
        )
    )  # fmt: skip


def test_a_control_is_one_trial_per_method_and_seed_whatever_is_trained_on() -> None:
    for train_on in (None, "each", "all-but-one"):
        trials = [trial for trial in trials_of(["m"], train_on=train_on) if trial.task != DETECTION]
        assert [(trial.task, trial.train_generators, trial.seed) for trial in trials] == [
            ("real_against_real", (), 0),
            ("shuffled_labels", ("lama", "ldm"), 0),
            ("real_against_real", (), 1),
            ("shuffled_labels", ("lama", "ldm"), 1),
        ]


def test_a_method_that_trains_without_fakes_has_no_controls() -> None:
    assert {trial.task for trial in trials_of(["m"], without_fakes=["m"])} == {DETECTION}


def test_kinds_of_trials() -> None:
    assert kind_of("shuffled_labels", "clip_linear") == CONTROL
    assert kind_of(DETECTION, "mean_brightness") == REFERENCE
    assert kind_of(DETECTION, "clip_linear") == kind_of("gone", "gone") == METHOD
    assert task_words("shuffled_labels", "clip_linear") == "shuffled_labels (control)"
    assert task_words(DETECTION, "random_encoder") == "detection (reference)"
    assert task_words(DETECTION, "clip_linear") == DETECTION


def test_no_reference_is_a_method_of_an_experiment() -> None:
    assert list_references() == ["mean_brightness", "random_encoder"]
    assert not set(PUBLISHED) & set(list_references())


@pytest.mark.parametrize("method", METHODS)
def test_a_control_can_be_built_for_every_method(method: str, tmp_path: Path) -> None:
    if not detector_info(method).needs_fakes:
        pytest.skip("a method that is trained without fakes has no controls")
    for name in list_controls():
        (train,) = get_task(name).train_sets(None, ("lama", "ldm"))
        spec = make_spec("d", method, task=name, train=train.generators, seed=3)
        assert spec.classes == DETECTION_CLASSES  # so one detector is built for both
        assert TrialSpec.from_dict(spec.to_dict()) == spec
    assert build(spec, make_settings(tmp_path), "cpu").classes == DETECTION_CLASSES


@pytest.fixture(scope="module")
def obvious(tmp_path_factory: pytest.TempPathFactory) -> Path:
    counts = {"train": 24, "valid": 12, "test": 24}
    return write_obvious(tmp_path_factory.mktemp("obvious"), counts=counts)


def test_fakes_that_no_detector_misses_leave_controls_at_chance(obvious: Path, tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    manifest = make_manifest(obvious, settings)
    values = {}
    for number, name in enumerate((DETECTION, *list_controls())):
        task = get_task(name, 1)
        (train,) = task.train_sets("all", manifest.generators)
        spec = make_spec(manifest.digest, task=name, train=train.generators, seed=1)
        folder = tmp_path / str(number)
        folder.mkdir()
        fitted = fit(spec, settings, FitSession(), device="cpu", checkpoint_to=folder)
        scored = score(spec, fitted.detector, settings, threshold=fitted.threshold)
        values[name] = {key: value for key, value in scored.metrics.items() if key.endswith("/auroc")}
        assert set(scored.scores["label"]) == {0, 1}  # the true ones: what is shuffled is not kept
    assert list(values[DETECTION].values()) == [pytest.approx(1.0)] * 2
    assert list(values["real_against_real"]) == ["test/all/auroc"]
    assert list(values["shuffled_labels"]) == ["test/lama/auroc", "test/ldm/auroc"]
    for name in list_controls():
        assert all(0.15 < value < 0.85 for value in values[name].values())


@pytest.mark.long
def test_pooled_over_five_seeds_controls_are_at_chance(obvious: Path, tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    trials = control_trials(make_manifest(obvious, settings), ["residual_linear"], range(5))
    outside = [value for spec in trials for value in outcomes(spec, settings)]
    assert len(outside) == 5 * (2 + 1) * 2  # seeds, cells, metrics
    assert sum(outside) <= 1  # 2 of 100


def test_too_few_photographs_are_refused_before_anything_runs(tmp_path: Path) -> None:
    manifest = paper_manifest(tmp_path, num_each=1)
    (problem, *_) = control_problems([make_spec("d", task="real_against_real", train=())], manifest)
    assert problem.startswith(
        "real_against_real, seed 0: by chance, one of its two classes has no image among the 1 of"
    )
    assert "other --seeds" in problem
    assert control_problems([make_spec("d")], manifest) == []
    assert control_problems([make_spec("d", task="shuffled_labels", train=("lama", "ldm"))], manifest) == []


# References ----------------------------------------------------------------------------------------------------------


def manifest_of(tmp_path: Path, num_each: int = 10, **columns: object) -> Manifest:
    manifest = paper_manifest(tmp_path, num_each=num_each)
    return dataclasses.replace(manifest, table=manifest.table.assign(**columns))


def areas(manifest: Manifest, value: object) -> pd.DataFrame:
    """What is measured: the area of each fake's mask, by (source, generator)."""
    table = manifest.table
    shares = [
        float(value(source, generator)) if label else np.nan  # type: ignore[operator]
        for label, source, generator in table[["label", "source_id", "generator"]].to_numpy().tolist()
    ]
    return pd.DataFrame({"mask_share": shares}, index=table.index)


def value_of(cells: pd.DataFrame, reference: str, trained_on: str, tested_on: str) -> pd.Series:
    own = cells[
        (cells["reference"] == reference) & (cells["trained_on"] == trained_on) & (cells["tested_on"] == tested_on)
    ]
    (row,) = own.to_dict("records")
    return pd.Series(row)


def test_where_all_are_paired_the_area_says_nothing(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path)
    measured = areas(manifest, lambda source, generator: len(generator) + int(source[-1]) / 10)
    cells = references(manifest, measured, [TrainSet(("lama",)), TrainSet(())]).cells
    for tested_on in ("lama", "ldm"):
        row = value_of(cells, MASK_AREA, "lama", tested_on)
        assert (row["auroc"], row["accuracy"], row["num_images"], row["left_out"]) == (0.5, 0.5, 20, 0)
    assert set(cells["trained_on"]) == {"lama"}  # a set without fakes has no reference


def test_the_area_says_which_photographs_were_edited_more(tmp_path: Path) -> None:
    """Test fakes of lama are of photographs 0 to 3 alone; the real 4 to 9 count with their fakes of ldm.

    Areas of lama are .5, of ldm .1 (photographs 4 to 8); photograph 9 has no fake at all. So four fakes of .5 stand
    against four real images of .5 and five of .1: AUROC (4 * 5 + 4 * 4 / 2) / (4 * 9) = 28 / 36.
    """
    manifest = manifest_of(tmp_path)
    table = manifest.table
    number = table["source_id"].str[-1].astype(int)
    gone = (table["split"] == "test") & (
        ((table["generator"] == "lama") & (number > 3)) | ((table["generator"] == "ldm") & (number == 9))
    )
    manifest = dataclasses.replace(manifest, table=table[~gone].reset_index(drop=True))
    measured = areas(manifest, lambda source, generator: {"lama": 0.5, "ldm": 0.1}[generator])
    row = value_of(references(manifest, measured, [TrainSet(("lama",))]).cells, MASK_AREA, "lama", "lama")
    assert row["auroc"] == pytest.approx(28 / 36, abs=1e-12)
    assert (row["num_images"], row["left_out"]) == (13, 1)


def test_fakes_without_masks_have_no_area_and_that_is_said(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path)
    found = references(manifest, areas(manifest, lambda *_: np.nan), [TrainSet(("lama",))])
    assert set(found.cells["reference"]) == {HEADERS_ONLY}
    assert found.notes == tuple(
        f"mask_area, trained on lama, tested on {name}: one class has no known area" for name in ("lama", "ldm")
    )


def test_headers_by_hand(tmp_path: Path) -> None:
    """Fakes of lama are JPEG, all others PNG: who trains on lama finds all of lama and none of ldm."""
    manifest = manifest_of(tmp_path)
    table = manifest.table
    table = table.assign(format=np.where(table["generator"] == "lama", "JPEG", "PNG"))
    manifest = dataclasses.replace(manifest, table=table)
    found = references(manifest, areas(manifest, lambda *_: 0.2), [TrainSet(("lama",)), TrainSet(("ldm",))])
    for (trained_on, tested_on), auroc in {
        ("lama", "lama"): 1.0,
        ("lama", "ldm"): 0.5,
        ("ldm", "ldm"): 0.5,
        ("ldm", "lama"): 0.5,  # neither real images nor fakes of its training set are JPEG
    }.items():
        assert value_of(found.cells, HEADERS_ONLY, trained_on, tested_on)["auroc"] == auroc
    assert len(found.scores) == found.cells["num_images"].sum()


def test_the_size_of_a_file_is_one_of_the_facts(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path)
    table = manifest.table.assign(num_bytes=np.where(manifest.table["generator"] == "ldm", 900, 1000))
    manifest = dataclasses.replace(manifest, table=table)
    found = references(manifest, areas(manifest, lambda *_: 0.2), [TrainSet(("ldm",))])
    assert value_of(found.cells, HEADERS_ONLY, "ldm", "ldm")["accuracy"] == 1.0


def test_the_same_scores_have_the_same_file(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path)
    first, second = (references(manifest, areas(manifest, lambda *_: 0.2), [TrainSet(("ldm",))]) for _ in range(2))
    other = references(manifest, areas(manifest, lambda *_: 0.2), [TrainSet(("lama",))])
    assert first.file == second.file != other.file
    assert first.to_dict() == second.to_dict()
