"""Damaged files, tables, records and command lines end in a foreseen error or in a result, never in anything else.

Damage is seeded: number N of a kind is always the same. `make test` tries 100 of them, `make test-all` 1,000 more. What
fails is named by its kind and number.
"""

from __future__ import annotations

import io
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, PngImagePlugin
from rich.console import Console

from analysis.cells import cell_table
from analysis.store import StoreError
from data.images import BadImage, probe, read_mask
from grid.checkpoints import latest_state, write_state
from grid.commands import BadInputError
from grid.commands.status import print_status
from grid.options import resolve
from grid.records import open_records
from launch import parse_arguments
from models.detector import WeightsError
from models.weights import load_strictly, read_state_dict
from tests.analysis.grids import Grid
from tests.corpora import picture
from tests.grid.grids import fresh_store
from tests.mutations import ODD_TEXTS, damaged_bytes, damaged_json, damaged_table, damaged_text

Try = Callable[[np.random.Generator], object]  # damages something and uses it; raises what is foreseen


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow and NumPy, about what they read
        yield


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """Two finished trials, one of attribution, in a real store."""
    folder = tmp_path_factory.mktemp("fuzzed")
    made = Grid(fresh_store(tmp_path_factory.getbasetemp(), folder / "runs"), folder, num_each=6)
    made.finish(made.spec(), made.attribution(), conditions=["jpeg-75"])
    return made


def image_bytes(kind: str) -> bytes:
    file, image = io.BytesIO(), Image.fromarray(picture("fuzz", 24))
    if kind == "PNG":
        facts = PngImagePlugin.PngInfo()
        facts.add_text("parameters", "a portrait " * 20, zip=True)
        image.save(file, "PNG", pnginfo=facts, icc_profile=b"\0" * 200)
    else:
        image.save(file, kind, quality=80)
    return file.getvalue()


def images(tmp_path: Path, grid: Grid) -> Try:
    originals = {kind: image_bytes(kind) for kind in ("PNG", "JPEG", "WEBP", "BMP")}

    def attempt(rng: np.random.Generator) -> object:
        kind = str(rng.choice(list(originals)))
        path = tmp_path / f"picture.{kind.lower()}"
        path.write_bytes(damaged_bytes(originals[kind], rng))
        return probe(path), read_mask(path)

    return attempt


def weights(tmp_path: Path, grid: Grid) -> Try:
    from safetensors.torch import save_file

    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    torch.save({"state_dict": network.state_dict(), "epoch": 3}, tmp_path / "network.pt")
    save_file(network.state_dict(), tmp_path / "network.safetensors")
    originals = {name: (tmp_path / name).read_bytes() for name in ("network.pt", "network.safetensors")}

    def attempt(rng: np.random.Generator) -> None:
        name = str(rng.choice(list(originals)))
        path = tmp_path / f"damaged-{name}"
        path.write_bytes(damaged_bytes(originals[name], rng))
        load_strictly(network, read_state_dict(path), source=path)

    return attempt


def checkpoints(tmp_path: Path, grid: Grid) -> Try:
    trial = tmp_path / "launch" / "key"
    older, newer = trial / "checkpoint_1", trial / "checkpoint_2"
    for order, folder in enumerate((older, newer), 1):
        folder.mkdir(parents=True)
        write_state(folder, {"epoch": order, "weights": torch.arange(4.0)}, order=order)
    originals = {name: (newer / name).read_bytes() for name in ("state.pt", "seal.json")}

    def attempt(rng: np.random.Generator) -> None:
        for name, content in originals.items():
            (newer / name).write_bytes(content)
        if rng.integers(0, 2):
            (newer / "state.pt").write_bytes(damaged_bytes(originals["state.pt"], rng))
        else:
            seal = damaged_json(originals["seal.json"].decode(), rng)
            (newer / "seal.json").write_text(seal, encoding="utf-8", errors="surrogateescape")
        state, order = latest_state(tmp_path, "key")
        assert state is not None
        assert state["epoch"] in (1, 2)
        assert order >= 1

    return attempt


def command_lines(tmp_path: Path, grid: Grid) -> Try:
    words = [
        "dolos", "--data", "/nowhere", "--methods", "clip_linear,sam_linear", "--tasks", "detection", "--seeds", "0",
        "--train-on", "lama,all-but-lama", "--conditions", "jpeg-75", "--set", "clip_linear.l2=1", "--limit", "4",
        "--gpus-per-trial", "0.5", "--weights", "clip_linear=random", "--train-condition", "jpeg-95",
    ]  # fmt: skip

    def attempt(rng: np.random.Generator) -> None:
        line = list(words)
        values = [place for place, word in enumerate(line) if not word.startswith("--")]
        for place in rng.choice(values, int(rng.integers(1, 3)), replace=False):
            line[place] = damaged_text(line[place], rng)
        if rng.integers(0, 5) == 0:
            del line[int(rng.integers(0, len(line)))]
        if rng.integers(0, 5) == 0:
            line.insert(int(rng.integers(0, len(line))), str(rng.choice([*words, *ODD_TEXTS])))
        if not {"-h", "--help"} & set(line):
            resolve(parse_arguments(line))

    return attempt


def everything(grid: Grid) -> None:
    """What a report, a status and a plan read.

    A status that is refused raises last, so that the rest is tried too.
    """
    refused = None
    try:
        print_status(grid.name, grid.tracker.uri, Console(file=io.StringIO(), record=True, width=200))
    except BadInputError as error:
        refused = error
    records = open_records(grid.tracker.uri, grid.name, patient=False)
    assert records is not None
    for parent in records.grids():
        records.plan(parent)
    records.states([run.data.tags.get("grid.key", "") for run in records.trials()])
    store = grid.open()
    runs = store.runs()
    for condition in store.conditions:
        cell_table(store, conditions=[condition])
    for run_id in runs["run_id"]:
        store.embeddings(run_id)
        store.spec(run_id)
        store.threshold(run_id)
    if refused is not None:
        raise refused


def artifacts(tmp_path: Path, grid: Grid) -> Try:
    files = {
        path: path.read_bytes()
        for path in sorted(grid.folder.glob("artifacts/*/artifacts/**/*"))
        if path.suffix in (".parquet", ".json", ".npy", ".npz")
    }
    assert {path.suffix for path in files} >= {".parquet", ".json"}

    def attempt(rng: np.random.Generator) -> None:
        path = list(files)[int(rng.integers(0, len(files)))]
        try:
            if path.suffix == ".parquet":
                damaged_table(pd.read_parquet(io.BytesIO(files[path])), rng).to_parquet(path)
            elif path.suffix == ".json":
                text = damaged_json(files[path].decode(), rng)
                path.write_text(text, encoding="utf-8", errors="surrogateescape")
            else:
                path.write_bytes(damaged_bytes(files[path], rng))
            everything(grid)
        finally:
            path.write_bytes(files[path])

    return attempt


def records(tmp_path: Path, grid: Grid) -> Try:
    database = grid.tracker.uri.removeprefix("sqlite:///")
    with sqlite3.connect(database) as connection:
        rows = {
            table: connection.execute(f"SELECT rowid, key, value FROM {table}").fetchall()
            for table in ("tags", "params", "latest_metrics")
        }

    def attempt(rng: np.random.Generator) -> None:
        table = str(rng.choice(list(rows)))
        number, key, value = rows[table][int(rng.integers(0, len(rows[table])))]
        if key.startswith("mlflow."):  # MLflow's own
            return
        odd: Any = damaged_text(str(value), rng)
        if table == "latest_metrics":
            odd = float(rng.choice([np.inf, -1.0, 1e300, 0.0]))
        with sqlite3.connect(database) as connection:
            connection.execute(f"UPDATE {table} SET value = ? WHERE rowid = ?", (odd, number))
        try:
            everything(grid)
        finally:
            with sqlite3.connect(database) as connection:
                connection.execute(f"UPDATE {table} SET value = ? WHERE rowid = ?", (value, number))

    return attempt


# kind -> (what is tried, how many of 100, what may be raised)
KINDS: dict[str, tuple[Callable[[Path, Grid], Try], int, tuple[type[BaseException], ...]]] = {
    "images": (images, 32, (BadImage,)),
    "weights": (weights, 20, (WeightsError,)),
    "checkpoints": (checkpoints, 20, ()),
    "command_lines": (command_lines, 16, (BadInputError, SystemExit)),
    "artifacts": (artifacts, 6, (StoreError, BadInputError)),
    "records": (records, 6, (StoreError, BadInputError)),
}


def try_all(kind: str, numbers: range, tmp_path: Path, grid: Grid) -> None:
    make, _, foreseen = KINDS[kind]
    attempt = make(tmp_path, grid)
    failed = []
    for number in numbers:
        try:
            attempt(np.random.default_rng([number, list(KINDS).index(kind)]))
        except foreseen as error:
            if not str(error).strip():
                failed.append(f"{kind} {number}: an error without a message")
        except (Exception, SystemExit) as error:
            failed.append(f"{kind} {number}: {type(error).__name__}: {error}"[:300])
    assert failed == []


def test_a_hundred_are_tried() -> None:
    assert sum(count for _, count, _ in KINDS.values()) == 100


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_foreseen(kind: str, tmp_path: Path, grid: Grid, capsys: pytest.CaptureFixture[str]) -> None:
    try_all(kind, range(KINDS[kind][1]), tmp_path, grid)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_so_is_ten_times_as_much(kind: str, tmp_path: Path, grid: Grid, capsys: pytest.CaptureFixture[str]) -> None:
    count = KINDS[kind][1]
    try_all(kind, range(count, 11 * count), tmp_path, grid)
