"""Finished trials that are scored under further conditions, with real detectors and a real store."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from data.conditions import Picture, register_condition
from grid import names
from grid.plan import FINISHED, TrialState, Work
from grid.runner import DONE, FAILED, STARTED, PermanentFailureError
from grid.spec import TrialSpec
from grid.tasks import ATTRIBUTION, DETECTION
from tests.grid.running import Calls, Grid, MakeGrid

NUM_TEST = 18  # real, lama, ldm, six of each
BREAKS, HOLDS = "toy-breaks", "toy-holds"  # conditions of these tests


class Toy:
    """Whether the condition `toy-breaks` does."""

    broken = False


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    """Both conditions, which stay registered."""

    @register_condition(BREAKS)
    def upside_down(picture: Picture) -> np.ndarray:
        """Upside down, unless the toy is broken."""
        if Toy.broken:
            raise RuntimeError("the toy is broken")
        return picture.pixels[::-1]

    @register_condition(HOLDS)
    def mirrored(picture: Picture) -> np.ndarray:
        """From right to left."""
        return picture.pixels[:, ::-1]


@pytest.fixture
def broken_toy() -> Iterator[None]:
    Toy.broken = True
    yield
    Toy.broken = False


def trials(grid: Grid) -> list[TrialSpec]:
    """Of features and of pixels, in both tasks."""
    return [
        grid.spec("residual_linear"),
        grid.spec("residual_linear", task=ATTRIBUTION, train=("lama", "ldm")),
        grid.spec("xception_scratch", epochs=1),
    ]


def figures(grid: Grid, spec: TrialSpec) -> dict[str, tuple[int, float]]:
    """Every metric of the trial's run: how often it was logged, and its value."""
    run = grid.run_of(spec)
    return {name: (len(grid.steps(spec, name)), value) for name, value in run.data.metrics.items()}


# One more condition --------------------------------------------------------------------------------------------------


def test_a_finished_grid_that_is_asked_for_one_more_condition_trains_nothing_and_scores_what_is_new(
    make_grid: MakeGrid, calls: Calls
) -> None:
    grid = make_grid()
    specs = trials(grid)
    grid.launch(*specs)
    assert len(calls.fits) == 3
    before = {spec: (grid.run_of(spec).info, figures(grid, spec), grid.artifacts(spec)) for spec in specs}
    calls.fits.clear()
    calls.predicted.clear()

    watcher = grid.launch(*specs, conditions=["jpeg-75"])
    assert calls.fits == []
    assert calls.predicted == [NUM_TEST] * 3
    assert [watcher.kinds(spec) for spec in specs] == [[STARTED, DONE]] * 3

    for spec in specs:
        info, clean, kept = before[spec]
        run = grid.run_of(spec)
        assert (run.info.run_id, run.info.status, run.info.end_time) == (info.run_id, "FINISHED", info.end_time)
        now = figures(grid, spec)
        assert {name: value for name, value in now.items() if name in clean} == clean
        new = sorted(now.keys() - clean.keys())
        expected = [name for name in clean if name.startswith("test/")]
        assert new == sorted(name.replace("test/", "test.jpeg-75/") for name in expected)
        assert all(count == 1 for count, _ in now.values())
        artifacts = grid.artifacts(spec)
        assert {path: digest for path, digest in artifacts.items() if path in kept} == kept
        assert artifacts.keys() - kept.keys() == {"conditions/jpeg-75/facts.json", "conditions/jpeg-75/scores.parquet"}
        assert run.data.tags[names.CONDITIONS] == "jpeg-75"
        assert names.CONDITION_ERROR not in run.data.tags
        validated = spec.task == DETECTION
        assert grid.state(spec) == TrialState(info.run_id, FINISHED, frozenset({"clean", "jpeg-75"}), validated)
    assert grid.plan(*specs, conditions=["jpeg-75"]).pending == ()


def test_what_was_scored_is_not_scored_again(make_grid: MakeGrid, calls: Calls) -> None:
    grid = make_grid()
    spec = grid.spec()
    grid.launch(spec)
    grid.launch(spec, conditions=["jpeg-75"])
    first = grid.artifacts(spec)
    calls.predicted.clear()
    assert grid.launch(spec, conditions=["jpeg-75"]) == []
    grid.launch(spec, conditions=["jpeg-75", "jpeg-50"])
    assert calls.predicted == [NUM_TEST]
    assert len(calls.fits) == 1
    assert grid.run_of(spec).data.tags[names.CONDITIONS] == "jpeg-50,jpeg-75"
    both = grid.artifacts(spec)
    assert first.items() <= both.items()
    assert both.keys() - first.keys() == {"conditions/jpeg-50/facts.json", "conditions/jpeg-50/scores.parquet"}


@pytest.mark.parametrize("method", ["residual_linear", "xception_scratch"])
def test_scores_are_the_same_whether_a_condition_is_asked_for_at_once_or_later(
    make_grid: MakeGrid, method: str, calls: Calls
) -> None:
    at_once, later = make_grid("at once"), make_grid("later")
    spec = at_once.spec(method)
    at_once.launch(spec, conditions=["jpeg-75"])
    later.launch(spec)
    later.launch(spec, conditions=["jpeg-75"])
    assert len(calls.fits) == 2
    for condition in ("clean", "jpeg-75"):
        one, two = (grid.scores(spec, condition) for grid in (at_once, later))
        pd.testing.assert_frame_equal(one, two, check_exact=True)
        assert set(one["condition"]) == {condition}
    logged, logged_later = (
        {name: value for name, value in grid.run_of(spec).data.metrics.items() if name != names.SECONDS}
        for grid in (at_once, later)
    )
    assert logged == logged_later


def test_figures_under_a_condition_are_at_the_trials_own_threshold(make_grid: MakeGrid) -> None:
    grid = make_grid()
    spec = grid.spec()
    grid.launch(spec)
    grid.launch(spec, conditions=["jpeg-75"])
    metrics = grid.run_of(spec).data.metrics
    scores = grid.scores(spec, "jpeg-75")
    fakes = scores.query("label == 1 and generator == 'ldm'")["score"]
    reals = scores.query("label == 0")["score"]
    assert metrics["test.jpeg-75/ldm/fake_accuracy"] == (fakes > 0).mean()
    assert metrics["test.jpeg-75/ldm/fake_accuracy_valid_threshold"] == (fakes > metrics[names.THRESHOLD]).mean()
    assert metrics["test.jpeg-75/ldm/real_accuracy_valid_threshold"] == (reals <= metrics[names.THRESHOLD]).mean()


def test_a_new_trial_under_conditions_is_fitted_once(make_grid: MakeGrid, calls: Calls) -> None:
    grid = make_grid()
    spec = grid.spec("xception_scratch", epochs=1)
    watcher = grid.launch(spec, conditions=["jpeg-75", HOLDS])
    assert calls.fits == ["NetworkDetector"]
    assert calls.predicted[-3:] == [NUM_TEST] * 3
    # before these the validation images of its own generator, twice, those of all, as many as test images, and the
    # training images of all, which show what pictures of the data set are like
    assert calls.predicted == [12, 12, NUM_TEST, 24, *[NUM_TEST] * 3]
    assert watcher.kinds(spec)[-1] == DONE
    assert grid.run_of(spec).data.tags[names.CONDITIONS] == f"jpeg-75,{HOLDS}"
    assert not np.allclose(grid.scores(spec)["score"], grid.scores(spec, HOLDS)["score"])


def test_a_condition_of_which_features_are_prepared_is_scored_without_a_warning(
    make_grid: MakeGrid, caplog: pytest.LogCaptureFixture
) -> None:
    grid = make_grid()
    spec = grid.spec()
    progress: list[tuple[str, int, int]] = []
    work = grid.plan(spec, conditions=["jpeg-75"]).pending
    grid.executor.prepare(work, lambda *what: progress.append(what))
    assert [what for what in progress if what[1] == what[2]] == [
        ("residual_linear", len(grid.manifest.table), len(grid.manifest.table)),
        ("residual_linear, jpeg-75", NUM_TEST, NUM_TEST),
    ]
    grid.launch(spec, conditions=["jpeg-75"])
    assert "the trial itself computes them" not in caplog.text


# Conditions that fail ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("broken_toy")
@pytest.mark.parametrize("method", ["residual_linear", "xception_scratch"])
def test_a_condition_that_fails_leaves_a_finished_trial_finished_and_is_tried_again(
    make_grid: MakeGrid, calls: Calls, method: str
) -> None:
    grid = make_grid()
    spec = grid.spec(method, **({"epochs": 1} if method == "xception_scratch" else {}))
    grid.launch(spec)
    clean = figures(grid, spec)
    watcher = grid.launch(spec, conditions=[BREAKS])
    assert watcher.kinds(spec) == [STARTED, FAILED]
    assert watcher[-1].error.endswith("RuntimeError('the toy is broken')")
    run = grid.run_of(spec)
    assert run.info.status == "FINISHED"
    assert run.data.tags[names.CONDITION_ERROR].startswith(f"{BREAKS}: ConditionError: condition {BREAKS} failed on ")
    assert run.data.tags.get(names.ERROR, "") == ""
    assert names.CONDITIONS not in run.data.tags
    assert figures(grid, spec) == clean
    traceback = grid.settings.runs / "artifacts" / run.info.run_id / "artifacts" / f"conditions/{BREAKS}/traceback.txt"
    assert "the toy is broken" in traceback.read_text()
    (left,) = grid.plan(spec, conditions=[BREAKS]).pending
    assert left == Work(spec, (BREAKS,), run.info.run_id)

    Toy.broken = False
    assert grid.launch(spec, conditions=[BREAKS]).kinds(spec) == [STARTED, DONE]
    run = grid.run_of(spec)
    assert (run.data.tags[names.CONDITIONS], names.CONDITION_ERROR in run.data.tags) == (BREAKS, False)
    assert len(calls.fits) == 1


@pytest.mark.usefixtures("broken_toy")
def test_a_condition_that_fails_costs_neither_other_conditions_nor_other_methods(make_grid: MakeGrid) -> None:
    grid = make_grid()
    frozen, network = grid.spec(), grid.spec("xception_scratch", epochs=1)
    plan = grid.plan(frozen, network, conditions=[BREAKS, HOLDS])
    grid.executor.prepare(plan.pending, lambda name, done, total: None)  # features under the condition are not there
    grid.executor.run(plan.pending, lambda event: None)
    for spec in (frozen, network):
        run = grid.run_of(spec)
        assert run.info.status == "FINISHED"
        assert run.data.tags[names.CONDITIONS] == HOLDS
        assert run.data.tags[names.CONDITION_ERROR].startswith(f"{BREAKS}: ")


def test_a_damaged_checkpoint_of_a_finished_trial_is_told_with_the_remedy(make_grid: MakeGrid) -> None:
    grid = make_grid()
    spec = grid.spec()
    grid.launch(spec)
    run_id = grid.run_of(spec).info.run_id
    (grid.settings.runs / "artifacts" / run_id / "artifacts" / names.CHECKPOINT / "head.pt").write_bytes(b"PK")
    watcher = grid.launch(spec, conditions=[HOLDS])
    assert watcher.kinds(spec) == [STARTED, FAILED]
    assert f"the checkpoint of run {run_id} cannot be used: " in watcher[-1].error
    assert f"MLFLOW_TRACKING_URI={grid.tracker.uri} mlflow runs delete --run-id {run_id}" in watcher[-1].error


@pytest.mark.usefixtures("broken_toy")
def test_a_condition_that_fails_in_a_new_trial_does_not_cost_the_training(make_grid: MakeGrid, calls: Calls) -> None:
    grid = make_grid()
    spec = grid.spec("xception_scratch", epochs=1)
    watcher = grid.launch(spec, conditions=[HOLDS, BREAKS, "jpeg-75"])
    assert watcher.kinds(spec)[-1] == FAILED
    run = grid.run_of(spec)
    assert run.info.status == "FINISHED"
    assert run.data.tags[names.CONDITIONS] == f"jpeg-75,{HOLDS}"  # those before it and after it
    assert run.data.tags[names.CONDITION_ERROR].startswith(f"{BREAKS}: ")
    assert run.data.metrics.keys() >= {"test/lama/auroc", f"test.{HOLDS}/lama/auroc", "test.jpeg-75/lama/auroc"}

    Toy.broken = False
    grid.launch(spec, conditions=[HOLDS, BREAKS, "jpeg-75"])
    assert grid.run_of(spec).data.tags[names.CONDITIONS] == f"jpeg-75,{BREAKS},{HOLDS}"
    assert len(calls.fits) == 1


@pytest.mark.usefixtures("broken_toy")
def test_one_trials_condition_that_fails_does_not_stop_the_others(make_grid: MakeGrid) -> None:
    grid = make_grid()
    specs = trials(grid)
    grid.launch(*specs)
    grid.executor.run([Work(specs[0], (BREAKS,), grid.run_of(specs[0]).info.run_id)], lambda event: None)
    watcher = grid.launch(*specs, conditions=[HOLDS])
    assert [watcher.kinds(spec)[-1] for spec in specs] == [DONE] * 3
    assert grid.run_of(specs[0]).data.tags[names.CONDITION_ERROR].startswith(f"{BREAKS}: ")  # still true


@pytest.mark.usefixtures("broken_toy")
@pytest.mark.parametrize("fitted_before", [False, True])
def test_a_retry_of_the_same_work_neither_trains_nor_scores_again_what_is_there(
    make_grid: MakeGrid, calls: Calls, fitted_before: bool
) -> None:
    grid = make_grid()
    spec = grid.spec()
    if fitted_before:
        grid.launch(spec)
    (work,) = grid.plan(spec, conditions=[HOLDS, BREAKS]).pending
    for _ in range(2):
        with pytest.raises(PermanentFailureError, match="the toy is broken"):
            grid.execute(work)
    Toy.broken = False
    calls.predicted.clear()
    grid.execute(work)  # as Ray Tune does with a trial that failed
    assert calls.predicted == [NUM_TEST]
    grid.execute(work)
    assert calls.predicted == [NUM_TEST]
    assert len(calls.fits) == 1
    assert len(grid.tracker.records.runs_of(spec.key)) == 1
    assert grid.state(spec) == TrialState(
        grid.run_of(spec).info.run_id, FINISHED, frozenset({"clean", HOLDS, BREAKS}), validated=True
    )


def test_a_trial_whose_checkpoint_is_gone_says_how_to_get_it_again(make_grid: MakeGrid) -> None:
    grid = make_grid()
    spec = grid.spec()
    grid.launch(spec)
    run_id = grid.run_of(spec).info.run_id
    checkpoint = grid.settings.runs / "artifacts" / run_id / "artifacts" / names.CHECKPOINT
    checkpoint.rename(checkpoint.with_name("away"))
    watcher = grid.launch(spec, conditions=["jpeg-75", "jpeg-50"])
    assert watcher.kinds(spec) == [STARTED, FAILED]
    run = grid.run_of(spec)
    assert run.info.status == "FINISHED"
    error = run.data.tags[names.CONDITION_ERROR]
    assert error.startswith(f"jpeg-75: LostCheckpointError: the checkpoint of run {run_id} is gone")
    assert f"mlflow runs delete --run-id {run_id}" in error

    checkpoint.with_name("away").rename(checkpoint)
    assert grid.launch(spec, conditions=["jpeg-75", "jpeg-50"]).kinds(spec) == [STARTED, DONE]


# Training under a condition ------------------------------------------------------------------------------------------


def test_a_trial_that_is_trained_under_a_condition_is_a_trial_of_its_own(make_grid: MakeGrid, calls: Calls) -> None:
    grid = make_grid()
    plain, on_jpeg = grid.spec(), grid.spec(train_condition="jpeg-95")
    grid.launch(plain, on_jpeg)
    assert len(calls.fits) == 2
    one, two = grid.run_of(plain), grid.run_of(on_jpeg)
    assert one.info.run_id != two.info.run_id
    assert names.TRAIN_CONDITION not in one.data.tags
    assert "train_condition" not in one.data.params
    assert two.data.tags[names.TRAIN_CONDITION] == two.data.params["train_condition"] == "jpeg-95"
    assert two.info.run_name == "residual_linear/lama/jpeg-95/seed0"
    assert {names.parse_metric(name) for name in two.data.metrics} >= {("clean", "lama", "auroc")}
    grid.launch(plain, on_jpeg, conditions=["jpeg-95"])
    assert len(calls.fits) == 2
    assert (grid.scores(plain, "jpeg-95")["score"] != grid.scores(on_jpeg, "jpeg-95")["score"]).any()
