"""The README's first command, with the values that it promises. Runs the demo unless it is finished already."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from analysis.__main__ import main
from analysis.matrices import class_table, cross_generator_matrix, matrix_means
from analysis.store import open_store
from data.demo.inpainters import list_inpainters
from grid.commands.run import read_data
from grid.experiments import load_experiment
from grid.options import resolve
from launch import parse_arguments

ROOT = Path(__file__).resolve().parents[2]
METHODS = list(load_experiment("demo").methods)
pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(900)]


def run() -> str:
    process = subprocess.run([sys.executable, "launch.py"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def results() -> pd.DataFrame:
    run()
    launch = resolve(parse_arguments([]))
    manifest = read_data(launch, Console(quiet=True))
    assert manifest is not None
    keys = [trial.key for trial in launch.trials(manifest)]
    table = open_store("demo", tracking_uri=launch.settings.tracking_uri, data=manifest.digest).results()
    return table[table["key"].isin(keys)]  # the same store may hold what somebody ran with other settings


def test_a_second_launch_runs_nothing_and_prints_every_table(results: pd.DataFrame) -> None:
    output = run()
    assert "all 25 trials are finished; nothing to run" in output
    assert " ".join(output.split()).count("rows: tested on, columns: trained on") == 5
    for method in METHODS:
        assert f"{method} [" in output
    assert "clip_linear [demo-vit-64, random weights, small form]" in " ".join(output.split())
    assert "sam_linear [demo, random weights, small form]" in " ".join(output.split())
    assert "mlflow ui" in output


@pytest.mark.parametrize("method", METHODS)
def test_every_matrix_is_whole(results: pd.DataFrame, method: str) -> None:
    matrix = cross_generator_matrix(results, method)
    assert matrix.shape == (4, 4)
    assert list(matrix.index) == list(matrix.columns) == list_inpainters()
    assert matrix.notna().all(axis=None)
    assert class_table(results, "attribution").loc[method].notna().all()


@pytest.mark.parametrize("method", ["xception_scratch", "xception_pretrained"])
def test_trained_methods_are_better_on_the_generator_that_they_know(results: pd.DataFrame, method: str) -> None:
    means = matrix_means(cross_generator_matrix(results, method))
    assert means.in_domain > means.cross_generator


def test_the_demo_can_be_learnt(results: pd.DataFrame) -> None:
    best = max(matrix_means(cross_generator_matrix(results, method)).in_domain for method in METHODS)
    assert best >= 0.85


def test_every_number_of_its_report_that_follows_from_scores_is_derived_again(
    results: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri, out = resolve(parse_arguments([])).settings.tracking_uri, str(tmp_path / "report")
    assert main(["--experiment", "demo", "--tracking-uri", uri, "--out", out, "--no-cam", "--no-log"]) == 0
    capsys.readouterr()
    assert main(["verify", out, "--tracking-uri", uri, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["counts"]["differ"] == 0
    assert found["counts"]["agree"] > 2 * found["counts"]["not_verified"]  # training curves are most of the rest
    reasons = {reason for line in found["report"] for reason, count in line["unverified"].items() if count}
    assert not [reason for reason in reasons if "no rule" in reason]
