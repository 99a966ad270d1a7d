"""A first reading by processes: the same facts as by threads, kept on the way, and gone on with after a kill."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

import data.probes
from data.manifest import build_manifest
from data.measure import measure
from data.probes import _read_items
from data.roots import Roots
from tests.corpora import write_dolos
from tests.data.processes import Python

NUM_FILES = 5 * 90  # real images, fakes of two generators and their masks


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_dolos(tmp_path / "x", counts={"train": 50, "valid": 20, "test": 20})


@pytest.fixture
def by_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.probes, "PROCESSES_FROM", 1)
    monkeypatch.setattr(data.probes, "SAVED_EVERY", 64)


def opened(root: Path, cache: Path) -> int:
    """The number of files that a build opens."""
    totals = [0]
    build_manifest("dolos", root, cache=cache, progress=lambda done, total: totals.append(total))
    return totals[-1]


@pytest.mark.usefixtures("by_processes")
@pytest.mark.parametrize("measured", [0, 5])
def test_processes_find_what_threads_find(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: int
) -> None:
    (root / "celebahq/real/train/00003.png").write_bytes(b"nothing")
    options = {"skip_bad": True, "measured_per_group": measured}
    calls: list[tuple[int, int]] = []
    ours = build_manifest(
        "dolos", root, cache=tmp_path / "ours", progress=lambda *call: calls.append(call), **options,  # type: ignore[arg-type]
    )  # fmt: skip
    assert calls[-1] == (NUM_FILES, NUM_FILES)
    assert len(calls) < NUM_FILES / 10  # in chunks
    monkeypatch.setattr(data.probes, "PROCESSES_FROM", 10**9)
    theirs = build_manifest("dolos", root, cache=tmp_path / "theirs", **options)  # type: ignore[arg-type]
    pd.testing.assert_frame_equal(ours.table, theirs.table)
    assert ours.skipped == theirs.skipped
    assert len(ours.skipped) == 1
    files = [list((tmp_path / name / "probes").iterdir()) for name in ("ours", "theirs")]
    assert [len(found) for found in files] == [2, 2]  # the facts and the lock: all parts are merged
    if measured:
        numbers = [measure(ours, cache=tmp_path / name, per_group=measured) for name in ("ours", "theirs")]
        pd.testing.assert_frame_equal(*numbers)


CODE = """
import multiprocessing, sys, time
from pathlib import Path
import data.probes
from data.manifest import build_manifest
data.probes.PROCESSES_FROM, data.probes.SAVED_EVERY = 1, 64

def progress(done, total):
    if done >= 320:
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        time.sleep(600)

build_manifest("dolos", Path(sys.argv[1]), cache=Path(sys.argv[2]), progress=progress)
"""


def test_a_reading_that_is_killed_goes_on_and_leaves_no_process(root: Path, cache: Path) -> None:
    python = Python(CODE, root, cache)
    try:
        assert python.process.stdout is not None
        children = list(map(int, python.process.stdout.readline().split()))
        assert children
        python.kill()
    finally:
        python.clean_up()
    deadline = time.monotonic() + 60
    while any(map(is_alive, children)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_alive, children))
    assert opened(root, cache) == NUM_FILES - 320
    assert opened(root, cache) == 0


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def read_and_never_end(roots: Roots, items: list[str]) -> Any:
    """In a process that reads: as ever, but for the last chunk, which it never finishes."""
    if len(items) < data.probes._CHUNK:
        time.sleep(600)
    return _read_items(roots, items)


@pytest.mark.usefixtures("by_processes")
def test_a_process_that_is_ended_from_outside_is_said_and_nothing_is_lost(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(done: int, total: int) -> None:
        for child in multiprocessing.active_children():
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)

    with monkeypatch.context() as patches:
        patches.setattr(data.probes, "_read_items", read_and_never_end)
        with pytest.raises(RuntimeError, match="a process that reads files was ended from outside"):
            build_manifest("dolos", root, cache=cache, progress=end)
    assert 0 < opened(root, cache) < NUM_FILES
