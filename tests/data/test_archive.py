"""A data set as it is unpacked: the whole Dolos archive, and folders and files that are no samples."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from data.manifest import DataProblems, Manifest, build_manifest
from data.sources import get_source, list_sources, preferred, recognise
from tests.corpora import write_archive, write_dolos, write_folders

PUBLISHED = ("lama", "ldm", "pluralistic", "repaint")
COUNTS = {"train": 4, "valid": 2, "test": 3}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder above wacv_data/; read it only."""
    root = tmp_path_factory.mktemp("archive")
    write_archive(root / "wacv_data")
    return root


Build = Callable[..., Manifest]


@pytest.fixture
def build(cache: Path) -> Build:
    return lambda root, source="dolos", **options: build_manifest(source, root, cache=cache, **options)


# The whole archive ---------------------------------------------------------------------------------------------------


def test_the_archive_is_the_published_experiment_and_names_the_rest(archive: Path, build: Build) -> None:
    manifest = build(archive / "wacv_data")
    assert manifest.generators == PUBLISHED
    assert Counter(manifest.table["generator"]) == dict.fromkeys((*PUBLISHED, "real"), 9)
    assert not manifest.table["path"].str.contains("ffhq|/p2/|/repaint-p2/").any()
    assert manifest.notes == (
        "only celebahq was read, not the folders beside it: ffhq; to read one, give it as --data",
        "not part of the experiment unless --generators names them: p2, repaint-p2; by default: lama, ldm, "
        "pluralistic, repaint",
    )


def test_with_or_without_the_rest_it_is_the_same_data_set(archive: Path, build: Build, tmp_path: Path) -> None:
    alone = write_dolos(tmp_path / "alone", ("lama", "ldm", "pluralistic", "repaint-p2-9k"), COUNTS)
    digests = {build(root).digest for root in (alone, archive, archive / "wacv_data", archive / "wacv_data/celebahq")}
    assert len(digests) == 1


def test_what_is_not_part_of_it_may_be_broken(archive: Path, build: Build, tmp_path: Path) -> None:
    root = Path(shutil.copytree(archive, tmp_path / "copy")) / "wacv_data"
    shutil.rmtree(root / "celebahq/fake/repaint-p2/images/valid")
    (root / "celebahq/fake/p2/train/00000.png").write_bytes(b"")
    assert build(root).generators == PUBLISHED
    with pytest.raises(DataProblems, match=r"repaint-p2/images/valid .*\(1\)|missing folder \(1\)"):
        build(root, generators=["lama", "repaint-p2"])


def test_a_generator_of_the_rest_takes_part_with_its_masks_where_it_is_asked_for(archive: Path, build: Build) -> None:
    manifest = build(archive, generators=["repaint-p2", "lama"])
    assert manifest.generators == ("lama", "repaint-p2")
    fakes = manifest.table[manifest.table["generator"] == "repaint-p2"]
    assert len(fakes) == 9
    assert fakes["path"].str.startswith("wacv_data/celebahq/fake/repaint-p2/images/").all()
    assert fakes["mask"].str.startswith("wacv_data/celebahq/fake/repaint-p2/masks/").all()
    assert set(fakes["source_id"]) == set(manifest.table.loc[manifest.table["label"] == 0, "source_id"])
    assert manifest.notes[-1].startswith("not part of the experiment unless --generators names them: p2; by default")


def test_fully_generated_images_have_neither_masks_nor_originals(archive: Path, build: Build) -> None:
    manifest = build(archive, generators=["p2", "lama"])
    fakes = manifest.table[manifest.table["generator"] == "p2"]
    assert Counter(fakes["split"]) == COUNTS
    assert fakes["mask"].isna().all()
    assert fakes["source_id"].is_unique
    assert not set(fakes["source_id"]) & set(manifest.table.loc[manifest.table["generator"] != "p2", "source_id"])
    assert "p2: fully generated images, which have no originals and no masks; localisation leaves them out" in (
        manifest.notes
    )


def test_an_unknown_generator_is_answered_with_the_rest_too(archive: Path, build: Build) -> None:
    with pytest.raises(ValueError, match="no generator glide in the data; there are: lama, ldm, p2, pluralistic"):
        build(archive, generators=["glide"])


def test_the_part_on_ffhq_is_read_as_a_data_set_of_its_own(archive: Path, build: Build) -> None:
    folder = archive / "wacv_data" / "ffhq"
    assert build(folder, "dolos_ffhq").generators == ("p2", "repaint-p2")
    assert build(folder, "dolos_ffhq", generators=["p2"]).generators == ("p2",)
    assert (
        build(folder, "dolos_ffhq", generators=["repaint-p2"]).digest == "0f6620f46d07fbb5"
    )  # as of earlier checkouts


def test_a_broken_generator_is_left_out_by_naming_the_others(dolos: Path, build: Build) -> None:
    shutil.rmtree(dolos / "celebahq/fake/ldm/images")
    with pytest.raises(DataProblems, match="missing folder"):
        build(dolos)
    with pytest.raises(DataProblems, match="missing folder"):
        build(dolos, generators=["ldm"])
    assert build(dolos, generators=["lama"]).generators == ("lama",)


def test_the_short_name_leaves_out_the_folder_of_the_long_one(tmp_path: Path, build: Build) -> None:
    root = write_dolos(tmp_path / "x", ("lama", "repaint-p2-9k"))
    (root / "celebahq/fake/repaint-p2-9k/images/train/00000.png").unlink()
    with pytest.raises(DataProblems, match="a mask without an image"):
        build(root)
    assert build(root, generators=["lama"]).generators == ("lama",)


def test_the_folder_above_may_have_files_of_other_programs_but_no_second_folder(dolos: Path, build: Build) -> None:
    (dolos.parent / "above/more").mkdir(parents=True)
    moved = dolos.rename(dolos.parent / "above/more/data")
    for name in ("__MACOSX", ".cache", "@eaDir"):
        (moved.parent / name).mkdir()
    (moved.parent / "dolos-data.zip").touch()
    assert build(dolos.parent / "above").generators == ("lama", "ldm")
    (moved.parent / "another").mkdir()
    with pytest.raises(DataProblems, match="missing folder"):
        build(dolos.parent / "above")


# Folders and files that are no samples -------------------------------------------------------------------------------

LEFT_BEHIND = ("@eaDir", "__MACOSX", ".ipynb_checkpoints", ".thumbnails")


def litter(folder: Path) -> int:
    """Put what other programs leave behind beside a folder's pictures; how many entries."""
    pictures = sorted(folder.glob("*.png"))
    for name in LEFT_BEHIND:
        (folder / name).mkdir()
        shutil.copy(pictures[0], folder / name / "thumbnail.png")
    for name in (f"._{pictures[0].name}", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (folder / name).write_bytes(b"\0\5\x16\7")
    return len(LEFT_BEHIND) + 4


@pytest.mark.parametrize("source", ["dolos", "folders"])
def test_what_other_programs_leave_behind_is_no_sample_and_is_counted(
    tmp_path: Path, build: Build, source: str
) -> None:
    if source == "dolos":
        root = write_dolos(tmp_path / "x")
        folder = root / "celebahq/fake/lama/images/train"
    else:
        splits = {f"{split}/a/{c}": 3 for split in ("train", "val", "test") for c in ("0_real", "1_fake")}
        root = write_folders(tmp_path / "x", splits, restart=False)
        folder = root / "train/a/1_fake"
    before = build(root, source)
    count = litter(folder)
    for above in {folder.parent, root}:
        (above / "__MACOSX").mkdir(exist_ok=True)
        count += 1
    after = build(root, source)
    assert after.digest == before.digest
    (note,) = set(after.notes) - set(before.notes)
    assert note.startswith(f"{count} files and folders with hidden names or of other programs were left aside: ")


@pytest.mark.parametrize("name", ["masks", "Masks", "mask", "thumbnails"])
def test_masks_below_a_class_folder_are_no_samples(tmp_path: Path, build: Build, name: str) -> None:
    splits = {f"{split}/a/{c}": 3 for split in ("train", "val", "test") for c in ("0_real", "1_fake")}
    root = write_folders(tmp_path / "x", splits, restart=False)
    before = build(root, "folders")
    write_folders(root, {f"train/a/1_fake/{name}": 2, f"test/a/{name}": 3}, restart=False)
    after = build(root, "folders")
    assert after.digest == before.digest
    assert after.notes == (
        f"2 folders of masks or thumbnails were left aside, with 5 images: test/a/{name}, train/a/1_fake/{name}",
    )


def test_a_category_named_mask_above_the_class_folders_is_a_category(tmp_path: Path) -> None:
    found = get_source("folders").scan(write_folders(tmp_path, {"a/mask/0_real": 1, "a/mask/1_fake": 1}))
    assert {entry.source_id for entry in found.entries} == {"mask/0000"}


def test_other_folders_below_a_class_folder_are_categories_and_named(tmp_path: Path) -> None:
    root = write_folders(tmp_path, {"a/0_real": 1, "a/1_fake": 1, "a/1_fake/overlays": 1})
    notes = get_source("folders").scan(root).notes
    assert (
        "folders below 0_real or 1_fake were read as categories of images: overlays; move them out of the data folder "
        "if they are no samples"
    ) in notes


def test_the_folder_above_plain_folders_is_pointed_out(tmp_path: Path) -> None:
    root = write_folders(tmp_path, {f"all/{g}/{c}": 1 for g in ("a", "b") for c in ("0_real", "1_fake")})
    assert (
        "the only generator is all, with the categories a, b; if these are generators, give the folder all as --data"
    ) in get_source("folders").scan(root).notes


# Names that restart in each split ------------------------------------------------------------------------------------


def test_names_that_restart_in_each_split_are_said_to_do_so(tmp_path: Path, build: Build) -> None:
    folders = {f"{split}/{g}/{c}": 3 for split in COUNTS for g in "ab" for c in ("0_real", "1_fake")}
    root = write_folders(tmp_path / "x", folders)
    with pytest.raises(DataProblems, match="give --names-per-split") as caught:
        build(root, "folders")
    assert len([problem for problem in caught.value.problems if problem.what == "one photograph in two splits"]) == 24
    manifest = build(root, "folders", names_per_split=True)
    assert len(manifest.table) == 36
    assert set(manifest.table["source_id"]) == {f"{split}/000{number}" for split in COUNTS for number in range(3)}
    assert "file names restart in each split: the same name in two splits is two photographs" in manifest.notes


def test_the_option_makes_another_data_set_and_bytes_still_leak(dolos: Path, build: Build) -> None:
    assert build(dolos, names_per_split=True).digest != build(dolos).digest
    pairs = build(dolos, names_per_split=True).table.groupby("source_id")["label"].agg(list)
    assert set(map(tuple, map(sorted, pairs))) == {(0, 1, 1)}  # a photograph and its fakes stay together
    shutil.copy(dolos / "celebahq/real/test/00006.png", dolos / "celebahq/real/train/99999.png")
    with pytest.raises(DataProblems, match="the same bytes in two splits"):
        build(dolos, names_per_split=True)


# Whose layout it is --------------------------------------------------------------------------------------------------


def test_a_layout_is_recognised_by_its_folders(archive: Path, tmp_path: Path) -> None:
    plain = write_folders(tmp_path / "plain", {"train/a/cat/0_real": 1, "train/a/cat/1_fake": 1})
    assert recognise(plain) == ["folders"]
    for root in (archive, archive / "wacv_data", archive / "wacv_data/celebahq"):
        assert preferred(root) == ["dolos"]
    assert recognise(archive) == ["dolos", "dolos_ffhq"]
    assert recognise(archive / "wacv_data/ffhq") == ["dolos_ffhq"]
    (tmp_path / "empty").mkdir()
    for root in (tmp_path / "empty", tmp_path / "nowhere"):
        assert recognise(root) == []


def test_the_other_half_alone_is_not_read_as_the_published_experiment(archive: Path, build: Build) -> None:
    shutil.rmtree(archive / "wacv_data/celebahq")
    assert recognise(archive) == ["dolos_ffhq"]
    for root in (archive, archive / "wacv_data/ffhq"):
        with pytest.raises(DataProblems, match="the other half of the archive") as caught:
            build(root)
        assert "its experiment is dolos_ffhq" in str(caught.value)


def test_of_two_folders_ffhq_none_is_taken_and_hidden_ones_do_not_count(archive: Path, build: Build) -> None:
    shutil.copytree(archive / "wacv_data/ffhq", archive / ".old/ffhq")
    assert len(build(archive, "dolos_ffhq").table)
    (archive / ".old").rename(archive / "old")
    with pytest.raises(DataProblems, match="several folders ffhq") as caught:
        build(archive, "dolos_ffhq")
    assert "old/ffhq, wacv_data/ffhq" in str(caught.value)


def test_the_expected_layout_of_every_source_is_shown_where_nothing_fits(tmp_path: Path, build: Build) -> None:
    (tmp_path / "empty").mkdir()
    for source in list_sources():
        with pytest.raises(DataProblems, match="The expected layout"):
            build(tmp_path / "empty", source)
