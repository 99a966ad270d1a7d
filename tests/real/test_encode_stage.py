"""What trials share, prepared by several Ray tasks at once: over all GPUs, once, whatever dies or breaks on the way."""

from __future__ import annotations

import functools
import hashlib
import logging
import shutil
import signal
import threading
import time
from collections.abc import Callable
from logging.handlers import BufferingHandler
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray
from filelock import FileLock

from data.conditions import CLEAN
from data.images import decode
from data.manifest import Manifest
from data.store import ArrayStore
from grid.plan import Inputs, Work
from grid.ray_executor import RayExecutor
from grid.settings import RunSettings
from grid.spec import TrialSpec
from grid.tracking import Tracker
from grid.trial import build, shared_store
from models.detector import MemoryExhausted
from tests.corpora import write_dolos
from tests.grid.grids import make_manifest, make_settings, make_spec
from tests.real.grids import workers

COUNTS = {"train": 70, "valid": 10, "test": 10}
NUM_IMAGES = 3 * sum(COUNTS.values())  # real, a, b
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("shared_ray"),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dolos(tmp_path_factory.mktemp("encode") / "dolos", ("a", "b"), COUNTS, size=64)


class Stage:
    """One method's encode stage with a cache of its own."""

    def __init__(self, folder: Path, corpus: Path, method: str) -> None:
        self.folder, self.corpus, self.method = folder, corpus, method
        self.settings: RunSettings = make_settings(folder, "sqlite:////none", device="auto")
        self.manifest: Manifest = make_manifest(corpus, self.settings)
        spec: TrialSpec = make_spec(self.manifest.digest, method, train=("a",))
        self.work = Work(spec, (CLEAN,))
        self.detector = build(spec, self.settings, "cpu")
        self.digests: list[str] = self.manifest.table["digest"].tolist()
        self.progress: list[tuple[str, int, int]] = []
        self.log: list[str] = []  # of the last time that something was prepared

    def copy(self, folder: Path) -> Stage:
        """The same stage, as it is now, elsewhere."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return Stage(folder, self.corpus, self.method)

    @property
    def store(self) -> ArrayStore:
        return shared_store(self.detector, self.settings.cache, CLEAN)

    @property
    def shards(self) -> list[Path]:
        return sorted(self.store.folder.glob("shard-*"))

    def prepare(self) -> None:
        executor = RayExecutor(self.settings, Tracker("sqlite:////none", "0", "0", {}))
        self.progress.clear()
        logger, handler = logging.getLogger("grid.ray_executor"), BufferingHandler(capacity=10**6)
        level = logger.level
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        try:
            executor.prepare([self.work], lambda *call: self.progress.append(call))
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
        self.log = [record.getMessage() for record in handler.buffer]

    def assert_complete(self) -> None:
        """Every image's row is there, in one shard only, and is what this process computes."""
        written = [digest for shard in self.shards for digest in (shard / "digests.txt").read_text().split()]
        assert sorted(written) == sorted(self.digests)
        assert not list(self.store.folder.glob("unfinished-*"))
        assert self.detector.geometry is not None
        geometry = self.detector.geometry
        few = self.manifest.table.iloc[::30]
        pixels = np.stack([geometry.apply(decode(path)) for path in self.manifest.paths(few)])
        expected = pixels if self.detector.encoder is None else self.detector.encoder.encode(pixels)
        np.testing.assert_allclose(self.store.open(few["digest"].tolist())[:], expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Callable[[str], Stage]:
    """Method -> its stage, after everything was prepared for the first time; not to be changed."""

    @functools.cache
    def prepare(method: str) -> Stage:
        stage = Stage(tmp_path_factory.mktemp("prepared"), corpus, method)
        stage.prepare()
        return stage

    return prepare


@pytest.mark.long
@pytest.mark.parametrize(("method", "gpu"), [("clip_linear", "1"), ("xception_scratch", "0")])
def test_as_many_tasks_as_fit_prepare_what_is_missing_and_only_that(
    prepared: Callable[[str], Stage], tmp_path: Path, method: str, gpu: str
) -> None:
    first = prepared(method)
    assert f"{method}: 2 tasks for {NUM_IMAGES} images, {gpu} GPU each" in first.log
    assert {what for what, _, _ in first.progress} == {method}
    assert first.progress[-1][1:] == (NUM_IMAGES, NUM_IMAGES)
    done = [number for _, number, _ in first.progress]
    assert done == sorted(done)
    first.assert_complete()

    again = first.copy(tmp_path)
    before = again.shards
    again.prepare()
    assert any(line.startswith(f"{method}: 0 tasks for 0 images") for line in again.log)
    assert again.progress == []
    assert again.shards == before


@pytest.mark.long
@pytest.mark.parametrize("starved", [1, 3])
def test_a_task_without_memory_leaves_its_work_to_others_unless_all_are(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starved: int
) -> None:
    """As where a neighbour on the same GPU holds its memory."""

    def prepare(inputs: Inputs, settings: RunSettings, share: float, progress: Callable[[int, int], None]) -> str:
        from grid.preparing import prepare_input
        from models.detector import MemoryExhausted

        for number in range(starved):
            try:
                (tmp_path / f"starved-{number}").touch(exist_ok=False)
            except FileExistsError:
                continue
            raise MemoryExhausted("not even one image fits")
        return prepare_input(inputs, settings, share, progress)

    monkeypatch.setattr("grid.ray_executor.prepare_input", prepare)
    stage = Stage(tmp_path / "stage", corpus, "clip_linear")
    if starved == 1:
        stage.prepare()
        stage.assert_complete()
        assert "clip_linear: not even one image fits; other tasks do the work" in stage.log
        assert stage.progress[-1][1:] == (NUM_IMAGES, NUM_IMAGES)
    else:
        with pytest.raises(MemoryExhausted, match="not even one image fits"):
            stage.prepare()


@pytest.mark.parametrize(
    ("method", "share"), [("clip_linear", 0.0), pytest.param("xception_scratch", 0.5, marks=pytest.mark.long)]
)
def test_trials_of_a_frozen_method_leave_the_gpus_to_those_that_train(
    prepared: Callable[[str], Stage], tmp_path: Path, method: str, share: float
) -> None:
    stage = prepared(method).copy(tmp_path / "stage")
    asked = tmp_path / "asked"

    def note(work: Work, settings: RunSettings, tracker: Tracker, share: float) -> None:
        asked.write_text(str(share))

    executor = RayExecutor(stage.settings, Tracker("sqlite:////none", "0", "0", {}), compute=note)
    executor.prepare([stage.work], lambda *call: None)
    executor.run([stage.work], lambda event: None)
    assert float(asked.read_text()) == share


def test_a_corrupted_shard_is_told_and_computed_again(prepared: Callable[[str], Stage], tmp_path: Path) -> None:
    stage = prepared("clip_linear").copy(tmp_path)
    victim = stage.shards[0]
    rows = victim / "rows.npy"
    content = bytearray(rows.read_bytes())
    content[-1] ^= 64
    rows.write_bytes(content)
    lost = len((victim / "digests.txt").read_text().split())
    assert stage.store.missing(stage.digests) == lost
    stage.prepare()
    assert "\n".join(stage.log).count(f"{victim} is damaged and will be made again") == 1
    assert any(f"tasks for {lost} images" in line for line in stage.log)
    stage.assert_complete()


@pytest.mark.long
def test_a_killed_task_is_tried_again_and_goes_on_from_the_shards_that_are_there(tmp_path: Path, corpus: Path) -> None:
    stage = Stage(tmp_path, corpus, "clip_linear")
    pieces = stage.store._pieces(stage.digests, 32)
    held = hashlib.sha256("\n".join(pieces[-1]).encode()).hexdigest()[:16]
    locks = stage.store.folder / ".locks"
    locks.mkdir(parents=True)
    early: list[Path] = []

    def kill_then_let_go(lock: FileLock) -> None:
        """Once the tasks have done all but the piece that is held, and wait for it."""
        while len(stage.shards) < len(pieces) - 1:
            time.sleep(0.05)
        early.extend(stage.shards)
        killed.extend(workers("prepare_input"))
        for worker in killed:
            worker.send_signal(signal.SIGKILL)
        psutil.wait_procs(killed, timeout=10)
        lock.release(force=True)

    killed: list[psutil.Process] = []
    lock = FileLock(locks / held, thread_local=False)
    lock.acquire()
    helper = threading.Thread(target=kill_then_let_go, args=(lock,), daemon=True)
    helper.start()
    stage.prepare()
    helper.join(timeout=60)
    assert killed
    assert set(early) < set(stage.shards)
    stage.assert_complete()


@pytest.mark.long
def test_tasks_on_one_machine_divide_its_cores(tmp_path: Path) -> None:
    """In the worker's own pools of threads, also where another task has used the worker before."""

    def threads(settings: RunSettings) -> set[int]:
        import torch
        from threadpoolctl import threadpool_info

        from grid.trial import set_threads

        set_threads(settings)
        return {torch.get_num_threads(), *(pool["num_threads"] for pool in threadpool_info())}

    for cores, expected in ((1.0, 1), (2.0, 2), (0.25, 1)):
        settings = make_settings(tmp_path, cpus_per_trial=cores)
        task = ray.remote(threads).options(num_cpus=cores)
        assert ray.get(task.remote(settings)) == {expected}
