"""The command line, in this process: what it runs, prints and leaves behind."""

from __future__ import annotations

import errno
import io
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

import pytest

import launch
from analysis.matrices import class_table, cross_generator_matrix
from analysis.store import open_store
from grid import names, runner
from grid.commands import run as run_command
from grid.plan import Work
from grid.records import StoreError
from grid.runner import DONE, STARTED, TrialEvent
from grid.settings import RunSettings
from grid.spec import TrialSpec
from grid.tasks import DETECTION
from grid.tracking import Tracker
from tests.analysis import published
from tests.corpora import write_dolos
from tests.grid.command import Command, mlflow_runs
from tests.grid.grids import SIDE, planted_result

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
    assert "xception_scratch [test_resnet, random weights, small form]" in " ".join(tables.split())
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
    program, *arguments_of_the_page = shlex.split(line)[2:]
    assert Path.cwd() / program == Path(sys.executable).with_name("mlflow")  # shown from here, where it lies below here
    assert arguments_of_the_page == ["ui", "--backend-store-uri", uri]


@pytest.mark.long
def test_more_seeds_run_what_is_new_and_nothing_else(dolos: Command, runs: Path) -> None:
    arguments = ("--methods", "residual_linear", "--tasks", "detection", "--set", "residual_linear.solver=adam")
    dolos(*arguments)
    outcome = dolos(*arguments, "--seeds", "0", "1")
    assert "4 trials, 2 finished before, 2 to run" in outcome.text
    assert "seeds: 0, 1" in outcome.text
    assert len(mlflow_runs(runs, "trial")) == 4
    assert len(mlflow_runs(runs, "grid")) == 1


def test_a_method_that_does_not_depend_on_the_seed_runs_once(dolos: Command) -> None:
    arguments = ("--tasks", "detection", "--seeds", "0", "1", "2", "--methods", "residual_linear,xception_scratch")
    plan = dolos(*arguments, "--plan")
    assert "8 trials, 0 finished before, 8 to run" in plan.text  # two training sets: 2 + 2 x 3
    assert "once, with one seed, because the results do not depend on it: residual_linear" in plan.text


def test_another_seed_finds_the_finished_trials_of_methods_that_do_not_depend_on_it(dolos: Command, runs: Path) -> None:
    arguments = ("--tasks", "detection", "--methods", "residual_linear")
    dolos(*arguments)
    outcome = dolos(*arguments, "--seeds", "7")
    assert outcome.status == 0
    assert "all 2 trials are finished; nothing to run" in outcome.text
    assert {run.data.tags[names.SEED] for run in mlflow_runs(runs, "trial")} == {"0"}
    plan = dolos(*arguments, "--seeds", "7", "--conditions", "jpeg-75", "--plan")
    assert "2 trials, 2 finished before, 0 to run, 2 to score under further conditions" in plan.text
    assert "detection lama one seed (0) finished; to score: jpeg-75" in plan.text
    other = dolos(*arguments, "--seeds", "7", "--set", "residual_linear.solver=adam", "--plan")
    assert "2 trials, 0 finished before, 2 to run" in other.text  # its batches are drawn by the seed


def test_controls_of_a_finished_grid_run_what_is_new_and_nothing_else(dolos: Command, runs: Path) -> None:
    arguments = ("--methods", "residual_linear", "--tasks", "detection")
    random = ("--set", "random_encoder.backbone=test_resnet", "--set", f"random_encoder.size={SIDE}")
    first = dolos(*arguments)
    assert "2 trials, 0 finished before, 2 to run" in first.text
    assert "Null controls" not in first.text
    assert "references beside" not in first.text
    planned = dolos(*arguments, "--controls", *random, "--plan").printed
    assert "null controls run with each seed, because their labels follow from it" in planned
    tasks = ("real_against_real (control)", "shuffled_labels (control)", "detection (reference)", "detection  ")
    assert [planned.count(task) for task in tasks] == [1, 1, 4, 2]
    second = dolos(*arguments, "--controls", *random)
    assert second.status == 0
    assert "8 trials, 2 finished before, 6 to run" in second.text
    assert "references beside residual_linear" in second.text
    assert "Null controls: .5 is expected" in second.text
    (grid,) = mlflow_runs(runs, "grid")
    kept = sorted(path.name for path in (runs / "artifacts" / grid.info.run_id / "artifacts").glob("references*"))
    assert [name.partition("-")[0] for name in kept] == ["references", "references.json"]
    third = dolos(*arguments, "--controls", *random)
    assert "all 8 trials are finished; nothing to run" in third.text
    assert third.printed.index("rows: tested on") < third.printed.index("Null controls")
    assert "mean_brightness [" not in third.text  # no matrix of its own


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
    assert ["lama", "ldm", "lama", "+", "ldm"] in [line.split() for line in heading]
    # of two generators, all but one are the other, which is there already
    again = dolos("--methods", "residual_linear", "--train-on", "all-but-one", "--plan")
    assert "3 trials, 3 finished before, 0 to run" in again.text


def test_a_choice_of_generators_takes_part_in_training_and_tests_and_this_is_said(
    dolos: Command, runs: Path, images: Path
) -> None:
    arguments = ("--methods", "residual_linear", "--generators", "ldm")
    outcome = dolos(*arguments, "--tasks", "detection")
    assert outcome.status == 0
    assert "note: only ldm take part, in training and in tests" in outcome.printed.splitlines()
    other = "to train on these and test on every generator: --train-on ldm in place of --generators"
    assert other in outcome.printed.splitlines()
    (run,) = mlflow_runs(runs, "trial")
    assert {name.split("/")[1] for name in run.data.metrics if name.startswith("test/")} == {"ldm"}
    (grid,) = mlflow_runs(runs, "grid")
    assert grid.data.tags[names.OPTIONS] == "--generators ldm --local"
    # other images are another data set, and so another grid with keys of its own
    assert (
        "2 trials, 0 finished before, 2 to run"
        in dolos("--methods", "residual_linear", "--tasks", "detection", "--plan").text
    )


def test_a_choice_of_generators_with_training_sets_is_what_was_asked_for(dolos: Command) -> None:
    outcome = dolos("--methods", "residual_linear", "--generators", "ldm,lama", "--train-on", "all", "--plan")
    assert "2 trials, 0 finished before, 2 to run" in outcome.text
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


def test_another_error_is_not_taken_for_a_full_disk(
    dolos: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*arguments: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(run_command, "run_pending", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    outcome = dolos("--methods", "residual_linear")
    assert outcome.status == 1
    assert "OSError: [Errno 5] Input/output error. The traceback is in " in outcome.text
    assert "full" not in outcome.text


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
    (grid,) = mlflow_runs(runs, "grid")
    assert grid.info.status == "RUNNING"  # it is, only not by us
    assert not {names.CONDITIONS, names.OPTIONS, names.EXPERIMENT} & grid.data.tags.keys()  # nothing of ours is in it


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
    assert "2 trials, 2 finished before, 0 to run" in plan.text
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
    arguments = ["dolos", "--data", str(root), "--local", "--seeds", "0", "--methods", ",".join(small)]
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
        backbone = small[method].removeprefix("backbone=")
        heading = f"{method} [{backbone}, random weights]: accuracy"
        assert heading in first.text
        block = first.text[first.text.index(heading) :]
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
    command += ["--methods", "xception_scratch", "--tasks", "attribution", "--seeds", "0", *TINY]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "1 to run" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")


# Help ----------------------------------------------------------------------------------------------------------------


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
    assert re.search(r"one of:\s+benco,\s+demo,\s+demo1,\s+dolos,\s+dolos_ffhq,\s+folders", done.stdout)


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


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_name_that_the_terminal_cannot_print_is_escaped(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    name = "Ren\u00e9 \udcff"  # the second is a byte of a file name that is no UTF-8
    assert launch.main(["doloss", "--data", name, "--generators", name]) == 2
    print(name, flush=True)
    expected = {"ascii": b"Ren\\xe9 \\udcff", "utf-8": b"Ren\xc3\xa9 \\udcff"}[encoding]
    assert written.getvalue().splitlines()[-1] == expected
