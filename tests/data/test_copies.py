"""Copies of a store's shards in another folder: made once, whole or not at all, and never of what has changed."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data.store
from data.store import ArrayStore
from tests.data.processes import Python

# A process that copies all twenty rows; says when a shard's rows are written, and in the `hang_at`th waits then.
COPIER = """
import os, sys
from pathlib import Path
import numpy as np
from data.store import ArrayStore
shards, fsync = 0, os.fsync
def written(file):
    global shards
    fsync(file)
    shards += 1
    print("written", flush=True)
    if shards == int(sys.argv[3]):
        sys.stdin.readline()
os.fsync = written
source, copy = (ArrayStore(Path(folder), row_shape=(2,), dtype=np.int64) for folder in sys.argv[1:3])
print("copied", copy.copy_from(source, [f"d{n}" for n in range(20)]), flush=True)
"""


class Copier(Python):
    def __init__(self, source: ArrayStore, copy: ArrayStore, hang_at: int) -> None:
        super().__init__(COPIER, source.folder, copy.folder, hang_at)

    def read(self, count: int) -> None:
        """Wait until it has written this many shards more."""
        assert self.process.stdout is not None
        for _ in range(count):
            assert self.process.stdout.readline() == "written\n"

    def finish(self) -> tuple[int, int]:
        """Let it go on to its end: (shards written since the last `read`, bytes that it says it has copied)."""
        text, _ = self.process.communicate("\n")
        assert self.process.returncode == 0
        *written, last = text.splitlines()
        return len(written), int(last.removeprefix("copied "))


@pytest.fixture
def copier(source: ArrayStore, copy: ArrayStore) -> Iterator[Callable[..., Copier]]:
    copiers: list[Copier] = []

    def start(hang_at: int = 0) -> Copier:
        copiers.append(Copier(source, copy, hang_at))
        return copiers[-1]

    yield start
    for one in copiers:
        one.clean_up()


DIGESTS = [f"d{number}" for number in range(20)]
SHARD_BYTES = 128 + 4 * 2 * 8


def doubled(items: list[int]) -> np.ndarray:
    return np.array([[item, 2 * item] for item in items], dtype=np.int64)


ROWS = doubled(list(range(20))).tolist()


def numbers(folder: Path, **options: Any) -> ArrayStore:
    return ArrayStore(folder, row_shape=(2,), dtype=np.int64, **options)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArrayStore:
    """Twenty rows (number, 2 * number) in five shards."""
    monkeypatch.setattr(data.store, "_SHARD_ROWS", 4)
    store = numbers(tmp_path / "source")
    fill(store)
    return store


def fill(store: ArrayStore) -> None:
    store.fill({digest: number for number, digest in enumerate(DIGESTS)}, doubled, batch=2)


@pytest.fixture
def copy(tmp_path: Path) -> ArrayStore:
    return numbers(tmp_path / "copy")


def shards(store: ArrayStore) -> list[Path]:
    return sorted(store.folder.glob("shard-*"))


def flip(shard: Path) -> None:
    """Change one bit of a shard's last row."""
    content = bytearray((shard / "rows.npy").read_bytes())
    content[-3] ^= 1
    (shard / "rows.npy").write_bytes(content)


def assert_whole(copy: ArrayStore, source: ArrayStore) -> None:
    """Every file is as it is in the source, and nothing else is there."""
    assert copy.open(DIGESTS)[:].tolist() == ROWS
    assert [shard.name for shard in shards(copy)] == [shard.name for shard in shards(source)]
    for one, other in zip(shards(copy), shards(source), strict=True):
        for name in ("rows.npy", "digests.txt", "crc32.txt"):
            assert (one / name).read_bytes() == (other / name).read_bytes()
    assert not list(copy.folder.glob("unfinished-*"))


def test_only_shards_with_rows_that_are_asked_for_are_copied_and_only_once(
    source: ArrayStore, copy: ArrayStore, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "data.store"):
        assert copy.copy_from(source, ["d0", "d1", "d18", "nowhere"]) == 2 * SHARD_BYTES
    assert f"copying 2 shards, 0.0 MB, from {source.folder} to {copy.folder}" in caplog.text
    assert len(shards(copy)) == 2
    assert copy.open(["d18", "d0"])[:].tolist() == [[18, 36], [0, 0]]
    assert copy.copy_from(source, ["d2", "d19"]) == 0
    assert copy.copy_from(source, DIGESTS) == 3 * SHARD_BYTES
    assert_whole(copy, source)


def test_nothing_to_copy_makes_no_folder(source: ArrayStore, copy: ArrayStore) -> None:
    assert copy.copy_from(source, ["nowhere"]) == copy.copy_from(source, []) == 0
    assert not copy.folder.exists()


def test_two_processes_share_the_shards(source: ArrayStore, copy: ArrayStore, copier: Callable[..., Copier]) -> None:
    first = copier(hang_at=2)
    first.read(2)
    second = copier()
    second.read(3)  # all but the one that the first has and the one that it holds
    assert len(shards(copy)) >= 3
    assert first.finish() == (0, 2 * SHARD_BYTES)
    assert second.finish() == (0, 3 * SHARD_BYTES)
    assert_whole(copy, source)


def test_two_processes_at_once_copy_every_shard_once(
    source: ArrayStore, copy: ArrayStore, copier: Callable[..., Copier]
) -> None:
    ends = [one.finish() for one in [copier(), copier()]]
    assert sum(written for written, _ in ends) == 5
    assert sum(copied for _, copied in ends) == 5 * SHARD_BYTES
    assert_whole(copy, source)


def test_a_killed_copy_goes_on_with_the_shards_that_are_missing(
    source: ArrayStore, copy: ArrayStore, copier: Callable[..., Copier]
) -> None:
    victim = copier(hang_at=3)
    victim.read(3)
    victim.kill()
    assert len(shards(copy)) == 2
    assert len(list(copy.folder.glob("unfinished-*"))) == 1
    assert copier().finish() == (3, 3 * SHARD_BYTES)
    assert_whole(copy, source)


def test_who_waits_takes_over_from_one_that_is_killed(
    source: ArrayStore, copy: ArrayStore, copier: Callable[..., Copier]
) -> None:
    victim = copier(hang_at=1)
    victim.read(1)
    heir = copier()
    heir.read(4)
    victim.kill()
    assert heir.finish() == (1, 5 * SHARD_BYTES)
    assert_whole(copy, source)


def test_a_changed_shard_is_never_copied_but_said_and_made_again(
    source: ArrayStore, copy: ArrayStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Its pixels are not checked when they are read, so that nobody has noticed before."""
    victim = shards(source)[2]
    lost = (victim / "digests.txt").read_text().split()
    flip(victim)
    assert source.missing(DIGESTS) == 0
    assert copy.copy_from(source, DIGESTS) == 4 * SHARD_BYTES
    assert f"{victim} is damaged and will be made again (its content has changed" in caplog.text
    assert copy.missing(DIGESTS) == copy.missing(lost) == source.missing(lost) == len(lost)
    fill(source)
    copy.copy_from(source, DIGESTS)
    assert_whole(copy, source)


def test_a_shard_that_somebody_else_removes_meanwhile_is_left_out(
    source: ArrayStore, copy: ArrayStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, usage = shards(source)[0], shutil.disk_usage

    def remove_first(path: Path) -> Any:  # asked for once it is known which shards to copy
        shutil.rmtree(victim, ignore_errors=True)
        return usage(path)

    monkeypatch.setattr(shutil, "disk_usage", remove_first)
    copy.copy_from(source, DIGESTS)
    assert not victim.exists()
    assert copy.missing(DIGESTS) == source.missing(DIGESTS) == 4


@pytest.mark.parametrize("damage", ["cut", "no rows", "no digests"])
def test_a_damaged_copy_is_noticed_and_copied_again(
    source: ArrayStore, copy: ArrayStore, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    copy.copy_from(source, DIGESTS)
    victim = shards(copy)[1]
    if damage == "cut":
        (victim / "rows.npy").write_bytes((victim / "rows.npy").read_bytes()[:-1])
    else:
        (victim / ("rows.npy" if damage == "no rows" else "digests.txt")).unlink()
    assert copy.missing(DIGESTS) == 4
    assert f"{victim} is damaged" in caplog.text
    assert copy.copy_from(source, DIGESTS) == SHARD_BYTES
    assert_whole(copy, source)


def test_a_changed_copy_is_noticed_where_checksums_are_verified(source: ArrayStore, tmp_path: Path) -> None:
    copy = numbers(tmp_path / "copy", checked=True)
    copy.copy_from(source, DIGESTS)
    flip(shards(copy)[1])
    assert copy.missing(DIGESTS) == 4
    assert copy.copy_from(source, DIGESTS) == SHARD_BYTES
    assert_whole(copy, source)


def test_what_is_read_back_differently_is_no_copy(
    source: ArrayStore, copy: ArrayStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = os.fsync

    def spoil(file: int) -> None:
        synced(file)
        flip(next(copy.folder.glob("unfinished-*")))

    monkeypatch.setattr(os, "fsync", spoil)
    with pytest.raises(OSError, match="read back differently"):
        copy.copy_from(source, DIGESTS)
    assert [path.name for path in copy.folder.iterdir()] == [".locks"]
    assert len(shards(source)) == 5


def test_what_one_node_reads_wrongly_is_not_lost_for_all(
    source: ArrayStore, copy: ArrayStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound, calls = zlib.crc32, itertools.count()
    monkeypatch.setattr(zlib, "crc32", lambda block, value=0: sound(block, value) ^ (next(calls) == 0))
    with pytest.raises(OSError, match="reading it twice gives different content"):
        copy.copy_from(source, DIGESTS)
    assert len(shards(source)) == 5
    assert not shards(copy)


def test_two_percent_of_a_disk_stay_free(source: ArrayStore, copy: ArrayStore, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(source.folder)._replace(free=5 * SHARD_BYTES + 1, total=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match="the disk is full"):
        copy.copy_from(source, DIGESTS)


def test_a_disk_that_is_too_full_is_said_before_anything_is_copied(
    source: ArrayStore, copy: ArrayStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(source.folder)._replace(free=5 * SHARD_BYTES - 1, total=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match="the disk is full: 0 MiB more are needed") as caught:
        copy.copy_from(source, DIGESTS)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(copy.folder)
    assert not shards(copy)
    assert copy.copy_from(source, ["d0"]) == SHARD_BYTES  # that much is free


def test_a_disk_that_fills_up_leaves_whole_shards(
    source: ArrayStore, copy: ArrayStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, count = os.fsync, 0

    def fills_up(file: int) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        synced(file)

    monkeypatch.setattr(os, "fsync", fills_up)
    with pytest.raises(OSError, match="the disk is full"):
        copy.copy_from(source, DIGESTS)
    assert len(shards(copy)) == 2
    assert copy.copy_from(source, DIGESTS) == 3 * SHARD_BYTES
    assert_whole(copy, source)
