"""The field's folder trees, each drawn small from what its authors publish: classes, generators, splits, categories."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from data.manifest import DataProblems, build_manifest
from data.sources import get_source, preferred, recognise
from data.sources.base import Problem, Scan
from tests.corpora import write_archive, write_folders

Row = tuple[int, str, str]  # label, generator, split
CLASSES = ("0_real", "1_fake")


def scan(root: Path, *paths: str) -> Scan:
    """The scan of empty files: none is opened."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return get_source("folders").scan(root)


def rows(found: Scan) -> Counter[Row]:
    assert found.problems == []
    return Counter((entry.label, entry.generator, entry.split) for entry in found.entries)


def source_ids(found: Scan) -> set[str]:
    return {entry.source_id for entry in found.entries}


def test_genimage(tmp_path: Path) -> None:
    inner = {"Stable Diffusion V1.4": "imagenet_ai_0419_sdv4", "BigGAN": "imagenet_ai_0419_biggan"}
    paths = [
        f"{generator}/{folder}/{split}/{name}/{file}"
        for generator, folder in inner.items()
        for split in ("train", "val")
        for name, file in (("ai", f"{split}_000_x_00035.png"), ("nature", f"ILSVRC2012_{split}_00000612.JPEG"))
    ]
    paths = [path.replace(".JPEG", ".jpeg") for path in paths]
    found = scan(tmp_path / "x", *paths)
    assert rows(found) == {
        (label, generator, split): 1 for label in (0, 1) for generator in inner for split in ("train", "test")
    }
    assert "imagenet_ai_0419_sdv4/train_000_x_00035" in source_ids(found)
    assert any("the validation folders are the test images, as in GenImage" in note for note in found.notes)
    assert recognise(tmp_path / "x") == ["folders"]


def test_the_validation_half_of_genimage_alone_is_its_test_set(tmp_path: Path) -> None:
    names = [("ai", "1.png"), ("nature", "2.jpeg")]
    paths = [f"{g}/imagenet_{g}/val/{c}/{file}" for g in ("adm", "glide") for c, file in names]
    found = scan(tmp_path / "x", *paths)
    assert rows(found) == {(label, generator, "test"): 1 for label in (0, 1) for generator in ("adm", "glide")}


def test_a_capital_suffix_of_imagenet_is_a_picture(tmp_path: Path) -> None:
    found = scan(tmp_path / "x", "adm/test/nature/ILSVRC2012_val_00000612.JPEG", "adm/test/ai/1.PNG")
    assert rows(found) == {(0, "adm", "test"): 1, (1, "adm", "test"): 1}


def test_cnndetection_with_its_train_tree_beside_its_test_tree(tmp_path: Path) -> None:
    trained = [
        f"{split}/{name}/{c}/{split}{n}.png"
        for split in ("train", "val")
        for name in ("car", "cat", "horse", "train")
        for n, c in enumerate(CLASSES)
    ]
    tested = [
        f"test/progan/{name}/{c}/{n}.png" for name in ("car", "cat", "horse", "train") for n, c in enumerate(CLASSES)
    ]
    tested += [f"test/{name}/{c}/{n}.png" for name in ("biggan", "san") for n, c in enumerate(CLASSES)]
    found = scan(tmp_path / "x", *trained, *tested)
    expected = {(label, "progan", split): 4 for label in (0, 1) for split in ("train", "valid", "test")}
    assert rows(found) == expected | {(label, name, "test"): 1 for label in (0, 1) for name in ("biggan", "san")}
    assert {"car/train0", "train/train1", "train/0", "0"} <= source_ids(found)
    (note,) = [note for note in found.notes if "LSUN" in note]
    assert note.endswith("as in CNNDetection's training set: car, cat, horse, train")


def test_aigibench_spells_progan_in_its_own_way(tmp_path: Path) -> None:
    trained = [
        f"{split}/{name}/{c}/{split}.png"
        for split in ("train", "val")
        for name in ("car", "cat", "chair", "horse")
        for c in CLASSES
    ]
    found = scan(tmp_path / "x", *trained, *(f"test/{g}/{c}/1.png" for g in ("ProGAN", "SD3") for c in CLASSES))
    assert {generator for _, generator, split in rows(found) if split == "train"} == {"ProGAN"}


def test_folders_named_like_categories_that_are_tested_too_stay_generators(tmp_path: Path) -> None:
    found = scan(
        tmp_path / "x",
        *(
            f"{split}/{name}/{c}/{split}.png"
            for split in ("train", "val", "test")
            for name in ("cat", "dog")
            for c in CLASSES
        ),
    )
    assert {generator for _, generator, _ in rows(found)} == {"cat", "dog"}


UFD = ("guided", "ldm_200", "dalle", "glide_100_27")
UFD_PATHS = ["imagenet/0_real/1.png", "laion/0_real/1.png", *(f"{name}/1_fake/1.png" for name in UFD)]
UFD_ROWS = {
    (0, "guided", "test"): 1, (0, "dalle+glide_100_27+ldm_200", "test"): 1, **{(1, name, "test"): 1 for name in UFD},
}  # fmt: skip
UFD_NOTE = (
    "real images are those of some generators, as in UniversalFakeDetect: "
    "imagenet: guided; laion: dalle, glide_100_27, ldm_200"
)


@pytest.mark.parametrize("above", ["", "diffusion_datasets/"])
def test_universalfakedetect_shares_its_real_images(tmp_path: Path, above: str) -> None:
    found = scan(tmp_path / "x", *(f"{above}{path}" for path in UFD_PATHS))
    assert rows(found) == UFD_ROWS
    assert {source.removeprefix(above) for source in source_ids(found)} == {"imagenet/1", "laion/1", "1"}
    assert UFD_NOTE in found.notes
    why = "diffusion_datasets" if above else "its generators are those of UniversalFakeDetect's"
    assert why in " ".join(found.notes)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("", "diffusion_datasets/"),
        ("datasets/", "diffusion_datasets/"),
        ("", "test/diffusion_datasets/"),
        ("", "test/"),
    ],
)
def test_universalfakedetect_beside_a_training_tree(tmp_path: Path, train: str, test: str) -> None:
    trained = [
        f"{train}{split}/{name}/{c}/{split}.png"
        for split in ("train", "val")
        for name in ("car", "cat")
        for c in CLASSES
    ]
    tested = [f"{train}test/progan/{name}/{c}/test.png" for name in ("car", "cat") for c in CLASSES]
    found = scan(tmp_path / "x", *trained, *tested, *(f"{test}{path}" for path in UFD_PATHS))
    expected = {(label, "progan", split): 2 for label in (0, 1) for split in ("train", "valid", "test")}
    assert rows(found) == UFD_ROWS | expected
    assert UFD_NOTE in found.notes


def test_real_images_of_one_of_the_folders_alone_are_shared_by_all(tmp_path: Path) -> None:
    paths = [path for path in UFD_PATHS if not path.startswith("imagenet")]
    assert rows(scan(tmp_path / "x", *paths)) == {(0, "real", "test"): 1} | {(1, name, "test"): 1 for name in UFD}


def test_real_images_of_some_generators_are_in_the_cells_of_these_alone(tmp_path: Path, cache: Path) -> None:
    folders = {f"{split}/car/{c}": 3 for split in ("train", "val") for c in CLASSES}
    folders |= {f"test/biggan/{c}": 2 for c in CLASSES} | {path.rpartition("/")[0]: 2 for path in UFD_PATHS}
    folders = {f"diffusion_datasets/{k}" if k.count("/") == 1 else k: v for k, v in folders.items()}
    manifest = build_manifest("folders", write_folders(tmp_path / "x", folders, restart=False), cache=cache)
    reals = {
        name: {path.split("/")[1] for path in rows[rows["label"] == 0]["path"]}
        for name in manifest.tested_generators
        if (rows := manifest.select("test", [name])) is not None
    }
    assert reals == {"biggan": {"biggan"}, "guided": {"imagenet"}} | {name: {"laion"} for name in UFD[1:]}
    one = build_manifest("folders", tmp_path / "x", cache=cache, generators=["progan", "dalle"])
    assert {path.split("/")[1] for path in one.select("test", ["dalle"])["path"]} == {"dalle", "laion"}


def test_community_forensics(tmp_path: Path) -> None:
    paths = [
        f"{split}/{g}/{c}/{split}.png"
        for split in ("train", "val", "test")
        for g in ("gen_a", "gen_b")
        for c in ("real", "fake")
    ]
    assert rows(scan(tmp_path / "x", *paths)) == {
        (label, g, split): 1 for label in (0, 1) for g in ("gen_a", "gen_b") for split in ("train", "valid", "test")
    }
    assert recognise(tmp_path / "x") == ["folders"]


def test_generators_below_the_class_folders_and_one_folder_of_real_images(tmp_path: Path) -> None:
    paths = [
        f"{split}/{c}/{split}.png"
        for split in ("training", "validation", "testing")
        for c in ("real", "fake/sd", "fake/gan")
    ]
    found = scan(tmp_path / "x", *paths)
    splits = ("train", "valid", "test")
    assert rows(found) == {(0, "real", s): 1 for s in splits} | {(1, g, s): 1 for g in ("sd", "gan") for s in splits}
    assert any("the folders in fake were read as the generators" in note for note in found.notes)


def test_categories_above_the_generators(tmp_path: Path) -> None:
    paths = [
        f"test/{place}/{name}/1.png"
        for place in ("bedroom", "church")
        for name in ("stylegan/1_fake", "adm/1_fake", "0_real")
    ]
    found = scan(tmp_path / "x", *paths)
    assert rows(found) == {(0, "real", "test"): 2, (1, "stylegan", "test"): 2, (1, "adm", "test"): 2}
    assert source_ids(found) == {"bedroom/1", "church/1"}
    assert "read as generators: adm, stylegan; as categories above them: bedroom, church" in found.notes


def test_categories_below_the_generators_stay_where_they_are(tmp_path: Path) -> None:
    found = scan(tmp_path / "x", *(f"test/{g}/bedroom/{c}/1.png" for g in ("stylegan", "adm") for c in CLASSES))
    assert {generator for _, generator, _ in rows(found)} == {"stylegan", "adm"}


@pytest.mark.parametrize("name", ["CNN_synth_testset", "test", "my-testset", "CNN_synth_testset-0123456789ab"])
def test_a_folder_named_as_a_test_set_is_never_split(tmp_path: Path, name: str) -> None:
    found = scan(tmp_path / name, *(f"{g}/{c}/{n}.png" for g in ("g1", "g2") for c in CLASSES for n in range(20)))
    assert {split for _, _, split in rows(found)} == {"test"}
    assert any(f"its name is {name!r}" in note for note in found.notes)


def test_cnndetections_test_set_is_known_under_any_name_and_refused_with_the_remedy(
    tmp_path: Path, cache: Path
) -> None:
    folders = {f"{g}/{c}": 2 for g in ("biggan", "stargan", "san") for c in CLASSES}
    root = write_folders(tmp_path / "x", folders, restart=False)
    with pytest.raises(DataProblems, match="only test images") as caught:
        build_manifest("folders", root, cache=cache)
    assert "give a folder that also holds training images (train/, beside test/)" in str(caught.value)


def test_the_benchmark_protocol_makes_rows_without_columns(tmp_path: Path, cache: Path) -> None:
    folders = {f"{split}/{name}/{c}": 3 for split in ("train", "val") for name in ("car", "cat") for c in CLASSES}
    folders |= {f"test/{g}/{c}": 2 for g in ("progan", "biggan") for c in CLASSES}
    manifest = build_manifest("folders", write_folders(tmp_path / "x", folders, restart=False), cache=cache)
    assert manifest.generators == ("biggan", "progan")
    assert manifest.train_generators == ("progan",)
    assert len(manifest.table) == 2 * 2 * 2 * 3 + 2 * 2 * 2


def test_a_mix_of_generators_with_and_without_real_images_is_refused(tmp_path: Path) -> None:
    found = scan(tmp_path / "x", "a/0_real/1.png", "a/1_fake/1.png", "b/1_fake/1.png", "c/0_real/1.png")
    assert {problem.path for problem in found.problems} == {"b", "c"}


def test_two_pairs_of_class_names_in_one_tree_are_refused(tmp_path: Path) -> None:
    found = scan(tmp_path / "x", "a/0_real/1.png", "a/1_fake/1.png", "b/nature/1.png")
    assert found.problems == [
        Problem(
            "b/nature", "images neither under 0_real nor under 1_fake",
            "move them into a class folder or out of the data folder",
        )
    ]  # fmt: skip


def test_dolos_which_has_folders_real_and_fake_is_not_taken_for_plain_folders(tmp_path: Path) -> None:
    root = write_archive(tmp_path / "wacv_data", {"train": 1, "valid": 1, "test": 1})
    assert recognise(root) == ["dolos", "dolos_ffhq"]
    assert preferred(root) == ["dolos"]


@pytest.mark.parametrize("splits", [("train", "valid", "test"), ("train", "val", "test")])
def test_one_generator_with_splits_below_its_classes_is_not_taken_for_dolos(
    tmp_path: Path, splits: tuple[str, ...]
) -> None:
    found = scan(tmp_path / "x", *(f"gen/{c}/{split}/{split}.png" for c in ("real", "fake") for split in splits))
    assert rows(found) == {(label, "gen", split): 1 for label in (0, 1) for split in ("train", "valid", "test")}
    assert recognise(tmp_path / "x") == ["folders"]


def test_real_images_of_some_generators_alone_are_refused_with_the_way_to_name_them(tmp_path: Path) -> None:
    paths = ["coco/0_real/1.png", "sd/1_fake/2.png", "own/0_real/3.png", "own/1_fake/4.png"]
    found = scan(tmp_path / "x", *paths)
    assert {(problem.path, problem.what) for problem in found.problems} == {
        ("coco", "no fake images"), ("sd", "no real images"),
    }  # fmt: skip
    assert all("a list (manifest) can say which" in problem.remedy for problem in found.problems)


def test_diffusionforensics_has_real_images_beside_its_generators(tmp_path: Path) -> None:
    paths = [
        f"{split}/{place}/{name}/n03982430/{split}_{place}_{name}.JPEG"
        for place, of_place in {"imagenet": ("real", "adm", "sdv1"), "lsun_bedroom": ("real", "pndm")}.items()
        for name in of_place
        for split in ("train", "val", "test")
        if name != "pndm" or split == "test"
    ]
    found = scan(tmp_path / "images", *paths)
    splits = ("train", "valid", "test")
    assert rows(found) == {
        **{(0, "real", split): 2 for split in splits}, **{(1, "adm", split): 1 for split in splits},
        **{(1, "sdv1", split): 1 for split in splits}, (1, "pndm", "test"): 1,
    }  # fmt: skip
    assert "imagenet/n03982430/train_imagenet_adm" in source_ids(found)
    assert "no folder fake: the folders beside real were read as the generators" in found.notes


def test_real_images_alone_are_no_tree_of_generators(tmp_path: Path) -> None:
    found = scan(tmp_path / "x", "a/real/1.png", "b/real/2.png")
    assert {problem.what for problem in found.problems} == {"no fake images"}


def test_reconstructions_beside_the_images_of_diffusionforensics_are_left_aside(tmp_path: Path) -> None:
    paths = [
        f"{kind}/{split}/lsun_bedroom/{name}/{split}.jpg"
        for kind in ("images", "recons", "dire")
        for split in ("train", "val", "test")
        for name in ("real", "adm")
    ]
    found = scan(tmp_path / "x", *paths)
    splits = ("train", "valid", "test")
    assert rows(found) == {(0, "real", s): 1 for s in splits} | {(1, "adm", s): 1 for s in splits}
    assert {entry.path.relative_to(tmp_path / "x").parts[0] for entry in found.entries} == {"images"}
    (note,) = [note for note in found.notes if "left aside" in note]
    assert note.startswith("12 folders of reconstructions beside images/ were left aside, with 12 images: dire/test/")


def test_a_generator_called_dire_is_read(tmp_path: Path) -> None:
    assert set(rows(scan(tmp_path / "x", *(f"test/dire/{c}/1.png" for c in CLASSES)))) == {
        (0, "dire", "test"), (1, "dire", "test"),
    }  # fmt: skip


def test_one_folder_called_nature_does_not_change_the_names_of_the_classes(tmp_path: Path) -> None:
    paths = [f"test/{g}/{c}/1.png" for g in ("gen_a", "gen_b") for c in ("real", "fake")]
    found = scan(tmp_path / "x", *paths, "test/gen_a/real/nature/2.png")
    assert [problem.what for problem in found.problems] == []
    assert Counter((entry.generator, entry.label) for entry in found.entries) == {
        ("gen_a", 0): 2, ("gen_a", 1): 1, ("gen_b", 0): 1, ("gen_b", 1): 1,
    }  # fmt: skip


def test_real_images_beside_folders_of_generators_are_not_dolos(tmp_path: Path) -> None:
    scan(tmp_path / "x", "real/1.png", "fake/sd/1.png", "fake/gan/1.png")
    assert recognise(tmp_path / "x") == ["folders"]
    scan(tmp_path / "y", "real/1.png", "fake/1.png", "mask/1.png")
    (tmp_path / "y/table.csv").write_text("real,fake,mask\nreal/1.png,fake/1.png,mask/1.png\n")
    assert recognise(tmp_path / "y") == ["folders", "manifest"]
    assert preferred(tmp_path / "y") == ["manifest"]
