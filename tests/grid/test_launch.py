"""The command line, in this process: what it runs, prints, leaves behind and refuses."""

from __future__ import annotations

import errno
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from mlflow.tracking import MlflowClient
from PIL import Image
from rich.console import Console

import launch
from analysis.matrices import class_table, cross_generator_matrix
from analysis.store import open_store
from data.conditions import Picture, register_condition
from grid import names, runner
from grid.commands import run as run_command
from grid.options import resolve
from grid.plan import Work
from grid.progress import GridProgress
from grid.records import StoreError
from grid.runner import DONE, FAILED, STARTED, TrialEvent
from grid.settings import RunSettings
from grid.spec import TrialSpec
from grid.tasks import DETECTION
from grid.tracking import Tracker
from models.registry import list_detectors
from tests.analysis import published
from tests.corpora import write_dolos, write_folders
from tests.grid.command import Command, mlflow_runs
from tests.grid.grids import SIDE, make_spec, planted_result, work_of
from tests.grid.running import Calls

pytestmark = pytest.mark.usefixtures("nothing_from_outside")

ROOT = Path(launch.__file__).parent
TINY = ("--set", "xception_scratch.backbone=test_resnet", "--set", f"xception_scratch.size={SIDE}")


@pytest.fixture
def images(obvious: Path) -> Path:
    return obvious


# Running -------------------------------------------------------------------------------------------------------------


def test_a_grid_of_two_methods_runs_and_a_second_launch_only_prints_it_again(
    dolos: Command, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--methods", "residual_linear,xception_scratch", *TINY)
    first = dolos(*arguments)
    assert first.status == 0
    assert "6 trials, 0 finished before, 6 to run" in first.text
    assert "6/6 done" in first.text
    finished = mlflow_runs(runs, "trial")
    assert [run.info.status for run in finished] == ["FINISHED"] * 6

    def nothing(*arguments: Any, **named: Any) -> None:
        raise AssertionError("a trial was computed again")

    monkeypatch.setattr(runner, "execute", nothing)
    monkeypatch.setattr(runner, "prepare_input", nothing)
    second = dolos(*arguments)
    assert second.status == 0
    assert "all 6 trials are finished; nothing to run" in second.text
    assert len(mlflow_runs(runs, "trial")) == 6
    tables = first.printed[first.printed.index("residual_linear [") :]
    assert "rows: tested on, columns: trained on" in tables
    assert "xception_scratch [random weights]" in tables
    assert "attribution: accuracy over all classes" in tables
    assert tables in second.printed


def test_a_store_is_made_on_the_first_launch(command: Command, images: Path, runs: Path) -> None:
    arguments = ("--local", "--methods", "residual_linear", "--tasks", "attribution")
    outcome = command("dolos", "--data", images, *arguments)
    assert outcome.status == 0
    assert (runs / "mlflow.db").is_file()
    assert f"ui --backend-store-uri sqlite:///{runs / 'mlflow.db'}" in outcome.printed.replace("\n", "")


def test_the_command_that_shows_the_results_can_be_copied(
    images: Path, tmp_path: Path, new_store: Callable[[Path], str], capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "my runs"
    uri = new_store(runs)
    arguments = ("--local", "--methods", "residual_linear", "--tasks", "attribution")
    assert launch.main(["dolos", "--data", str(images), "--runs", str(runs), *arguments]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("MLflow UI:"))
    assert shlex.split(line)[2:] == [str(Path(sys.executable).with_name("mlflow")), "ui", "--backend-store-uri", uri]


def test_more_seeds_run_what_is_new_and_nothing_else(dolos: Command, runs: Path) -> None:
    arguments = ("--methods", "residual_linear", "--tasks", "detection")
    dolos(*arguments)
    outcome = dolos(*arguments, "--seeds", "0", "1")
    assert "4 trials, 2 finished before, 2 to run" in outcome.text
    assert "seeds: 0, 1" in outcome.text
    assert len(mlflow_runs(runs, "trial")) == 4
    assert len(mlflow_runs(runs, "grid")) == 1


def test_another_configuration_is_another_trial(dolos: Command, runs: Path) -> None:
    arguments = ("--methods", "residual_linear", "--tasks", "attribution")
    dolos(*arguments)
    assert "1 trials, 0 finished before, 1 to run" in dolos(*arguments, "--set", "residual_linear.l2=0.5").text


def test_training_on_some_generators_tests_on_all(dolos: Command, runs: Path) -> None:
    dolos("--methods", "residual_linear", "--tasks", "detection", "--train-on", "ldm")
    (run,) = mlflow_runs(runs, "trial")
    assert run.data.tags[names.TRAIN_GENERATORS] == "ldm"
    assert {"test/lama/accuracy", "test/ldm/accuracy"} <= run.data.metrics.keys()


def test_training_sets_are_of_detection_and_each_is_run_once(dolos: Command, runs: Path) -> None:
    outcome = dolos("--methods", "residual_linear", "--train-on", "each,all,lama")
    assert "4 trials, 0 finished before, 4 to run" in outcome.text
    found = sorted(
        (run.data.tags[names.TASK], run.data.tags[names.TRAIN_GENERATORS]) for run in mlflow_runs(runs, "trial")
    )
    assert found == [
        ("attribution", "lama+ldm"),
        ("detection", "lama"),
        ("detection", "lama+ldm"),
        ("detection", "ldm"),
    ]
    heading = outcome.printed[outcome.printed.index("residual_linear [") :].splitlines()[1:6]
    assert ["lama", "ldm", "lama+ldm"] in [line.split() for line in heading]
    # of two generators, all but one are the other, which is there already
    again = dolos("--methods", "residual_linear", "--train-on", "all-but-one", "--plan")
    assert "3 trials, 0 to run" in again.text


def test_a_choice_of_generators_takes_part_in_training_and_tests_and_this_is_said(
    dolos: Command, runs: Path, images: Path
) -> None:
    arguments = ("--methods", "residual_linear", "--generators", "ldm")
    outcome = dolos(*arguments, "--tasks", "detection")
    assert outcome.status == 0
    assert "note: only ldm take part, in training and in tests; to train on these and test on every generator" in (
        outcome.text
    )
    assert "give --train-on ldm in place of --generators" in outcome.text
    (run,) = mlflow_runs(runs, "trial")
    assert {name.split("/")[1] for name in run.data.metrics if name.startswith("test/")} == {"ldm"}
    (grid,) = mlflow_runs(runs, "grid")
    assert grid.data.tags[names.OPTIONS] == "--generators ldm --local"
    # other images are another data set, and so another grid with keys of its own
    assert "2 trials, 2 to run" in dolos("--methods", "residual_linear", "--tasks", "detection", "--plan").text


def test_a_choice_of_generators_with_training_sets_is_what_was_asked_for(dolos: Command) -> None:
    outcome = dolos("--methods", "residual_linear", "--generators", "ldm,lama", "--train-on", "all", "--plan")
    assert "2 trials, 2 to run" in outcome.text
    assert "take part" not in outcome.text


def test_a_failed_trial_gives_status_1_and_is_told_with_its_reason(dolos: Command, runs: Path) -> None:
    arguments = ("--methods", "residual_linear,xception_scratch", "--tasks", "attribution", *TINY)
    outcome = dolos(*arguments, "--set", "xception_scratch.learning_rate=1e30", "--set", "xception_scratch.epochs=2")
    assert outcome.status == 1
    assert "TrainingDiverged" in outcome.text
    assert "1 of 2 trials failed; MLflow has what went wrong" in outcome.text
    assert "residual_linear" in outcome.text.partition("attribution: accuracy")[2]
    assert sorted(run.info.status for run in mlflow_runs(runs, "trial")) == ["FAILED", "FINISHED"]
    assert [run.info.status for run in mlflow_runs(runs, "grid")] == ["FAILED"]


FULL = [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("(sqlite3.OperationalError) disk is full")]


@pytest.mark.parametrize("error", FULL, ids=["system", "sqlite"])
def test_a_full_disk_is_an_error_with_a_remedy(
    dolos: Command, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*arguments: Any) -> None:
        raise ValueError("something else") from error

    monkeypatch.setattr(run_command, "run_pending", full)
    outcome = dolos("--methods", "residual_linear")
    assert outcome.status == 2
    assert "a disk is full" in outcome.text
    assert "the same command goes on" in outcome.text


def test_another_error_is_not_taken_for_a_full_disk(dolos: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(run_command, "run_pending", broken)
    with pytest.raises(OSError, match="Input/output error"):
        dolos("--methods", "residual_linear")


def test_a_grid_that_somebody_else_runs_is_refused_and_left_alone(
    dolos: Command, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(tracker: Tracker) -> None:
        raise StoreError("this grid is being run by ada on node7")

    monkeypatch.setattr(Tracker, "claim", busy)
    outcome = dolos("--methods", "residual_linear")
    assert outcome.status == 2
    assert "run by ada on node7" in outcome.text
    assert mlflow_runs(runs, "trial") == []
    assert [run.info.status for run in mlflow_runs(runs, "grid")] == ["RUNNING"]  # it is, only not by us


def test_an_interrupted_grid_says_so_and_the_same_command_ends_it(
    dolos: Command, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute, count = runner.execute, []

    def interrupted(work: Work, settings: RunSettings, tracker: Tracker, **more: Any) -> None:
        count.append(work)
        if len(count) == 2:
            tracker.open_trial(work.spec, {})
            signal.raise_signal(signal.SIGTERM)
        execute(work, settings, tracker, **more)

    arguments = ("--methods", "residual_linear")
    with monkeypatch.context() as patched:
        patched.setattr(runner, "execute", interrupted)
        outcome = dolos(*arguments)
    assert outcome.status == 130
    assert "the same command goes on from here" in outcome.text
    assert sorted(run.info.status for run in mlflow_runs(runs, "trial")) == ["FINISHED", "KILLED"]
    outcome = dolos(*arguments)
    assert outcome.status == 0
    assert "3 trials, 1 finished before, 2 to run" in outcome.text
    assert [run.info.status for run in mlflow_runs(runs, "trial")] == ["FINISHED"] * 3


def test_bad_files_are_refused_or_left_out_and_counted(
    command: Command, runs: Path, store: str, tmp_path: Path
) -> None:
    root = write_dolos(tmp_path / "dolos", size=SIDE)
    (root / "celebahq" / "real" / "train" / "00001.png").write_bytes(b"not a picture")
    arguments = ("dolos", "--data", root, "--local", "--methods", "residual_linear", "--tasks", "attribution")
    refused = command(*arguments)
    assert refused.status == 2
    assert "00001.png" in refused.text
    assert "--skip-bad" in refused.text
    assert mlflow_runs(runs, "grid") == []
    taken = command(*arguments, "--skip-bad", "--limit", "500")
    assert taken.status == 0
    assert "left out: 1 bad files; recorded in MLflow" in taken.text
    (grid,) = mlflow_runs(runs, "grid")
    assert grid.data.tags[names.SKIPPED] == "1"
    assert grid.data.tags[names.OPTIONS] == "--limit 500 --skip-bad --local"
    assert grid.data.tags[names.EXPERIMENT] == "dolos"


# Conditions ----------------------------------------------------------------------------------------------------------

TOY = "toy-flip"  # a condition of these tests


class Toy:
    """Whether the condition `toy-flip` raises."""

    broken = False


@pytest.fixture(scope="module")
def toy() -> type[Toy]:
    """The condition `toy-flip`, which stays registered."""

    @register_condition(TOY)
    def flip(picture: Picture) -> np.ndarray:
        """Upside down."""
        if Toy.broken:
            raise RuntimeError("the toy is broken")
        return picture.pixels[::-1]

    return Toy


def test_a_finished_grid_is_scored_under_one_more_condition_without_training(
    dolos: Command, runs: Path, calls: Calls
) -> None:
    arguments = ("--methods", "residual_linear,xception_scratch", *TINY)
    first = dolos(*arguments)
    assert len(calls.fits) == 6
    clean = {run.info.run_id: run.data.metrics for run in mlflow_runs(runs, "trial")}
    calls.predicted.clear()

    outcome = dolos(*arguments, "--conditions", "jpeg-75")
    assert outcome.status == 0
    assert len(calls.fits) == 6
    assert calls.predicted == [18] * 6
    assert "6 trials, 6 finished before, 0 to run, 6 to score under further conditions" in outcome.text
    assert "6/6 done detection xception_scratch/ldm/seed0 under jpeg-75" in outcome.text
    for run in mlflow_runs(runs, "trial"):
        assert run.data.tags[names.CONDITIONS] == "jpeg-75"
        assert run.data.metrics.items() >= clean[run.info.run_id].items()
        new = run.data.metrics.keys() - clean[run.info.run_id].keys()
        assert {name.split("/")[0] for name in new} == {"test.jpeg-75"}
        assert {name.replace("test.jpeg-75/", "test/") for name in new} == {
            name for name in clean[run.info.run_id] if name.startswith("test/")
        }
    (grid,) = mlflow_runs(runs, "grid")
    assert (grid.data.tags[names.CONDITIONS], grid.info.status) == ("jpeg-75", "FINISHED")
    # the tables of clean pictures are the same, and those under the condition are beside them
    tables = [line for line in first.printed[first.printed.index("residual_linear [") :].splitlines() if "0." in line]
    assert [line for line in tables if line not in outcome.printed] == []
    assert "residual_linear [weight-free] under jpeg-75: accuracy (AUROC)" in outcome.text

    again = dolos(*arguments, "--conditions", "jpeg-75")
    assert "all 6 trials are finished; nothing to run" in again.text
    assert (len(calls.fits), len(calls.predicted)) == (6, 6)


def test_a_plan_and_the_status_say_what_is_still_to_be_scored(dolos: Command, command: Command, runs: Path) -> None:
    arguments = ("--methods", "residual_linear", "--tasks", "detection")
    dolos(*arguments)
    plan = dolos(*arguments, "--conditions", "jpeg-75,jpeg-50", "--plan")
    assert "2 trials, 2 to run" in plan.text
    assert [row[3] for row in plan.rows[1:]] == ["finished; to score: jpeg-75, jpeg-50"] * 2
    dolos(*arguments, "--conditions", "jpeg-75", "--train-on", "lama")
    plan = dolos(*arguments, "--conditions", "jpeg-75", "--plan")
    assert "2 trials, 1 to run" in plan.text
    assert [row[3] for row in plan.rows[1:]] == ["finished", "finished; to score: jpeg-75"]
    # the grid was asked for jpeg-75, and one of its trials lacks it
    status = command("status", "dolos")
    assert [row[2:] for row in status.rows[1:]] == [["finished", ""], ["finished; to score: jpeg-75", ""]]
    assert "1 finished, 1 finished; to score: jpeg-75 of 2" in status.text


def test_a_condition_that_fails_is_told_kept_out_of_the_tables_and_tried_again(
    dolos: Command, command: Command, runs: Path, calls: Calls, toy: type[Toy], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--methods", "xception_scratch", "--tasks", "attribution", *TINY, "--conditions", TOY)
    with monkeypatch.context() as patched:
        patched.setattr(toy, "broken", True)
        outcome = dolos(*arguments)
    assert outcome.status == 1
    assert f"ValueError: condition {TOY} failed on " in outcome.text
    assert "RuntimeError('the toy is broken')" in outcome.text
    assert "1 of 1 trials failed" in outcome.text
    assert "attribution: accuracy over all classes" in outcome.text  # of clean pictures
    (run,) = mlflow_runs(runs, "trial")
    assert run.info.status == "FINISHED"
    error = run.data.tags[names.CONDITION_ERROR]
    assert error.startswith(f"{TOY}: ValueError: condition {TOY} failed on ")
    assert error.endswith(".png: RuntimeError('the toy is broken')")
    (row,) = command("status", "dolos").rows[1:]
    assert row[2] == f"finished; to score: {TOY}"
    assert row[3].startswith(error[:40])  # the middle of a long line is cut
    assert row[3].endswith("RuntimeError('the toy is broken')")
    outcome = dolos(*arguments)
    assert outcome.status == 0
    assert "1 trials, 1 finished before, 0 to run, 1 to score under further conditions" in outcome.text
    assert len(calls.fits) == 1
    assert "1 finished of 1" in command("status", "dolos").text


def test_training_under_a_condition_is_another_grid_of_trials_beside_the_clean_one(
    dolos: Command, runs: Path, calls: Calls
) -> None:
    arguments = ("--methods", "residual_linear", "--tasks", "detection")
    dolos(*arguments)
    outcome = dolos(*arguments, "--train-condition", "jpeg-95")
    assert "2 trials, 0 finished before, 2 to run" in outcome.text
    assert len(calls.fits) == 4
    found = mlflow_runs(runs, "trial")
    assert sorted(run.data.tags.get(names.TRAIN_CONDITION, "") for run in found) == ["", "", "jpeg-95", "jpeg-95"]
    assert len(mlflow_runs(runs, "grid")) == 1
    again = dolos(*arguments, "--train-condition", "jpeg-95")
    assert "all 2 trials are finished" in again.text
    assert dolos(*arguments).text.count("all 2 trials are finished") == 1


# Stores --------------------------------------------------------------------------------------------------------------


def test_a_store_with_options_in_its_address_is_found_again(
    command: Command, images: Path, runs: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{store}?timeout=60")
    arguments = ("dolos", "--data", images, "--methods", "residual_linear", "--tasks", "detection", "--local")
    first = command(*arguments)
    assert first.status == 0
    assert "2 trials, 0 finished before, 2 to run" in first.text
    plan = command(*arguments, "--plan")
    assert "2 trials, 0 to run" in plan.text
    second = command(*arguments)
    assert second.status == 0
    assert "all 2 trials are finished; nothing to run" in second.text
    for status in (command("dolos", "--status"), command("status", "dolos")):
        assert status.status == 0
        assert "2 finished of 2" in status.text
    assert sorted(path.name for path in runs.iterdir()) == ["artifacts", "cache", "mlflow.db"]
    # without the options it is the same store
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert "all 2 trials are finished" in command(*arguments).text


def test_a_new_store_with_options_in_its_address_is_made_where_it_says(
    command: Command, images: Path, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'new.db'}?timeout=60")
    arguments = ("dolos", "--data", images, "--methods", "residual_linear", "--tasks", "attribution", "--local")
    assert command("status", "dolos").status == 2  # nothing there yet, and looking makes nothing
    assert not (tmp_path / "new.db").exists()
    assert command(*arguments).status == 0
    assert (tmp_path / "new.db").is_file()
    assert not (runs / "mlflow.db").exists()
    assert len(list((runs / "artifacts").glob(f"*/artifacts/{names.SCORES}"))) == 1


def test_a_folder_with_a_question_mark_is_refused_with_what_to_do_before_anything_is_made(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "q?x" / "runs"
    arguments = ["dolos", "--data", str(images), "--runs", str(runs), "--methods", "residual_linear", "--local"]
    assert launch.main(arguments) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "must not contain a question mark" in said
    assert "Choose another folder with --runs, or name another store with MLFLOW_TRACKING_URI" in said
    assert list(tmp_path.iterdir()) == []
    assert launch.main(["status", "dolos", "--runs", str(runs)]) == 2
    assert "must not contain a question mark" in " ".join(capsys.readouterr().out.split())
    assert list(tmp_path.iterdir()) == []


# A whole grid, with planted results ----------------------------------------------------------------------------------


@dataclass
class PlantingExecutor:
    """Computes nothing: a trial's result is what was published."""

    settings: RunSettings
    tracker: Tracker
    ran: ClassVar[list[TrialSpec]] = []

    def prepare(self, work: Sequence[Work], progress: Callable[[str, int, int], None]) -> None:
        progress("nothing", 1, 1)

    def run(self, work: Sequence[Work], watch: Callable[[TrialEvent], None]) -> None:
        for spec in (one.spec for one in work):
            self.ran.append(spec)
            watch(TrialEvent(spec.key, STARTED))
            if spec.task == DETECTION:
                (source,) = spec.train_generators
                cells = {
                    generator: published.accuracy(spec.method, tested_on=generator, trained_on=source)
                    for generator in published.GENERATORS
                }
                result = planted_result(spec, cells, 1000)
            else:
                result = planted_result(spec, published.ATTRIBUTION[spec.method], 10_000)
            result.finish(self.tracker.open_trial(spec, {}), ROOT / "docs" / "no checkpoint")
            watch(TrialEvent(spec.key, DONE))


def test_the_published_grid_comes_out_of_mlflow_as_it_went_in(
    command: Command, runs: Path, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "LocalExecutor", PlantingExecutor)
    monkeypatch.setattr(PlantingExecutor, "ran", [])
    generators = ("lama", "ldm", "pluralistic", "repaint-p2-9k")
    root = write_dolos(tmp_path / "dolos", generators, {"train": 1, "valid": 1, "test": 1})
    small = {
        "xception_scratch": "backbone=test_resnet",
        "xception_pretrained": "backbone=test_resnet",
        "clip_linear": "backbone=demo-vit-64",
        "sam_linear": "backbone=demo",
    }
    arguments = ["dolos", "--data", str(root), "--local", "--methods", ",".join(small)]
    for method, setting in small.items():
        arguments += ["--set", f"{method}.{setting}", "--weights", f"{method}=random"]

    first = command(*arguments)
    assert first.status == 0
    assert "20 trials, 0 finished before, 20 to run" in first.text
    assert len({spec.key for spec in PlantingExecutor.ran}) == len(PlantingExecutor.ran) == 20

    opened = open_store("dolos", tracking_uri=f"sqlite:///{runs / 'mlflow.db'}")
    results = opened.results()
    for method, table in published.DETECTION.items():
        matrix = cross_generator_matrix(results, method, generators=opened.generators)
        assert tuple(matrix.index) == tuple(matrix.columns) == published.GENERATORS
        for tested_on, accuracies in table.items():
            assert matrix.loc[tested_on].tolist() == pytest.approx(accuracies, abs=1e-12)
        in_domain, cross = published.MEANS[method]
        block = first.text[first.text.index(f"{method} [random weights]: accuracy") :]
        assert f"accuracy: in-domain mean {in_domain:.3f}, cross-generator mean {cross:.3f}" in block
    attribution = class_table(results, "attribution")
    for method, classes in published.ATTRIBUTION.items():
        assert attribution.loc[method, list(classes)].tolist() == pytest.approx(list(classes.values()), abs=1e-12)
        assert attribution.loc[method, "overall"] == pytest.approx(published.OVERALL[method], abs=1e-4)

    again = command(*arguments)
    assert again.status == 0
    assert "all 20 trials are finished; nothing to run" in again.text
    assert len(PlantingExecutor.ran) == 20
    assert "in-domain mean 0.929, cross-generator mean 0.713" in again.text


@pytest.mark.usefixtures("store")
def test_a_launch_that_trained_a_network_leaves_standard_error_empty(images: Path, runs: Path) -> None:
    command = [sys.executable, "launch.py", "dolos", "--local", "--data", str(images), "--runs", str(runs)]
    command += ["--methods", "xception_scratch", "--tasks", "attribution", *TINY]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "1 to run" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")


# Planning and following ----------------------------------------------------------------------------------------------


def test_a_plan_lists_every_trial_and_starts_nothing(dolos: Command, runs: Path) -> None:
    outcome = dolos("--plan")
    assert outcome.status == 0
    assert "15 trials, 15 to run" in outcome.text
    assert outcome.printed.count("pending") == 15
    assert not (runs / "cache" / "pixels").exists()
    assert not (runs / "cache" / "features").exists()
    assert not (runs / "tune").exists()
    assert not (runs / "artifacts").exists()
    assert mlflow_runs(runs, "grid") == mlflow_runs(runs, "trial") == []


def test_a_plan_shows_what_each_trial_would_ask_for(command: Command, images: Path) -> None:
    arguments = ("dolos", "--data", images, "--plan", "--tasks", "attribution")

    def rows(*more: str) -> dict[str, list[str]]:
        """First cell of a row that is not the same in all -> those that say what is asked for."""
        return {row[1].partition("/")[0]: row[4:] for row in command(*arguments, *more).rows}

    plain = rows("--methods", "residual_linear,clip_linear")
    assert plain == {"trial": ["GPU share", "CPU cores"], "residual_linear": ["0", "1"], "clip_linear": ["0.25", "1"]}
    asked = rows(
        "--methods", "residual_linear,clip_linear,sam_linear", "--memory-per-trial", "6", "--set",
        "sam_linear.memory=40", "--accelerator", "T4", "--set", "sam_linear.accelerator=A100", "--set",
        "clip_linear.gpu_memory=4", "--set", "sam_linear.gpus=1",
    )  # fmt: skip
    assert asked == {
        "trial": ["GPU share", "GPU type", "GPU GB", "CPU cores", "memory GB"],
        "residual_linear": ["0", "", "", "1", "6"],
        "clip_linear": ["0.25", "T4", "4", "1", "6"],
        "sam_linear": ["1", "A100", "", "1", "40"],
    }


def test_a_plan_makes_no_store(command: Command, images: Path, runs: Path) -> None:
    assert command("dolos", "--data", images, "--plan").status == 0
    assert not (runs / "mlflow.db").exists()


def test_a_plan_of_a_demo_that_is_not_drawn_draws_nothing(command: Command, runs: Path) -> None:
    outcome = command("--plan")
    assert outcome.status == 0
    assert "run without --plan to draw them" in outcome.text
    assert not runs.exists()


def test_a_plan_knows_what_is_finished(dolos: Command) -> None:
    dolos("--methods", "residual_linear", "--tasks", "attribution")
    outcome = dolos("--methods", "residual_linear", "--plan")
    assert "3 trials, 2 to run" in outcome.text
    assert (outcome.printed.count("finished"), outcome.printed.count("pending")) == (1, 2)


def test_the_status_counts_what_is_finished_failed_and_pending(dolos: Command, command: Command) -> None:
    arguments = ("--methods", "residual_linear,xception_scratch", "--tasks", "attribution", *TINY)
    dolos(*arguments, "--set", "xception_scratch.learning_rate=1e30", "--set", "xception_scratch.epochs=2")
    outcome = command("dolos", "--status")  # no data folder is needed for that
    assert outcome.status == 0
    assert "1 failed, 1 finished of 2" in outcome.text
    assert "TrainingDiverged" in outcome.text


def test_the_status_shows_the_latest_figures_of_what_is_running(
    dolos: Command, command: Command, store: str, runs: Path
) -> None:
    dolos("--methods", "residual_linear", "--tasks", "attribution")
    (grid,) = mlflow_runs(runs, "grid")
    tracker = Tracker(store, grid.info.experiment_id, grid.info.run_id, {})
    planned = [TrialSpec.from_dict(fields) for fields in tracker.records.plan(grid).values()]
    other = make_spec(planned[0].data, seed=7)
    tracker.client.log_dict(
        grid.info.run_id,
        {"trials": [spec.to_dict() | {"key": spec.key} for spec in (*planned, other)]},
        names.PLAN,
    )
    tracker.open_trial(other, {}).log_epoch(3, {"train/loss": 0.25, "learning_rate": 1e-3})
    outcome = command("dolos", "--status")
    assert "1 finished, 1 running of 2" in outcome.text
    assert "train/loss 0.250" in outcome.text


@pytest.mark.parametrize("arguments", [("folders", "--status"), ("status", "folders")])
def test_the_status_of_what_was_never_launched_is_bad_input(
    command: Command, store: str, arguments: tuple[str, ...]
) -> None:
    outcome = command(*arguments)
    assert outcome.status == 2
    assert "no MLflow experiment named 'folders'" in outcome.text
    assert "nothing was launched there yet" in outcome.text


def test_the_status_is_a_command_of_its_own_with_the_name_of_the_mlflow_experiment(
    dolos: Command, command: Command, runs: Path
) -> None:
    dolos("--methods", "residual_linear", "--tasks", "attribution", "--experiment-name", "tuesday")
    said = command("status", "dolos", "--experiment-name", "tuesday")
    assert said.status == 0
    assert "1 finished of 1" in said.text
    assert said.text == command("dolos", "--status", "--experiment-name", "tuesday").text
    assert command("status", "dolos").status == 2


def test_run_is_the_command_that_a_bare_experiment_is_short_for(command: Command, images: Path, store: str) -> None:
    arguments = ("--data", images, "--methods", "residual_linear", "--plan")
    command("dolos", *arguments)  # reads the images, and says so
    assert command("run", "dolos", *arguments).text == command("dolos", *arguments).text


# Bad input -----------------------------------------------------------------------------------------------------------

BAD: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "experiment": (("doloss",), ("no experiment named 'doloss' (did you mean 'dolos'?)", "demo, dolos, folders")),
    "experiment that is a corpus": (("foldrs",), ("(did you mean 'folders'?); there are: demo, dolos, folders",)),
    "method": (("dolos", "--methods", "clip"), ("no method named 'clip'", "there are:", "clip_linear")),
    "task": (("dolos", "--tasks", "detect"), ("--tasks: no task named 'detect'", "there are: attribution, detection")),
    "condition": (
        ("dolos", "--conditions", "jpeg-75,blur"),
        ("--conditions: no condition named 'blur'; there are: clean, jpeg-1…100",),
    ),
    "level of a condition": (("dolos", "--conditions", "jpeg-101"), ("--conditions: no condition named 'jpeg-101'",)),
    "training condition": (
        ("dolos", "--train-condition", "jpeg"),
        ("--train-condition: no condition named 'jpeg'; there are: clean, jpeg-1…100",),
    ),
    "set without method": (("dolos", "--set", "epochs=2"), ("--set wants METHOD.NAME=VALUE, got 'epochs=2'",)),
    "set without value": (("dolos", "--set", "sam_linear.l2"), ("--set wants METHOD.NAME=VALUE",)),
    "set of another method": (
        ("dolos", "--methods", "sam_linear", "--set", "clip_linear.l2=1"),
        ("no method 'clip_linear' in this grid; there are: sam_linear",),
    ),
    "setting of no method": (("dolos", "--set", "*.nonsense=1"), ("no method of this grid has a setting 'nonsense'",)),
    "setting": (("dolos", "--set", "sam_linear.flip=true"), ("sam_linear has no setting 'flip'; it has:", "l2")),
    "type of a setting": (("dolos", "--set", "sam_linear.l2=low"), ("sam_linear.l2 must be a number; got 'low'",)),
    "value of a setting": (
        ("dolos", "--set", "xception_scratch.epochs=0"),
        ("xception_scratch.epochs must be at least 1; got '0'",),
    ),
    "choice of a setting": (
        ("dolos", "--set", "clip_linear.solver=sgd"),
        ("clip_linear.solver must be one of 'lbfgs', 'adam'; got 'sgd'",),
    ),
    "no data": (("dolos",), ("dolos needs --data DIR, the corpus' folder",)),
    "no such folder": (("dolos", "--data", "/nowhere/at/all"), ("does not exist", "remedy: check the path")),
    "weights of another method": (("dolos", "--weights", "clip=random"), ("METHOD of xception_scratch",)),
    "weights without a value": (("dolos", "--weights", "clip_linear"), ("--weights wants METHOD=W",)),
    "weights file": (("dolos", "--weights", "clip_linear=/no/x.pt"), ("this file does not exist", "'hub:TAG'")),
    "weights misspelt": (("dolos", "--weights", "clip_linear=ranodm"), ("'ranodm'", "Give a file, 'random', 'hub'")),
    "weights of a method without": (("dolos", "--weights", "residual_linear=random"), ("no setting 'weights'",)),
    "cores": (("dolos", "--cpus-per-trial", "-1"), ("cpus_per_trial must be above 0; got -1",)),
    "gpus": (
        ("dolos", "--gpus-per-trial", "1.5"),
        ("gpus_per_trial is a share of one GPU, 0 to 1, because a trial computes on one GPU; got 1.5",),
    ),
    "gpus of a method": (
        ("dolos", "--set", "sam_linear.gpus=1.5"),
        ("sam_linear.gpus_per_trial is a share of one GPU, 0 to 1,",),
    ),
    "memory of another method": (
        ("dolos", "--methods", "sam_linear", "--set", "clip_linear.memory=8"),
        ("--set clip_linear.memory=8: no method 'clip_linear' in this grid; there are: sam_linear",),
    ),
    "memory of no number": (
        ("dolos", "--set", "sam_linear.gpu_memory=much"),
        ("sam_linear.gpu_memory must be a number; got 'much'",),
    ),
    "memory of all": (("dolos", "--set", "*.memory=-4"), ("memory_per_trial must be at least 0; got '-4'",)),
    "accelerators": (("dolos", "--accelerator", "A100,H100"), ("one of Ray's names", "got 'A100,H100'")),
    "accelerators of a method": (("dolos", "--set", "sam_linear.accelerator=A100,H100"), ("one of Ray's names",)),
    "GPU of a method without": (
        ("dolos", "--set", "residual_linear.accelerator=T4"),
        ("the method uses no GPU", "--set residual_linear.gpus=X"),
    ),
    "GPU on the CPU": (("dolos", "--gpu-memory", "8", "--device", "cpu"), ("leave it out with --device cpu",)),
    "cores of no number": (("dolos", "--num-cpus", "-3"), ("--num-cpus must not be negative",)),
    "Ray in this process": (
        ("dolos", "--local", "--address", "auto", "--num-gpus", "1"),
        ("--address is about Ray; leave it out with --local", "--num-gpus is about Ray"),
    ),
    "GPUs of somebody else's Ray": (
        ("dolos", "--address", "10.0.0.1:6379", "--num-gpus", "1"),
        ("--num-gpus is for a local Ray, not for the cluster at 10.0.0.1:6379",),
    ),
    "Ray Client": (("dolos", "--address", "ray://10.0.0.1:10001"), ("launch on a node of the cluster",)),
    "GPU in this process": (("dolos", "--accelerator", "T4", "--local"), ("leave it out with --local",)),
    "GPU of a method in this process": (
        ("dolos", "--set", "sam_linear.accelerator=T4", "--local"),
        ("--accelerator chooses among the GPUs of a cluster; leave it out with --local",),
    ),
}


@pytest.mark.parametrize(("arguments", "said"), BAD.values(), ids=BAD.keys())
def test_bad_input_gives_status_2_and_a_message_with_its_remedy(
    command: Command, runs: Path, arguments: tuple[str, ...], said: tuple[str, ...]
) -> None:
    outcome = command(*arguments)
    assert outcome.status == 2
    assert outcome.text.count("error:") == 1
    assert "Traceback" not in outcome.text
    for part in said:
        assert part in outcome.text
    assert not (runs / "mlflow.db").exists()


def test_several_mistakes_are_told_at_once(command: Command) -> None:
    outcome = command(
        "dolos", "--tasks", "detect", "--set", "epochs=2", "--set", "sam_linear.flip=true",
        "--set", "clip_linear.l2=low", "--weights", "clip_linear=ranodm", "--gpus-per-trial", "1.5",
        "--set", "clip.memory=4", "--set", "sam_linear.gpu_memory=much", "--conditions", "blur",
        "--train-condition", "noise", "--limit", "0", "--num-gpus", "-1",
    )  # fmt: skip
    assert outcome.status == 2
    parts = ["'detect'", "'epochs=2'", "no setting 'flip'", "clip_linear.l2 must be a number", "'ranodm'", "got 1.5"]
    parts += ["no method 'clip'", "sam_linear.gpu_memory must be a number", "'blur'", "'noise'", "at least 1, got 0"]
    parts += ["--num-gpus must not be negative"]
    assert [part for part in parts if part not in outcome.text] == []


def test_an_unknown_method_is_answered_with_every_method(command: Command) -> None:
    text = command("dolos", "--methods", "nonsense").text
    assert [name for name in list_detectors() if name not in text] == []


def test_an_unknown_generator_is_answered_with_those_in_the_data(command: Command, images: Path) -> None:
    outcome = command("dolos", "--data", images, "--generators", "lama,glide", "--plan")
    assert outcome.status == 2
    assert "--generators: no generator glide in the data; there are: lama, ldm" in outcome.text


@pytest.mark.parametrize("option", ["--tasks", "--methods", "--generators", "--conditions"])
def test_an_empty_list_of_names_is_not_taken_for_all_of_them(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        launch.main(["dolos", option, "", "--plan"])
    assert end.value.code == 2
    assert "name at least one" in capsys.readouterr().err


def test_a_server_that_does_not_answer_is_bad_input(
    command: Command, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed.getsockname()[1]}")
        outcome = command("dolos", "--data", images, "--plan")
    assert outcome.status == 2
    assert "cannot read MLflow at http://127.0.0.1" in outcome.text


@pytest.mark.parametrize("options", [(), ("--plan",), ("--cache", "CACHE")])
def test_folders_that_cannot_be_written_are_told_before_any_image_is_read(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    (tmp_path / "file").write_text("not a folder")
    wrong = tmp_path / "file" / "below"
    runs, chosen = (tmp_path, [str(wrong) if one == "CACHE" else one for one in options])
    status = launch.main(
        ["dolos", "--data", str(images), "--runs", str(runs if chosen[:1] == ["--cache"] else wrong), *chosen]
    )
    said = " ".join(capsys.readouterr().out.split())
    assert status == 2
    assert "cannot be written to (Not a directory); --runs and --cache choose the folders" in said
    assert "lama" not in said  # nothing of the corpus


def test_a_relative_store_is_the_one_in_this_folder_for_trials_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    settings = resolve(launch.parse_arguments(["demo"])).settings
    assert settings.tracking_uri == f"sqlite:///{tmp_path / 'mlflow.db'}"


def test_checkpoints_of_trials_that_finished_in_a_launch_that_was_killed_are_removed(
    dolos: Command, runs: Path
) -> None:
    arguments = ("--methods", "residual_linear", "--tasks", "attribution")
    assert dolos(*arguments, "--seeds", "0").status == 0
    (parent,) = mlflow_runs(runs, "grid")
    (trial,) = mlflow_runs(runs, "trial")
    left, unfinished, foreign = (
        runs / "tune" / grid / "20260101-000000-1" / key
        for grid, key in (
            (parent.info.run_id, trial.data.tags[names.KEY]),
            (parent.info.run_id, "f" * 16),
            ("another", trial.data.tags[names.KEY]),
        )
    )
    for folder in (left, unfinished, foreign):
        (folder / "checkpoint_000000").mkdir(parents=True)
    assert dolos(*arguments, "--seeds", "0", "1").status == 0
    assert [folder.exists() for folder in (left, unfinished, foreign)] == [False, True, True]


def test_a_setting_of_all_methods_is_of_those_that_have_it() -> None:
    configs = resolve(launch.parse_arguments(["dolos", "--set", "*.resize=crop"])).configs
    assert {method: config.get("resize") for method, config in configs.items()} == {
        "xception_scratch": "crop",
        "xception_pretrained": "crop",
        "clip_linear": "crop",
        "sam_linear": "crop",
        "residual_linear": None,
    }


@pytest.mark.parametrize(("policy", "said"), [("crop", True), ("squash", False)])
def test_a_method_that_does_not_see_whole_images_is_named(
    command: Command, store: str, tmp_path: Path, policy: str, said: bool
) -> None:
    root = write_dolos(tmp_path / "dolos", size=SIDE)
    for path in (root / "celebahq").rglob("*.png"):
        with Image.open(path) as image:
            image.resize((SIDE, 2 * SIDE)).save(path)
    outcome = command(
        "dolos", "--data", root, "--local", "--methods", "residual_linear,xception_scratch", "--tasks", "attribution",
        *TINY, "--set", f"*.resize={policy}",
    )  # fmt: skip
    assert outcome.status == 0
    assert ("only the middle of them is seen by xception_scratch (" in outcome.text) == said


def test_a_deleted_experiment_is_bad_input(dolos: Command, store: str) -> None:
    client = MlflowClient(tracking_uri=store)
    client.delete_experiment(client.create_experiment("dolos"))
    outcome = dolos("--plan")
    assert outcome.status == 2
    assert "mlflow experiments restore" in outcome.text


def test_a_gpu_that_is_not_there_is_bad_input(dolos: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    outcome = dolos("--methods", "residual_linear", "--device", "cuda")
    assert outcome.status == 2
    assert "use --device auto or cpu" in outcome.text


def test_an_image_that_fits_into_no_memory_is_bad_input(dolos: Command) -> None:
    def refuse(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if isinstance(module, torch.nn.Conv2d):
            raise torch.OutOfMemoryError("CUDA out of memory.")

    small = ("--set", "clip_linear.backbone=demo-vit-64", "--weights", "clip_linear=random")
    with torch.nn.modules.module.register_module_forward_pre_hook(refuse):
        outcome = dolos("--methods", "clip_linear", *small)
    assert outcome.status == 2
    assert "not even one image fits into the device's memory" in outcome.text


UNCAUGHT: dict[str, tuple[tuple[str, ...], str]] = {
    "limit": (("--limit", "0"), "limit must be at least 1"),
    "seed": (("--methods", "residual_linear", "--seeds", "-1"), "seed"),
    "backbone": (("--methods", "xception_scratch", "--set", "xception_scratch.backbone=nonsense"), "no network"),
    "infinite share": (("--methods", "residual_linear", "--gpus-per-trial", "inf"), "gpus_per_trial"),
    "no share": (("--methods", "residual_linear", "--gpus-per-trial", "nan"), "gpus_per_trial"),
    "no cores": (("--methods", "residual_linear", "--cpus-per-trial", "nan"), "cpus_per_trial"),
    "infinite cores": (("--methods", "residual_linear", "--cpus-per-trial", "inf"), "cpus_per_trial"),
    "concurrency": (("--methods", "residual_linear", "--max-concurrent", "-1"), "max_concurrent"),
    "failures": (("--methods", "residual_linear", "--max-failures", "-5"), "max_failures"),
    "checkpoints": (("--methods", "residual_linear", "--checkpoint-seconds", "nan"), "checkpoint_seconds"),
}


@pytest.mark.parametrize(("arguments", "said"), UNCAUGHT.values(), ids=UNCAUGHT.keys())
def test_numbers_and_names_that_cannot_work_are_bad_input_too(
    dolos: Command, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.setattr(runner, "execute", lambda *arguments, **named: None)
    outcome = dolos("--tasks", "attribution", *arguments)
    assert outcome.status == 2
    assert said in outcome.text


@pytest.mark.parametrize("name", ["sd (v1.5)", "a+b", "dall·e@3"])
def test_a_generator_whose_name_mlflow_cannot_hold_is_refused_before_any_work(
    command: Command, store: str, tmp_path: Path, name: str
) -> None:
    root = write_folders(tmp_path / "folders", {f"{name}/0_real": 30, f"{name}/1_fake": 30}, size=32)
    outcome = command("folders", "--data", root, "--local", "--methods", "residual_linear", "--tasks", "detection")
    assert outcome.status == 2
    assert "rename" in outcome.text


# Help and progress ---------------------------------------------------------------------------------------------------


def test_help_is_quick_because_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, runpy; sys.argv = ['launch.py', '--help']\n"
        "try: runpy.run_path('launch.py', run_name='__main__')\n"
        "except SystemExit as end: print('status', end.code)\n"
        "print('heavy', sorted({'torch', 'ray', 'mlflow', 'numpy', 'pandas', 'sklearn', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "status 0" in done.stdout
    assert "heavy []" in done.stdout
    assert re.search(r"one of: demo, dolos,\s+folders", done.stdout)


def test_a_plan_without_a_store_does_without_mlflow(images: Path, runs: Path) -> None:
    code = (
        "import sys, launch\n"
        f"status = launch.main(['dolos', '--data', {str(images)!r}, '--runs', {str(runs / 'new')!r}, '--plan'])\n"
        "print('status', status, 'heavy', sorted({'torch', 'ray', 'mlflow', 'sklearn', 'timm'} & set(sys.modules)))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=environment)
    assert "status 0 heavy []" in done.stdout


@pytest.fixture
def watched() -> tuple[GridProgress, Console, list[TrialSpec]]:
    console = Console(width=200, record=True, force_terminal=False)
    trials = [make_spec("0" * 16, seed=seed) for seed in (0, 1)]
    return GridProgress(console, work_of(trials), finished=3), console, trials


def test_each_trial_that_ends_is_one_line_that_counts_those_before_it(
    watched: tuple[GridProgress, Console, list[TrialSpec]],
) -> None:
    progress, console, (first, second) = watched
    with progress:
        for event in (
            TrialEvent(first.key, STARTED),
            TrialEvent(first.key, DONE),
            TrialEvent(second.key, STARTED),
            TrialEvent(second.key, FAILED, error="ValueError: no such thing"),
        ):
            progress(event)
    lines = [" ".join(line.split()) for line in console.export_text().splitlines() if line.strip()]
    assert lines == [
        "4/5 done detection residual_linear/lama/seed0",
        "5/5 failed detection residual_linear/lama/seed1: ValueError: no such thing",
    ]
    assert progress.done == {first.key}
    assert progress.failed == {second.key: "ValueError: no such thing"}


@pytest.mark.parametrize("error", ["ValueError: no [lama] here", "OSError: cannot read [/data/x.png]"])
def test_a_message_with_brackets_is_shown_as_it_is(
    watched: tuple[GridProgress, Console, list[TrialSpec]], error: str
) -> None:
    progress, console, (first, _) = watched
    with progress:
        progress(TrialEvent(first.key, FAILED, error=error))
    assert error in console.export_text()
