"""TGIF and TGIF2, drawn small: originals and masks follow from names, and each variant is a generator."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.manifest import DataProblems, Manifest, build_manifest
from data.masks import ManifestMasks, check_sample
from data.sources import get_source, preferred, recognise
from data.sources.base import Scan
from tests.corpora import picture, write_image
from tests.published import TGIF, TGIF_SPLITS, save, tgif_name, write_tgif

Build = Callable[..., Manifest]
PLACE = "training/cat"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "x"


@pytest.fixture
def build(root: Path, cache: Path) -> Build:
    return lambda **options: build_manifest("tgif", root, cache=cache, **options)


def scan(root: Path, *paths: str) -> Scan:
    """The scan of empty files: none is opened."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return get_source("tgif").scan(root)


def pair(found: Scan, root: Path, path: str) -> tuple[str, str]:
    """(original, mask) of a fake, relative to the root; "" for none."""
    (entry,) = (entry for entry in found.entries if entry.path == root / path)
    original, mask = (
        "" if file is None else file.relative_to(root).as_posix() for file in (entry.original, entry.mask)
    )
    return original, mask


def test_every_variant_is_a_generator_with_its_own_masks_and_originals(root: Path, build: Build, cache: Path) -> None:
    manifest = build_manifest("tgif", write_tgif(root, TGIF), cache=cache)
    table = manifest.table
    fakes = table[table["label"] == 1]
    splits = {"train": 12, "valid": 3, "test": 3}
    assert fakes.groupby(["generator", "split"]).size().to_dict() == {
        (tool, split): number for tool in TGIF for split, number in splits.items()
    }
    assert fakes["mask"].notna().all()
    assert fakes["original"].notna().all()
    assert set(table.loc[table["label"] == 0, "generator"]) == {"real"}
    assert (table["label"] == 0).sum() == 4 * sum(TGIF_SPLITS.values())  # four sizes
    assert table["source_id"].nunique() == sum(TGIF_SPLITS.values())
    assert set(table["source_id"]) == {str(number) for number in range(101, 119)}
    num_pairs, findings = check_sample(manifest, cache=cache)
    assert num_pairs == 5 * 18
    assert not [finding for finding in findings if "inverted" in str(finding)]
    assert all(mask is not None and 0.1 < mask.mean() < 0.4 for mask in ManifestMasks(manifest, fakes)[np.arange(90)])


def test_a_category_may_hold_a_space(root: Path, build: Build) -> None:
    write_tgif(root)
    rows = build().table
    spaced = rows[rows["path"].str.contains("hair drier")]
    assert len(spaced) == 3 * (6 + 1 + 1)
    assert spaced.loc[spaced["label"] == 1, "mask"].str.contains("hair drier").all()


def test_a_category_may_have_the_name_of_a_split(tmp_path: Path) -> None:
    fake = "1_mask_bbox.png_ps_0.png"
    found = scan(tmp_path, f"ps-sp/training/train/{fake}", "orig/training/train/1_orig.png")
    assert [(entry.split, entry.source_id) for entry in found.entries] == [("train", "1")] * 2
    assert pair(found, tmp_path, f"ps-sp/training/train/{fake}") == ("orig/training/train/1_orig.png", "")


def test_sizes_are_said_and_generators_of_one_size_have_real_images_of_that_size(root: Path, build: Build) -> None:
    write_tgif(root, TGIF)
    (note,) = (note for note in build().notes if "several sizes" in note)
    for words in ("1024 size (Flux): flux-fr", "512 size: sd2-fr", "its own size: ps-sp,sd2-sp", "--generators"):
        assert words in note
    one = build(generators=["sd2-fr"]).table
    assert set(one["width"]) == {24}
    assert Counter(one["label"]) == {0: 18, 1: 18}
    assert build(generators=["sd2-sp", "ps-sp"]).table["width"].unique().tolist() == [16]


NAMES = [
    # tool, name of the fake, its original, its mask
    ("sd2-sp", "1_mask_bbox.png_ps_mask.png_sd2_0.png", "orig/1_orig.png", "masks/1_mask_bbox.png_ps_mask.png"),
    ("sd2-sp", "1_mask_segm.png_ps_mask.png_sd2_2.png", "orig/1_orig.png", "masks/1_mask_segm.png_ps_mask.png"),
    ("ps-sp", "1_mask_bbox.png_ps_1.png", "orig/1_orig.png", "masks/1_mask_bbox.png_ps_mask.png"),
    ("sd2-fr", "1_mask_segm.png_sd2-512_0.png", "orig/1_orig_512.png", "masks/1_mask_segm_512.png"),
    ("sdxl-fr", "1_mask_bbox.png_sdxl-1024_0.png", "orig/1_orig_1024.png", "masks/1_mask_bbox_1024.png"),
    ("sdxl-random-fr", "1_mask_random.png_sd2-1024_0.png", "orig/1_orig_1024.png", "masks/1_mask_random_1024.png"),
    ("sd2-random-sp", "1_mask_random.png_sd2_0.png", "orig/1_orig.png", "masks/1_mask_random.png"),
    ("flux-fr", "1_mask_bbox.png_flux-1024_0.png", "original-flux/1_orig_1024.png", "masks-flux/1_mask_bbox_1024.png"),
    ("flux-fr", "1_mask_segm.png_flux-1024_0.png", "original-flux/1_orig_1024.png", "masks-flux/1_mask_segm.png"),
]


@pytest.mark.parametrize(("tool", "name", "original", "mask"), NAMES)
def test_the_original_and_the_mask_follow_from_the_name(
    tmp_path: Path, tool: str, name: str, original: str, mask: str
) -> None:
    def placed(path: str) -> str:
        folder, _, file = path.partition("/")
        return f"{folder}/{PLACE}/{file}"

    beside = {
        placed(f"{folder}/1_{what}{end}.png")
        for folder, what in (
            ("orig", "orig"),
            ("masks", "mask_bbox"),
            ("masks", "mask_segm"),
            ("original-flux", "orig"),
        )
        for end in ("", "_512", "_1024")
    } - {placed("original-flux/1_orig.png")}
    beside |= {placed(path) for _, _, *files in NAMES for path in files}
    found = scan(tmp_path, f"{tool}/{PLACE}/{name}", *sorted(beside))
    assert found.problems == []
    assert pair(found, tmp_path, f"{tool}/{PLACE}/{name}") == (placed(original), placed(mask))


def test_it_is_recognised_below_a_folder_and_beside_its_archives(root: Path) -> None:
    write_tgif(root / "tgif")
    (root / "orig_training.tar.gz").write_bytes(b"an archive that was extracted")
    assert recognise(root) == ["tgif"]
    assert preferred(root / "tgif") == ["tgif"]
    (root / "list.csv").write_text("path,label\n", encoding="utf-8")
    assert preferred(root) == ["manifest"]


def test_archives_that_were_extracted_into_a_folder_each(root: Path, build: Build) -> None:
    write_tgif(root)
    digest = build().digest
    for number, folder in enumerate(sorted(root.iterdir())):
        (root / f"archive {number}").mkdir()
        folder.rename(root / f"archive {number}" / folder.name)
    assert build().digest == digest


# What users reported, and what else goes wrong ------------------------------------------------------------------------


def test_the_table_of_flux_that_is_one_file_three_times_is_not_read(root: Path, build: Build) -> None:
    write_tgif(root)
    digest = build().digest
    for split in TGIF_SPLITS:
        (root / "metadata-flux").mkdir(exist_ok=True)
        (root / f"metadata-flux/orig-flux_{split}.csv").write_text("id\n1\n", encoding="utf-8")
    assert build().digest == digest


def test_masks_of_pasted_back_sets_are_not_in_the_second_archives(root: Path, build: Build) -> None:
    write_tgif(root)
    shutil.rmtree(root / "masks")
    notes = "\n".join(build().notes)
    words = (
        "sd2-sp: 18 of 18 fakes have no mask of their size; localisation leaves them out; those of all pasted-back sets"
    )
    assert words in notes


def test_masks_that_lie_beside_the_pasted_back_images_are_masks(root: Path, build: Build) -> None:
    write_tgif(root, ["sd2-sp"])
    digest = build().digest
    for path in (root / "masks").rglob("*.png"):
        path.rename(root / "sd2-sp" / path.relative_to(root / "masks"))
    assert build().digest == digest


def test_flux_without_its_own_masks_takes_no_other_ones(root: Path, build: Build) -> None:
    write_tgif(root, ["flux-fr", "sdxl-fr"])
    shutil.rmtree(root / "masks-flux")
    manifest = build()
    flux = manifest.table[manifest.table["generator"] == "flux-fr"]
    assert flux["mask"].isna().all()
    assert any("flux-fr: 18 of 18 fakes have no mask" in note and "masks-flux" in note for note in manifest.notes)


def test_originals_of_coco_have_another_size(root: Path, build: Build) -> None:
    write_tgif(root)
    for path in (root / "orig").rglob("*_orig.png"):
        write_image(path, picture(path.stem, 20))
    assert "36 originals have another size than their fake and are not used as its original" in build().notes


def test_without_the_archives_of_originals(root: Path, build: Build) -> None:
    write_tgif(root)
    shutil.rmtree(root / "orig")
    with pytest.raises(
        DataProblems, match=r"no folder orig with originals .*; remedy: extract the orig archives .* COCO"
    ):
        build()


def test_archives_that_are_not_extracted(root: Path, build: Build) -> None:
    root.mkdir()
    (root / "orig_training.tar.gz").write_bytes(b"x")
    with pytest.raises(DataProblems, match=r"no images in the layout of TGIF .*tar -xzf orig_training.tar.gz"):
        build()


def test_the_folder_of_one_tool_alone(root: Path, cache: Path) -> None:
    write_tgif(root)
    with pytest.raises(
        DataProblems, match=r"no folder of a tool above the split .*give the folder that holds orig, masks"
    ):
        build_manifest("tgif", root / "sd2-sp", cache=cache)


def test_an_archive_that_was_extracted_into_another_tools_folder(root: Path, build: Build) -> None:
    write_tgif(root, ["sd2-sp", "sd2-fr"])
    name = tgif_name("sd2-fr", 101, "bbox")
    (root / f"sd2-fr/{PLACE}/{name}").rename(root / f"sd2-sp/{PLACE}/{name}")
    with pytest.raises(
        DataProblems, match=r"a pasted-back image in a folder of regenerated ones, or the reverse \(1\)"
    ):
        build()
    assert len(build(skip_bad=True).skipped) == 1


def test_a_name_that_was_changed(root: Path, build: Build) -> None:
    write_tgif(root)
    save(root / f"ps-sp/{PLACE}/101_inpainted.png", picture("y"))
    with pytest.raises(DataProblems, match=r"a name that is not of TGIF \(1\)"):
        build()


def test_one_photograph_in_two_splits_is_a_leak(root: Path, build: Build) -> None:
    write_tgif(root)
    for path in root.rglob("training/*/101_*"):
        other = Path(str(path).replace("training", "testing"))
        write_image(other, picture(str(other)))
    with pytest.raises(DataProblems, match="one photograph in two splits"):
        build()


def test_several_objects_of_one_photograph_are_one_photograph(root: Path, build: Build) -> None:
    write_tgif(root)
    for path in root.rglob("training/cat/101_*"):
        other = root / str(path.relative_to(root)).replace("cat", "dog")
        save(other, picture(str(other.name)))
    table = build().table
    assert (table["source_id"] == "101").sum() == 2 * 3
    dogs = table[table["path"].str.contains("/dog/") & (table["label"] == 1)]
    assert dogs["mask"].str.contains("/dog/").all()
    assert dogs["original"].str.contains("/dog/").all()


def test_originals_that_no_fake_needs_are_left_out_and_counted(root: Path, build: Build) -> None:
    write_tgif(root, ["sd2-sp"])
    before = len(build().table)
    for path in (root / "orig").rglob("*_orig.png"):
        save(path.with_name(f"{path.stem}_512.png"), picture(path.stem, 40))
    manifest = build()
    assert len(manifest.table) == before
    assert "18 originals in sizes that no fake here was made from were left out" in manifest.notes


def test_capital_suffixes_and_folders_of_other_programs(root: Path, build: Build) -> None:
    write_tgif(root)
    digest = build().digest
    path = next((root / "ps-sp").rglob("*.png"))
    path.rename(path.with_suffix(".PNG"))
    save(root / "sd2-sp/training/.thumbnails/1.png", picture("z"))
    save(root / "preview.png", picture("z"))
    manifest = build()
    assert manifest.digest == digest
    assert any(
        "1 images outside of training/, validation/ and testing/ were ignored: preview.png" in n for n in manifest.notes
    )
