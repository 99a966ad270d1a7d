from __future__ import annotations

import errno
import json
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import data.store
from data.conditions import Condition
from data.images import decode
from data.manifest import Manifest, build_manifest
from data.pictures import ConditionError, FileError, Pictures
from data.store import ArrayStore, feature_store, fill_features, fill_pixels, pixel_store
from models.geometry import Geometry
from tests.corpora import picture, write_image
from tests.data.processes import ROOT, Python

# A builder in a process of its own: every row is (number, process id); prints each batch that it computes.
BUILDER = """
import os, sys, time
from pathlib import Path
import numpy as np
import data.store
data.store._SHARD_ROWS = 4
hang_in = int(sys.argv[2])
batches = 0
def compute(items):
    global batches
    batches += 1
    print(len(items), flush=True)
    if batches == hang_in:
        sys.stdin.readline()
    return np.array([[item, os.getpid()] for item in items], dtype=np.int64)
store = data.store.ArrayStore(Path(sys.argv[1]), row_shape=(2,), dtype=np.int64)
def progress(done, total):
    print("progress", done, total, flush=True)
store.fill({str(n): n for n in range(20)}, compute, batch=2, progress=progress)
"""


class Builder(Python):
    """`hang_in` is the batch, counted from 1, in which it waits to be released or killed."""

    def __init__(self, folder: Path, *, hang_in: int = 0) -> None:
        super().__init__(BUILDER, folder, hang_in)
        self.batches: list[int] = []
        self.progress: list[tuple[int, int]] = []

    def read(self, num_batches: int) -> None:
        """Wait until it has begun this many batches."""
        assert self.process.stdout is not None
        while len(self.batches) < num_batches:
            line = self.process.stdout.readline()
            assert line, "the builder ended before it began that batch"
            self._take(line)

    def release(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._take(line)
        assert self.process.wait() == 0

    def _take(self, line: str) -> None:
        words = line.split()
        if words[0] == "progress":
            self.progress.append((int(words[1]), int(words[2])))
        else:
            self.batches.append(int(words[0]))


@pytest.fixture
def builder(tmp_path: Path) -> Iterator[Callable[..., Builder]]:
    """Starts builders on one store; ends those that a failed test leaves."""
    builders: list[Builder] = []

    def start(**options: Any) -> Builder:
        builders.append(Builder(tmp_path, **options))
        return builders[-1]

    yield start
    for one in builders:
        one.clean_up()


def numbers(folder: Path) -> ArrayStore:
    return ArrayStore(folder, row_shape=(2,), dtype=np.int64)


def doubled(items: list[int]) -> np.ndarray:
    return np.array([[item, 2 * item] for item in items], dtype=np.int64)


def items(count: int) -> dict[str, int]:
    return {f"d{number}": number for number in range(count)}


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.store, "_SHARD_ROWS", 4)


@pytest.fixture
def store(tmp_path: Path, small_shards: None) -> ArrayStore:
    """Ten rows (number, 2 * number) in three shards."""
    store = numbers(tmp_path / "store")
    store.fill(items(10), doubled, batch=2)
    return store


def shards(store: ArrayStore) -> list[Path]:
    return sorted(store.folder.glob("shard-*"))


# Reading


def test_rows_come_in_the_order_asked(store: ArrayStore) -> None:
    assert len(shards(store)) == 3
    rows = store.open([f"d{number}" for number in (9, 0, 5, 5)])
    assert (len(rows), rows.shape, rows.dtype) == (4, (4, 2), np.int64)
    assert rows[:].tolist() == [[9, 18], [0, 0], [5, 10], [5, 10]]
    assert rows[np.array([3, 0])].tolist() == [[5, 10], [9, 18]]
    assert rows[np.array([True, False, False, True])].tolist() == [[9, 18], [5, 10]]
    assert rows[-1].tolist() == [5, 10]
    assert rows[1:1].shape == rows[np.array([], dtype=int)].shape == (0, 2)
    assert store.open([])[:].shape == (0, 2)
    with pytest.raises(IndexError):
        rows[np.array([4])]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(asked=st.lists(st.integers(0, 9), max_size=20), picks=st.data())
def test_gathering_is_that_of_an_array(store: ArrayStore, asked: list[int], picks: st.DataObject) -> None:
    rows, expected = store.open([f"d{n}" for n in asked]), doubled(asked).reshape(-1, 2)
    index: Any = picks.draw(
        st.one_of(
            st.slices(len(asked)),
            st.lists(st.integers(-len(asked), len(asked) - 1) if asked else st.nothing()).map(
                lambda picked: np.array(picked, dtype=np.int64)
            ),
        )
    )
    np.testing.assert_array_equal(rows[index], expected[index])


def test_what_is_read_is_a_copy(store: ArrayStore) -> None:
    rows = store.open(["d1", "d2"])
    for index in (0, slice(None), np.array([0])):
        rows[index][...] = 77
    assert rows[:].tolist() == [[1, 2], [2, 4]]


def test_rows_are_cheap_to_pickle(store: ArrayStore) -> None:
    rows = store.open([f"d{number}" for number in range(10)])
    assert rows[:].shape == (10, 2)  # maps are open
    again = pickle.loads(pickle.dumps(rows))
    assert len(pickle.dumps(rows)) < 2000
    np.testing.assert_array_equal(again[:], rows[:])


def test_missing_rows_are_counted(store: ArrayStore, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="2 of 3 rows are not in"):
        store.open(["d1", "x", "y"])
    with pytest.raises(KeyError, match="1 of 1"):
        numbers(tmp_path / "nothing").open(["x"])
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("width", [64, 3])
def test_each_digest_is_found_whatever_its_form_and_no_other(tmp_path: Path, width: int) -> None:
    """Also where one ends in zero bytes, and where two begin alike."""
    texts = [f"{number:x}".ljust(8, "e").ljust(width, "0")[:width] for number in range(0x800, 0x880)]
    known = dict(zip(texts, range(len(texts)), strict=True))
    store = numbers(tmp_path)
    store.fill(known, doubled, batch=10)
    assert store.open(texts)[:][:, 0].tolist() == list(range(len(texts)))
    others = [text[:-1] + "1" if width == 64 else text + "0" for text in texts]
    assert store.missing([*texts, *others]) == len(others)


# Filling


def test_only_what_is_missing_is_computed(store: ArrayStore) -> None:
    computed: list[int] = []

    def compute(batch: list[int]) -> np.ndarray:
        computed.extend(batch)
        return doubled(batch)

    calls: list[tuple[int, int]] = []
    store.fill(items(10), compute, batch=3)
    assert computed == []
    store.fill(items(17), compute, batch=3, progress=lambda done, total: calls.append((done, total)))
    assert computed == list(range(10, 17))
    assert calls == [(2, 7), (5, 7), (7, 7)]  # 9 is there, and belongs to the same three as 10 and 11
    assert store.open(list(items(17)))[:].tolist() == doubled(list(range(17))).tolist()


@pytest.mark.parametrize("batch", [1, 3, 4, 100])
def test_batches_are_never_larger_than_asked(tmp_path: Path, small_shards: None, batch: int) -> None:
    sizes: list[int] = []

    def compute(items: list[int]) -> np.ndarray:
        sizes.append(len(items))
        return doubled(items)

    numbers(tmp_path).fill(items(10), compute, batch=batch)
    assert max(sizes) == min(batch, 10)
    assert sum(sizes) == 10
    assert numbers(tmp_path).open(list(items(10)))[:].tolist() == doubled(list(range(10))).tolist()


def test_shards_are_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.store, "_SHARD_BYTES", 3 * 16)
    numbers(tmp_path).fill(items(10), doubled, batch=1)
    assert len(shards(numbers(tmp_path))) == 4


def test_preparing_runs_ahead_by_two_batches_at_most(tmp_path: Path) -> None:
    prepared: list[int] = []
    ahead: list[int] = []
    consumed = 0

    def prepare(item: int) -> int:
        prepared.append(item)
        return item

    def compute(batch: list[int]) -> np.ndarray:
        nonlocal consumed
        time.sleep(0.01)
        consumed += len(batch)
        ahead.append(len(prepared) - consumed)
        return doubled(batch)

    numbers(tmp_path).fill(items(40), compute, batch=4, prepare=prepare, workers=2)
    assert 0 < max(ahead) <= 8
    assert sorted(prepared) == list(range(40))


def test_rows_of_the_wrong_shape_or_type_are_refused(tmp_path: Path, store: ArrayStore) -> None:
    fresh = numbers(tmp_path / "fresh")
    for wrong in (np.zeros((2, 3), np.int64), np.zeros((1, 2), np.int64), np.zeros((2, 2), np.float32)):
        with pytest.raises(ValueError, match=r"expected rows of int64 \(2, 2\)"):
            fresh.fill(items(2), lambda batch, wrong=wrong: wrong, batch=2)
    assert [path.name for path in fresh.folder.iterdir()] == [".locks"]
    other = ArrayStore(store.folder, row_shape=(2,), dtype=np.float32)
    with pytest.raises(ValueError, match="holds rows of int64"):
        other.open(["d1"])


def test_a_full_disk_is_said_and_leaves_no_half_shard(store: ArrayStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(batch: list[int]) -> np.ndarray:
        if 15 in batch:
            raise OSError(errno.ENOSPC, "No space left on device")
        return doubled(batch)

    with pytest.raises(OSError, match="the disk is full: 0 MiB more") as caught:
        store.fill(items(20), full, batch=2)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(store.folder)
    assert not list(store.folder.glob("unfinished-*"))
    assert len(store.open(list(items(12)))) == 12  # the shard before is whole


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full to write to")
def test_writing_to_a_full_device_raises_instead_of_killing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, *a, **k: opened(Path("/dev/full") if self.name == "rows.npy" else self, *a, **k)
    )
    with pytest.raises(OSError, match="the disk is full"):
        numbers(tmp_path).fill(items(4), doubled, batch=2)
    assert not list(tmp_path.glob("*-*"))


# Damage


@pytest.mark.parametrize("damage", ["cut", "empty", "no rows", "no digests", "few digests", "noise"])
def test_a_damaged_shard_is_said_and_computed_again(
    store: ArrayStore, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    shard = shards(store)[1]
    rows = shard / "rows.npy"
    lost = (shard / "digests.txt").read_text().split()
    match damage:
        case "cut":
            rows.write_bytes(rows.read_bytes()[:-1])
        case "empty":
            rows.write_bytes(b"")
        case "no rows":
            rows.unlink()
        case "no digests":
            (shard / "digests.txt").unlink()
        case "few digests":
            (shard / "digests.txt").write_text(lost[0])
        case "noise":
            rows.write_bytes(b"\x80" * 200)
    with pytest.raises(KeyError, match=f"{len(lost)} of 10"):
        store.open(list(items(10)))
    assert f"{shard} is damaged" in caplog.text
    computed: list[int] = []

    def compute(batch: list[int]) -> np.ndarray:
        computed.extend(batch)
        return doubled(batch)

    store.fill(items(10), compute, batch=2)
    assert sorted(f"d{number}" for number in computed) == sorted(lost)
    caplog.clear()
    assert store.open(list(items(10)))[:].tolist() == doubled(list(range(10))).tolist()
    assert caplog.text == ""


@pytest.mark.parametrize("checked", [True, False])
def test_changed_content_is_noticed_where_checksums_are_kept(
    tmp_path: Path, small_shards: None, caplog: pytest.LogCaptureFixture, checked: bool
) -> None:
    store = ArrayStore(tmp_path, row_shape=(2,), dtype=np.int64, checked=checked)
    store.fill(items(10), doubled, batch=2)
    rows = shards(store)[1] / "rows.npy"
    content = bytearray(rows.read_bytes())
    content[-3] ^= 1
    rows.write_bytes(content)
    assert store.missing(list(items(10))) == (len(content) - 128) // 16 * checked
    assert ("its content has changed" in caplog.text) == checked
    store.fill(items(10), doubled, batch=2)
    assert (store.open(list(items(10)))[:].tolist() == doubled(list(range(10))).tolist()) == checked


def test_a_checksum_that_is_gone_is_damage(tmp_path: Path) -> None:
    store = ArrayStore(tmp_path, row_shape=(2,), dtype=np.int64, checked=True)
    store.fill(items(10), doubled, batch=10)
    (shards(store)[0] / "crc32.txt").unlink()
    assert store.missing(list(items(10))) == 10


# Several processes


def rows_of(folder: Path) -> np.ndarray:
    """(number, process that computed it) of all twenty rows, which lie in no shard twice."""
    store = numbers(folder)
    digests = [digest for shard in shards(store) for digest in (shard / "digests.txt").read_text().split()]
    assert sorted(digests) == sorted(str(number) for number in range(20))
    rows = store.open([str(number) for number in range(20)])[:]
    assert rows[:, 0].tolist() == list(range(20))
    return rows


def test_two_builders_share_the_work_and_do_none_of_it_twice(builder: Callable[..., Builder], tmp_path: Path) -> None:
    first = builder(hang_in=3)  # in its second piece of two batches
    first.read(3)
    second = builder()
    second.read(6)  # the other three pieces
    assert len(shards(numbers(tmp_path))) >= 3
    first.release()
    for one in (first, second):
        one.finish()
    assert (first.batches, second.batches) == ([2] * 4, [2] * 6)
    pids = rows_of(tmp_path)[:, 1].tolist()
    assert pids == [first.process.pid] * 8 + [second.process.pid] * 12
    assert second.progress == [(2, 16), (4, 16), (6, 16), (8, 16), (10, 16), (12, 16), (16, 16)]


def test_two_builders_at_once_leave_every_row_once(builder: Callable[..., Builder], tmp_path: Path) -> None:
    builders = [builder(), builder()]
    for one in builders:
        one.finish()
    pids = rows_of(tmp_path)[:, 1].tolist()
    for one in builders:
        assert sum(one.batches) == pids.count(one.process.pid)


def test_a_killed_builder_loses_one_shard_at_most(builder: Callable[..., Builder], tmp_path: Path) -> None:
    victim = builder(hang_in=6)
    victim.read(6)  # two shards of four rows, and half of the third
    victim.kill()
    assert len(list(tmp_path.glob("unfinished-*"))) == 1
    assert len(shards(numbers(tmp_path))) == 2
    heir = builder()
    heir.finish()
    assert heir.batches == [2] * 6  # the other twelve rows
    assert not list(tmp_path.glob("unfinished-*"))
    assert rows_of(tmp_path)[:, 1].tolist() == [victim.process.pid] * 8 + [heir.process.pid] * 12


def test_a_builder_that_waits_takes_over_from_one_that_is_killed(
    builder: Callable[..., Builder], tmp_path: Path
) -> None:
    victim = builder(hang_in=1)
    victim.read(1)
    heir = builder()
    heir.read(8)  # all but the piece that the other holds
    victim.kill()
    heir.finish()
    assert heir.batches == [2] * 10
    assert rows_of(tmp_path)[:, 1].tolist() == [heir.process.pid] * 20


def test_what_another_builder_is_writing_is_left_alone(builder: Callable[..., Builder], tmp_path: Path) -> None:
    other = builder(hang_in=2)
    other.read(2)
    numbers(tmp_path).fill({str(n): n for n in range(20, 24)}, doubled, batch=2)  # would remove what a dead one left
    assert len(list(tmp_path.glob("unfinished-*"))) == 1
    other.release()
    other.finish()
    assert len(numbers(tmp_path).open([str(n) for n in range(24)])) == 24


@pytest.mark.parametrize(("idle", "stays"), [(60, True), (7200, False)])
def test_what_another_machine_is_writing_is_left_alone_though_its_claim_is_not_seen(
    tmp_path: Path, idle: float, stays: bool
) -> None:
    unfinished = tmp_path / f"unfinished-{'0' * 16}-{'f' * 12}-{'1' * 32}"
    unfinished.mkdir()
    (unfinished / "rows.npy").write_bytes(b"a part")
    for path in (unfinished / "rows.npy", unfinished):
        os.utime(path, (time.time() - idle, time.time() - idle))
    numbers(tmp_path).fill(items(4), doubled, batch=2)
    assert unfinished.exists() == stays


def test_waiting_is_said(
    builder: Callable[..., Builder], tmp_path: Path, small_shards: None, caplog: pytest.LogCaptureFixture
) -> None:
    other = builder(hang_in=1)
    other.read(1)
    release = threading.Timer(0.3, other.release)
    release.start()
    with caplog.at_level(logging.INFO):
        numbers(tmp_path).fill({str(n): n for n in range(20)}, doubled, batch=2)
    other.finish()
    assert "another process is filling 1 pieces" in caplog.text


# Pixels and features of a manifest


@pytest.fixture
def manifest(dolos: Path, cache: Path) -> Manifest:
    return build_manifest("dolos", dolos, cache=cache)


def mean_colour(pixels: Any) -> np.ndarray:
    return np.stack([image.mean(axis=(0, 1)) for image in pixels]).astype(np.float32)


def test_pixels_are_decoded_transformed_and_kept(manifest: Manifest, cache: Path) -> None:
    geometry = Geometry(8)
    store = pixel_store(cache, geometry)
    assert store.folder == cache / "pixels" / "squash-8-bicubic"
    calls: list[tuple[int, int]] = []
    rows = manifest.select("test", ["ldm"])
    fill_pixels(store, Pictures(manifest), rows, geometry, workers=2, progress=lambda *call: calls.append(call))
    assert calls == [(6, 6)]
    fill_pixels(store, Pictures(manifest), manifest.table, geometry)
    pixels = store.open(list(manifest.table["digest"]))
    assert (pixels.shape, pixels.dtype) == ((27, 8, 8, 3), np.uint8)
    for number, path in enumerate(manifest.paths(manifest.table)):
        np.testing.assert_array_equal(pixels[number], geometry.apply(decode(path)))


@pytest.mark.parametrize("geometry", [Geometry(8), None])
def test_features_are_encoded_in_batches_and_kept(manifest: Manifest, cache: Path, geometry: Geometry | None) -> None:
    batches: list[int] = []

    def encode(pixels: Any) -> np.ndarray:
        assert isinstance(pixels, list if geometry is None else np.ndarray)
        assert all(image.dtype == np.uint8 for image in pixels)
        batches.append(len(pixels))
        return mean_colour(pixels)

    store = feature_store(cache, "mean-colour", 3)
    assert store.folder == cache / "features" / "mean-colour"
    fill_features(store, Pictures(manifest), manifest.table, geometry, encode, batch=10)
    assert batches == [10, 10, 7]
    fill_features(store, Pictures(manifest), manifest.table, geometry, encode, batch=10)
    assert len(batches) == 3
    features = store.open(list(manifest.table["digest"]))
    images = [decode(path) for path in manifest.paths(manifest.table)]
    expected = mean_colour(images if geometry is None else [geometry.apply(image) for image in images])
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features[:], expected)


@pytest.mark.parametrize("geometry", [Geometry(8), None])
def test_processes_read_what_threads_read(
    manifest: Manifest, cache: Path, geometry: Geometry | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where many pictures are missing and there are many workers, or an encoder that threads would hold up."""
    folders = []
    for many in (1000, 20):
        monkeypatch.setattr(data.store, "_MANY", many)
        store = feature_store(cache, f"from-{many}", 3)
        pictures = Pictures(manifest, "jpeg-30")
        with monkeypatch.context() as patch:
            if many == 20:  # no picture is read in this process
                patch.setattr(Pictures, "read", None)
            fill_features(store, pictures, manifest.table, geometry, mean_colour, batch=5, at_once=2, workers=2)
        folders.append(store.open(pictures.keys(manifest.table))[:])
    np.testing.assert_array_equal(*folders)


def test_many_rows_that_need_no_preparation_start_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.store, "_MANY", 5)
    monkeypatch.setattr(data.store, "Pool", None)
    store = numbers(tmp_path)
    store.fill(items(10), doubled, batch=2, workers=8)
    assert store.missing(items(10)) == 0


def test_native_images_may_differ_in_size(tmp_path: Path, cache: Path, dolos: Path) -> None:
    write_image(dolos / "celebahq/real/test/00006.png", picture("large", 40))
    manifest = build_manifest("dolos", dolos, cache=cache)
    shapes = set()

    def encode(pixels: list[np.ndarray]) -> np.ndarray:
        shapes.update(image.shape for image in pixels)
        return mean_colour(pixels)

    fill_features(feature_store(cache, "x", 3), Pictures(manifest), manifest.table, None, encode, batch=5)
    assert shapes == {(16, 16, 3), (40, 40, 3)}


def test_a_picture_of_a_wrong_size_is_named_also_if_a_condition_made_it_so(manifest: Manifest, cache: Path) -> None:
    def fill(pictures: Pictures, smallest: int) -> None:
        def check(width: int, height: int) -> str:
            return "too small" if min(width, height) < smallest else ""

        store = feature_store(cache, "x", 3)
        fill_features(store, pictures, manifest.table, None, mean_colour, batch=4, size_check=check)

    with pytest.raises(FileError, match=r"\.png has 16 x 16 pixels under the condition clean: too small"):
        fill(Pictures(manifest), 17)
    halved = Pictures(manifest)
    halved.condition = Condition("halved", lambda picture: picture.pixels[::2, ::2])
    with pytest.raises(ConditionError, match=r"\.png has 8 x 8 pixels under the condition halved: too small"):
        fill(halved, 16)
    fill(halved, 8)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_name_the_image(manifest: Manifest, cache: Path, value: float) -> None:
    bad = manifest.paths(manifest.table)[13]
    colour = mean_colour([decode(bad)])[0]

    def encode(pixels: list[np.ndarray]) -> np.ndarray:
        features = mean_colour(pixels)
        features[(features == colour).all(axis=1), 1] = value
        return features

    with pytest.raises(ValueError, match="not finite for ") as caught:
        fill_features(feature_store(cache, "x", 3), Pictures(manifest), manifest.table, None, encode, batch=8)
    assert str(bad) in str(caught.value)


@pytest.mark.parametrize("change", ["other pixels", "gone", "cut"])
def test_a_file_that_changed_after_the_manifest_is_never_kept_under_its_old_digest(
    manifest: Manifest, cache: Path, change: str
) -> None:
    path = manifest.paths(manifest.table)[5]
    if change == "other pixels":
        write_image(path, picture("other"))
    elif change == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-40])
    geometry = Geometry(8)
    with pytest.raises(ValueError, match=str(path)):
        fill_pixels(pixel_store(cache, geometry), Pictures(manifest), manifest.table, geometry)


@pytest.mark.parametrize("key", ["", "a/b", "..", "x" * 151])
def test_keys_that_are_no_folder_name_are_refused(cache: Path, key: str) -> None:
    with pytest.raises(ValueError, match="folder name"):
        feature_store(cache, key, 3)


def test_importing_data_brings_no_framework_and_touches_nothing(tmp_path: Path) -> None:
    code = (
        "import json, sys, data.store, data.manifest, data.sources; data.sources.list_sources();"
        "print(json.dumps([name for name in ('torch', 'ray', 'mlflow', 'models') if name in sys.modules]))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, check=True
    )
    assert json.loads(result.stdout) == []
    assert not list(tmp_path.iterdir())


def test_digests_that_differ_in_their_last_digits_only_are_all_found(tmp_path: Path) -> None:
    digests = [f"{number:064x}" for number in range(300)]
    store = ArrayStore(tmp_path / "store", row_shape=(), dtype=np.int64)
    store.fill(dict(zip(digests, range(300), strict=True)), np.array, batch=32)
    assert store.open(digests[::-1])[:].tolist() == list(range(300))[::-1]
    assert store.missing([f"{number:064x}" for number in range(299, 302)]) == 2


def test_two_threads_compute_two_batches_at_once_and_rows_keep_their_order(tmp_path: Path) -> None:
    """As on a GPU: the second batch is given before the first is back."""
    store = ArrayStore(tmp_path / "store", row_shape=(), dtype=np.int64)
    both, threads, sizes = threading.Barrier(2, timeout=30), set[int](), list[int]()

    def compute(batch: list[int]) -> np.ndarray:
        both.wait()  # breaks, and so fails, if only one thread calls
        threads.add(threading.get_ident())
        sizes.append(len(batch))
        return np.array([2 * number for number in batch])

    calls: list[tuple[int, int]] = []
    store.fill({str(n): n for n in range(12)}, compute, batch=3, at_once=2, progress=lambda *call: calls.append(call))
    assert store.open([str(n) for n in range(12)])[:].tolist() == [2 * n for n in range(12)]
    assert len(threads) == 2
    assert sizes == [3] * 4
    assert calls == [(3, 12), (6, 12), (9, 12), (12, 12)]


def test_an_error_in_one_of_two_threads_is_raised_and_finished_rows_stay(tmp_path: Path) -> None:
    store = ArrayStore(tmp_path / "store", row_shape=(), dtype=np.int64)

    def compute(batch: list[int]) -> np.ndarray:
        if 7 in batch:
            raise ValueError("a bad picture")
        return np.array(batch)

    with pytest.raises(ValueError, match="a bad picture"):
        store.fill({str(n): n for n in range(12)}, compute, batch=3, at_once=2)
    store.fill({str(n): n for n in range(12)}, np.array, batch=3, at_once=2)
    assert store.open([str(n) for n in range(12)])[:].tolist() == list(range(12))
