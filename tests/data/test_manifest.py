from __future__ import annotations

import json
import os
import pickle
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import data.probes
from data.manifest import COLUMNS, DataProblems, Manifest, build_manifest
from data.sources.base import Problem
from tests.corpora import picture, write_dolos, write_folders, write_image

REAL_FACES = os.environ.get("GRID_REAL_FACES", "")  # a folder of real photographs in the layout of Dolos


def problems_of(root: Path, cache: Path, source: str = "dolos", *, skip_bad: bool = False) -> list[tuple[str, str]]:
    with pytest.raises(DataProblems) as caught:
        build_manifest(source, root, cache=cache, skip_bad=skip_bad)
    return [(problem.path, problem.what) for problem in caught.value.problems]


def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are probed from here on."""
    names: list[str] = []
    read = data.probes.read

    def counting(path: Path) -> object:
        names.append(path.name)
        return read(path)

    monkeypatch.setattr(data.probes, "read", counting)
    return names


def test_a_sound_tree(dolos: Path, cache: Path) -> None:
    calls: list[tuple[int, int]] = []
    manifest = build_manifest("dolos", dolos, cache=cache, progress=lambda done, total: calls.append((done, total)))
    assert tuple(manifest.table.columns) == COLUMNS
    assert list(manifest.table.index) == list(range(27))
    assert manifest.generators == ("lama", "ldm")
    assert (manifest.skipped, manifest.remarks) == ((), [])
    assert calls == [(done, 45) for done in range(1, 46)]  # 27 images, 18 masks
    row = manifest.table.query("generator == 'ldm' and source_id == '00006'").iloc[0]
    assert row["path"] == "celebahq/fake/ldm/images/test/00006.png"
    assert row["mask"] == "celebahq/fake/ldm/masks/test/00006.png"
    assert (row["label"], row["split"], row["width"], row["height"], row["format"]) == (1, "test", 16, 16, "PNG")
    assert len(row["digest"]) == len(row["mask_digest"]) == 64
    real = manifest.table[manifest.table["label"] == 0]
    assert real["mask"].isna().all()
    assert real["mask_digest"].isna().all()
    assert all(path.is_file() for path in manifest.paths(manifest.table))


def test_a_second_build_opens_only_what_changed(dolos: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = opened(monkeypatch)
    before = build_manifest("dolos", dolos, cache=cache)
    assert len(names) == 45
    names.clear()
    pd.testing.assert_frame_equal(build_manifest("dolos", dolos, cache=cache).table, before.table)
    assert names == []
    write_image(dolos / "celebahq/real/test/00007.png", picture("another"))
    os.utime(dolos / "celebahq/real/test/00008.png", ns=(0, 12345))
    after = build_manifest("dolos", dolos, cache=cache)
    assert sorted(names) == ["00007.png", "00008.png"]
    assert after.digest != before.digest


def test_a_damaged_cache_costs_time_only(
    dolos: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = build_manifest("dolos", dolos, cache=cache).digest
    (file,) = (cache / "probes").glob("*.parquet")
    file.write_bytes(file.read_bytes()[:100])
    shutil.rmtree(cache / "listings")  # what would do without these facts
    names = opened(monkeypatch)
    assert build_manifest("dolos", dolos, cache=cache).digest == before
    assert len(names) == 45
    assert "cannot be read" in caplog.text
    names.clear()
    build_manifest("dolos", dolos, cache=cache)
    assert names == []


def test_two_builds_at_once_keep_the_facts_of_both(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_dolos(tmp_path / "x", generators=["a", "b"], counts={"train": 20, "valid": 20, "test": 20})

    def build(limit: int) -> str:
        return build_manifest("dolos", root, cache=cache, limit=limit).digest

    with ThreadPoolExecutor(4) as pool:
        digests = list(pool.map(build, [5, 10, 20, 20]))
    assert digests[2] == digests[3]
    names = opened(monkeypatch)
    assert build(20) == digests[2]
    assert names == []


def test_an_interrupted_build_keeps_what_it_has_seen(dolos: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(done: int, total: int) -> None:
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_manifest("dolos", dolos, cache=cache, progress=stop)
    names = opened(monkeypatch)
    build_manifest("dolos", dolos, cache=cache)
    assert len(names) == 25


# Identity


def test_moving_or_renaming_the_root_keeps_the_digest(dolos: Path, cache: Path, tmp_path: Path) -> None:
    before = build_manifest("dolos", dolos, cache=cache)
    moved = dolos.rename(tmp_path / "elsewhere")
    (moved / "celebahq").rename(moved / "faces")
    after = build_manifest("dolos", moved / "faces", cache=cache)
    assert after.digest == before.digest
    assert (after.table["digest"] == before.table["digest"]).all()
    assert len(after.digest) == 16


def test_the_digest_depends_on_the_content_of_every_row(dolos: Path, cache: Path) -> None:
    manifest = build_manifest("dolos", dolos, cache=cache)

    def digest_with(row: int, column: str, value: object) -> str:
        table = manifest.table.copy()
        table.loc[row, column] = value
        return Manifest(manifest.root, manifest.source, table).digest

    fake = int(manifest.table.index[manifest.table["label"] == 1][0])
    changes = {"generator": "x", "source_id": "x", "split": "x", "digest": "x", "mask_digest": "x", "label": 0}
    digests = {digest_with(fake, column, value) for column, value in changes.items()}
    digests.add(digest_with(fake, "mask_digest", pd.NA))
    assert len(digests | {manifest.digest}) == len(changes) + 2
    assert digest_with(fake, "path", "x") == digest_with(fake, "mask", "x") == manifest.digest
    shuffled = manifest.table.sample(frac=1, random_state=0)
    assert Manifest(Path("anywhere"), "any", shuffled).digest == manifest.digest


def test_a_manifest_from_before_there_were_audits_can_be_read(dolos: Path, cache: Path, tmp_path: Path) -> None:
    manifest = build_manifest("dolos", dolos, cache=cache)
    manifest.save(tmp_path / "saved")
    file = tmp_path / "saved" / "manifest.json"
    facts = json.loads(file.read_text())
    del facts["findings"]
    file.write_text(json.dumps(facts))
    loaded = Manifest.load(tmp_path / "saved")
    assert loaded.findings == ()
    pd.testing.assert_frame_equal(loaded.table, manifest.table)


def test_with_some_generators_the_folders_of_others_may_be_incomplete(dolos: Path, cache: Path) -> None:
    shutil.rmtree(dolos / "celebahq" / "fake" / "ldm" / "images" / "valid")
    with pytest.raises(DataProblems, match="missing folder"):
        build_manifest("dolos", dolos, cache=cache)
    assert build_manifest("dolos", dolos, cache=cache, generators=["lama"]).generators == ("lama",)
    with pytest.raises(DataProblems, match="missing folder"):
        build_manifest("dolos", dolos, cache=cache, generators=["ldm"])


def test_saved_and_loaded_it_is_the_same(dolos: Path, cache: Path, tmp_path: Path) -> None:
    (dolos / "celebahq/fake/lama/images/train/00000.png").write_bytes(b"")
    (dolos / "celebahq/real/train/notes.txt").touch()
    manifest = build_manifest("dolos", dolos, cache=cache, skip_bad=True)
    assert manifest.skipped
    assert manifest.notes
    manifest.save(tmp_path / "saved")
    manifest.save(tmp_path / "saved")  # over itself
    loaded = Manifest.load(tmp_path / "saved")
    pd.testing.assert_frame_equal(loaded.table, manifest.table)
    facts = [(m.root, m.source, m.skipped, m.notes, m.digest) for m in (loaded, manifest)]
    assert facts[0] == facts[1]
    (table,) = (tmp_path / "saved").glob("table-*.arrow")
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {"manifest.json", table.name}
    content = table.read_bytes()
    table.write_bytes(content[:-100] + bytes(100))
    with pytest.raises(ValueError, match="is damaged"):
        Manifest.load(tmp_path / "saved")
    manifest.save(tmp_path / "saved")  # builds it again
    assert table.read_bytes() == content
    with pytest.raises(FileNotFoundError):
        Manifest.load(tmp_path / "nowhere")


def test_without_any_mask_the_columns_keep_their_types(dolos: Path, cache: Path, tmp_path: Path) -> None:
    with_masks = build_manifest("dolos", dolos, cache=cache)
    for masks in (dolos / "celebahq/fake").glob("*/masks"):
        shutil.rmtree(masks)
    manifest = build_manifest("dolos", dolos, cache=cache)
    assert manifest.table["mask"].isna().all()
    assert manifest.notes == ("no fake has a mask; localisation leaves them out",)
    manifest.save(tmp_path / "saved")
    for table in (manifest.table, Manifest.load(tmp_path / "saved").table):
        assert table.dtypes.to_dict() == with_masks.table.dtypes.to_dict()


# Choosing rows


def test_select_gives_fakes_with_the_reals_that_belong_to_them(dolos: Path, cache: Path, tmp_path: Path) -> None:
    shared = build_manifest("dolos", dolos, cache=cache)
    rows = shared.select("test", ["ldm"])
    assert Counter(rows["generator"]) == {"ldm": 3, "real": 3}
    assert (shared.table.loc[rows.index] == rows).all(axis=None, skipna=True)
    names = {f"{split}/{g}/{c}": 2 for split in ("train", "val", "test") for g in "ab" for c in ("0_real", "1_fake")}
    root = tmp_path / "plain"
    for folder, count in names.items():
        for number in range(count):
            write_image(root / folder / f"{folder.replace('/', '-')}-{number}.png", picture(f"{folder}{number}"))
    own = build_manifest("folders", root, cache=cache)
    assert Counter(zip(*own.select("valid", ["a"])[["generator", "label"]].T.values, strict=True)) == {
        ("a", 0): 2,
        ("a", 1): 2,
    }
    assert len(own.select("valid", ["a", "b"])) == 8
    for bad in (("testing", ["ldm"]), ("test", ["dalle"])):
        with pytest.raises(ValueError, match="there are"):
            shared.select(*bad)


def test_the_summary_counts(dolos: Path, cache: Path, tmp_path: Path) -> None:
    lines = [line.split() for line in build_manifest("dolos", dolos, cache=cache).summary().splitlines()]
    assert lines == [["train", "valid", "test"], *([name, "4", "2", "3"] for name in ("lama", "ldm", "real"))]
    root = write_folders(tmp_path / "plain", {"a/0_real": 60, "a/1_fake": 60})
    assert "a (real)" in build_manifest("folders", root, cache=cache).summary()


def test_a_limit_keeps_fakes_with_their_originals_and_opens_nothing_else(
    dolos: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = opened(monkeypatch)
    limited = build_manifest("dolos", dolos, cache=cache, limit=2)
    assert len(names) == 3 * 3 * 2 + 2 * 3 * 2
    assert set(Counter(zip(limited.table["split"], limited.table["generator"], strict=True)).values()) == {2}
    for _, group in limited.table.groupby("split"):
        assert group.groupby("generator")["source_id"].agg(frozenset).nunique() == 1
    after = build_manifest("dolos", dolos, cache=cache).limit(2)
    pd.testing.assert_frame_equal(after.table, limited.table)
    assert after.digest == limited.digest
    with pytest.raises(ValueError, match="at least 1"):
        after.limit(0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(smaller=st.integers(1, 10), larger=st.integers(1, 10))
def test_a_smaller_limit_is_part_of_a_larger_one(smaller: int, larger: int) -> None:
    smaller, larger = sorted((smaller, larger))
    ids = [str(number) for number in range(8)]
    columns = {"path": ids, "label": 1, "generator": "g", "source_id": ids, "split": "train"}
    manifest = Manifest(Path(), "x", pd.DataFrame(columns))
    small, large = (set(manifest.limit(n).table["path"]) for n in (smaller, larger))
    assert small <= large
    assert len(small) == min(smaller, 8)


# Problems


def test_pictures_of_a_size_that_cannot_be_used_are_bad_files(dolos: Path, cache: Path) -> None:
    bad = {"celebahq/real/train/00000.png": (3, 20), "celebahq/fake/ldm/images/test/00007.png": (16, 9)}
    for name, (width, height) in bad.items():
        write_image(dolos / name, np.resize(picture(name), (height, width, 3)))
    (dolos / "celebahq/fake/ldm/masks/test/00007.png").unlink()
    asked: list[tuple[int, int]] = []

    def check(width: int, height: int) -> str:
        asked.append((width, height))
        return "" if min(width, height) >= 10 else "too small"

    with pytest.raises(DataProblems) as caught:
        build_manifest("dolos", dolos, cache=cache, size_check=check)
    assert sorted(asked) == [(3, 20), (16, 9), (16, 16)]  # each size once
    assert {(problem.path, problem.what, problem.detail) for problem in caught.value.problems} == {
        (name, "too small", f"{width} x {height} pixels") for name, (width, height) in bad.items()
    }
    manifest = build_manifest("dolos", dolos, cache=cache, size_check=check, skip_bad=True)
    assert {problem.path for problem in manifest.skipped} == set(bad)
    assert len(manifest.table) == 25
    assert len(build_manifest("dolos", dolos, cache=cache).table) == 27


def test_all_problems_come_in_one_message_and_with_skip_bad_into_the_record(dolos: Path, cache: Path) -> None:
    base = dolos / "celebahq"
    whole = (base / "real/train/00000.png").read_bytes()
    (base / "real/train/00000.png").write_bytes(whole[: len(whole) // 2])
    Image.new("CMYK", (16, 16)).save(base / "fake/lama/images/train/00001.png", format="JPEG")
    write_image(base / "fake/lama/masks/train/00002.png", np.zeros((8, 12), dtype=np.uint8))
    (base / "fake/ldm/masks/train/00003.png").write_bytes(b"nothing")
    write_image(base / "fake/ldm/masks/train/99999.png", np.zeros((16, 16), dtype=np.uint8))
    expected = {
        "celebahq/real/train/00000.png": "truncated or damaged",
        "celebahq/fake/lama/images/train/00001.png": "CMYK colours",
        "celebahq/fake/lama/masks/train/00002.png": "mask and image differ in size",
        "celebahq/fake/ldm/masks/train/00003.png": "text file, not a picture",
        "celebahq/fake/ldm/masks/train/99999.png": "a mask without an image",
    }
    with pytest.raises(DataProblems) as caught:
        build_manifest("dolos", dolos, cache=cache)
    assert {problem.path: problem.what for problem in caught.value.problems} == expected
    message = str(caught.value)
    assert message.startswith("5 problems in ")
    assert all(path in message for path in expected)
    assert all(problem.remedy in message for problem in caught.value.problems)
    assert "--skip-bad" in message
    assert "layout" not in message
    assert str(pickle.loads(pickle.dumps(caught.value))) == message

    manifest = build_manifest("dolos", dolos, cache=cache, skip_bad=True)
    assert {problem.path: problem.what for problem in manifest.skipped} == expected
    paths = set(manifest.table["path"])
    assert len(paths) == 27 - 2
    assert not paths & {"celebahq/real/train/00000.png", "celebahq/fake/lama/images/train/00001.png"}
    maskless = manifest.table[(manifest.table["label"] == 1) & manifest.table["mask"].isna()]
    assert set(maskless["path"]) == {
        "celebahq/fake/lama/images/train/00002.png",
        "celebahq/fake/ldm/images/train/00003.png",
    }
    assert maskless["mask_digest"].isna().all()


def test_long_lists_are_cut_and_counted() -> None:
    problems = [Problem(f"{number:02d}.png", "bad", "mend it", skippable=True) for number in range(25)]
    message = str(DataProblems([*problems, Problem("x", "worse", "buy another")], "here", "a/b"))
    assert message.splitlines()[0] == "26 problems in here"
    assert "bad (25); remedy: mend it" in message
    assert "19.png" in message
    assert "20.png" not in message
    assert "and 5 more" in message
    assert "a/b" in message


@pytest.mark.parametrize("source", ["dolos", "folders"])
def test_no_folder_or_a_file_shows_the_layout(tmp_path: Path, cache: Path, source: str) -> None:
    (tmp_path / "file").touch()
    for root, what in ((tmp_path / "nowhere", "does not exist"), (tmp_path / "file", "not a folder")):
        with pytest.raises(DataProblems, match=what) as caught:
            build_manifest(source, root, cache=cache)
        assert len(caught.value.problems) == 1
        assert {"dolos": "celebahq/real/{train,valid,test}", "folders": "0_real"}[source] in str(caught.value)
        assert "--skip-bad" not in str(caught.value)


def test_missing_folders_cannot_be_skipped_and_are_said_once(dolos: Path, cache: Path) -> None:
    shutil.rmtree(dolos / "celebahq/real/valid")
    shutil.rmtree(dolos / "celebahq/fake/lama/images/test")
    expected = [
        ("celebahq/fake/lama/images/test", "missing folder"),
        ("celebahq/real/valid", "missing folder"),
    ]
    assert problems_of(dolos, cache) == expected
    assert problems_of(dolos, cache, skip_bad=True) == expected


def test_a_split_whose_last_image_is_bad_cannot_be_skipped(dolos: Path, cache: Path) -> None:
    for path in (dolos / "celebahq/fake/lama/images/valid").iterdir():
        path.write_bytes(b"")
    assert ("lama", "a split without images") in problems_of(dolos, cache)
    assert problems_of(dolos, cache, skip_bad=True) == [("lama", "a split without images")]


def test_splits_by_chance_that_come_out_empty_are_a_problem(tmp_path: Path, cache: Path) -> None:
    root = write_folders(tmp_path / "plain", {"a/0_real": 1, "a/1_fake": 1})
    assert set(problems_of(root, cache, "folders")) == {("a", "a split without images")}


def test_a_generator_cannot_be_called_real(tmp_path: Path, cache: Path) -> None:
    root = write_dolos(tmp_path / "x", generators=["real"])
    assert problems_of(root, cache) == [("real", "a generator named 'real'")]


def test_one_photograph_in_two_splits(dolos: Path, cache: Path) -> None:
    base = dolos / "celebahq/fake/lama"
    for folder in ("images", "masks"):
        (base / folder / "test/00006.png").rename(base / folder / "train/00006.png")
    leaked = "celebahq/fake/lama/images/train/00006.png"
    assert problems_of(dolos, cache) == [(leaked, "one photograph in two splits")]
    manifest = build_manifest("dolos", dolos, cache=cache, skip_bad=True)
    assert [problem.path for problem in manifest.skipped] == [leaked]
    where = manifest.table[manifest.table["source_id"] == "00006"]
    assert set(where["split"]) == {"test"}


@pytest.mark.parametrize(
    ("kept", "leaked", "is_leak"),
    [("00006", "6", True), ("a_06b", "a_6b", True), ("x1.5", "x1.05", False), ("06", "60", False)],
)
def test_one_number_with_and_without_leading_zeros_in_two_splits(
    dolos: Path, cache: Path, kept: str, leaked: str, is_leak: bool
) -> None:
    base = dolos / "celebahq"
    for folder in ("real", "fake/lama/images", "fake/lama/masks", "fake/ldm/images", "fake/ldm/masks"):
        (base / folder / "test/00006.png").rename(base / folder / f"test/{kept}.png")
    write_image(base / f"real/train/{leaked}.png", picture("another"))
    if not is_leak:
        assert len(build_manifest("dolos", dolos, cache=cache).table) == 28
        return
    with pytest.raises(DataProblems) as caught:
        build_manifest("dolos", dolos, cache=cache)
    (problem,) = caught.value.problems
    assert (problem.path, problem.what) == (f"celebahq/real/train/{leaked}.png", "one photograph in two splits")
    assert problem.detail == f"also celebahq/real/test/{kept}.png"
    assert "if names restart in each split" in problem.remedy
    assert len(build_manifest("dolos", dolos, cache=cache, skip_bad=True).table) == 27


def test_names_of_one_spelling_keep_the_digest(tmp_path: Path, cache: Path) -> None:
    """Only a name that is written in two ways is written anew; else manifests would get other digests for nothing."""
    root = write_dolos(tmp_path / "dolos", generators=["lama"])
    for path in sorted(root.rglob("*/test/*.png")):
        path.rename(path.with_name(f"Rene\u0301{path.name}"))
    ids = set(build_manifest("dolos", root, cache=cache).select("test", ["lama"])["source_id"])
    assert ids == {f"Rene\u0301{number:05d}" for number in (6, 7, 8)}


@pytest.mark.parametrize(("first", "second"), [("train", "valid"), ("train", "test"), ("valid", "test")])
def test_the_same_bytes_in_two_splits(dolos: Path, cache: Path, first: str, second: str) -> None:
    kept = sorted((dolos / "celebahq/real" / second).iterdir())[0]
    leaked = dolos / "celebahq/real" / first / "88888.png"
    shutil.copy(kept, leaked)
    expected = f"celebahq/real/{first}/88888.png"
    assert problems_of(dolos, cache) == [(expected, "the same bytes in two splits")]
    manifest = build_manifest("dolos", dolos, cache=cache, skip_bad=True)
    assert [(p.path, p.detail) for p in manifest.skipped] == [(expected, f"also celebahq/real/{second}/{kept.name}")]
    assert manifest.table.groupby("digest")["split"].nunique().max() == 1


def test_the_same_bytes_called_real_and_fake(dolos: Path, cache: Path) -> None:
    base = dolos / "celebahq"
    shutil.copy(base / "real/test/00006.png", base / "fake/lama/images/test/00006.png")
    expected = ["celebahq/fake/lama/images/test/00006.png", "celebahq/real/test/00006.png"]
    what = "the same bytes labelled both real and fake"
    assert problems_of(dolos, cache) == [(path, what) for path in expected]
    manifest = build_manifest("dolos", dolos, cache=cache, skip_bad=True)
    assert [problem.path for problem in manifest.skipped] == expected
    assert len(manifest.table) == 25


def test_overlays_of_grad_cam_are_no_images(dolos: Path, cache: Path) -> None:
    folder = dolos / "celebahq/real/test"
    before = build_manifest("dolos", dolos, cache=cache)
    shutil.copy(min(folder.iterdir()), folder / "00000.cam.png")
    manifest = build_manifest("dolos", dolos, cache=cache)
    assert manifest.digest == before.digest
    assert "1 overlay of `predict` was ignored in celebahq/real/test: 00000.cam.png" in manifest.notes


def test_copies_within_one_split_and_label_are_no_problem(dolos: Path, cache: Path) -> None:
    shutil.copytree(dolos / "celebahq/fake/lama", dolos / "celebahq/fake/twin")
    assert build_manifest("dolos", dolos, cache=cache).generators == ("lama", "ldm", "twin")


@pytest.mark.skipif(not REAL_FACES, reason="GRID_REAL_FACES names no folder of real photographs")
def test_real_photographs(cache: Path) -> None:
    manifest = build_manifest("dolos", Path(REAL_FACES), cache=cache)
    assert (manifest.skipped, manifest.notes) == ((), ())
    assert set(manifest.table["split"]) == {"train", "valid", "test"}
    assert not manifest.table.duplicated(["digest", "generator"]).any()
    build_manifest("dolos", Path(REAL_FACES), cache=cache)  # from what the first one kept
