"""Trials read from copies on the node's own disk."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import data.store
from data.conditions import CLEAN
from data.store import ArrayStore
from grid import names
from grid.plan import Inputs
from grid.spec import TrialSpec
from grid.trial import (
    build,
    fill_inputs,
    prepare_inputs,
    shared_store,
)
from tests.grid.fitting import Bench, Result, with_cache


def with_copies(bench: Bench, folder: Path) -> Bench:
    """With a cache of its own, and copies in `folder`/local."""
    return with_cache(bench, folder, local_copies=folder / "local")


def test_a_trial_reads_what_it_needs_from_its_nodes_disk(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, detection: tuple[TrialSpec, Result]
) -> None:
    monkeypatch.setattr(data.store, "_SHARD_ROWS", 8)
    spec, expected = detection
    local = with_copies(bench, tmp_path)
    first = local.run(spec)
    assert first.metrics == expected.metrics
    pd.testing.assert_frame_equal(first.scores, expected.scores, check_exact=True)
    (copy,) = (tmp_path / "local").glob("*/*")
    original = tmp_path / "cache" / copy.relative_to(tmp_path / "local")
    copies = list(copy.glob("shard-*/rows.npy"))
    assert len(copies) == len(list(original.glob("shard-*")))
    assert first.copied[names.COPIED_BYTES] == sum(path.stat().st_size for path in copies)
    assert first.copied[names.COPY_SECONDS] > 0

    shutil.rmtree(original)  # the second trial neither reads the cache nor computes anything
    second = local.run(spec)
    assert second.metrics == first.metrics
    assert second.copied[names.COPIED_BYTES] == 0
    assert not original.exists()


def test_preparing_for_all_nodes_copies_nothing(bench: Bench, tmp_path: Path) -> None:
    from grid.preparing import prepare_input

    local = with_copies(bench, tmp_path)
    prepare_input(Inputs(bench.spec()), local.settings, 0.0, lambda done, total: None)
    assert list((tmp_path / "cache" / "features").glob("*/shard-*"))
    assert not (tmp_path / "local").exists()


def test_a_shard_that_has_changed_in_the_cache_is_computed_again_and_copied(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    local = with_copies(bench, tmp_path)
    spec = bench.spec("xception_scratch", epochs=1)
    detector = build(spec, local.settings, "cpu")
    fill_inputs(detector, bench.manifest, local.settings, Inputs(spec))
    store = shared_store(detector, local.settings.cache, CLEAN)
    digests = bench.manifest.table["digest"].tolist()
    expected = store.open(digests)[:]
    rows = next(store.folder.glob("shard-*/rows.npy"))
    content = bytearray(rows.read_bytes())
    content[-1] ^= 64
    rows.write_bytes(content)
    assert (store.open(digests)[:] != expected).any()
    found = prepare_inputs(detector, bench.manifest, bench.manifest.table, local.settings, Inputs(spec))
    np.testing.assert_array_equal(found[:], expected)
    assert f"{rows.parent} is damaged" in caplog.text


def test_a_full_disk_of_a_node_is_said_and_the_cache_is_read(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    spec = bench.spec()
    result = with_copies(bench, tmp_path).run(spec)
    assert result.metrics == bench.run(spec).metrics
    assert result.copied[names.COPIED_BYTES] == 0
    assert "no local copy" in caplog.text
    assert f"reading from {tmp_path / 'cache'}" in caplog.text
    assert "--local-copies names the folder" in caplog.text


def test_a_folder_of_a_node_that_may_not_be_written_is_said_and_the_cache_is_read(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", "copies")

    monkeypatch.setattr(ArrayStore, "copy_from", refuse)
    result = with_copies(bench, tmp_path).run(bench.spec())
    assert result.copied[names.COPIED_BYTES] == 0
    assert "no local copy" in caplog.text


def test_a_trial_that_has_to_compute_its_inputs_says_so(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fresh = with_copies(bench, tmp_path)
    fresh.run(bench.spec())
    assert "the trial itself computes them" in caplog.text
    caplog.clear()
    fresh.run(bench.spec())
    assert "the trial itself computes them" not in caplog.text
