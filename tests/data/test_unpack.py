"""Parquet and tar files become pictures in the cache: once, bytes unchanged, and in one piece whatever happens."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import data.unpack
from data.manifest import DataProblems, build_manifest
from data.sources import get_source, preferred
from data.unpack import LIST, UnpackError, unpack, unpacked_folder
from tests.corpora import picture
from tests.data.processes import Python
from tests.published import IMAGE, edited, encoded, write_parquet, write_tar

PNG, JPEG = encoded(picture("a")), encoded(picture("b"), "JPEG", quality=71)
PLAIN = pa.schema([("image_name", pa.string()), ("image_data", pa.binary()), ("label", pa.int64())])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "shards"


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "corpora"


def struct(content: bytes | None, name: str | None = None) -> dict[str, Any]:
    return {"bytes": content, "path": name}


def row(key: str, content: bytes = PNG, mask: bytes | None = None) -> dict[str, Any]:
    return {"key": key, "image": struct(content), "mask": None if mask is None else struct(mask)}


SCHEMA = pa.schema([("key", pa.string()), ("image", IMAGE), ("mask", IMAGE)])


def listed(folder: Path) -> list[dict[str, Any]]:
    table = pd.read_parquet(folder / LIST)
    return [dict(row) for row in table.astype(object).where(table.notna(), None).to_dict("records")]


def contents(folder: Path) -> dict[str, bytes]:
    """All files that are data."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith(".")}


def left_behind(folder: Path) -> list[Path]:
    return list(folder.rglob(".unpacking-*"))


def many(root: Path, num_shards: int = 3, each: int = 4) -> Path:
    for shard in range(num_shards):
        rows = [row(f"{shard}/{number}", encoded(picture(f"{shard}/{number}"))) for number in range(each)]
        write_parquet(root / f"data/x-{shard:05d}-of-{num_shards:05d}.parquet", rows, SCHEMA)
    return root


# What comes out -------------------------------------------------------------------------------------------------------


def test_bytes_are_unchanged_and_the_suffix_is_that_of_the_bytes(root: Path, corpora: Path) -> None:
    kinds = {"BMP": ".bmp", "WEBP": ".webp", "TIFF": ".tif", "GIF": ".gif", "PNG": ".png", "JPEG": ".jpg"}
    files = {kind: encoded(picture(kind), kind) for kind in kinds}
    rows = [row(f"of/{kind}.jpg", content, PNG if kind == "BMP" else None) for kind, content in files.items()]
    write_parquet(root / "sd15-00000-of-00001.parquet", rows, SCHEMA)
    folder = unpack(root, corpora)
    assert folder == unpacked_folder(root, corpora)
    for kind, found in zip(kinds, listed(folder), strict=True):
        assert found["path"] == f"sd15-00000-of-00001/image/of/{kind}{kinds[kind]}"
        assert (folder / found["path"]).read_bytes() == files[kind]
        assert (found["key"], found["part"], found["shard"]) == (
            f"of/{kind}.jpg",
            "sd15",
            "sd15-00000-of-00001.parquet",
        )
        assert (found["mask"] is None) == (kind != "BMP")
    assert (folder / "sd15-00000-of-00001/mask/of/BMP.png").read_bytes() == PNG


def test_plain_binary_columns_and_names_that_repeat(root: Path, corpora: Path) -> None:
    rows = [{"image_name": "one.jpg", "image_data": content, "label": 1} for content in (PNG, JPEG)]
    write_parquet(root / "train-00000-of-00001.parquet", [*rows, {"image_data": JPEG, "label": 0}], PLAIN)
    found = listed(unpack(root, corpora))
    digest = hashlib.sha256(JPEG).hexdigest()
    names = ["one.png", f"{digest}.jpg", f"{digest}.jpg"]
    assert [Path(each["path"]).name for each in found] == names
    assert [(each["label"], each["split"]) for each in found] == [("1", "train"), ("1", "train"), ("0", "train")]


def test_the_list_is_read_as_a_list_of_images(root: Path, corpora: Path, cache: Path) -> None:
    schema = pa.schema([("image", IMAGE), ("mask", IMAGE), ("label", pa.string()), ("model", pa.string())])
    for split, number in (("train", 30), ("test", 4)):
        rows: list[dict[str, Any]] = []
        for index in range(number):
            pixels, mask = edited(f"fake {split}{index}", f"{split}{index}", 16)
            name = f"{split}{index}.png"
            rows.append({"image": struct(encoded(picture(f"{split}{index}")), f"r{name}"), "label": "real"})
            rows.append(
                {"image": struct(encoded(pixels), name), "mask": struct(encoded(mask)), "label": "fake", "model": "m"}
            )
        write_parquet(root / f"data/{split}-00000-of-00001.parquet", rows, schema)
    assert preferred(root) == ["manifest"]
    folder = unpack(root, corpora)
    assert preferred(folder) == ["manifest"]
    table = build_manifest("manifest", folder, cache=cache).table
    counts = table.groupby(["label", "generator"])["mask"].count()
    assert counts.to_dict() == {(0, "real"): 0, (1, "m"): 34}
    assert (table["split"] == "test").sum() == 8


def write_open_fake(root: Path) -> None:
    """Generators of training and of test are other ones; the model of a real image is its corpus."""
    kinds = {"train": ("sd15", 24), "validation": ("sd15", 3), "test": ("flux", 3)}
    for split, (model, number) in kinds.items():
        rows = [
            {
                "image": struct(encoded(picture(f"{split}{label}{index}")), None), "prompt": "a, \"b\"\nc",
                "label": label, "model": model if label == "fake" else "laion", "type": "base", "release_date": None,
            }
            for label in ("real", "fake")
            for index in range(number)
        ]  # fmt: skip
        write_parquet(root / f"core/{split}-00000-of-00001.parquet", rows)


def write_community_forensics(root: Path) -> None:
    """Plain bytes; names of images repeat."""
    for split, number in (("train", 24), ("val", 3), ("test", 3)):
        rows = [
            {
                "image_name": f"{index % 2}.png", "format": "PNG", "resolution": "[16, 16]", "mode": "RGB",
                "image_data": encoded(picture(f"{split}{label}{index}")), "model_name": "sd15" if label else "real",
                "nsfw_flag": False, "prompt": None, "real_source": None if label else "laion", "subset": "Systematic",
                "split": split, "label": label, "architecture": "LatDiff",
            }
            for label in (0, 1)
            for index in range(number)
        ]  # fmt: skip
        write_parquet(root / f"data/Systematic-{split}-00000-of-00001.parquet", rows)


def test_community_forensics_is_a_list_once_unpacked(root: Path, corpora: Path, cache: Path) -> None:
    write_community_forensics(root)
    assert preferred(root) == ["manifest"]
    manifest = build_manifest("manifest", unpack(root, corpora), cache=cache)
    assert manifest.train_generators == ("sd15",)
    table = manifest.table
    assert table.groupby(["split", "label"]).size().to_dict() == {
        (split, label): number for split, number in (("train", 24), ("valid", 3), ("test", 3)) for label in (0, 1)
    }
    assert table["source_id"].nunique() == len(table)  # no two images are taken for one photograph


def test_of_openfake_what_has_no_test_images_is_only_trained_on(root: Path, corpora: Path, cache: Path) -> None:
    write_open_fake(root)
    manifest = build_manifest("manifest", unpack(root, corpora), cache=cache)
    assert manifest.table.groupby(["generator", "label", "split"]).size().to_dict() == {
        ("real", 0, "train"): 24, ("real", 0, "valid"): 3, ("real", 0, "test"): 3, ("sd15", 1, "train"): 24,
        ("sd15", 1, "valid"): 3, ("flux", 1, "test"): 3,
    }  # fmt: skip
    assert (manifest.train_generators, manifest.tested_generators) == (("sd15",), ("flux",))
    assert "real images of laion belong to no generator, so all generators share them" in manifest.notes


@pytest.mark.parametrize(
    "key",
    [
        "../../out",
        "/etc/passwd",
        "a/../b",
        ".hidden/x",
        "a//b",
        "",
        "a/ b",
        "x\0y",
        "c:\\a",
        "é" * 120,
        "a?b",
        "..\\up",
        "end.",
    ],
)
def test_a_key_that_is_no_good_name_gives_way_to_the_digest(root: Path, corpora: Path, key: str) -> None:
    write_parquet(root / "a.parquet", [row(key)], SCHEMA)
    folder = unpack(root, corpora)
    (found,) = listed(folder)
    assert found["path"] == f"a/image/{hashlib.sha256(PNG).hexdigest()}.png"
    assert set(contents(folder)) == {found["path"], LIST}


def test_names_that_only_some_file_systems_tell_apart_are_told_apart(root: Path, corpora: Path) -> None:
    keys = ["A", "a", "é", "e\u0301", "hair drier/1", "x.JPEG", "x/y", "b.v2"]
    files = [encoded(picture(key), "JPEG") for key in keys]
    write_parquet(root / "a.parquet", [row(key, content) for key, content in zip(keys, files, strict=True)], SCHEMA)
    folder = unpack(root, corpora)
    found = [each["path"] for each in listed(folder)]
    assert [name.removeprefix("a/image/") for name in found if len(name) < 40] == [
        "A.jpg", "é.jpg", "hair drier/1.jpg", "x.JPEG", "x/y.jpg", "b.v2.jpg",
    ]  # fmt: skip
    assert len({name.lower() for name in found}) == len(keys)
    assert [(folder / name).read_bytes() for name in found] == files


def test_a_file_and_a_folder_of_one_name(root: Path, corpora: Path) -> None:
    rows = [row("x.png"), row("x.png/y", JPEG), row("z/w", PNG), row("z.png", JPEG)]
    write_parquet(root / "a.parquet", rows, SCHEMA)
    folder = unpack(root, corpora)
    assert [(folder / each["path"]).read_bytes() for each in listed(folder)] == [PNG, JPEG, PNG, JPEG]


def test_the_names_of_classes_beside_the_data_are_used(root: Path, corpora: Path) -> None:
    features = {"info": {"features": {"label": {"names": ["fake", "real"], "_type": "ClassLabel"}}}}
    schema = PLAIN.with_metadata({"huggingface": json.dumps(features)})
    rows = [{"image_name": str(label), "image_data": PNG, "label": label} for label in (0, 1)]
    write_parquet(root / "a.parquet", rows, schema)
    assert [each["label"] for each in listed(unpack(root, corpora))] == ["fake", "real"]


def test_columns_with_names_of_our_own_are_kept_beside_them(root: Path, corpora: Path) -> None:
    write_parquet(root / "a.parquet", [{"path": "elsewhere", "part": 3, "image": struct(PNG, "n.png")}])
    (found,) = listed(unpack(root, corpora))
    assert (found["path"], found["path_in_shard"], found["part"], found["part_in_shard"]) == (
        "a/image/n.png", "elsewhere", "a", "3",
    )  # fmt: skip


def test_an_image_that_is_null_is_a_row_without_a_path(root: Path, corpora: Path, cache: Path) -> None:
    write_parquet(
        root / "a.parquet", [row("x"), {"key": "gone", "image": struct(None, "gone.png"), "mask": None}], SCHEMA
    )
    folder = unpack(root, corpora)
    assert [each["path"] for each in listed(folder)] == ["a/image/x.png", None]
    problems = get_source("manifest").scan(folder).problems
    assert "a row without a path" in {problem.what for problem in problems}


def test_bytes_that_are_no_picture_are_kept_and_found_by_the_manifest(root: Path, corpora: Path, cache: Path) -> None:
    schema = pa.schema([("key", pa.string()), ("image", pa.binary()), ("label", pa.string())])
    rows = [{"key": "x", "image": b"<html>not found", "label": "fake"}, {"key": "y", "image": PNG, "label": "real"}]
    write_parquet(root / "a.parquet", rows, schema)
    folder = unpack(root, corpora)
    assert (folder / "a/image/x.bin").read_bytes() == b"<html>not found"
    with pytest.raises(DataProblems, match=r"web page saved as a picture[\s\S]*a/image/x\.bin"):
        build_manifest("manifest", folder, cache=cache)


def test_two_shards_of_one_stem_have_folders_of_their_own(root: Path, corpora: Path) -> None:
    write_parquet(root / "a.parquet", [row("x")], SCHEMA)
    write_tar(root / "a.tar", [("x.png", JPEG)])
    assert [each["path"] for each in listed(unpack(root, corpora))] == ["a-parquet/image/x.png", "a-tar/image/x.jpg"]


def test_memory_stays_bounded_by_a_row_group(root: Path, corpora: Path) -> None:
    import numpy as np

    noise = np.random.default_rng(0).bytes(200_000)
    rows = [row(str(number), PNG + noise + str(number).encode()) for number in range(80)]
    write_parquet(root / "a.parquet", rows, SCHEMA, row_group_size=5, compression="none")
    used: list[int] = []
    unpack(root, corpora, progress=lambda done, total: used.append(pa.total_allocated_bytes()))
    assert len(used) > 10
    assert max(used) < (root / "a.parquet").stat().st_size / 4


# Tar ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_webdataset(root: Path, corpora: Path, mode: str) -> None:
    facts = json.dumps({"model": "lama", "nested": [1], "size": 3}).encode()
    members: list[tuple[str, bytes | tarfile.TarInfo]] = [
        ("train/0.jpg", JPEG), ("train/0.mask.png", PNG), ("train/0.cls", b"1\n"), ("train/0.json", facts),
        ("train/1.png", PNG), ("train/1.txt", b"a caption"), ("train/__pycache__/x.pyc", b"x"), ("._0.png", b"x"),
    ]  # fmt: skip
    suffix = {"w": ".tar", "w:gz": ".tar.gz", "w:bz2": ".tar.bz2", "w:xz": ".tar.xz"}[mode]
    write_tar(root / f"s{suffix}", members, mode)
    folder = unpack(root, corpora)
    first, second = listed(folder)
    assert (first["path"], first["mask"], first["label"], first["model"], first["size"]) == (
        "s/image/train/0.jpg", "s/mask/train/0.png", "1", "lama", "3",
    )  # fmt: skip
    assert (second["path"], second["mask"], second["text"]) == ("s/image/train/1.png", None, "a caption")
    assert (folder / first["path"]).read_bytes() == JPEG


def test_names_with_points_in_a_tree_stay_apart(root: Path, corpora: Path) -> None:
    names = ["sd2-sp/training/hair drier/1_mask_bbox.png_ps_mask.png_sd2_0.png", "masks/1_mask_bbox.png_ps_mask.png"]
    names += [f"sd2-sp/training/cat/2_mask_segm.png_sd2_{number}.png" for number in range(20)]
    write_tar(root / "tgif.tar", [(name, encoded(picture(name))) for name in names])
    assert [each["path"] for each in listed(unpack(root, corpora))] == [f"tgif/image/{name}" for name in names]


def link(kind: bytes, name: str = "a.png", to: str = "/etc/passwd") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (("x", link(tarfile.SYMTYPE)), "has a member that is a link or a device: a.png"),
        (("x", link(tarfile.LNKTYPE)), "has a member that is a link or a device: a.png"),
        (("x", link(tarfile.FIFOTYPE)), "has a member that is a link or a device: a.png"),
        (("../out.png", PNG), "has a member that leaves the folder: ../out.png"),
        (("a/../../out.png", PNG), "has a member that leaves the folder"),
        (("/tmp/out.png", PNG), "has a member that leaves the folder: /tmp/out.png"),
    ],
)
def test_a_member_that_leaves_the_folder_or_is_a_link_is_refused(
    root: Path, corpora: Path, member: tuple[str, Any], said: str
) -> None:
    write_tar(root / "a.tar", [("good.png", PNG), member])
    with pytest.raises(UnpackError, match=said):
        unpack(root, corpora)
    assert contents(unpacked_folder(root, corpora)) == {}
    assert left_behind(unpacked_folder(root, corpora)) == []


# What goes wrong ------------------------------------------------------------------------------------------------------


def cut(path: Path, part: float = 0.6) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])


def spoil(path: Path) -> None:
    """Damage in the data, not in the index at the end."""
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_bytes(b""), "x-00001-of-00003.parquet .* is an empty file: fetch the file again"),
        (lambda path: path.write_text("version https://git-lfs.github.com/\n"), "is a Git LFS pointer.*git lfs pull"),
        (lambda path: path.write_text("<html>rate limited</html>"), "cannot be read: .*: fetch the file again"),
        (cut, "cannot be read: .*: fetch the file again"),
        (spoil, "is damaged: .*: fetch the file again"),
        (lambda path: write_parquet(path, [{"key": "a", "label": 1}]), "has no column of pictures .there are: key"),
        (lambda path: write_parquet(path, [], SCHEMA), "has no pictures: take it out of the folder"),
        (
            lambda path: write_parquet(path, [{"left": struct(PNG), "right": struct(PNG)}]),
            "has pictures in left, right, and none is named image: name that column image",
        ),
        (lambda path: path.unlink() or path.symlink_to("nowhere"), "cannot be read: No such file"),
    ],
)  # fmt: skip
def test_a_broken_shard_is_named_and_the_rest_goes_on_once_it_is_mended(
    root: Path, corpora: Path, damage: Callable[[Path], None], said: str
) -> None:
    sound = (many(root) / "data/x-00001-of-00003.parquet").read_bytes()
    damage(root / "data/x-00001-of-00003.parquet")
    with pytest.raises(UnpackError, match=said) as caught:
        unpack(root, corpora)
    assert "shards that are unpacked stay; then the same command goes on" in str(caught.value)
    folder = unpacked_folder(root, corpora)
    assert left_behind(folder) == []
    assert not (folder / LIST).exists()
    (root / "data/x-00001-of-00003.parquet").unlink()
    (root / "data/x-00001-of-00003.parquet").write_bytes(sound)
    assert len(listed(unpack(root, corpora))) == 12


def test_a_shard_that_is_still_being_written_is_refused(
    root: Path, corpora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, read = write_parquet(root / "a.parquet", [row("x")], SCHEMA), data.unpack.read_shard

    def meanwhile(shard: Path) -> Any:
        yield from read(shard)
        with path.open("ab") as file:
            file.write(b"more")

    monkeypatch.setattr(data.unpack, "read_shard", meanwhile)
    with pytest.raises(UnpackError, match="changed while it was read: wait until it is complete"):
        unpack(root, corpora)
    assert contents(unpacked_folder(root, corpora)) == {}


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
@pytest.mark.parametrize("part", [0.3, 0.5, 0.9])
def test_a_tar_file_that_is_cut_off_is_refused(root: Path, corpora: Path, suffix: str, part: float) -> None:
    members = [(f"{number}.png", encoded(picture(str(number), 128))) for number in range(9)]
    cut(write_tar(root / f"a{suffix}", members, "w:gz" if suffix == ".tar.gz" else "w"), part)
    with pytest.raises(UnpackError, match=r"is damaged|is cut off"):
        unpack(root, corpora)
    assert contents(unpacked_folder(root, corpora)) == {}


def test_a_wrong_checksum_of_an_archive_is_seen(root: Path, corpora: Path) -> None:
    path = write_tar(root / "a.tar.gz", [("0.png", PNG)], "w:gz")
    content = gzip.decompress(path.read_bytes())
    spoiled = bytearray(gzip.compress(content))
    spoiled[-6] ^= 1
    path.write_bytes(bytes(spoiled))
    with pytest.raises(UnpackError, match="is damaged: CRC check failed"):
        unpack(root, corpora)


def test_a_folder_without_shards(root: Path, corpora: Path) -> None:
    root.mkdir()
    (root / "._a.tar").touch()
    with pytest.raises(UnpackError, match="holds no Parquet or tar file"):
        unpack(root, corpora)


def test_space_is_looked_at_first(root: Path, corpora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many(root)
    monkeypatch.setattr(data.unpack.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(UnpackError, match=r"needs about .* GB below .* are free: make space, or name .* --cache DIR"):
        unpack(root, corpora)
    assert contents(unpacked_folder(root, corpora)) == {}


def test_the_number_of_files_that_a_disk_takes_is_looked_at(
    root: Path, corpora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(root)
    facts = SimpleNamespace(f_files=100, f_favail=3, f_bavail=10**9, f_blocks=10**9, f_bfree=10**9, f_frsize=4096)
    monkeypatch.setattr(data.unpack.os, "statvfs", lambda folder: facts)
    with pytest.raises(UnpackError, match=r"makes 24 files, and the disk of .* can take 3 more"):
        unpack(root, corpora)


# Again, in two processes, and after a kill ----------------------------------------------------------------------------


def test_a_second_call_opens_nothing(root: Path, corpora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, calls = unpack(many(root), corpora), []
    before = contents(folder)
    monkeypatch.setattr(data.unpack, "read_shard", lambda path: pytest.fail("a shard was opened"))
    times = (folder / LIST).stat().st_mtime_ns
    assert unpack(root, corpora, progress=lambda *call: calls.append(call)) == folder
    assert (contents(folder), calls, (folder / LIST).stat().st_mtime_ns) == (before, [], times)


def test_a_half_deleted_cache_is_made_whole(root: Path, corpora: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = unpack(many(root), corpora)
    before = contents(folder)
    (folder / "data/x-00000-of-00003/image/0/2.png").write_bytes(b"")  # as a crash of the machine may leave it
    (folder / "data/x-00001-of-00003/image/1/2.png").unlink()
    shutil.rmtree(folder / "data/x-00002-of-00003")
    (folder / LIST).unlink()
    with caplog.at_level(logging.WARNING):
        unpack(root, corpora)
    assert contents(folder) == before
    assert "x-00001-of-00003.parquet has changed since it was unpacked, or files of it are gone" in caplog.text


def test_a_damaged_list_or_record_is_made_again(root: Path, corpora: Path) -> None:
    folder = unpack(many(root), corpora)
    before = contents(folder)
    (folder / LIST).write_bytes(b"x")
    for path in (folder / ".unpacked").glob("*.parquet"):
        cut(path)
    assert contents(unpack(root, corpora)) == before


def test_a_shard_that_changed_is_unpacked_again_alone(
    root: Path, corpora: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = unpack(many(root), corpora)
    kept = (folder / "data/x-00000-of-00003/image/0/0.png").stat().st_ino
    write_parquet(root / "data/x-00002-of-00003.parquet", [row("new", JPEG)], SCHEMA)
    unpack(root, corpora)
    assert "x-00002-of-00003.parquet has changed" in caplog.text
    assert [each["path"] for each in listed(folder)][8:] == ["data/x-00002-of-00003/image/new.jpg"]
    assert not (folder / "data/x-00002-of-00003/image/2").exists()
    assert (folder / "data/x-00000-of-00003/image/0/0.png").stat().st_ino == kept


def test_a_shard_that_is_gone_is_no_longer_listed_and_its_files_stay(
    root: Path, corpora: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = unpack(many(root), corpora)
    (root / "data/x-00000-of-00003.parquet").unlink()
    unpack(root, corpora)
    assert {each["shard"] for each in listed(folder)} == {f"data/x-0000{n}-of-00003.parquet" for n in (1, 2)}
    assert "unpacked before, and not there now, so not in the list: data/x-00000-of-00003.parquet" in caplog.text
    assert (folder / "data/x-00000-of-00003/image/0/0.png").exists()


def test_links_of_the_hugging_face_cache_are_followed(root: Path, corpora: Path) -> None:
    blob = write_parquet(root.parent / "blobs/0123.parquet", [row("x")], SCHEMA)
    (root / "snapshots/1/data").mkdir(parents=True)
    (root / "snapshots/1/data/test-00000-of-00001.parquet").symlink_to(blob)
    (found,) = listed(unpack(root, corpora))
    assert found["path"] == "snapshots/1/data/test-00000-of-00001/image/x.png"


SLOW = """
import sys, time
from pathlib import Path
import data.unpack

read = data.unpack.read_shard

def slowly(path):
    for record in read(path):
        yield record
        print(path.name, flush=True)
        time.sleep(float(sys.argv[3]))

data.unpack.read_shard = slowly
data.unpack.unpack(Path(sys.argv[1]), Path(sys.argv[2]))
print("done", flush=True)
"""


def test_a_killed_call_goes_on_where_it_was(root: Path, corpora: Path) -> None:
    process = Python(SLOW, many(root), corpora, 0.2)
    try:
        assert process.process.stdout is not None
        for line in process.process.stdout:
            if line.startswith("x-00001"):
                break
        process.kill()
    finally:
        process.clean_up()
    folder = unpacked_folder(root, corpora)
    assert len(left_behind(folder)) == 1
    assert not (folder / LIST).exists()
    first = (folder / "data/x-00000-of-00003/image/0/0.png").stat().st_ino
    assert len(listed(unpack(root, corpora))) == 12
    assert left_behind(folder) == []
    assert (folder / "data/x-00000-of-00003/image/0/0.png").stat().st_ino == first


def test_two_processes_at_once_unpack_each_shard_once(root: Path, corpora: Path) -> None:
    many(root)
    both = [Python(SLOW, root, corpora, 0.05) for _ in range(2)]
    try:
        lines = [process.process.communicate(timeout=120)[0].splitlines() for process in both]
    finally:
        for process in both:
            process.clean_up()
    assert [lines_of[-1] for lines_of in lines] == ["done", "done"]
    assert sorted(map(len, lines)) == [1, 13]
    assert len(listed(unpacked_folder(root, corpora))) == 12


def test_the_list_holds_text_alone_so_that_shards_of_other_types_fit(root: Path, corpora: Path) -> None:
    write_parquet(root / "a.parquet", [{"image": struct(PNG), "label": 1}])
    write_parquet(root / "b.parquet", [{"image": struct(JPEG), "label": "real", "note": "x"}])
    folder = unpack(root, corpora)
    assert set(map(str, pq.read_schema(folder / LIST).types)) == {"string"}
    assert [(each["label"], each["note"]) for each in listed(folder)] == [("1", None), ("real", "x")]


def test_the_folder_follows_from_the_real_path(root: Path, corpora: Path) -> None:
    root.mkdir()
    (root.parent / "link").symlink_to(root)
    assert unpacked_folder(root.parent / "link", corpora) == unpacked_folder(root, corpora)
    assert os.path.commonpath([unpacked_folder(Path("/"), corpora), corpora]) == str(corpora)


@pytest.mark.parametrize(
    ("name", "split", "part"),
    [
        ("train-000012.tar", "train", "train-000012"), ("val_3.tar", "val", "val_3"), ("Test00.tar", "test", "Test00"),
        ("validation-00000-of-00001-a09b74b3ef9c3b56.parquet", "validation", "validation"),
        ("test-00000-of-00002.parquet", "test", "test"), ("sd15-00000-of-00002.parquet", None, "sd15"),
        ("latest-01.tar", None, "latest-01"), ("00012.tar", None, "00012"),
    ],
)  # fmt: skip
def test_the_name_of_a_shard_says_the_split(root: Path, corpora: Path, name: str, split: str | None, part: str) -> None:
    if name.endswith(".tar"):
        write_tar(root / name, [("1.png", PNG)])
    else:
        write_parquet(root / name, [row("1")], SCHEMA)
    (found,) = listed(unpack(root, corpora))
    assert (found.get("split"), found["part"]) == (split, part)
