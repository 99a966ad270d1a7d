from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import launch
from grid.spec import TrialSpec
from grid.tasks import ATTRIBUTION
from tests.grid.command import Command, Outcome
from tests.grid.fitting import NETWORK, Bench, Result
from tests.grid.grids import fresh_store, make_manifest, make_settings, open_grid, write_obvious
from tests.grid.running import Calls, Grid, MakeGrid


@pytest.fixture
def store(tmp_path: Path, new_store: Callable[[Path], str]) -> str:
    """Tracking URI of a new SQLite store of this test."""
    return new_store(tmp_path / "runs")


@pytest.fixture(scope="session")
def new_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """Folder -> tracking URI of a new SQLite store in it."""
    base = tmp_path_factory.getbasetemp()
    return lambda runs: fresh_store(base, runs)


@pytest.fixture(scope="session")
def obvious(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Dolos tree whose fakes no detector can miss; read it only."""
    return write_obvious(tmp_path_factory.mktemp("obvious") / "dolos")


@pytest.fixture
def make_grid(tmp_path: Path, obvious: Path, new_store: Callable[[Path], str]) -> MakeGrid:
    """Name, changes of the settings -> a grid with a store of its own; all of a test share a cache."""

    def make(name: str = "grid", **changes: Any) -> Grid:
        uri = new_store(tmp_path / name / "runs")
        settings = make_settings(tmp_path / name, uri, **changes)
        settings = dataclasses.replace(settings, cache=tmp_path / "cache")
        manifest = make_manifest(obvious, settings)
        tracker = open_grid(uri, "dolos", manifest, [], settings.runs / "artifacts")
        return Grid(settings, manifest, tracker)

    return make


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Counts what detectors are asked to do in this test."""
    return Calls(monkeypatch)


@pytest.fixture
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No tracking server or cluster from outside; SIGTERM as it was."""
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def command(runs: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """`launch.py` with these arguments on this test's own folder of runs."""

    def run(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        status = launch.main([*map(str, arguments), "--runs", str(runs)])
        return Outcome(status, capsys.readouterr().out)

    return run


@pytest.fixture
def dolos(command: Command, obvious: Path, store: str) -> Command:
    """The same for one seed of `dolos` on the tiny data set, in this process, with a store that is there already."""
    return lambda *arguments: command("dolos", "--data", obvious, "--local", "--seeds", "0", *arguments)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Fits and scores trials on a data set whose fakes no detector can miss."""
    folder = tmp_path_factory.mktemp("trial")
    settings = make_settings(folder)
    (folder / "checkpoints").mkdir()
    manifest = make_manifest(write_obvious(folder / "dolos"), settings)
    return Bench(settings, manifest, folder / "checkpoints")


@pytest.fixture(scope="module", params=["residual_linear", "xception_scratch"])
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def detection(bench: Bench, method: str) -> tuple[TrialSpec, Result]:
    spec = bench.spec(method, **(NETWORK if method == "xception_scratch" else {}))
    return spec, bench.run(spec)


@pytest.fixture(scope="module")
def attribution(bench: Bench) -> tuple[TrialSpec, Result]:
    spec = bench.spec(task=ATTRIBUTION, train=("ldm", "lama"))
    return spec, bench.run(spec)
