"""Pictures in formats that are not read: counted per class, and refused where they unbalance the classes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from data.images import OTHER_SUFFIXES
from data.manifest import DataProblems, build_manifest
from data.sources import get_source
from tests.corpora import write_dolos, write_folders

WHAT = "in a format that is not read, which unbalances the classes"


def rename(paths: Iterable[Path], suffix: str) -> None:
    for path in list(paths):
        path.rename(path.with_suffix(suffix))


def test_as_many_of_each_class_are_a_note(tmp_path: Path) -> None:
    root = write_dolos(tmp_path / "dolos")
    base = root / "celebahq"
    for folder in ("real/train", "fake/lama/images/train", "fake/ldm/images/train"):
        rename([base / folder / "00001.png"], ".GIF")
    rename([base / "fake/lama/masks/train/00001.png"], ".gif")
    manifest = build_manifest("dolos", root, cache=tmp_path / "cache", skip_bad=True)
    assert [p.what for p in manifest.skipped] == []
    assert (
        "3 pictures in formats that are not read were left aside (lama, train: 1 .gif; ldm, train: 1 .gif; "
        "real, train: 1 .gif)" in manifest.notes
    )
    assert "1 masks in formats that are not read were ignored in celebahq/fake/lama/masks/train: 00001.gif" in (
        manifest.notes
    )
    assert manifest.table.groupby(["generator", "split"]).size()["real", "train"] == 3


def test_more_of_one_class_than_of_the_other_are_refused_by_name(tmp_path: Path) -> None:
    root = write_dolos(tmp_path / "dolos", generators=["lama"], counts={"train": 21, "valid": 1, "test": 1})
    reals = sorted((root / "celebahq/real/train").iterdir())
    rename(reals[:1], ".jfif")  # 1 of 21 is less than 5 %
    cache = tmp_path / "cache"
    note = "1 pictures in formats that are not read were left aside (real, train: 1 .jfif)"
    assert build_manifest("dolos", root, cache=cache).notes == (note,)
    rename(reals[1:2], ".heic")
    with pytest.raises(DataProblems) as caught:
        build_manifest("dolos", root, cache=cache)
    names = [f"celebahq/real/train/{name}" for name in ("00000.jfif", "00001.heic")]
    assert [(problem.path, problem.what) for problem in caught.value.problems] == [(name, WHAT) for name in names]
    assert "lama, train: 0% of the fakes and 10% of the real images" in str(caught.value)
    assert "--skip-bad" in str(caught.value)
    manifest = build_manifest("dolos", root, cache=cache, skip_bad=True)
    assert [problem.path for problem in manifest.skipped] == names
    assert len(manifest.table) == 2 * 23 - 2


@pytest.mark.parametrize("suffix", [".jp2", ".gif", ".avif", ".jfif", ".heic"])
def test_a_class_of_nothing_else_cannot_be_skipped(tmp_path: Path, suffix: str) -> None:
    assert suffix in OTHER_SUFFIXES
    root = write_dolos(tmp_path / "dolos")
    rename((root / "celebahq/fake/ldm/images").glob("*/*.png"), suffix)
    with pytest.raises(DataProblems) as caught:
        build_manifest("dolos", root, cache=tmp_path / "cache", skip_bad=True)
    paths = [problem.path for problem in caught.value.problems if problem.what == WHAT]
    assert len(paths) == 9
    assert all(path.startswith("celebahq/fake/ldm/images/") and path.endswith(suffix) for path in paths)
    others = build_manifest("dolos", root, cache=tmp_path / "cache", generators=["lama"])
    assert others.generators == ("lama",)


def test_a_folder_of_nothing_else_is_not_called_empty(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "plain", {f"progan/{c}": 3 for c in ("0_real", "1_fake")})
    rename(root.glob("*/*/*.png"), ".webp2.gif")
    found = get_source("folders").scan(root)
    assert (found.entries, found.problems, len(found.unread)) == ([], [], 6)
    with pytest.raises(DataProblems, match=WHAT):
        build_manifest("folders", root, cache=tmp_path / "cache")
