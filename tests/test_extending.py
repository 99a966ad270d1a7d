"""One file of each kind is laid over a copy of the project, which is edited nowhere else, and everything has it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter

from tests.corpora import picture, write_image

pytestmark = [pytest.mark.slow, pytest.mark.long]
ROOT = Path(__file__).resolve().parents[1]
EXTENSIONS = ROOT / "examples" / "extensions"
PROJECT = [
    "analysis",
    "data",
    "docs",
    "grid",
    "models",
    "tests",
    "launch.py",
    "pyproject.toml",
    "requirements.lock",
    ".gitignore",
]
METHODS = ["patch_network", "mean_distance", "residual_linear"]
# Tests with one case per entry of a register
CONTRACTS = [
    "tests/analysis/test_parts.py",
    "tests/data/test_audits.py",
    "tests/data/test_conditions.py",
    "tests/data/test_sources.py",
    "tests/grid/test_tasks.py",
    "tests/models/test_contract.py",
    "tests/models/test_metrics.py",
]
# Fast tests of all entries, or all modules, together
OVER_EVERYTHING = ["tests/test_architecture.py", "tests/test_performance_page.py", "tests/test_registers.py"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for name in PROJECT:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(
            source, folder / name, **({"ignore": ignored} if source.is_dir() else {})
        )
    before = {path for path in folder.rglob("*") if path.is_file()}
    added = [path.relative_to(EXTENSIONS) for path in EXTENSIONS.rglob("*.py")]
    assert not {folder / path for path in added} & before  # nothing that exists is edited
    for path in added:
        shutil.copy(EXTENSIONS / path, folder / path)
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus in the new layout: photographs, and fakes with noise or a blur in their middle."""
    folder = tmp_path_factory.mktemp("pairs")
    rng, mask = np.random.default_rng(0), np.full((32, 32), 255, dtype=np.uint8)
    mask[8:24, 8:24] = 0
    for number in range(40):
        real = picture(f"{number}", 32)
        noisy, smooth = real.astype(int), real.copy()
        noisy[8:24, 8:24] += rng.integers(-40, 40, (16, 16, 3))
        smooth[8:24, 8:24] = np.array(Image.fromarray(real).filter(ImageFilter.GaussianBlur(3)))[8:24, 8:24]
        write_image(folder / f"{number:03d}-mask.png", mask)
        for maker, pixels in (("real", real), ("noisy", noisy.clip(0, 255).astype(np.uint8)), ("smooth", smooth)):
            write_image(folder / f"{number:03d}-{maker}.png", pixels)
    return folder


def call(project: Path, *words: object) -> str:
    """Run Python in the copy, with nothing of this checkout; returns what was printed."""
    environment = os.environ | {"PYTHONPATH": str(project), "COLUMNS": "200"}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def options(pairs: Path) -> list[object]:
    return ["--data", pairs, "--local", "--tasks", "detection,attribution,rejection", "--conditions", "mirror"]


@pytest.fixture(scope="module")
def grid(project: Path, pairs: Path) -> str:
    """What a small grid prints that uses one of everything."""
    return call(project, "launch.py", "pairs_small", *options(pairs))


@pytest.fixture(scope="module")
def report(project: Path, grid: str) -> Path:
    call(project, "-m", "analysis", "--no-log", "--cam-images", 2)
    return project / "report"


def table(report: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(report / "tables" / f"{name}.csv")


def test_a_corpus_an_experiment_an_audit_and_tasks(grid: str) -> None:
    assert "fewer than 100 test images of noisy (8), real (8), smooth (8); read the intervals" in grid
    # detection: 2 methods on each of 2 generators, 1 on none; 2 of attribution; rejection: 2 methods on all but one
    assert "11 trials, 0 finished before, 11 to run" in grid
    assert "AUROC of the certainty" in grid
    assert "failed" not in grid


def test_a_second_launch_finds_all_of_it_finished(project: Path, pairs: Path, grid: str) -> None:
    assert "all 11 trials are finished; nothing to run" in call(project, "launch.py", "pairs_small", *options(pairs))


def test_a_method_in_a_class_of_its_own_and_one_without_generators(report: Path) -> None:
    runs = table(report, "runs")
    assert set(runs["method"]) == set(METHODS)
    assert set(runs["state"]) == {"finished"}
    without = runs[runs["method"] == "mean_distance"]
    assert without[["task", "trained_on"]].values.tolist() == [["detection", "none"]]
    assert table(report, "matrix-mean_distance-auroc")["tested_on"].tolist() == ["smooth", "noisy"]
    summary = table(report, "summary").set_index("method")
    assert list(summary.index) == METHODS
    assert summary.loc["mean_distance", ["accuracy, in-domain", "attribution, overall"]].tolist() == ["none", "none"]


def test_a_metric_has_intervals_and_a_matrix(report: Path) -> None:
    for method in METHODS:
        cells = table(report, f"matrix-{method}-tpr")
        assert cells[["low", "mean", "high"]].notna().all(axis=None)
        assert (cells["low"] <= cells["high"]).all()
    page = (report / "index.html").read_text(encoding="utf-8")
    assert "true positive rate at 10 % false positives" in page


def test_a_condition_has_scores_and_a_section(report: Path) -> None:
    conditions = table(report, "conditions")
    assert set(conditions["condition"]) == {"clean", "mirror"}
    assert set(conditions["method"]) == set(METHODS)
    assert "Left and right exchanged" in (report / "index.html").read_text(encoding="utf-8")


def test_facts_of_the_corpus_are_used(report: Path) -> None:
    page = (report / "index.html").read_text(encoding="utf-8")
    assert "The splits follow from the photographs&#39; numbers." in page
    # the corpus' own order
    assert list(dict.fromkeys(table(report, "matrix-patch_network-accuracy")["tested_on"])) == ["smooth", "noisy"]


def test_a_section_of_the_report(report: Path) -> None:
    assert len(table(report, "most_certain")) == 5
    assert "Most certain</h2>" in (report / "index.html").read_text(encoding="utf-8")


def test_grad_cam_of_a_class_that_nobody_knows(report: Path) -> None:
    assert (report / "tables" / "localisation-patch_network-iou.csv").is_file()
    assert set(table(report, "localisation-images")["variant"]) == {"patch_network"}


def test_a_task(grid: str, report: Path) -> None:
    values = table(report, "rejection")
    assert values["rejection_auroc"].between(0, 1).all()
    # what is tested on is what is left out
    assert values[["trained on", "tested on"]].values.tolist() == [["smooth", "noisy"], ["noisy", "smooth"]] * 2


def test_a_command(project: Path, pairs: Path) -> None:
    printed = call(project, "launch.py", "facts", "pairs", "--data", pairs)
    assert printed.startswith("note: fewer than 100 test images of noisy (8)")
    assert "facts" in call(project, "launch.py", "--help")


def test_the_contracts_hold_for_all_of_it(project: Path) -> None:
    pytest_call = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
    names = ["mirror", "few_images", "pairs", "rejection", "patch_network", "mean_distance", "tpr", "most_certain"]
    listed = call(project, *pytest_call, "--co", *CONTRACTS)
    assert [name for name in names if not re.search(rf"[[-]{name}[]-]", listed)] == []
    call(project, *pytest_call, "-k", " or ".join(names), *CONTRACTS)
    call(project, *pytest_call, *OVER_EVERYTHING)
