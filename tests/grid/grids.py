"""What the tests of a grid share: stores, tiny data sets, settings, results with planted figures."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.tracking import MlflowClient
from PIL import Image

from data.manifest import Manifest, build_manifest
from grid.settings import RunSettings
from grid.spec import TrialSpec
from grid.tasks import DETECTION
from models.registry import detector_info, resolve_config
from tests.corpora import write_dolos

SIDE = 64
COUNTS = {"train": 8, "valid": 6, "test": 6}


@cache
def _template(folder: Path) -> Path:
    """An empty MLflow store; MLflow takes seconds to make one, and a copy is as good."""
    folder.mkdir()
    MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}").search_experiments()
    return folder / "mlflow.db"


def fresh_store(base: Path, runs: Path) -> str:
    """A new store `runs`/mlflow.db: its tracking URI. `base` is the folder of the whole test session."""
    runs.mkdir(parents=True, exist_ok=True)
    shutil.copy(_template(base / "mlflow-template"), runs / "mlflow.db")
    return f"sqlite:///{runs / 'mlflow.db'}"


def write_obvious(root: Path, generators: Iterable[str] = ("lama", "ldm"), counts: Mapping[str, int] = COUNTS) -> Path:
    """A Dolos tree whose fakes no detector can miss: each generator leaves stripes of a width of its own."""
    write_dolos(root, generators, counts, SIDE)
    for number, generator in enumerate(generators):
        stripes = 60 * ((np.arange(SIDE) // (number + 1)) % 2)
        for path in (root / "celebahq" / "fake" / generator / "images").rglob("*.png"):
            pixels = np.array(Image.open(path)).astype(int)
            Image.fromarray((pixels // 2 + stripes[:, None, None]).clip(0, 255).astype(np.uint8)).save(path)
    return root


def make_manifest(root: Path, settings: RunSettings) -> Manifest:
    """The manifest of a Dolos tree, saved where trials find it."""
    manifest = build_manifest("dolos", root, cache=settings.cache, workers=2)
    manifest.save(settings.manifests / manifest.digest)
    return manifest


def make_settings(folder: Path, uri: str = "", **changes: Any) -> RunSettings:
    """Everything below `folder`; on the CPU, so that two runs of a trial are equal bit by bit."""
    settings = RunSettings(cache=folder / "cache", runs=folder / "runs", tracking_uri=uri, device="cpu")
    return dataclasses.replace(settings, **changes)


def make_spec(
    data: str,
    method: str = "residual_linear",
    *,
    task: str = DETECTION,
    train: Iterable[str] = ("lama",),
    seed: int = 0,
    **overrides: Any,
) -> TrialSpec:
    """A trial with the small version of a method."""
    config = resolve_config(method, {**detector_info(method).small, **overrides})
    return TrialSpec(task, method, tuple(config.items()), tuple(train), seed, data)


def table_of(generators: Iterable[str] = ("lama", "ldm"), num_each: int = 10) -> pd.DataFrame:
    """What a manifest's table looks like, of images that are nowhere."""
    rows = [
        (f"{name}/{split}/{number}.png", int(name != "real"), name, f"{split}{number}", split, f"{name}{split}{number}")
        for name in ("real", *generators)
        for split in ("train", "valid", "test")
        for number in range(num_each)
    ]
    table = pd.DataFrame(rows, columns=["path", "label", "generator", "source_id", "split", "digest"])
    missing = {column: pd.Series([pd.NA] * len(rows), dtype="string") for column in ("mask", "mask_digest")}
    return table.assign(**missing, width=SIDE, height=SIDE, format="PNG")


def paper_manifest(root: Path, generators: Iterable[str] = ("lama", "ldm"), num_each: int = 10) -> Manifest:
    """A manifest of images that are nowhere, for tests in which nobody looks at them."""
    return Manifest(root, "dolos", table_of(generators, num_each))
