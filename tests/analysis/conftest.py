from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

import analysis.parts
import grid.tasks
import launch
import models.metrics
import models.registry
from analysis.export import write_export
from analysis.page import Folder, Picture
from analysis.parts import Options
from analysis.report import make_report
from analysis.store import Store, open_store
from tests.analysis.grids import Grid
from tests.corpora import write_dolos
from tests.grid.grids import fresh_store


@pytest.fixture
def store(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Tracking URI of a new SQLite store of this test."""
    return fresh_store(tmp_path_factory.getbasetemp(), tmp_path / "runs")


@pytest.fixture(scope="session")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A small grid that was really run: a trained network, a frozen encoder and a method without layers."""
    folder = tmp_path_factory.mktemp("tracked")
    corpus = write_dolos(folder / "corpus", ("lama", "ldm"), {"train": 12, "valid": 4, "test": 6}, size=64)
    arguments = [
        "dolos", f"--data={corpus}", f"--runs={folder / 'runs'}", "--local", "--seeds=0",
        "--methods=xception_scratch,clip_linear,residual_linear",
        "--set=xception_scratch.backbone=test_resnet", "--set=xception_scratch.size=64",
        "--set=xception_scratch.epochs=2",
        "--set=clip_linear.backbone=demo-vit-64", "--weights=clip_linear=random",
    ]  # fmt: skip
    assert launch.main(arguments) == 0
    return open_store("dolos", tracking_uri=f"sqlite:///{folder / 'runs' / 'mlflow.db'}")


@dataclass(frozen=True)
class Exported:
    """A grid with scores made by hand: its folder `runs`, its report and its export."""

    runs: Path
    report: Path
    export: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.runs / 'mlflow.db'}"


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """One method with two seeds of a training set, and one trial under a condition; the report's pictures are empty."""
    base = tmp_path_factory.mktemp("exported")
    uri = fresh_store(tmp_path_factory.getbasetemp(), base / "runs")
    grid = Grid(uri, base / "runs", generators=("lama", "ldm"), num_each=12)
    grid.finish(grid.spec(train="lama"), conditions=["jpeg-75"])
    grid.finish(grid.spec(train="lama", seed=1), grid.spec(train="ldm"), grid.attribution())
    grid.plan(grid.spec(train="ldm", seed=1))
    grid.manifest.save(base / "runs" / "cache" / "manifests" / grid.manifest.digest)
    store = grid.open()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Folder, "picture", lambda self, name, figure, *, alt, **_: Picture(name, alt, "data:,", 1, 1))
        make_report(store, base / "report", Options(cam=False))
    write_export(store, base / "export", base / "report")
    return Exported(base / "runs", base / "report", base / "export")


@pytest.fixture
def own_copy(tracked: Store, tmp_path: Path) -> Path:
    """The runs folder of `tracked`, copied: what a test may damage. Its store is `mlflow.db` in it."""
    source = Path(tracked.tracking_uri.removeprefix("sqlite:///")).parent
    copy = tmp_path / "own" / "runs"
    shutil.copytree(source, copy)
    with closing(sqlite3.connect(copy / "mlflow.db")) as database, database:
        for table, column in (("runs", "artifact_uri"), ("experiments", "artifact_location")):
            database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(source), str(copy)))
    return copy


@pytest.fixture
def own_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it; registers themselves have no way to take an entry out."""
    for register in (
        analysis.parts._parts,
        grid.tasks._tasks,
        models.metrics._metrics,
        models.registry._detectors,
    ):
        register.names()  # all of the package's own are in
        monkeypatch.setattr(register, "_entries", dict(register._entries))
