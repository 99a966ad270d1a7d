"""A launch on unchanged data gets the manifest that it had, and any change gives what an empty cache would give."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import data.images
import data.manifest
import data.probes
from data.images import BadImage
from data.listing import listed
from data.manifest import Manifest, build_manifest, json_digest
from data.roots import Roots
from data.sources import get_source
from data.sources.base import Entries, Entry, FolderEntries
from data.splits import leaks, photograph_key
from data.unchanged import MOST_KEPT
from tests.corpora import picture, write_archive, write_dolos, write_folders, write_image


def same(some: Manifest, other: Manifest) -> None:
    pd.testing.assert_frame_equal(some.table, other.table)
    for name in ("root", "source", "skipped", "notes", "findings", "further", "digest", "fingerprint"):
        assert getattr(some, name) == getattr(other, name), name


@pytest.fixture
def joins(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of files of each build that looked for facts."""
    counts: list[int] = []

    def counting(files: data.probes.Stamped, *arguments: object) -> object:
        counts.append(len(files.paths))
        return data.probes.probe_all(files, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(data.manifest, "probe_all", counting)
    return counts


@pytest.mark.parametrize(
    ("source", "write"),
    [
        ("dolos", write_dolos),
        ("dolos_ffhq", write_archive),
        ("folders", lambda root: write_folders(root, {"a/0_real": 40, "a/1_fake": 40})),
    ],
)
def test_unchanged_data_give_the_manifest_that_was_made(
    source: str, write: Callable[[Path], Path], cache: Path, tmp_path: Path, joins: list[int]
) -> None:
    root = write(tmp_path / "x")
    first = build_manifest(source, root, cache=cache)
    first.save(tmp_path / "first")
    joins.clear()
    again = build_manifest(source, root, cache=cache)
    assert joins == []
    same(again, first)
    again.save(tmp_path / "again")
    texts = [(tmp_path / name / "manifest.json").read_text() for name in ("first", "again")]
    assert texts[0] == texts[1]
    same(Manifest.load(tmp_path / "again"), first)


def test_bad_files_stay_left_out_and_in_the_record(dolos: Path, cache: Path) -> None:
    (dolos / "celebahq/fake/lama/images/train/00000.png").write_bytes(b"nothing")
    first = build_manifest("dolos", dolos, cache=cache, skip_bad=True)
    assert len(first.skipped) == 1
    same(build_manifest("dolos", dolos, cache=cache, skip_bad=True), first)
    with pytest.raises(data.manifest.DataProblems):
        build_manifest("dolos", dolos, cache=cache)


def test_a_file_that_could_not_be_read_is_tried_again(
    dolos: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk's error, or missing rights, change neither size nor time of a file."""
    file = dolos / "celebahq/fake/lama/images/train/00000.png"

    def failing(path: Path) -> object:
        if path == file:
            raise BadImage("cannot be opened", "check that it exists and may be read", "Input/output error")
        return data.images.read(path)

    with monkeypatch.context() as broken:
        broken.setattr(data.probes, "read", failing)
        first = build_manifest("dolos", dolos, cache=cache, skip_bad=True)
        assert [problem.detail for problem in first.skipped] == ["Input/output error"]
        same(build_manifest("dolos", dolos, cache=cache, skip_bad=True), first)
    after = build_manifest("dolos", dolos, cache=cache, skip_bad=True)
    assert not after.skipped
    same(after, build_manifest("dolos", dolos, cache=tmp_path / "empty", skip_bad=True))


def test_a_launch_that_dies_while_it_keeps_leaves_the_other_judgement_right(
    dolos: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sizes that two launches can take differ; the second dies behind its manifest, before what it judged."""
    write_image(dolos / "celebahq/real/train/00000.png", picture("wide", 20))

    def build(size_check: Callable[[int, int], str] | None) -> Manifest:
        return build_manifest("dolos", dolos, cache=cache, skip_bad=True, size_check=size_check)

    first = build(None)
    save = Manifest.save

    def dying(manifest: Manifest, folder: Path) -> None:
        save(manifest, folder)
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(Manifest, "save", dying)
        with pytest.raises(KeyboardInterrupt):
            build(lambda width, height: "too large" if width > 16 else "")
    same(build(None), first)
    assert len(build(lambda width, height: "too large" if width > 16 else "").skipped) == len(first.skipped) + 1


def test_launches_that_take_all_sizes_share_a_manifest(dolos: Path, cache: Path, joins: list[int]) -> None:
    first = build_manifest("dolos", dolos, cache=cache)
    joins.clear()
    same(build_manifest("dolos", dolos, cache=cache, size_check=lambda width, height: ""), first)
    same(build_manifest("dolos", dolos, cache=cache), first)
    assert joins == []


def _touch(root: Path) -> None:
    os.utime(root / "celebahq/real/test/00007.png", ns=(0, 12345))


def _other_bytes_of_one_size(root: Path) -> None:
    first, second = (root / f"celebahq/fake/{name}/images/test/00007.png" for name in ("lama", "ldm"))
    bytes_of = first.read_bytes(), second.read_bytes()
    first.write_bytes(bytes_of[1])
    second.write_bytes(bytes_of[0])


def _remove_a_mask(root: Path) -> None:
    (root / "celebahq/fake/lama/masks/test/00007.png").unlink()


def _another_image(root: Path) -> None:
    write_image(root / "celebahq/real/train/x.png", picture("x"))


def _a_note(root: Path) -> None:
    (root / "celebahq/real/train/note.txt").touch()


@pytest.mark.parametrize("change", [_touch, _other_bytes_of_one_size, _remove_a_mask, _another_image, _a_note])
def test_any_change_of_the_folder_gives_what_an_empty_cache_gives(
    change: Callable[[Path], None], dolos: Path, cache: Path, tmp_path: Path, joins: list[int]
) -> None:
    build_manifest("dolos", dolos, cache=cache)
    change(dolos)
    joins.clear()
    after = build_manifest("dolos", dolos, cache=cache)
    assert len(joins) == 1
    same(after, build_manifest("dolos", dolos, cache=tmp_path / "empty"))


@pytest.mark.parametrize(
    "options",
    [{"limit": 2}, {"generators": ["lama"]}, {"names_per_split": True}, {"size_check": lambda width, height: ""}],
)
def test_other_options_give_what_an_empty_cache_gives(
    options: dict[str, object], dolos: Path, cache: Path, tmp_path: Path
) -> None:
    before = build_manifest("dolos", dolos, cache=cache)
    after = build_manifest("dolos", dolos, cache=cache, **options)  # type: ignore[arg-type]
    same(after, build_manifest("dolos", dolos, cache=tmp_path / "empty", **options))  # type: ignore[arg-type]
    same(build_manifest("dolos", dolos, cache=cache), before)


def test_pictures_outside_of_the_limit_count_where_some_are_not_read(cache: Path, tmp_path: Path) -> None:
    counts = {f"a/{split}/{name}": 40 for split in ("train", "valid", "test") for name in ("0_real", "1_fake")}
    root = write_folders(tmp_path / "x", counts, restart=False)
    folder = root / "a/valid/1_fake"
    for name in ("x.gif", "y.gif"):
        (folder / name).touch()  # 2 of 42 pictures
    chosen = set(build_manifest("folders", root, cache=cache, limit=1).table["path"])
    last = max(path for path in folder.glob("*.png") if path.relative_to(root).as_posix() in chosen)
    others = [path for path in sorted(folder.glob("*.png")) if path > last]  # so no row of the table moves
    for path in others[-3:]:
        path.unlink()  # 2 of 39
    with pytest.raises(data.manifest.DataProblems, match="unbalances the classes"):
        build_manifest("folders", root, cache=cache, limit=1)


def test_sizes_are_judged_anew(dolos: Path, cache: Path) -> None:
    write_image(dolos / "celebahq/real/train/00000.png", picture("wide", 20))

    def check(width: int, height: int) -> str:
        return "too large" if width > 16 else ""

    def build(size_check: Callable[[int, int], str] | None) -> int:
        return len(build_manifest("dolos", dolos, cache=cache, skip_bad=True, size_check=size_check).skipped)

    mismatches = build(None)  # masks of another size than their image are none here: only the real image is larger
    assert [build(check), build(None), build(lambda width, height: ""), build(check)] == [
        mismatches + 1, mismatches, mismatches, mismatches + 1,
    ]  # fmt: skip


def test_a_damaged_manifest_is_made_again_with_a_warning(
    dolos: Path, cache: Path, joins: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    first = build_manifest("dolos", dolos, cache=cache)
    (table,) = (cache / "listings").rglob("table-*.arrow")
    table.write_bytes(table.read_bytes()[:-100])
    joins.clear()
    same(build_manifest("dolos", dolos, cache=cache), first)
    assert len(joins) == 1
    assert "is made again" in caplog.text
    joins.clear()
    same(build_manifest("dolos", dolos, cache=cache), first)
    assert joins == []


def test_few_manifests_of_a_folder_are_kept(cache: Path, tmp_path: Path, joins: list[int]) -> None:
    root = write_dolos(tmp_path / "x", counts={"train": 9, "valid": 9, "test": 9})
    for limit in range(1, MOST_KEPT + 3):
        build_manifest("dolos", root, cache=cache, limit=limit)
    (of_root,) = (cache / "listings").iterdir()
    assert len(list(of_root.iterdir())) == MOST_KEPT
    joins.clear()
    build_manifest("dolos", root, cache=cache, limit=MOST_KEPT + 2)
    assert joins == []
    build_manifest("dolos", root, cache=cache, limit=1)
    assert len(joins) == 1


# Columns --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names_per_split", [False, True])
@pytest.mark.parametrize(
    ("source", "write"),
    [("dolos", write_archive), ("folders", lambda root: write_folders(root, {"a/0_real": 9, "b/1_fake": 9, ".": 2}))],
)
def test_folders_in_columns_are_the_same_as_single_images(
    source: str, write: Callable[[Path], Path], tmp_path: Path, *, names_per_split: bool
) -> None:
    root = write(tmp_path / "x")
    scan = get_source(source).scan
    entries = scan(root).entries
    single = list(entries)
    assert isinstance(entries, Entries)
    assert entries == single
    assert len(entries) == len(single) > 10
    tables = [listed(given, Roots(root), names_per_split=names_per_split) for given in (entries, Entries(single))]
    pd.testing.assert_frame_equal(*tables)
    assert tables[0]["path"].tolist() == [entry.path.relative_to(root).as_posix() for entry in single]
    assert tables[0]["mask"].notna().sum() == sum(entry.mask is not None for entry in single)


def test_images_in_the_data_folder_itself_and_in_a_further_one(tmp_path: Path) -> None:
    folders = [tmp_path / "main", tmp_path / "coco", tmp_path / "main/below"]
    roots = Roots(folders[0], {"coco": folders[1]})
    parts = [
        FolderEntries(
            folder=folder, names=["1.png", "2.png"], label=1, generator="a", source_ids=["1", "2"],
            splits=["train", "test"], masks=folder, mask_names=["m.png", None], mask_white="fake",
        )
        for folder in folders
    ]  # fmt: skip
    entries = Entries()
    for part in parts:
        entries.add_folder(part)
    single = Entries(entries)
    entries.append(Entry(folders[2] / "3.png", 0, "real", "3", "train", original=folders[1] / "4.png"))
    table = listed(entries, roots)
    assert table["path"].tolist() == [
        "1.png", "2.png", "coco:1.png", "coco:2.png", "below/1.png", "below/2.png", "below/3.png",
    ]  # fmt: skip
    assert table["mask"].dropna().tolist() == ["m.png", "coco:m.png", "below/m.png"]
    assert table["mask_white"].dropna().tolist() == ["fake"] * 3
    assert table["original"].dropna().tolist() == ["coco:4.png"]
    assert len(entries) == 0
    assert [entry.mask and entry.mask.name for entry in single] == ["m.png", None] * 3
    with pytest.raises(ValueError, match="reads as a path below coco"):
        listed(Entries([Entry(folders[0] / "coco:x.png", 0, "real", "1", "train")]), roots)


@pytest.mark.parametrize("fewer", ["source_ids", "splits", "mask_names"])
def test_a_column_that_is_too_short_is_refused_and_loses_no_image(fewer: str) -> None:
    columns = {name: ["1", "2"] for name in ("names", "source_ids", "splits", "mask_names")} | {fewer: ["1"]}
    with pytest.raises(ValueError, match="for each of 2 names"):
        FolderEntries(folder=Path("x"), label=1, generator="a", masks=Path("m"), **columns)  # type: ignore[arg-type]


NAMES = ["a", "a!", 'a"', "a\\", "é", "e\u0301", "\t", "\x7f", "", "a b", "\U0001f600", "Z", "0"]


def test_the_digest_is_of_the_sorted_json_lines() -> None:
    rows = [(label, name, other, None) for label in (0, 1) for name in NAMES for other in reversed(NAMES)]
    rows += [(1, name, "x", other) for name, other in zip(NAMES, reversed(NAMES), strict=True)]
    table = pd.DataFrame(rows, columns=["label", "generator", "source_id", "mask_digest"])
    table = table.astype({"mask_digest": "string"}).sample(frac=1, random_state=0)
    lines = sorted(json.dumps(list(row)) for row in rows)
    expected = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert json_digest(table, ["label", "generator", "source_id", "mask_digest"]) == expected


@given(st.lists(st.text(st.sampled_from("01a._٣"), max_size=6), min_size=2, max_size=2))
def test_leading_zeros_of_a_table_are_those_of_one_name(ids: list[str]) -> None:
    table = pd.DataFrame({"source_id": ids, "split": ["train", "test"], "path": ["1", "2"]})
    assert bool(leaks(table, "source_id")) == (photograph_key(ids[0]) == photograph_key(ids[1]))
