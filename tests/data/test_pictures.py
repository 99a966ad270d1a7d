from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data.conditions
import data.pictures
from data.conditions import Condition, Picture, list_conditions, register_condition
from data.images import decode
from data.manifest import Manifest, build_manifest
from data.pictures import ConditionError, Decoded, FileError, JoinedRows, PictureRows, Pictures, pair_problems
from data.store import feature_store, fill_features
from models.geometry import Geometry
from tests.corpora import picture, write_image

GEOMETRY = Geometry(8)


@pytest.fixture
def manifest(dolos: Path, cache: Path) -> Manifest:
    return build_manifest("dolos", dolos, cache=cache)


@pytest.fixture(autouse=True)
def paste(monkeypatch: pytest.MonkeyPatch) -> None:
    """A condition that needs both the mask and the original: outside the mask, a fake is its original."""
    list_conditions()  # all of them are there
    monkeypatch.setattr(data.conditions._conditions, "_entries", dict(data.conditions._conditions._entries))

    @register_condition("paste", uses=["mask", "original"])
    def paste(picture: Picture) -> np.ndarray:
        """Outside the mask the original."""
        if picture.mask is None or picture.original is None:
            return picture.pixels
        return np.where(picture.mask[..., None], picture.pixels, picture.original)

    @register_condition("original", uses=["original"])
    def original(picture: Picture) -> np.ndarray:
        """The original in the place of the fake."""
        return picture.pixels if picture.original is None else picture.original


def fakes(manifest: Manifest, generator: str = "lama") -> Any:
    rows = manifest.select("test", [generator])
    return rows[rows["label"] == 1]


def test_clean_pictures_are_what_their_files_hold(manifest: Manifest) -> None:
    pictures, rows = Pictures(manifest), manifest.select("test", ["ldm"])
    for files, path in zip(pictures.files(rows), manifest.paths(rows), strict=True):
        np.testing.assert_array_equal(pictures.read(files), decode(path))
    assert pictures.keys(rows) == rows["digest"].tolist()


@pytest.mark.parametrize("condition", ["clean", "jpeg-50", "paste", "paste-back"])
def test_pickled_they_read_the_same_and_leave_the_rows_behind(manifest: Manifest, condition: str) -> None:
    pictures = Pictures(manifest, condition)
    copy = pickle.loads(pickle.dumps(pictures))
    assert len(copy.manifest.table) == 0
    for files in pictures.files(manifest.select("test", ["lama"])):
        np.testing.assert_array_equal(copy.read(pickle.loads(pickle.dumps(files))), pictures.read(files))


def test_a_fake_comes_with_its_mask_and_its_own_photograph(manifest: Manifest) -> None:
    pictures, rows = Pictures(manifest, "original"), fakes(manifest)
    for files, source_id in zip(pictures.files(rows), rows["source_id"], strict=True):
        np.testing.assert_array_equal(pictures.read(files), picture(f"{source_id}.png"))
    pictures = Pictures(manifest, "paste")
    for files, path in zip(pictures.files(rows), manifest.paths(rows), strict=True):
        # the fakes of this corpus differ from the photographs inside the mask alone
        np.testing.assert_array_equal(pictures.read(files), decode(path))


def test_a_real_picture_has_neither(manifest: Manifest) -> None:
    rows = manifest.select("test", ["ldm"]).query("label == 0")
    assert all(files.original is None and files.mask is None for files in Pictures(manifest, "paste").files(rows))


def test_a_fake_without_mask_or_original(dolos: Path, cache: Path) -> None:
    (dolos / "celebahq/fake/lama/masks/test/00006.png").unlink()
    (dolos / "celebahq/real/test/00007.png").unlink()
    manifest = build_manifest("dolos", dolos, cache=cache)
    files = dict(zip(fakes(manifest)["source_id"], Pictures(manifest, "paste").files(fakes(manifest)), strict=True))
    assert files["00006"].mask is None
    assert files["00006"].original is not None
    assert files["00007"].mask is not None
    assert files["00007"].original is None


def test_what_a_picture_is_kept_under_depends_on_all_that_it_is_read_from(manifest: Manifest) -> None:
    rows = fakes(manifest)
    keys = {name: Pictures(manifest, name).keys(rows) for name in ("clean", "jpeg-75", "original", "paste")}
    assert keys["clean"] == keys["jpeg-75"] == rows["digest"].tolist()
    (files, *_) = Pictures(manifest, "paste").files(rows)
    assert files.mask is not None
    assert files.original is not None
    text = "/".join([files.image.digest, files.mask.digest, files.original.digest, "mask version 2"])
    assert keys["paste"][0] == hashlib.sha256(text.encode()).hexdigest()
    assert len({*keys["clean"], *keys["original"], *keys["paste"]}) == 9
    assert list(Pictures(manifest, "paste").items(rows)) == keys["paste"]


@pytest.mark.parametrize("which", ["images", "masks", "original"])
def test_a_file_that_has_changed_is_named(which: str, manifest: Manifest, dolos: Path) -> None:
    rows = fakes(manifest).iloc[:1]
    place = {"images": "fake/lama/images", "masks": "fake/lama/masks", "original": "real"}[which]
    path = dolos / "celebahq" / place / "test" / "00006.png"
    write_image(path, picture("another"))
    pictures = Pictures(manifest, "paste")
    with pytest.raises(ValueError, match=f"{path} has changed since the manifest was built"):
        pictures.read(pictures.files(rows)[0])
    path.unlink()
    with pytest.raises(ValueError, match=f"{path} cannot be read any more"):
        pictures.read(pictures.files(rows)[0])


def test_a_condition_that_fails_names_the_picture(manifest: Manifest) -> None:
    @register_condition("broken")
    def broken(picture: Picture) -> np.ndarray:
        return picture.pixels[:, :, 7]

    pictures, rows = Pictures(manifest, "broken"), fakes(manifest)
    with pytest.raises(ValueError, match=f"condition broken failed on {manifest.paths(rows)[0]}: IndexError"):
        pictures.read(pictures.files(rows)[0])


def test_rows_of_pixels_that_are_read_when_they_are_asked_for(manifest: Manifest) -> None:
    rows = manifest.select("test", ["ldm"])
    squares = PictureRows(Pictures(manifest, "jpeg-10"), rows, GEOMETRY, workers=2)
    assert (len(squares), squares.shape) == (6, (6, 8, 8, 3))
    jpeg = data.conditions.get_condition("jpeg-10")
    expected = np.stack([GEOMETRY.apply(jpeg.apply(Picture(decode(path)))) for path in manifest.paths(rows)])
    np.testing.assert_array_equal(squares[:], expected)
    np.testing.assert_array_equal(squares[np.array([4, 0, 4])], expected[[4, 0, 4]])
    np.testing.assert_array_equal(squares[np.array([], dtype=int)], expected[:0])


def test_features_of_a_condition_lie_apart_from_the_clean_ones(manifest: Manifest, cache: Path) -> None:
    def encode(pixels: np.ndarray) -> np.ndarray:
        return pixels.reshape(len(pixels), -1)[:, :2].astype(np.float32)

    rows, stores = fakes(manifest), {}
    for name in ("clean", "jpeg-10", "original"):
        pictures = Pictures(manifest, name)
        stores[name] = feature_store(cache, "toy", 2, pictures.condition)
        fill_features(stores[name], pictures, rows, GEOMETRY, encode, batch=2)
        np.testing.assert_array_equal(
            stores[name].open(pictures.keys(rows))[:],
            encode(np.stack([GEOMETRY.apply(pictures.read(files)) for files in pictures.files(rows)])),
        )
    assert len({store.folder for store in stores.values()}) == 3
    assert stores["clean"].folder == feature_store(cache, "toy", 2).folder


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (lambda picture: None, "must give uint8 .*; for .*00006.png it gave NoneType"),
        (lambda picture: picture.pixels / 2, r"must give uint8 .*; for .*00006.png it gave float64 \(16, 16, 3\)"),
        (lambda picture: picture.pixels[:, :, 0], r"it gave uint8 \(16, 16\)"),
        (lambda picture: picture.pixels[picture.mask], r"failed on .*00006.png: .*reads the picture's mask; register"),
        (lambda picture: picture.original, "reads the picture's original; register it with uses="),
        (lambda picture: 1 / 0, "failed on .*00006.png: ZeroDivisionError"),
    ],
)
def test_a_condition_that_gives_no_picture_is_named_with_the_file(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch, apply: Callable[[Picture], Any], message: str
) -> None:
    pictures = Pictures(manifest)
    monkeypatch.setattr(pictures, "condition", Condition("toy", apply))
    with pytest.raises(ConditionError, match=f"condition toy {message}" if message[0] in "mf" else message):
        pictures.read(pictures.files(fakes(manifest))[0])


# Pictures that are decoded once


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are decoded, one entry per time."""
    paths: list[Path] = []

    def counting(path: Path) -> np.ndarray:
        paths.append(path)
        return decode(path)

    monkeypatch.setattr(data.pictures, "decode", counting)
    return paths


def test_under_all_conditions_together_each_file_is_decoded_once(
    manifest: Manifest, cache: Path, decoded: list[Path]
) -> None:
    rows = manifest.select("test", manifest.generators)
    plain = {name: Pictures(manifest, name) for name in ("clean", "jpeg-75", "noise-4", "paste-back")}
    expected = {name: [pictures.read(files) for files in pictures.files(rows)] for name, pictures in plain.items()}
    decoded.clear()
    for name, pictures in expected.items():
        kept = Pictures(manifest, name, decoded=Decoded(cache, ["test"]))
        for files, pixels in zip(kept.files(rows), pictures, strict=True):
            np.testing.assert_array_equal(kept.read(files), pixels)
    assert sorted(decoded) == sorted(manifest.paths(rows))


def test_readers_at_the_same_time_decode_a_file_once(manifest: Manifest, cache: Path, decoded: list[Path]) -> None:
    rows = manifest.select("test", ["lama"]).iloc[:1]
    (files,) = Pictures(manifest, "jpeg-75", decoded=Decoded(cache, ["test"])).files(rows)
    with ThreadPoolExecutor(8) as pool:
        pixels = list(pool.map(lambda _: files.image.pixels(), range(32)))
    assert len(decoded) == 1
    assert all((one == pixels[0]).all() for one in pixels)


def test_pictures_of_other_splits_are_not_kept(manifest: Manifest, cache: Path, decoded: list[Path]) -> None:
    pictures, rows = Pictures(manifest, decoded=Decoded(cache, ["test"])), manifest.select("train", ["lama"])
    for files in [*pictures.files(rows), *pictures.files(rows)]:
        pictures.read(files)
    assert len(decoded) == 2 * len(rows)
    assert not list(cache.rglob("*.npy"))


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY\x01\x00", b"something else"])
def test_a_damaged_one_is_decoded_again(
    manifest: Manifest, cache: Path, decoded: list[Path], caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    pictures, rows = Pictures(manifest, decoded=Decoded(cache, ["test"])), manifest.select("test", ["lama"]).iloc[:1]
    (files,) = pictures.files(rows)
    expected = pictures.read(files)
    (kept,) = cache.rglob("*.npy")
    kept.write_bytes(damage)
    np.testing.assert_array_equal(pictures.read(files), expected)
    assert "is damaged and will be made again" in caplog.text
    np.testing.assert_array_equal(pictures.read(files), expected)
    assert len(decoded) == 2


def test_a_file_that_changed_before_it_was_decoded_is_named(manifest: Manifest, cache: Path) -> None:
    pictures, rows = Pictures(manifest, decoded=Decoded(cache, ["test"])), manifest.select("test", ["lama"]).iloc[:1]
    (path,) = manifest.paths(rows)
    write_image(path, picture("another"))
    with pytest.raises(FileError, match=f"{path} has changed since the manifest was built"):
        pictures.read(pictures.files(rows)[0])
    assert not list(cache.rglob("*.npy"))
    assert not list(cache.rglob("*.part"))


# Rows of several conditions


def test_joined_rows_are_one_array_after_the_other() -> None:
    parts = [np.arange(6.0).reshape(3, 2), np.arange(10.0, 14.0).reshape(2, 2), np.arange(20.0, 22.0).reshape(1, 2)]
    rows, whole = JoinedRows(parts), np.concatenate(parts)
    assert len(rows) == 6
    for index in (np.array([5, 0, 3, 3, 2]), np.arange(6), slice(1, 4), np.array([4]), np.array([], dtype=int)):
        np.testing.assert_array_equal(rows[index], whole[index])


# Pairs


def test_fakes_that_cannot_be_pasted_back_are_counted_and_named(dolos: Path, cache: Path) -> None:
    base = dolos / "celebahq"
    (base / "fake/lama/masks/test/00006.png").unlink()
    (base / "real/test/00007.png").unlink()
    write_image(base / "real/test/00008.png", picture("00008.png", 20))
    manifest = build_manifest("dolos", dolos, cache=cache)
    problem = pair_problems(manifest, manifest.table, "paste-back")
    lines = problem.splitlines()
    assert lines[0].startswith(
        "paste-back needs the mask of each fake, and its original in the same size; 5 of 18 fakes"
    )
    assert lines[1] == "  without a mask (1): celebahq/fake/lama/images/test/00006.png"
    assert lines[2].startswith("  without an original (2): celebahq/fake/lama/images/test/00007.png")
    assert lines[3].startswith("  of another size than the original (2): celebahq/fake/lama/images/test/00008.png")
    assert "--generators" in lines[4]
    assert "leave paste-back out" in lines[4]
    ldm = manifest.table[(manifest.table["generator"] == "ldm") & (manifest.table["split"] == "train")]
    assert pair_problems(manifest, ldm, "paste-back") == ""
