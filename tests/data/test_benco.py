"""Folders Au, Tp and Gt, drawn small: BR-Gen, and classic sets of image manipulation."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.manifest import DataProblems, Manifest, build_manifest
from data.masks import ManifestMasks, check_sample
from data.sources import preferred, recognise
from tests.corpora import picture
from tests.published import save, write_brgen, write_classic

Build = Callable[..., Manifest]
NAMES = [f"COCO_{number:011d}" for number in range(500, 540)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "x"


@pytest.fixture
def build(root: Path, cache: Path) -> Build:
    return lambda **options: build_manifest("benco", root, cache=cache, **options)


def write_splits(root: Path) -> Path:
    """BR-Gen with a folder per split."""
    for split, names in (("Train", NAMES[:8]), ("Val", NAMES[8:11]), ("Test", NAMES[11:14])):
        write_brgen(root / f"BRGen-Stuff-{split}", names)
    return root


def test_br_gen_has_its_generators_and_photographs_in_its_names(root: Path, build: Build, cache: Path) -> None:
    manifest = build_manifest("benco", write_splits(root), cache=cache)
    table = manifest.table
    assert table.groupby(["generator", "split"]).size().to_dict() == {
        (name, split): number
        for name in ("LaMa", "MAT", "real")
        for split, number in (("train", 8), ("valid", 3), ("test", 3))
    }
    assert set(table["source_id"]) == set(NAMES[:14])
    rows = table[table["source_id"] == NAMES[0]]
    assert sorted(Path(path).name for path in rows["path"]) == [
        f"{NAMES[0]}.png", f"LaMa_Stuff_{NAMES[0]}.png", f"MAT_Stuff_{NAMES[0]}.png",
    ]  # fmt: skip
    assert sorted(Path(path).name for path in rows["mask"].dropna()) == [
        f"LaMa_Stuff_{NAMES[0]}_mask.png", f"MAT_Stuff_{NAMES[0]}_mask.png",
    ]  # fmt: skip
    assert check_sample(manifest, cache=cache)[0] == 28
    assert not [finding for finding in check_sample(manifest, cache=cache)[1] if "inverted" in str(finding)]


def test_the_published_kit_of_one_split_is_split_by_photograph(root: Path, cache: Path) -> None:
    write_brgen(root / "BRGen-Stuff-Val", NAMES)
    (root / "BRGen-Stuff-Val").rename(root / "kit")
    manifest = build_manifest("benco", root / "kit", cache=cache)
    assert "the folders name no splits; images were split 80/10/10 by photograph with seed 0" in manifest.notes
    assert manifest.table.groupby("source_id")["split"].nunique().max() == 1
    assert manifest.table["split"].nunique() == 3


def test_white_is_fake_and_pairs_are_made_by_name_and_that_is_said(root: Path, build: Build) -> None:
    write_splits(root)
    manifest = build()
    fakes = manifest.table[manifest.table["label"] == 1]
    masks = ManifestMasks(manifest, fakes)[np.arange(len(fakes))]
    assert all(mask is not None and mask.mean() == 0.25 for mask in masks)
    assert any(
        "paired by their names; IMDL-BenCo's own ManiDataset pairs them by their order" in n for n in manifest.notes
    )


def test_classic_sets_have_their_folder_as_generator_and_real_images_of_their_own(root: Path, build: Build) -> None:
    for split, first, count in (("train", 0, 6), ("val", 10, 2), ("test", 20, 2)):
        write_classic(root / f"CASIA/{split}", count, first=first)
    write_classic(root / "Columbia test", 3)
    manifest = build()
    table = manifest.table
    assert table.groupby(["generator", "label", "split"]).size().to_dict() == {
        **{("CASIA", label, split): n for label in (0, 1) for split, n in (("train", 6), ("valid", 2), ("test", 2))},
        ("Columbia", 0, "test"): 3, ("Columbia", 1, "test"): 3,
    }  # fmt: skip
    assert manifest.train_generators == ("CASIA",)
    assert set(table["format"]) == {"JPEG", "TIFF"}
    assert {"CASIA/Au_ani_00000", "Columbia/Tp_S_NNN_00000"} <= set(table["source_id"])
    assert "CASIA: 10 of 10 fakes have no original in Au by their names" in manifest.notes


def test_photographs_that_cannot_be_told_are_said_where_the_split_is_by_chance(root: Path, build: Build) -> None:
    write_classic(root, 40)
    manifest = build()
    assert manifest.generators == ("x",)
    words = "x: 40 of 40 fakes have no original in Au by their names; a photograph and its fake may then come into two"
    assert any(words in note for note in manifest.notes)


def test_it_is_recognised_and_a_list_beside_it_is_preferred(root: Path) -> None:
    write_splits(root)
    assert recognise(root) == ["benco"]
    (root / "list.json").write_text('[["Tp/1.png", "Gt/1.png"]]', encoding="utf-8")
    assert preferred(root) == ["manifest"]


def test_a_benchmarks_test_set_is_not_split(root: Path, cache: Path) -> None:
    write_classic(root / "NIST16_test", 3)
    with pytest.raises(DataProblems, match="only test images"):
        build_manifest("benco", root / "NIST16_test", cache=cache)


def test_two_splits_without_a_test_split(root: Path, build: Build) -> None:
    write_brgen(root / "train", NAMES[:20])
    write_brgen(root / "val", NAMES[20:23])
    manifest = build()
    assert "no folder names a test split: the validation images are the test images" in manifest.notes
    assert set(manifest.table["split"]) == {"train", "valid", "test"}  # a tenth of the training images validates


# What users reported, and what else goes wrong ------------------------------------------------------------------------


def test_one_missing_mask_shifts_no_other_pair(root: Path, build: Build) -> None:
    write_splits(root)
    (root / f"BRGen-Stuff-Train/Gt/LaMa_Stuff_{NAMES[0]}_mask.png").unlink()
    manifest = build()
    fakes = manifest.table[manifest.table["label"] == 1]
    pairs = {Path(path).stem: None if mask is None else Path(mask).stem for path, mask in zip(
        fakes["path"], fakes["mask"].astype(object).where(fakes["mask"].notna(), None), strict=True
    )}  # fmt: skip
    assert pairs.pop(f"LaMa_Stuff_{NAMES[0]}") is None
    assert all(mask == f"{name}_mask" for name, mask in pairs.items())
    assert "LaMa: 1 of 14 fakes have no mask in Gt; localisation leaves them out" in manifest.notes


def test_originals_that_are_not_distributed(root: Path, build: Build) -> None:
    write_splits(root)
    for folder in root.glob("*/Au"):
        shutil.rmtree(folder)
    with pytest.raises(
        DataProblems, match=r"no real images in a folder Au .*; remedy: put real images into Au beside Tp; or"
    ):
        build()


def test_an_original_that_is_missing_is_counted(root: Path, build: Build) -> None:
    write_splits(root)
    (root / f"BRGen-Stuff-Train/Au/{NAMES[0]}.png").unlink()
    manifest = build()
    assert "MAT: 1 of 14 fakes have no original in Au by their names" in manifest.notes
    assert (manifest.table["source_id"] == NAMES[0]).sum() == 2


def test_a_mask_without_an_image_and_two_masks_of_one(root: Path, build: Build) -> None:
    write_splits(root)
    folder = root / "BRGen-Stuff-Train/Gt"
    save(folder / "nothing_mask.png", picture("m"))
    save(folder / f"MAT_Stuff_{NAMES[0]}.png", picture("m"))
    with pytest.raises(DataProblems) as caught:
        build()
    assert sorted(problem.what for problem in caught.value.problems) == [
        "a mask without an image", "two masks of one image",
    ]  # fmt: skip
    assert len(build(skip_bad=True).skipped) == 2


def test_masks_of_another_size_are_refused_unless_their_shape_is_that_of_the_image(root: Path, build: Build) -> None:
    write_splits(root)
    folder = root / "BRGen-Stuff-Train/Gt"
    save(folder / f"MAT_Stuff_{NAMES[0]}_mask.png", np.full((32, 32), 255, np.uint8))
    assert any("1 masks have the shape of their image and another size" in note for note in build().notes)
    save(folder / f"MAT_Stuff_{NAMES[0]}_mask.png", np.full((32, 16), 255, np.uint8))
    with pytest.raises(DataProblems, match="mask and image differ in size"):
        build()


def test_a_tif_that_is_not_read_is_named(root: Path, build: Build) -> None:
    write_classic(root, 40)
    Image.fromarray(np.zeros((16, 16), np.uint16)).save(root / "Tp/Tp_S_NNN_00003.tif")
    with pytest.raises(DataProblems, match=r"Tp/Tp_S_NNN_00003\.tif"):
        build()


def test_splits_in_some_names_alone(root: Path, build: Build) -> None:
    write_brgen(root / "train", NAMES[:4])
    write_brgen(root / "more", NAMES[4:8])
    with pytest.raises(DataProblems, match=r"no split in the folder's name, while others have one \(1\).*\n  more"):
        build()


def test_two_files_of_one_name_and_folders_in_other_letters(root: Path, build: Build) -> None:
    write_splits(root)
    for folder in list(root.glob("*/[ATG]?")):
        folder.rename(folder.with_name(folder.name.upper()))
    digest = build().digest
    (root / "BRGen-Stuff-Train/TP").rename(root / "BRGen-Stuff-Train/tp")
    assert build().digest == digest
    (root / "BRGen-Stuff-Train/TP").mkdir()
    with pytest.raises(DataProblems, match="two folders whose names differ in capitals alone"):
        build()


def test_two_pictures_of_one_stem_are_refused(root: Path, build: Build) -> None:
    write_splits(root)
    save(root / f"BRGen-Stuff-Train/Au/{NAMES[0]}.jpg", picture("y"))
    with pytest.raises(DataProblems, match="several files with one stem in a folder"):
        build()


def test_names_with_spaces_accents_and_capitals(root: Path, build: Build) -> None:
    write_classic(root, 40)
    (root / "Tp/Tp_S_NNN_00001.tif").rename(root / "Tp/é a 1.TIF")
    (root / "Gt/Tp_S_NNN_00001_gt.png").rename(root / "Gt/e\u0301 a 1_GT.PNG")
    table = build().table
    assert table.loc[table["path"] == "Tp/é a 1.TIF", "mask"].item() == "Gt/e\u0301 a 1_GT.PNG"


def test_a_folder_without_tp(root: Path, build: Build) -> None:
    save(root / "Au/1.png", picture("y"))
    with pytest.raises(DataProblems, match=r"no folder Tp .*; remedy: give the folder that holds Tp, Gt and Au"):
        build()


def test_masks_the_wrong_way_round_are_found(root: Path, build: Build, cache: Path) -> None:
    write_splits(root)
    for number, path in enumerate(sorted(root.glob("*/Gt/*.png"))):
        mask = np.array(Image.open(path))
        mask[:, number % 16] = 255 - mask[:, number % 16]
        save(path, 255 - mask)
    fakes = sorted(root.glob("*/Tp/*.png"))
    for path in fakes:  # all of the image changes a little
        pixels = np.array(Image.open(path))
        save(path, np.where(pixels < 250, pixels + 1, pixels).astype(np.uint8))
    _, findings = check_sample(build(), cache=cache)
    assert any("masks are inverted" in str(finding) for finding in findings)
