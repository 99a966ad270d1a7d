"""Generators that are only tested, and validation images that are taken from the training images."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from data.manifest import DataProblems, Manifest, build_manifest
from data.splits import take_validation, trained_on, without_training
from tests.corpora import picture, write_folders, write_image

BOTH = ("0_real", "1_fake")


def table(*groups: tuple[str, str, int, list[str]]) -> pd.DataFrame:
    """Groups (generator, split, label, source ids) as rows."""
    rows = [(name, split, label, source) for name, split, label, sources in groups for source in sources]
    return pd.DataFrame(rows, columns=["generator", "split", "label", "source_id"])


def numbered(first: int, count: int) -> list[str]:
    return [f"{number:04d}" for number in range(first, first + count)]


def counts(manifest: Manifest) -> Counter[tuple[str, str, int]]:
    columns = [manifest.table[name].tolist() for name in ("generator", "split", "label")]
    return Counter(zip(*columns, strict=True))


def test_a_generator_without_training_fakes_is_only_tested(tmp_path: Path, cache: Path) -> None:
    own = {f"{split}/progan/{label}": 3 for split in ("train", "val", "test") for label in BOTH}
    root = write_folders(
        tmp_path / "x", own | {f"test/{g}/{label}": 2 for g in ("gan", "sd") for label in BOTH}, restart=False
    )
    manifest = build_manifest("folders", root, cache=cache)
    assert manifest.generators == ("gan", "progan", "sd")
    assert manifest.train_generators == ("progan",)
    assert "only tested, because they have no training images: gan, sd" in manifest.notes
    assert len(manifest.select("test", ["gan"])) == 4
    assert len(manifest.select("train", ["gan"])) == 0


def test_a_generator_whose_training_fakes_are_all_bad_is_a_problem(tmp_path: Path, cache: Path) -> None:
    folders = {f"{split}/{g}/{label}": 2 for split in ("train", "val", "test") for g in "ab" for label in BOTH}
    root = write_folders(tmp_path / "x", folders, restart=False)
    for path in (root / "train/a/1_fake").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataProblems) as caught:
        build_manifest("folders", root, cache=cache, skip_bad=True)
    assert [(p.path, p.what, p.detail) for p in caught.value.problems] == [
        ("a", "a split without images", "train, fake")
    ]


def test_test_images_alone_are_refused_with_the_remedy(tmp_path: Path, cache: Path) -> None:
    root = write_folders(tmp_path / "x", {f"test/a/{label}": 2 for label in BOTH}, restart=False)
    with pytest.raises(DataProblems, match="only test images") as caught:
        build_manifest("folders", root, cache=cache)
    (problem,) = caught.value.problems
    assert problem.detail == "without: train, valid"
    assert "give a folder that also holds training images" in problem.remedy


def test_a_generator_without_test_images_is_only_trained_on_and_a_note_says_so(tmp_path: Path, cache: Path) -> None:
    folders = {f"{split}/{g}/{label}": 2 for split in ("train", "val", "test") for g in "ab" for label in BOTH}
    del folders["test/b/1_fake"], folders["test/b/0_real"]
    root = write_folders(tmp_path / "x", folders, restart=False)
    manifest = build_manifest("folders", root, cache=cache)
    assert "only trained on, because they have no test images: b" in manifest.notes
    assert (manifest.train_generators, manifest.tested_generators) == (("a", "b"), ("a",))
    for path in (root / "test/a/1_fake").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataProblems) as caught:  # test images were there, and each is bad
        build_manifest("folders", root, cache=cache, skip_bad=True)
    assert [(p.path, p.what, p.detail) for p in caught.value.problems] == [
        ("a", "a split without images", "test, fake")
    ]


def test_fakes_for_validation_alone_are_refused(tmp_path: Path, cache: Path) -> None:
    folders = {f"{split}/a/{label}": 2 for split in ("train", "val", "test") for label in BOTH}
    root = write_folders(tmp_path / "x", folders | {f"val/b/{label}": 2 for label in BOTH}, restart=False)
    with pytest.raises(DataProblems) as caught:
        build_manifest("folders", root, cache=cache)
    assert {(p.path, p.detail) for p in caught.value.problems} >= {("b", "test, fake"), ("b", "train, fake")}


def test_training_images_alone_are_refused_with_the_remedy(tmp_path: Path, cache: Path) -> None:
    root = write_folders(tmp_path / "x", {f"train/{g}/{label}": 2 for g in "ab" for label in BOTH}, restart=False)
    with pytest.raises(DataProblems) as caught:
        build_manifest("folders", root, cache=cache)
    (problem,) = caught.value.problems
    assert (problem.what, problem.detail) == ("no test images", "only: train, valid")
    assert "a folder test/ beside the others, or rows of a list with split test" in problem.remedy


def test_validation_images_are_taken_from_the_training_images(tmp_path: Path, cache: Path) -> None:
    folders = {f"{split}/a/{label}": count for split, count in (("train", 40), ("test", 4)) for label in BOTH}
    root = write_folders(tmp_path / "x", folders, restart=False)
    manifest = build_manifest("folders", root, cache=cache)
    found = counts(manifest)
    for label in (0, 1):
        assert found["a", "train", label] + found["a", "valid", label] == 40
        assert 1 <= found["a", "valid", label] <= 10
        assert found["a", "test", label] == 4
    moved = found["a", "valid", 0] + found["a", "valid", 1]
    (note,) = [note for note in manifest.notes if "became validation images" in note]
    assert note.startswith(f"no validation images of a (real), a: {moved} training images became validation images")
    again = build_manifest("folders", root.rename(tmp_path / "y"), cache=cache)
    assert again.digest == manifest.digest
    limited = build_manifest("folders", tmp_path / "y", cache=cache, limit=1)
    assert set(counts(limited).values()) == {1}
    assert limited.train_generators == ("a",)


def test_all_images_of_a_photograph_move_together_and_about_a_tenth_of_them() -> None:
    ids = numbered(0, 1000)
    given = table(("real", "train", 0, ids), ("a", "train", 1, ids), ("b", "train", 1, ids))
    given = pd.concat([given, table(("real", "test", 0, ["x"]), ("a", "test", 1, ["x"]), ("b", "test", 1, ["x"]))])
    after, notes = take_validation(given.reset_index(drop=True))
    assert after.groupby("source_id")["split"].nunique().max() == 1
    valid = after[after["split"] == "valid"]
    assert set(valid["generator"].value_counts()) == {len(set(valid["source_id"]))}
    assert 70 < len(set(valid["source_id"])) < 130
    assert len(notes) == 1
    bare = given.assign(source_id=given["source_id"].str.lstrip("0"))  # the same photographs under other names
    assert (take_validation(bare.reset_index(drop=True))[0]["split"] == after["split"]).all()


def test_only_what_lacks_validation_images_gives_some() -> None:
    given = table(
        ("a", "train", 0, numbered(0, 50)), ("a", "train", 1, numbered(0, 50)), ("a", "valid", 0, ["v"]),
        ("a", "valid", 1, ["v"]), ("b", "train", 0, numbered(100, 50)), ("b", "train", 1, numbered(100, 50)),
    )  # fmt: skip
    after, _ = take_validation(given)
    assert counts_of(after)["a", "valid"] == 2
    assert counts_of(after)["b", "valid"] >= 2
    whole = table(
        ("a", "train", 1, ["1"]), ("a", "valid", 1, ["2"]), ("a", "train", 0, ["1"]), ("a", "valid", 0, ["2"])
    )
    unchanged, notes = take_validation(whole)
    assert unchanged is whole
    assert notes == []


def counts_of(rows: pd.DataFrame) -> Counter[tuple[str, str]]:
    return Counter(zip(rows["generator"], rows["split"], strict=True))


def test_which_generators_are_trained_on_and_which_are_only_tested() -> None:
    given = table(
        ("a", "train", 1, ["1"]), ("a", "valid", 1, ["2"]), ("a", "test", 1, ["3"]), ("b", "test", 1, ["4"]),
        ("c", "valid", 1, ["5"]), ("c", "test", 1, ["6"]), ("real", "train", 0, ["7"]),
    )  # fmt: skip
    assert trained_on(given) == {"a"}
    assert without_training(given) == ("b", "c")


def test_copies_in_the_training_images_stay_together_when_validation_is_taken_from_them(
    tmp_path: Path, cache: Path
) -> None:
    folders = {f"train/sd/{c}": 40 for c in ("0_real", "1_fake")} | {f"test/sd/{c}": 2 for c in ("0_real", "1_fake")}
    root = write_folders(tmp_path / "x", folders, restart=False)
    before = build_manifest("folders", root, cache=cache)
    taken = before.table[(before.table["split"] == "valid") & (before.table["label"] == 1)]
    for number, path in enumerate(taken["path"]):
        shutil.copy(root / path, root / f"train/sd/1_fake/copy{number}a.png")
    manifest = build_manifest("folders", root, cache=cache)
    fakes = manifest.table[manifest.table["label"] == 1]
    assert fakes.groupby("digest")["split"].nunique().max() == 1
    assert len(fakes) == 42 + len(taken)
    assert any("became validation images as copies of such images" in note for note in manifest.notes)


def drawn_list(root: Path, *groups: tuple[str, str, str, int, int]) -> Path:
    """A list of images: groups of (generator, label, split, first number, count)."""
    rows = [
        {
            "path": f"{split}/{owner or 'all'}/{label}/{number:03d}.png",
            "label": label,
            "generator": owner,
            "split": split,
        }
        for owner, label, split, first, count in groups
        for number in range(first, first + count)
    ]
    for row in rows:
        write_image(root / row["path"], picture(row["path"]))
    pd.DataFrame(rows).to_csv(root / "list.csv", index=False)
    return root


OF_TESTS = (
    ("a", "fake", "test", 40, 3), ("a", "real", "test", 40, 3), ("b", "fake", "test", 50, 3),
    ("b", "real", "test", 50, 3),
)  # fmt: skip


@pytest.mark.parametrize("shared", ["", "a+b"])
@pytest.mark.parametrize("splits", [("train", "valid"), ("train",)])
def test_shared_real_images_serve_where_a_generator_has_none_of_its_own(
    shared: str, splits: tuple[str, ...], tmp_path: Path, cache: Path
) -> None:
    """Training images share their real images; each generator's test images have their own."""
    trained = [
        (owner, label, split, 20 * number, 12)
        for number, split in enumerate(splits)
        for owner, label in (("a", "fake"), ("b", "fake"), (shared, "real"))
    ]
    manifest = build_manifest("manifest", drawn_list(tmp_path / "x", *trained, *OF_TESTS), cache=cache)
    assert manifest.train_generators == manifest.tested_generators == ("a", "b")
    owner = shared or "real"
    for split in ("train", "valid"):
        assert set(manifest.select(split, ["a"])["generator"]) == {"a", owner}
    assert set(manifest.select("test", ["a"])["generator"]) == {"a"}
    assert counts(manifest)["a", "test", 0] == 3
    assert counts(manifest)[owner, "train", 0] + counts(manifest)[owner, "valid", 0] == 12 * len(splits)


def test_real_images_of_another_generator_do_not_serve(tmp_path: Path, cache: Path) -> None:
    trained = [
        (o, k, s, 20 * n, 3) for n, s in enumerate(("train", "valid")) for o, k in (("a", "fake"), ("b", "real"))
    ]
    with pytest.raises(DataProblems) as caught:
        build_manifest("manifest", drawn_list(tmp_path / "x", *trained, *OF_TESTS), cache=cache)
    lacking = [(problem.path, problem.detail) for problem in caught.value.problems]
    assert lacking == [("a", "train, real"), ("a", "valid, real")]
