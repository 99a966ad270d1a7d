from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import pytest

from data.sources import get_source
from data.sources.base import SPLITS, Scan
from tests.corpora import picture, write_folders, write_image


def scan(root: Path, seed: int = 0) -> Scan:
    return get_source("folders").scan(root, seed=seed)


def kinds(found: Scan) -> dict[str, str]:
    return {problem.path: problem.what for problem in found.problems}


def touch(root: Path, *paths: str) -> Path:
    """Empty files: a scan opens none."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def test_generators_categories_and_labels(tmp_path: Path) -> None:
    touch(
        tmp_path, "progan/airplane/0_real/1.png", "progan/airplane/1_fake/2.png", "sd/0_real/3.png", "sd/1_fake/4.png"
    )
    found = scan(tmp_path)
    assert found.problems == []
    assert {(e.label, e.generator, e.source_id, e.mask) for e in found.entries} == {
        (0, "progan", "airplane/1", None),
        (1, "progan", "airplane/2", None),
        (0, "sd", "3", None),
        (1, "sd", "4", None),
    }


@pytest.mark.parametrize(
    "path",
    ["{}/progan/cat/{}/1.png", "progan/{}/cat/{}/1.png", "progan/cat/{}/{}/1.png"],
)
@pytest.mark.parametrize(
    ("name", "split"), [("train", "train"), ("val", "valid"), ("valid", "valid"), ("test", "test")]
)
def test_a_split_level_may_stand_anywhere(tmp_path: Path, path: str, name: str, split: str) -> None:
    tested = [f"other/test/{label}/2.png" for label in ("0_real", "1_fake")]  # without these, valid would be the test
    found = scan(touch(tmp_path, path.format(name, "0_real"), path.format(name, "1_fake"), *tested))
    assert found.problems == []
    assert found.notes == []
    of_progan = [entry for entry in found.entries if entry.generator == "progan"]
    assert {(e.source_id, e.split) for e in of_progan} == {("cat/1", split)}
    assert len(of_progan) == 2


def test_a_split_level_below_the_class_counts_too(tmp_path: Path) -> None:
    found = scan(touch(tmp_path, "progan/0_real/test/1.png", "progan/1_fake/test/1.png"))
    assert {(e.generator, e.source_id, e.split) for e in found.entries} == {("progan", "1", "test")}


def test_one_name_is_in_one_split_across_generators_and_labels(tmp_path: Path) -> None:
    names = [f"{number:03d}.png" for number in range(300)]
    for folder in ("a/0_real", "a/1_fake", "b/0_real", "b/1_fake"):
        touch(tmp_path, *[f"{folder}/{name}" for name in names])
    found = scan(tmp_path)
    assert found.problems == []
    assert found.notes == ["the folders name no splits; images were split 80/10/10 by name with seed 0"]
    splits = defaultdict(set)
    for entry in found.entries:
        splits[entry.source_id].add(entry.split)
    assert all(len(where) == 1 for where in splits.values())
    counts = Counter(next(iter(where)) for where in splits.values())
    assert 215 < counts["train"] < 265  # 240 expected
    assert all(15 < counts[split] < 50 for split in SPLITS[1:])  # 30 expected
    assert scan(tmp_path) == found
    assert {e.path: e.split for e in scan(tmp_path, seed=1).entries} != {e.path: e.split for e in found.entries}


def test_a_name_composed_or_decomposed_is_in_one_split(tmp_path: Path) -> None:
    names = [f"{letter}{number}" for letter in ("\u00e9", "e\u0301") for number in range(50)]
    for label, part in (("0_real", names[:50]), ("1_fake", names[50:])):
        touch(tmp_path, *(f"progan/{label}/{name}.png" for name in part))
    splits = {(entry.label, entry.source_id): entry.split for entry in scan(tmp_path).entries}
    assert [splits[0, name] for name in names[:50]] == [splits[1, name] for name in names[50:]]
    assert len(set(splits.values())) == 3


def test_splits_for_some_images_only_are_a_problem(tmp_path: Path) -> None:
    found = scan(touch(tmp_path, *[f"{g}/{c}/1.png" for g in ("train/a", "b") for c in ("0_real", "1_fake")]))
    assert kinds(found) == dict.fromkeys(["b/0_real", "b/1_fake"], "no split level, while other folders have one")


def test_a_generator_with_one_class_is_a_problem(tmp_path: Path) -> None:
    found = scan(write_folders(tmp_path, {"a/0_real": 1, "a/1_fake": 1, "b/1_fake": 1, "c/0_real": 1}))
    assert kinds(found) == {"b": "no real images", "c": "no fake images"}


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("0_real/1.png", "no generator level above the class folder"),
        ("train/0_real/1.png", "no generator level above the class folder"),
        ("a/1.png", "images neither under 0_real nor under 1_fake"),
        ("a/0_real/1_fake/1.png", "two class levels in one path"),
        ("train/a/val/0_real/1.png", "two split levels in one path"),
    ],
)
def test_paths_that_say_too_little_or_too_much(tmp_path: Path, path: str, what: str) -> None:
    found = scan(touch(tmp_path, path))
    assert kinds(found) == {str(Path(path).parent): what}
    assert found.entries == []


def test_an_empty_folder_and_no_folder(tmp_path: Path) -> None:
    assert kinds(scan(tmp_path)) == {".": "no images in the folder"}
    assert list(kinds(scan(tmp_path / "nowhere")).values()) == ["does not exist"]


def test_two_files_with_one_stem_are_both_left_out(tmp_path: Path) -> None:
    write_folders(tmp_path, {"a/0_real": 2, "a/1_fake": 2})
    write_image(tmp_path / "a/0_real/0000.jpg", picture("x"))
    found = scan(tmp_path)
    assert set(kinds(found)) == {"a/0_real/0000.png", "a/0_real/0000.jpg"}
    assert [e.source_id for e in found.entries if e.label == 0] == ["0001"]
