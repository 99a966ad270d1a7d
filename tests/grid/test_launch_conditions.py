"""The command line with conditions: a finished grid is scored under one more, and what fails is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import data.pictures
from data.conditions import Picture, register_condition
from data.images import decode, file_digest
from grid import names
from tests.data import plants
from tests.grid.command import Command, mlflow_runs
from tests.grid.grids import SIDE
from tests.grid.running import Calls

pytestmark = pytest.mark.usefixtures("nothing_from_outside")

TINY = ("--set", "xception_scratch.backbone=test_resnet", "--set", f"xception_scratch.size={SIDE}")


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
    assert "2 trials, 2 finished before, 0 to run, 2 to score under further conditions" in plan.text
    assert plan.text.count("finished; to score: jpeg-75, jpeg-50") == 2
    dolos(*arguments, "--conditions", "jpeg-75", "--train-on", "lama")
    plan = dolos(*arguments, "--conditions", "jpeg-75", "--plan")
    assert "2 trials, 2 finished before, 0 to run, 1 to score under further conditions" in plan.text
    planned = dolos(*arguments, "--conditions", "jpeg-75", "--plan", "--json").trials
    assert [(trial["state"], trial["to_score"]) for trial in planned] == [("finished", []), ("finished", ["jpeg-75"])]
    # the grid was asked for jpeg-75, and one of its trials lacks it
    known = command("status", "dolos", "--json").trials
    assert [(trial["state"], trial["to_score"]) for trial in known] == [("finished", []), ("finished", ["jpeg-75"])]
    status = command("status", "dolos")
    assert "1 finished, 1 finished; to score: jpeg-75 of 2" in status.text


def test_a_condition_that_fails_is_told_kept_out_of_the_tables_and_tried_again(
    dolos: Command, command: Command, runs: Path, calls: Calls, toy: type[Toy], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--methods", "xception_scratch", "--tasks", "attribution", *TINY, "--conditions", TOY)
    with monkeypatch.context() as patched:
        patched.setattr(toy, "broken", True)
        outcome = dolos(*arguments)
    assert outcome.status == 1
    assert f"ConditionError: condition {TOY} failed on " in outcome.text
    assert "RuntimeError('the toy is broken')" in outcome.text
    assert "1 of 1 trials failed" in outcome.text
    assert "attribution: accuracy over all classes" in outcome.text  # of clean pictures
    (run,) = mlflow_runs(runs, "trial")
    assert run.info.status == "FINISHED"
    error = run.data.tags[names.CONDITION_ERROR]
    assert error.startswith(f"{TOY}: ConditionError: condition {TOY} failed on ")
    assert error.endswith(".png: RuntimeError('the toy is broken')")
    (trial,) = command("status", "dolos", "--json").trials
    assert (trial["state"], trial["to_score"], trial["error"]) == ("finished", [TOY], error)
    said = command("status", "dolos").text
    assert said.index("RuntimeError('the toy is broken')") < said.index(f"finished; to score: {TOY}")
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


# Several conditions in one launch


@pytest.mark.parametrize("methods", ["residual_linear,xception_scratch", "xception_scratch"])
def test_in_one_launch_no_picture_is_decoded_twice(
    dolos: Command, obvious: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch, methods: str
) -> None:
    decoded: list[Path] = []

    def counting(path: Path) -> np.ndarray:
        decoded.append(path)
        return decode(path)

    monkeypatch.setattr(data.pictures, "decode", counting)
    arguments = ("--methods", methods, "--tasks", "detection", "--train-on", "lama", *TINY)
    conditions = ("--conditions", "jpeg-75,paste-back", "--train-condition", "jpeg-95+clean")
    outcome = dolos(*arguments, *conditions, "--accept-audit", "masks")  # all masks are the same
    assert outcome.status == 0
    assert len(calls.fits) == len(methods.split(","))
    pictures = {path for path in obvious.rglob("*.png") if "masks" not in path.parts}
    assert {path.resolve() for path in decoded} == {path.resolve() for path in pictures}
    assert len(decoded) == len(pictures)


def test_training_conditions_are_trials_of_their_own_and_a_set_is_one_trial(
    dolos: Command, command: Command, runs: Path
) -> None:
    arguments = ("--methods", "residual_linear", "--tasks", "detection", "--train-on", "lama")
    sets = ("--train-condition", "clean,jpeg-75+clean")
    dolos(*arguments, *sets)
    runs_of = mlflow_runs(runs, "trial")
    assert {run.data.tags.get(names.TRAIN_CONDITION, "") for run in runs_of} == {"", "clean+jpeg-75"}
    trials = {"residual_linear/lama/seed0", "residual_linear/lama/clean+jpeg-75/seed0"}
    assert {run.info.run_name for run in runs_of} == trials
    assert "all 2 trials are finished" in dolos(*arguments, *sets).text
    known = {(trial["train_condition"], trial["state"]) for trial in command("status", "dolos", "--json").trials}
    assert known == {("clean", "finished"), ("clean+jpeg-75", "finished")}


def test_equalise_is_one_condition_in_training_and_in_tests(dolos: Command, runs: Path) -> None:
    arguments = ("--methods", "residual_linear", "--tasks", "detection", "--train-on", "lama")
    dolos(*arguments, "--equalise", "jpeg-95")
    (run,) = mlflow_runs(runs, "trial")
    assert run.data.tags[names.TRAIN_CONDITION] == run.data.tags[names.CONDITIONS] == "jpeg-95"
    again = dolos(*arguments, "--train-condition", "jpeg-95", "--conditions", "jpeg-95")
    assert "all 1 trials are finished" in again.text


# Paste-back


def test_fakes_without_mask_or_original_stop_a_launch_that_wants_them_pasted(
    command: Command, tmp_path: Path, obvious: Path, calls: Calls
) -> None:
    lacking = tmp_path / "lacking"
    shutil.copytree(obvious, lacking)
    name = sorted((lacking / "celebahq/fake/lama/masks/test").iterdir())[0].name
    (lacking / "celebahq/fake/lama/masks/test" / name).unlink()
    arguments = ("dolos", "--data", lacking, "--local", "--methods", "residual_linear")
    for option in ("--conditions", "--train-condition"):
        outcome = command(*arguments, option, "paste-back")
        assert outcome.status == 2
        assert "paste-back needs the mask of each fake, and its original in the same size; 1 of " in outcome.text
        assert f"without a mask (1): celebahq/fake/lama/images/test/{name}" in outcome.text
    assert calls.fits == []
    assert command(*arguments, "--conditions", "jpeg-75", "--plan").status == 0


@pytest.mark.parametrize("option", ["--conditions", "--train-condition"])
@pytest.mark.parametrize("plan", [(), ("--plan",)], ids=["launch", "plan"])
def test_a_condition_whose_pictures_a_method_cannot_take_is_refused_before_anything_is_computed(
    dolos: Command, runs: Path, calls: Calls, option: str, plan: tuple[str, ...]
) -> None:
    outcome = dolos("--methods", "residual_linear,xception_scratch", option, "crop-10,jpeg-75", *TINY, *plan)
    assert outcome.status == 2
    sides = f"{round(SIDE / 10)} x {round(SIDE / 10)} pixels from those of {SIDE} x {SIDE}"
    assert f"crop-10 makes pictures of {sides}: a side of less than 16 pixels, which residual_linear cannot take" in (
        outcome.text
    )
    assert "jpeg-75 makes" not in outcome.text
    assert calls.fits == []
    assert mlflow_runs(runs, "grid") == []
    assert dolos("--methods", "xception_scratch", option, "crop-10", *TINY, "--plan").status == 0


def test_masks_that_the_audit_does_not_trust_switch_paste_back_and_edited_areas_off(
    command: Command, tmp_path: Path, obvious: Path, runs: Path, calls: Calls
) -> None:
    wrong = tmp_path / "wrong"
    shutil.copytree(obvious, wrong)
    plants.change(plants.masks(wrong, "lama"), plants.levels(lambda levels: (levels > 0).astype(np.uint8)))
    for number, path in enumerate(plants.masks(wrong, "ldm")):  # no two are the same
        plants.change([path], plants.levels(lambda levels, shift=number: np.roll(levels, shift, axis=0)))
    arguments = ("dolos", "--data", wrong, "--local", "--seeds", "0", "--methods", "residual_linear")
    arguments += ("--tasks", "detection", "--train-on", "ldm")
    for option in ("--conditions", "--train-condition"):
        outcome = command(*arguments, option, "paste-back")
        assert outcome.status == 2
        assert "paste-back reads masks, and the audit does not trust those of these generators: lama: 20 of 20" in (
            outcome.text
        )
        assert "ldm: " not in outcome.text.partition("of these generators: ")[2]
        assert "Or give --accept-audit masks: the masks are used as they are" in outcome.text
    assert calls.fits == []
    assert command(*arguments).status == 0
    (file,) = runs.rglob(names.AREAS)
    folders = {name: wrong / "celebahq" / "fake" / name / "images" / "test" for name in ("lama", "ldm")}
    fakes = {name: {file_digest(path) for path in folder.iterdir()} for name, folder in folders.items()}
    assert set(json.loads(file.read_text())) == fakes["ldm"]
    assert command(*arguments, "--conditions", "paste-back", "--accept-audit", "masks").status == 0
    assert set(json.loads(file.read_text())) == fakes["lama"] | fakes["ldm"]


def test_edited_areas_are_read_once_and_kept_with_the_grid(dolos: Command, runs: Path) -> None:
    arguments = ("--methods", "residual_linear", "--tasks", "detection", "--train-on", "lama")
    arguments += ("--accept-audit", "masks")  # all masks are the same
    dolos(*arguments)
    (file,) = runs.rglob(names.AREAS)
    areas = json.loads(file.read_text())
    assert len(areas) == 12  # 6 test fakes of each generator
    assert all(0 < area < 1 for area in areas.values())
    before = file.stat().st_mtime_ns
    dolos(*arguments, "--conditions", "jpeg-75")
    assert file.stat().st_mtime_ns == before
    file.write_text("{")
    outcome = dolos(*arguments, "--conditions", "jpeg-60")
    assert outcome.status == 0
    assert json.loads(file.read_text()) == areas
