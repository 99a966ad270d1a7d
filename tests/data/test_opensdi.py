"""OpenSDI, drawn small: Parquet files, whose names are generators and whose keys say what an image is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.manifest import DataProblems, Manifest, build_manifest
from data.masks import ManifestMasks, check_sample
from data.sources import get_source, preferred, recognise
from data.sources.base import Scan
from data.unpack import UnpackError, unpack
from tests.corpora import picture
from tests.published import OPENSDI, encoded, opensdi_row, opensdi_rows, write_opensdi, write_parquet

Build = Callable[..., Manifest]
TEST = "OpenSDI_test/data/sd15-00000-of-00001.parquet"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "x"


@pytest.fixture
def build(root: Path, cache: Path) -> Build:
    """The data set of the shards in `root`."""
    return lambda **options: build_manifest("opensdi", unpack(root, cache / "corpora"), cache=cache, **options)


@pytest.fixture
def scan(root: Path, cache: Path) -> Callable[[], Scan]:
    return lambda: get_source("opensdi").scan(unpack(root, cache / "corpora"))


def replace(root: Path, rows: list[dict[str, Any]], name: str = TEST) -> None:
    write_parquet(root / name, rows, OPENSDI)


def test_what_it_is_read_as(root: Path, build: Build) -> None:
    write_opensdi(root)
    manifest = build()
    table = manifest.table
    counts = table.groupby(["split", "generator", "label"]).size().to_dict()
    assert {key: number for key, number in counts.items() if key[0] == "test"} == {
        ("test", "flux", 0): 4, ("test", "flux", 1): 4, ("test", "sd15", 0): 4, ("test", "sd15", 1): 4,
    }  # fmt: skip
    taken = counts["valid", "sd15", 0] + counts["valid", "sd15", 1]
    assert counts["train", "sd15", 0] + counts["train", "sd15", 1] + taken == 48
    assert counts["valid", "sd15", 0] > 0 < counts["valid", "sd15", 1]
    assert (manifest.train_generators, manifest.generators) == (("sd15",), ("flux", "sd15"))
    text = "\n".join(manifest.notes)
    for words in (
        "no validation images of sd15 (real), sd15: ", "only tested, because they have no training images: flux",
        "sd15: fakes by kind: 14 partial, 14 entire", "OpenSDI has no originals of its fakes",
        "16 fully generated images have no mask: all of them is fake",
        "not part of the experiment unless --generators names them: flux-partial, sd15-partial; by default: flux, sd15",
    ):  # fmt: skip
        assert words in text


def test_source_ids_are_the_names_in_the_keys_and_bytes_are_those_of_the_shards(root: Path, build: Build) -> None:
    write_opensdi(root)
    manifest = build()
    row = manifest.table[manifest.table["source_id"] == "000010000"].iloc[0]
    assert row["path"] == "OpenSDI_test/data/sd15-00000-of-00001/image/partial/sd15/fake/000010000.png"
    made = opensdi_row("partial/sd15/fake/000010000.jpg", 1, mask=True)
    assert manifest.file(row["path"]).read_bytes() == made["image"]["bytes"]
    assert manifest.file(row["mask"]).read_bytes() == made["mask"]["bytes"]


def test_white_is_fake_and_a_null_mask_is_none(root: Path, build: Build, cache: Path) -> None:
    write_opensdi(root)
    manifest = build()
    fakes = manifest.table[(manifest.table["label"] == 1) & (manifest.table["split"] == "test")]
    masks = ManifestMasks(manifest, fakes)[np.arange(len(fakes))]
    shares = sorted("none" if mask is None else str(mask.mean()) for mask in masks)
    assert shares == ["0.25"] * 4 + ["none"] * 4
    assert check_sample(manifest, cache=cache)[0] == 0  # there are no originals to hold them against


def test_the_partial_edits_alone_by_name(root: Path, build: Build) -> None:
    write_opensdi(root)
    table = build(generators=["sd15-partial", "flux-partial"]).table
    assert set(table["generator"]) == {"sd15-partial", "flux-partial"}
    assert table.loc[table["label"] == 1, "mask"].notna().all()
    assert len(table) == 12 + 24 + 2 * (2 + 4)
    assert not table.duplicated("path").any()
    with pytest.raises(ValueError, match="sd15 and sd15-partial have images in common; name one of the two"):
        build(generators=["sd15", "sd15-partial"])


def test_the_folder_is_recognised_packed_and_unpacked(root: Path, cache: Path) -> None:
    write_opensdi(root)
    assert recognise(root) == ["manifest", "opensdi"]
    assert preferred(root) == ["opensdi"]
    folder = unpack(root, cache / "corpora")
    assert preferred(folder) == ["opensdi"]
    write_parquet(root.parent / "y/a.parquet", [{"image": encoded(picture("a")), "label": 1}])
    assert preferred(root.parent / "y") == ["manifest"]


def test_the_cache_of_hugging_face_and_the_sets_for_training_on_others(root: Path, build: Build) -> None:
    write_opensdi(root)
    blobs = root / "datasets--nebula--OpenSDI_test/blobs"
    inside = root / "datasets--nebula--OpenSDI_test/snapshots/0a1b/data"
    inside.mkdir(parents=True)
    blobs.mkdir()
    for path in (root / "OpenSDI_test/data").iterdir():
        path.rename(blobs / path.stem)
        (inside / path.name).symlink_to(f"../../../blobs/{path.stem}")
    (root / "OpenSDI_train").rename(root / "OpenSDIDplus")
    assert build().table["split"].value_counts()["test"] == 16


def test_the_data_folder_itself_may_name_the_split(root: Path, cache: Path) -> None:
    write_opensdi(root)
    folder = unpack(root / "OpenSDI_test", cache / "corpora")
    assert {entry.split for entry in get_source("opensdi").scan(folder).entries} == {"test"}
    with pytest.raises(DataProblems, match="only test images"):
        build_manifest("opensdi", folder, cache=cache)


# What users reported, and what else goes wrong ------------------------------------------------------------------------


def test_legacy_rows_with_bare_keys_and_null_masks(root: Path, build: Build) -> None:
    write_opensdi(root)
    rows = opensdi_rows("sd15", 20, 2) + [opensdi_row(f"old{number}.png", number % 2) for number in range(4)]
    replace(root, rows)
    manifest = build()
    assert len(manifest.table[(manifest.table["generator"] == "sd15") & (manifest.table["split"] == "test")]) == 12
    assert any(
        "4 keys are bare file names; such an image without a mask was read as fully" in n for n in manifest.notes
    )
    assert {"old0", "old3"} <= set(manifest.table["source_id"])


def test_files_ordered_by_class_are_sampled_by_a_hash_and_not_from_the_front(root: Path, build: Build) -> None:
    write_opensdi(root)
    table = build(limit=2).table
    test = table[table["split"] == "test"]
    assert test.groupby(["generator", "label"]).size().to_dict() == {
        (name, label): 2 for name in ("flux", "sd15") for label in (0, 1)
    }


def test_without_train_or_test_in_a_name(root: Path, build: Build) -> None:
    write_parquet(root / "data/sd15-00000-of-00001.parquet", opensdi_rows("sd15", 0, 2), OPENSDI)
    with pytest.raises(DataProblems, match=r"no folder says whether this is train or test .*OpenSDI_train") as caught:
        build()
    assert len(caught.value.problems) == 1


def test_a_label_that_its_key_denies(root: Path, build: Build) -> None:
    write_opensdi(root)
    wrong = opensdi_row("partial/sd15/fake/000000001.jpg", 0, mask=True)
    replace(root, [*opensdi_rows("sd15", 20, 2), wrong])
    with pytest.raises(DataProblems, match=r"label and key disagree \(1\).*\n.*real, partial/sd15/fake/000000001.jpg"):
        build()
    assert len(build(skip_bad=True).skipped) == 1


def test_a_file_that_was_renamed_to_another_generator(root: Path, build: Build) -> None:
    write_opensdi(root)
    flux = root / "OpenSDI_test/data/flux-00000-of-00001.parquet"
    flux.rename(flux.with_name("sdxl-00000-of-00001.parquet"))
    with pytest.raises(DataProblems, match=r"key and file name two generators \(4\)[\s\S]*flux, sdxl"):
        build()


def test_a_file_that_was_renamed_to_its_split_has_the_generator_of_its_keys(root: Path, build: Build) -> None:
    write_opensdi(root)
    flux = root / "OpenSDI_test/data/flux-00000-of-00001.parquet"
    replace(root, [*opensdi_rows("flux", 70_000, 2), opensdi_row("old.png", 1)], flux.relative_to(root).as_posix())
    flux.rename(flux.with_name("test-00000-of-00001.parquet"))
    with pytest.raises(DataProblems, match=r"no generator in the file's name and in the key \(\d\)"):
        build()


def test_an_unknown_label_and_a_row_without_an_image(root: Path, build: Build) -> None:
    write_opensdi(root)
    rows = opensdi_rows("sd15", 20, 2)
    rows[0]["label"], rows[1]["image"] = 2, None
    replace(root, rows)
    with pytest.raises(DataProblems) as caught:
        build()
    assert {problem.what for problem in caught.value.problems} == {
        "a label that is not known",
        "a row without an image",
    }


def test_one_photograph_in_train_and_test_is_a_leak(root: Path, build: Build) -> None:
    write_opensdi(root)
    replace(root, opensdi_rows("sd15", 1000, 2))
    with pytest.raises(DataProblems, match="one photograph in two splits"):
        build()


def test_shards_that_are_not_unpacked_and_other_folders(root: Path, cache: Path) -> None:
    write_opensdi(root)
    (problem,) = get_source("opensdi").scan(root).problems
    assert (problem.what, problem.skippable) == ("Parquet files that are not unpacked", False)
    (root / "empty").mkdir()
    assert get_source("opensdi").scan(root / "empty").problems[0].what == "no Parquet files of OpenSDI"
    write_parquet(root / "z/a.parquet", [{"image": encoded(picture("a"))}])
    (problem,) = get_source("opensdi").scan(unpack(root / "z", cache / "corpora")).problems
    assert (problem.what, problem.remedy) == (
        "no column key, label", "for another corpus in Parquet files, the experiment is manifest",
    )  # fmt: skip


def test_a_partial_edit_without_a_mask_is_counted(root: Path, build: Build) -> None:
    write_opensdi(root)
    replace(root, [*opensdi_rows("sd15", 20, 2), opensdi_row("partial/sd15/fake/000000077.jpg", 1)])
    assert "1 partial edits have no mask; localisation leaves them out" in build().notes


def test_an_unpacked_image_that_was_deleted_comes_back(root: Path, build: Build, cache: Path) -> None:
    write_opensdi(root)
    digest = build().digest
    shutil.rmtree(next((cache / "corpora").glob("*/OpenSDI_test/data/flux-*")))
    assert build().digest == digest


def test_a_download_that_stopped_half_way(root: Path, build: Build) -> None:
    write_opensdi(root)
    path = root / TEST
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(
        UnpackError, match=r"sd15-00000-of-00001\.parquet in .* cannot be read: .*: fetch the file again"
    ):
        build()
