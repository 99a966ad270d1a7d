"""The command line and the layout of --data: whole archives, and folders that another experiment is about."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grid import names
from grid.options import resolve
from launch import parse_arguments
from tests.corpora import write_archive, write_dolos, write_folders
from tests.grid.command import Command, mlflow_runs
from tests.grid.grids import SIDE

pytestmark = pytest.mark.usefixtures("nothing_from_outside")

CHEAP = ("--methods", "residual_linear", "--local")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plain folders whose names restart in each split; read them only."""
    folders = {f"{split}/{g}/{c}": 4 for split in ("train", "val", "test") for g in "ab" for c in ("0_real", "1_fake")}
    return write_folders(tmp_path_factory.mktemp("plain") / "x", folders, SIDE)


# The whole archive of Dolos ------------------------------------------------------------------------------------------


def test_the_archive_plans_and_runs_the_published_experiment(
    command: Command, runs: Path, store: str, tmp_path: Path
) -> None:
    write_archive(tmp_path / "above" / "wacv_data", {"train": 3, "valid": 2, "test": 2}, SIDE)
    arguments = ("dolos", "--data", tmp_path / "above")
    plan = command(*arguments, "--plan")
    assert plan.status == 0
    assert "45 trials, 0 finished before, 45 to run" in plan.text
    assert "note: not part of the experiment unless --generators names them: p2, repaint-p2;" in plan.text
    ran = command(*arguments, *CHEAP, "--tasks", "attribution")
    assert ran.status == 0
    (run,) = mlflow_runs(runs, "trial")
    assert run.info.status == "FINISHED"
    assert run.data.tags[names.TRAIN_GENERATORS] == "lama+ldm+pluralistic+repaint"
    asked = command(*arguments, *CHEAP, "--tasks", "attribution", "--generators", "lama,repaint-p2,p2")
    assert asked.status == 0
    trained = {run.data.tags[names.TRAIN_GENERATORS] for run in mlflow_runs(runs, "trial")}
    assert trained == {"lama+ldm+pluralistic+repaint", "lama+p2+repaint-p2"}


# Names ---------------------------------------------------------------------------------------------------------------


def test_names_that_mlflow_refuses_are_refused_before_pixels_are_measured(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {f"{split}/sd (v1.5)/{c}": 4 for split in ("train", "val", "test") for c in ("0_real", "1_fake")}
    root = write_folders(tmp_path / "x", folders, SIDE)
    measured: list[object] = []
    monkeypatch.setattr("data.measure.measure", lambda *_, **__: measured.append(1))
    outcome = command("folders", "--data", root, "--names-per-split", *CHEAP)
    assert outcome.status == 2
    assert "rename these generators' folders: 'sd (v1.5)'" in outcome.text
    assert measured == []


# Another experiment's folder -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("--plan",), ("demo",), ("run", "demo"), ("--limit", "2")])
def test_photographs_are_not_taken_for_the_demo_and_the_experiment_that_fits_is_named(
    command: Command, obvious: Path, plain: Path, runs: Path, arguments: tuple[str, ...]
) -> None:
    for root, fits in ((obvious, "dolos"), (plain, "folders")):
        outcome = command(*arguments, "--data", root, *CHEAP)
        assert outcome.status == 2
        assert "the experiment is demo, which draws its own images" in outcome.text
        assert f"has the layout of {fits}: python launch.py {fits} --data {root}" in outcome.text
    assert not runs.exists()


def test_where_no_layout_is_recognised_every_experiment_is_named(command: Command, tmp_path: Path, runs: Path) -> None:
    (tmp_path / "my data").mkdir()
    outcome = command("--data", tmp_path / "my data")
    assert outcome.status == 2
    assert f"name the experiment: python launch.py benco --data '{tmp_path / 'my data'}' or python" in outcome.text
    assert f"or python launch.py folders --data '{tmp_path / 'my data'}'" in outcome.text
    bucket = command("--data", "s3://me:secret@bucket/folder")
    assert bucket.status == 2
    assert "name the experiment: python launch.py benco --data s3://bucket/folder" in bucket.text
    nowhere = command("--data", tmp_path / "nowhere")
    assert nowhere.status == 2
    assert "does not exist or is not a folder" in nowhere.text
    assert not runs.exists()


def test_the_demos_own_images_may_be_anywhere(command: Command, tmp_path: Path) -> None:
    root = write_dolos(tmp_path / "moved", size=SIDE)
    assert command("demo", "--data", root, *CHEAP, "--plan").status == 2
    (root / "README.txt").write_text("Synthetic demo data, drawn by this project (demo-v1).\n")
    assert command("demo", "--data", root, *CHEAP, "--plan").status == 0


@pytest.mark.parametrize("options", [(), ("--plan",), ("--skip-bad",)])
def test_a_folder_in_the_layout_of_another_corpus_is_named_as_such(
    command: Command, obvious: Path, plain: Path, runs: Path, options: tuple[str, ...]
) -> None:
    for root, asked, fits in ((obvious, "folders", "dolos"), (plain, "dolos", "folders")):
        outcome = command(asked, "--data", root, *CHEAP, *options)
        assert outcome.status == 2
        assert f"{root} has the layout of {fits}, not of {asked}: python launch.py {fits} --data {root}" in outcome.text
    assert not runs.exists()


def test_the_status_without_a_name_says_which_experiments_there_are(dolos: Command, command: Command) -> None:
    dolos(*CHEAP[:2], "--tasks", "attribution", "--experiment-name", "my own")
    for arguments in (("--status",), ("status",)):
        outcome = command(*arguments)
        assert outcome.status == 2
        assert (
            "or its images are still being read. Give one that the store has: --experiment-name 'my own'"
            in outcome.text
        )


# Names that restart in each split ------------------------------------------------------------------------------------


def test_names_that_restart_in_each_split_are_an_option_of_every_later_launch(
    command: Command, runs: Path, store: str, plain: Path
) -> None:
    arguments = ("folders", "--data", plain, *CHEAP, "--tasks", "attribution")
    refused = command(*arguments)
    assert refused.status == 2
    assert "give --names-per-split" in refused.text
    assert command(*arguments, "--names-per-split").status == 0
    (grid,) = mlflow_runs(runs, "grid", "folders")
    assert grid.data.tags[names.OPTIONS] == "--names-per-split --local"
    launched = resolve(parse_arguments(["folders", *grid.data.tags[names.OPTIONS].split()]))
    assert launched.options.names_per_split
    profile = json.loads(grid.inputs.dataset_inputs[0].dataset.profile)
    assert (profile["num_rows"], profile["generators"]) == (48, ["a", "b"])
