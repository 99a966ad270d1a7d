"""INP-X, drawn small: plain inpaintings and exchanged ones; the names of four data sets lead to their originals."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.manifest import DataProblems, Manifest, build_manifest
from data.masks import ManifestMasks, check_sample
from data.sources import get_source, preferred, recognise
from tests.corpora import picture
from tests.published import INPX, save, write_inpx

Build = Callable[..., Manifest]
TRAIN = "mounted/inpainting_exchange/train-data"
GENERATORS = ("Kandinsky_2_2", "Kandinsky_2_2-exchanged", "OpenJourney", "OpenJourney-exchanged")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_inpx(tmp_path / "x")


@pytest.fixture
def build(root: Path, cache: Path) -> Build:
    return lambda **options: build_manifest("inpx", root, cache=cache, **options)


def test_plain_and_exchanged_images_are_generators_of_their_own(build: Build) -> None:
    manifest = build()
    table = manifest.table
    assert manifest.generators == manifest.train_generators == GENERATORS
    fakes = table[table["label"] == 1]
    assert fakes.groupby("generator").size().to_dict() == dict.fromkeys(GENERATORS, 28)
    assert fakes[fakes["split"] == "test"].groupby("generator").size().to_dict() == dict.fromkeys(GENERATORS, 4)
    assert (table["label"] == 0).sum() == 28
    assert get_source("inpx").ordered(manifest.generators)[:2] == ["Kandinsky_2_2", "OpenJourney"]


def test_validation_is_taken_from_training_photographs_and_that_is_said(build: Build) -> None:
    manifest = build()
    table = manifest.table
    (note,) = (note for note in manifest.notes if note.startswith("no validation images of "))
    assert "chosen by a hash of the source id" in note
    valid = table[table["split"] == "valid"]
    assert len(valid) == 5 * valid["source_id"].nunique() > 0  # the original and its four fakes go together
    assert not set(valid["source_id"]) & set(table.loc[table["split"] != "valid", "source_id"])


@pytest.mark.parametrize(
    ("data_set", "source"),
    [("CelebAHQ", "t0345"), ("CityScapes", "t0chen_000001_000019"), ("OpenImages", "t023456789abcdef"),
     ("SUN_RGBD", "t0g_0042")],
)  # fmt: skip
def test_the_original_follows_from_the_name(build: Build, data_set: str, source: str) -> None:
    table = build().table
    rows = table[table["source_id"] == f"{data_set}/{source}"]
    assert sorted(rows["generator"]) == [*GENERATORS, "real"]
    assert rows.loc[rows["label"] == 0, "path"].item().endswith(f"/originals/{data_set}/{source}.jpg")
    assert rows.loc[rows["label"] == 1, "mask"].nunique() == 1


def test_white_is_fake_in_masks_that_are_jpeg(build: Build, cache: Path) -> None:
    manifest = build()
    fakes = manifest.table[manifest.table["label"] == 1]
    masks = ManifestMasks(manifest, fakes)[np.arange(len(fakes))]
    assert all(mask is not None and abs(mask.mean() - 0.25) < 0.1 for mask in masks)
    num_pairs, findings = check_sample(manifest, cache=cache)
    assert num_pairs == 4 * 20
    assert not [finding for finding in findings if "inverted" in str(finding)]


def test_it_is_recognised_wherever_it_was_mounted(root: Path, build: Build, cache: Path) -> None:
    assert recognise(root) == ["inpx"]
    assert preferred(root / "mounted") == ["inpx"]
    digest = build().digest
    (root / "mounted/inpainting_exchange").rename(root / "a name of its own")
    assert build().digest == digest
    assert build_manifest("inpx", root / "a name of its own", cache=cache).digest == digest


# What users reported, and what else goes wrong ------------------------------------------------------------------------


def test_originals_of_another_size_are_no_pairs(root: Path, build: Build, cache: Path) -> None:
    for path in (root / TRAIN / "data/originals/CelebAHQ").iterdir():
        save(path, picture(path.stem, 40))
    manifest = build()
    assert set(manifest.table["width"]) == {16, 40}
    num_pairs, findings = check_sample(manifest, cache=cache)
    assert 0 < num_pairs < 80
    assert not [finding for finding in findings if "inverted" in str(finding)]


def test_missing_originals_and_masks_are_counted_and_their_fakes_stay(root: Path, build: Build) -> None:
    before = len(build().table)
    next((root / TRAIN / "data/originals/SUN_RGBD").iterdir()).unlink()
    next((root / TRAIN / "masks/CelebAHQ_masks").iterdir()).unlink()
    manifest = build()
    assert len(manifest.table) == before - 1
    assert "train: 4 fakes have no original" in manifest.notes
    assert "train: 4 fakes have no mask; localisation leaves them out" in manifest.notes


def test_masks_of_no_image_are_counted(root: Path, build: Build) -> None:
    save(root / TRAIN / "masks/CelebAHQ_masks/99_nose.jpg", picture("mask"))
    assert "train: 1 masks belong to no image, and were left out" in build().notes


def test_an_exchanged_image_among_the_plain_ones(root: Path, build: Build) -> None:
    path = next((root / TRAIN / "data/inpainting_exchange/CelebAHQ").iterdir())
    path.rename(root / TRAIN / "data/standard_inpainting/CelebAHQ" / path.name)
    with pytest.raises(DataProblems, match=r"an exchanged image among the plain ones \(1\)"):
        build()
    assert len(build(skip_bad=True).skipped) == 1


def test_a_name_without_data_set_and_model(root: Path, build: Build) -> None:
    save(root / TRAIN / "data/standard_inpainting/CelebAHQ/00001.jpg", picture("y"))
    with pytest.raises(DataProblems, match=r"a name that is not of INP-X \(1\).*without _CelebAHQ_<model>|INP-X \(1\)"):
        build()


def test_an_archive_that_was_extracted_in_part(root: Path, build: Build) -> None:
    shutil.rmtree(root / TRAIN / "data/inpainting_exchange")
    with pytest.raises(DataProblems, match=r"missing folder \(1\).*\n.*train-data/data/inpainting_exchange"):
        build()


def test_two_copies_of_the_archive(root: Path, build: Build) -> None:
    shutil.copytree(root / "mounted", root / "again")
    with pytest.raises(
        DataProblems, match=r"several folders of one split[\s\S]*again/inpainting_exchange/train-data, mounted"
    ):
        build()


def test_a_data_set_that_is_not_of_inpx(root: Path, build: Build) -> None:
    save(root / TRAIN / "data/originals/FFHQ/1.jpg", picture("y"))
    with pytest.raises(DataProblems, match=r"a data set that is not of INP-X[\s\S]*\(FFHQ\)"):
        build()


def test_the_test_part_alone_and_another_folder(root: Path, cache: Path) -> None:
    with pytest.raises(DataProblems, match="only test images"):
        build_manifest("inpx", root / "mounted/inpainting_exchange/test-data", cache=cache)
    (root / "empty").mkdir()
    with pytest.raises(DataProblems, match="no folder train-data or test-data"):
        build_manifest("inpx", root / "empty", cache=cache)


def test_one_photograph_in_train_and_test_is_a_leak(root: Path, build: Build) -> None:
    path = next((root / TRAIN / "data/originals/CelebAHQ").iterdir())
    other = root / TRAIN.replace("train-data", "test-data") / "data/originals/CelebAHQ" / path.name
    save(other, picture("another"))
    with pytest.raises(DataProblems, match="one photograph in two splits"):
        build()


def test_a_model_that_is_not_of_the_three_is_a_generator(root: Path, build: Build) -> None:
    for path in list(root.rglob("*OpenJourney*")):
        path.rename(str(path).replace("OpenJourney", "Another Model"))
    assert "Another Model-exchanged" in build().generators


def test_every_data_set_is_drawn() -> None:
    assert set(INPX) == {"CelebAHQ", "CityScapes", "OpenImages", "SUN_RGBD"}
