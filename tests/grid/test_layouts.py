"""Each published layout goes its whole way: it is described, planned, and run small with real images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.verify.verify import verify
from tests.grid.command import Command, mlflow_runs
from tests.layouts import LAYOUTS, REAL, Layout

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.usefixtures("nothing_from_outside")

# Of each kind one: a tree, a list, real images that some generators share, generators that are only tested.
RUN_EACH_TIME = (
    "Dolos", "list.parquet", "UniversalFakeDetect beside a training tree", "AIGIBench", "nature and ai (GenImage)",
)  # fmt: skip
CHEAP = ("--methods", "residual_linear", "--tasks", "detection", "--limit", "4")


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_described_and_planned(command: Command, runs: Path, store: str, tmp_path: Path, name: str) -> None:
    layout: Layout = LAYOUTS[name]
    root = tmp_path / "x"
    root.mkdir()
    layout.draw(root)

    outcome = command("describe", root, *layout.words, *layout.corpora, "--json")
    assert outcome.status == 0, outcome.printed
    facts = json.loads(outcome.printed)
    assert facts["corpus"] == layout.corpus
    for label, expected in (("fake", layout.fakes), ("real", layout.reals)):
        found = {
            group["generator"] or REAL: tuple(group["images"].values())
            for group in facts["groups"]
            if group["label"] == label
        }
        assert found.keys() == expected.keys()
        for generator, counts in expected.items():
            train, valid, test = found[generator]
            assert (counts == (train + valid, -1, test) and valid > 0) if -1 in counts else counts == found[generator]
    assert facts["trained_on"] == layout.trained
    assert facts["only_tested"] == sorted(set(layout.fakes) - set(layout.trained))
    assert facts["only_trained"] == sorted(set(layout.fakes) - set(layout.tested))
    assert facts["white_means"] == layout.white
    assert (facts["pairs_looked_at"] > 0) == bool(layout.white)
    assert [text for text in facts["masks"] if "inverted" in text] == []
    for note in layout.notes:
        assert any(note in said for said in facts["notes"]), (note, facts["notes"])

    words = [layout.corpus, "--data", root, *layout.words, *layout.launched, *CHEAP, "--local"]
    plan = command(*words, "--plan", "--json")
    assert plan.status == 0, plan.printed
    assert sorted("+".join(trial["trained_on"]) for trial in plan.trials) == layout.trained


@pytest.mark.parametrize(
    "name", [name if name in RUN_EACH_TIME else pytest.param(name, marks=pytest.mark.long) for name in LAYOUTS]
)
def test_a_layout_is_run_small(command: Command, runs: Path, store: str, tmp_path: Path, name: str) -> None:
    layout: Layout = LAYOUTS[name]
    root = tmp_path / "x"
    root.mkdir()
    layout.draw(root)
    ran = command(layout.corpus, "--data", root, *layout.words, *layout.launched, *CHEAP, "--local")
    assert ran.status == 0, ran.printed
    done = mlflow_runs(runs, "trial", layout.corpus)
    assert [run.info.status for run in done] == ["FINISHED"] * len(layout.trained)
    for run in done:
        tested = [name for name in run.data.metrics if name.startswith("test/") and name.endswith("/auroc")]
        assert sorted(metric.split("/")[1] for metric in tested) == layout.tested


def test_cells_of_shared_real_images_are_derived_again_from_the_export(
    command: Command, runs: Path, store: str, tmp_path: Path
) -> None:
    root = tmp_path / "x"
    LAYOUTS["UniversalFakeDetect beside a training tree"].draw(root)
    assert command("folders", "--data", root, "--methods", "residual_linear", "--local").status == 0
    grid = ["--experiment=folders", f"--tracking-uri={store}"]
    assert main([*grid, f"--out={tmp_path / 'report'}", "--no-log"]) == 0
    assert main(["export", str(tmp_path / "export"), *grid, f"--report={tmp_path / 'report'}"]) == 0
    checked = verify(tmp_path / "export")
    assert [str(difference) for difference in checked.differences] == []
    table = pd.read_csv(tmp_path / "export/manifest.csv")
    tested = table[(table["split"] == "test") & (table["label"] == 0)]
    assert tested.groupby("generator")["path"].agg(lambda paths: {path.split("/")[1] for path in paths}).to_dict() == {
        "biggan": {"test"}, "guided": {"imagenet"}, "dalle+ldm_200": {"laion"},
    }  # fmt: skip


@pytest.mark.long
def test_the_real_command_line_runs_a_layout_on_ray(tmp_path: Path) -> None:
    root = tmp_path / "x"
    layout = LAYOUTS["IMDL-BenCo's pairs (BR-Gen)"]
    root.mkdir()
    layout.draw(root)
    words = [
        layout.corpus,
        "--data",
        str(root),
        *layout.words,
        *CHEAP,
        "--num-cpus",
        "1",
        "--runs",
        str(tmp_path / "r"),
    ]
    ran = subprocess.run([sys.executable, "launch.py", *words], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert {run.info.status for run in mlflow_runs(tmp_path / "r", "trial", "manifest")} == {"FINISHED"}
