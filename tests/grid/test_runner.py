"""Trials in this process with real detectors, checkpoints and MLflow."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from mlflow.entities import Run

from data.manifest import Manifest
from grid import names, runner, tracking
from grid.checkpoints import latest_state
from grid.plan import FAILED as FAILED_STATE
from grid.plan import FINISHED, INTERRUPTED, make_plan
from grid.runner import (
    DONE,
    FAILED,
    REPORTED,
    STARTED,
    LocalExecutor,
    PermanentFailureError,
    TrialEvent,
    check_detectors,
    distinct_inputs,
    execute_trial,
)
from grid.settings import RunSettings
from grid.spec import ATTRIBUTION, TrialSpec
from grid.tracking import Tracker
from models.detector import WeightsError
from tests.grid.grids import make_manifest, make_settings, make_spec, write_obvious
from tests.models.toys import ADAM

NETWORK: dict[str, Any] = {"epochs": 4, "batch_size": 4}


@dataclasses.dataclass(frozen=True)
class Grid:
    """Trials on one data set, with a store of their own."""

    settings: RunSettings
    manifest: Manifest
    tracker: Tracker

    @property
    def executor(self) -> LocalExecutor:
        return LocalExecutor(self.settings, self.tracker)

    @property
    def checkpoints(self) -> Path:
        return self.settings.checkpoints(self.tracker.parent_id)

    def spec(self, *arguments: Any, **overrides: Any) -> TrialSpec:
        return make_spec(self.manifest.digest, *arguments, **overrides)

    def state(self, spec: TrialSpec) -> tracking.TrialState | None:
        return tracking.trial_states(self.tracker.uri, self.tracker.experiment_id, [spec.key]).get(spec.key)

    def run_of(self, spec: TrialSpec) -> Run:
        state = self.state(spec)
        assert state is not None
        return self.tracker.client.get_run(state.run_id)

    def artifact(self, spec: TrialSpec, path: str, folder: Path) -> Path:
        folder.mkdir()
        return Path(self.tracker.client.download_artifacts(self.run_of(spec).info.run_id, path, str(folder)))

    def steps(self, spec: TrialSpec, metric: str) -> list[int]:
        run_id = self.run_of(spec).info.run_id
        return [point.step for point in self.tracker.client.get_metric_history(run_id, metric)]


MakeGrid = Callable[..., Grid]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_obvious(tmp_path_factory.mktemp("runner") / "dolos")


@pytest.fixture
def make_grid(tmp_path: Path, images: Path, new_store: Callable[[Path], str]) -> MakeGrid:
    def make(name: str = "grid", **changes: Any) -> Grid:
        uri = new_store(tmp_path / name / "runs")
        settings = make_settings(tmp_path / name, uri, **changes)
        settings = dataclasses.replace(settings, cache=tmp_path / "cache")
        manifest = make_manifest(images, settings)
        tracker = tracking.open_grid(uri, "dolos", manifest, [], settings.runs / "artifacts")
        return Grid(settings, manifest, tracker)

    return make


class Watcher(list[TrialEvent]):
    """Keeps the events; presses Ctrl-C where it is told to."""

    def __init__(self, interrupt_at: Callable[[TrialEvent], bool] = lambda event: False) -> None:
        super().__init__()
        self.interrupt_at = interrupt_at
        self.moments: list[float] = []  # time.monotonic() of each event

    def __call__(self, event: TrialEvent) -> None:
        self.append(event)
        self.moments.append(time.monotonic())
        if self.interrupt_at(event):
            raise KeyboardInterrupt

    def kinds(self, spec: TrialSpec) -> list[str]:
        return [event.kind for event in self if event.key == spec.key]

    @property
    def epochs(self) -> list[int]:
        return [int(event.metrics["epoch"]) for event in self if event.kind == REPORTED]


# From pending to finished --------------------------------------------------------------------------------------------


def test_a_grid_of_several_methods_and_tasks_runs_to_its_end(make_grid: MakeGrid) -> None:
    grid = make_grid()
    specs = [
        grid.spec("residual_linear"),
        grid.spec("residual_linear", task=ATTRIBUTION, train=("lama", "ldm")),
        grid.spec("xception_scratch", **NETWORK),
    ]
    watcher, progress = Watcher(), []
    grid.executor.prepare(specs, lambda *what: progress.append(what))
    grid.executor.run(specs, watcher)
    assert watcher.kinds(specs[0]) == [STARTED, REPORTED, DONE]
    assert watcher.kinds(specs[2]) == [STARTED, *[REPORTED] * 4, DONE]
    states = tracking.trial_states(grid.tracker.uri, grid.tracker.experiment_id, [spec.key for spec in specs])
    assert {state.state for state in states.values()} == {FINISHED}
    assert make_plan(specs, states).pending == ()
    for spec in specs:
        run = grid.run_of(spec)
        assert run.data.tags[names.PARENT_RUN] == grid.tracker.parent_id
        assert run.data.metrics[names.SECONDS] > 0
    assert grid.run_of(specs[0]).data.metrics["test/lama/auroc"] == 1.0
    assert grid.run_of(specs[1]).data.metrics["test/all/accuracy"] == 1.0
    assert grid.steps(specs[2], "train/loss") == [1, 2, 3, 4]
    num_images = len(grid.manifest.table)
    assert {(what, done) for what, done, total in progress if done == total} == {
        ("residual_linear", num_images),
        ("xception_scratch", num_images),
    }


def test_what_is_prepared_once_is_not_prepared_again(make_grid: MakeGrid) -> None:
    grid = make_grid()
    progress: list[Any] = []
    for _ in range(2):
        grid.executor.prepare([grid.spec("residual_linear")], lambda *what: progress.append(what))
    assert sum(done == total for _, done, total in progress) == 1


def test_trials_that_share_method_and_configuration_share_their_inputs(make_grid: MakeGrid) -> None:
    grid = make_grid()
    same = [grid.spec("residual_linear", train=(name,), seed=seed) for name in ("lama", "ldm") for seed in (0, 1)]
    other = [grid.spec("residual_linear", l2=0.1), grid.spec("xception_scratch")]
    kept = distinct_inputs([*same, *other])
    assert sorted((spec.method, spec.config) for spec in kept) == sorted(
        (spec.method, spec.config) for spec in [same[0], *other]
    )


# Failures ------------------------------------------------------------------------------------------------------------


def test_a_trial_that_diverges_does_not_stop_the_others(make_grid: MakeGrid, tmp_path: Path) -> None:
    grid = make_grid()
    bad = grid.spec("xception_scratch", learning_rate=1e30, epochs=2, batch_size=4)
    good = grid.spec("residual_linear")
    watcher = Watcher()
    grid.executor.run([bad, good], watcher)
    assert watcher.kinds(bad)[-1] == FAILED
    assert watcher.kinds(good)[-1] == DONE
    (failed,) = (event for event in watcher if event.kind == FAILED)
    assert "lower learning_rate" in failed.error
    run = grid.run_of(bad)
    assert run.info.status == "FAILED"
    assert run.data.tags[names.ERROR].startswith("TrainingDiverged: ")
    text = grid.artifact(bad, names.TRACEBACK, tmp_path / "back").read_text()
    assert "Traceback (most recent call last)" in text
    assert "models/training.py" in text
    assert grid.state(good).state == FINISHED  # type: ignore[union-attr]


def execute(grid: Grid, spec: TrialSpec) -> None:
    execute_trial(spec, grid.settings, grid.tracker, share=0.0, report=lambda metrics, checkpoint: None)


def test_divergence_is_a_failure_that_a_retry_would_repeat(make_grid: MakeGrid) -> None:
    grid = make_grid()
    with pytest.raises(PermanentFailureError, match="TrainingDiverged: the"):
        execute(grid, grid.spec("xception_scratch", learning_rate=1e30, epochs=2, batch_size=4))


def test_weights_that_are_gone_are_a_failure_that_a_retry_would_repeat(make_grid: MakeGrid) -> None:
    grid = make_grid()
    with pytest.raises(PermanentFailureError, match="WeightsError: no local file is known"):
        execute(grid, grid.spec("xception_scratch", weights="file:0123456789abcdef"))


def test_anything_else_may_be_retried_and_goes_on_in_the_same_run(make_grid: MakeGrid) -> None:
    grid = make_grid()
    spec = grid.spec("residual_linear")
    hidden = grid.settings.manifests.with_name("elsewhere")
    grid.settings.manifests.rename(hidden)  # as where a disk is not mounted yet
    with pytest.raises(FileNotFoundError):
        execute(grid, spec)
    failed = grid.run_of(spec)
    assert failed.info.status == "FAILED"
    hidden.rename(grid.settings.manifests)
    execute(grid, spec)
    finished = grid.run_of(spec)
    assert finished.info.run_id == failed.info.run_id
    assert finished.info.status == "FINISHED"


def test_what_a_trial_is_warned_of_is_kept_with_its_run(make_grid: MakeGrid, tmp_path: Path) -> None:
    grid = make_grid()
    warned, quiet = grid.spec("residual_linear", max_iterations=1), grid.spec("residual_linear")
    grid.executor.run([warned, quiet], Watcher())
    assert "had not converged" in grid.artifact(warned, names.WARNINGS, tmp_path / "back").read_text()
    kept = grid.tracker.client.list_artifacts(grid.run_of(quiet).info.run_id)
    assert names.WARNINGS not in {item.path for item in kept}


def test_a_trial_that_runs_out_of_memory_ends_in_halves_and_its_run_says_so(
    make_grid: MakeGrid, tmp_path: Path
) -> None:
    def refuse(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if isinstance(module, torch.nn.Conv2d) and len(inputs[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    grid = make_grid()
    short, plain = (grid.spec("xception_scratch", **NETWORK, seed=seed) for seed in (0, 1))
    with torch.nn.modules.module.register_module_forward_pre_hook(refuse):
        grid.executor.run([short], Watcher())
    grid.executor.run([plain], Watcher())
    assert [grid.run_of(spec).data.tags[names.BATCH_HALVED] for spec in (short, plain)] == ["true", "false"]
    assert "two halves a batch" in grid.artifact(short, names.WARNINGS, tmp_path / "back").read_text()


def test_a_library_that_logs_badly_does_not_end_the_trial(make_grid: MakeGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = make_grid()
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own would fail the test for such a record
    spec = grid.spec("residual_linear")

    def report(metrics: dict[str, float], checkpoint: Path | None) -> None:
        logging.getLogger("some.library").warning("%d images", "seven")

    execute_trial(spec, grid.settings, grid.tracker, share=0.0, report=report)
    assert grid.run_of(spec).info.status == "FINISHED"


# Interruption --------------------------------------------------------------------------------------------------------


def interrupted_after_an_epoch(grid: Grid, spec: TrialSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = Watcher(lambda event: event.kind == REPORTED and event.metrics["epoch"] == 2)
    with pytest.raises(KeyboardInterrupt):
        grid.executor.run([spec], watcher)


def interrupted_within_an_epoch(grid: Grid, spec: TrialSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    keep, kept = runner._keep, []

    def keep_some(checkpoint: Path, folder: Path) -> None:
        keep(checkpoint, folder)
        kept.append(checkpoint)
        if len(kept) == 7:  # 4 steps an epoch and one more checkpoint at its end: in the middle of the second
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(runner, "_keep", keep_some)
        with pytest.raises(KeyboardInterrupt):
            grid.executor.run([spec], Watcher())


@pytest.mark.parametrize("interrupt", [interrupted_after_an_epoch, interrupted_within_an_epoch])
def test_an_interrupted_trial_goes_on_from_its_checkpoint_and_ends_as_if_nothing_had_been(
    make_grid: MakeGrid,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    interrupt: Callable[[Grid, TrialSpec, pytest.MonkeyPatch], None],
) -> None:
    grid = make_grid(checkpoint_seconds=0)
    spec = grid.spec("xception_scratch", **NETWORK)
    interrupt(grid, spec, monkeypatch)
    grid.tracker.close_interrupted([spec.key])
    before = grid.state(spec)
    assert before is not None
    assert before.state == INTERRUPTED
    assert latest_state(grid.checkpoints, spec.key)[1] > 0

    watcher = Watcher()
    grid.executor.run([spec], watcher)
    assert watcher.epochs == [2, 3, 4]  # the first is not computed again
    assert grid.state(spec) == tracking.TrialState(before.run_id, FINISHED)
    for metric in ("train/loss", "valid/loss", "valid/accuracy", "learning_rate"):
        assert grid.steps(spec, metric) == [1, 2, 3, 4]
    assert latest_state(grid.checkpoints, spec.key) == (None, 0)

    straight = make_grid("straight")
    straight.executor.run([spec], Watcher())
    pd.testing.assert_frame_equal(
        pd.read_parquet(grid.artifact(spec, names.SCORES, tmp_path / "one")),
        pd.read_parquet(straight.artifact(spec, names.SCORES, tmp_path / "two")),
        check_exact=True,
    )
    one, two = (dict(each.run_of(spec).data.metrics, **{names.SECONDS: 0}) for each in (grid, straight))
    assert one == two


def test_the_same_trial_of_another_grid_neither_goes_on_from_those_checkpoints_nor_removes_them(
    make_grid: MakeGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = make_grid(checkpoint_seconds=0)
    spec = grid.spec("xception_scratch", **NETWORK)
    interrupted_after_an_epoch(grid, spec, monkeypatch)
    before = latest_state(grid.checkpoints, spec.key)[1]
    namesake = dataclasses.replace(
        grid,
        tracker=tracking.open_grid(grid.tracker.uri, "namesake", grid.manifest, [spec], grid.settings.runs / "other"),
    )
    watcher = Watcher()
    namesake.executor.run([spec], watcher)
    assert watcher.epochs == [1, 2, 3, 4]
    assert latest_state(grid.checkpoints, spec.key)[1] == before > 0


def test_an_interrupted_fit_of_a_linear_classifier_starts_anew_in_the_same_run(make_grid: MakeGrid) -> None:
    grid = make_grid(checkpoint_seconds=0)
    spec = grid.spec("residual_linear", **ADAM | {"epochs": 4})
    with pytest.raises(KeyboardInterrupt):
        grid.executor.run([spec], Watcher(lambda event: event.kind == REPORTED and event.metrics["epoch"] == 2))
    watcher = Watcher()
    grid.executor.run([spec], watcher)
    assert watcher.epochs == [1, 2, 3, 4]
    assert grid.steps(spec, "valid/loss") == [1, 2, 3, 4]
    straight = make_grid("straight")
    straight.executor.run([spec], Watcher())
    one, two = (dict(each.run_of(spec).data.metrics, **{names.SECONDS: 0}) for each in (grid, straight))
    assert one == two


def test_a_damaged_checkpoint_costs_time_and_nothing_else(
    make_grid: MakeGrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = make_grid(checkpoint_seconds=0)
    spec = grid.spec("xception_scratch", **NETWORK)
    interrupted_after_an_epoch(grid, spec, monkeypatch)
    for state in grid.checkpoints.rglob("state.pt"):
        state.write_bytes(state.read_bytes()[:100])
    watcher, started = Watcher(), time.monotonic()
    grid.executor.run([spec], watcher)
    first = watcher.moments[watcher.kinds(spec).index(REPORTED)] - started
    print(f"all checkpoints truncated: the first epoch, from the beginning, after {first:.2f} s")  # for docs/faults.md
    assert watcher.epochs == [1, 2, 3, 4]
    assert grid.steps(spec, "train/loss") == [1, 2, 3, 4]
    assert "going back to the one before it" in grid.artifact(spec, names.WARNINGS, tmp_path / "back").read_text()


def test_only_the_two_newest_checkpoints_are_kept(make_grid: MakeGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = make_grid(checkpoint_seconds=0)
    spec = grid.spec("xception_scratch", **NETWORK)
    interrupted_within_an_epoch(grid, spec, monkeypatch)
    folder = grid.checkpoints / "local" / spec.key
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint_000005", "checkpoint_000006"]


def test_ctrl_c_stops_the_grid_and_not_only_the_trial(make_grid: MakeGrid) -> None:
    grid = make_grid()
    first, second = grid.spec("residual_linear"), grid.spec("residual_linear", train=("ldm",))
    with pytest.raises(KeyboardInterrupt):
        grid.executor.run([first, second], Watcher(lambda event: event.kind == REPORTED))
    assert grid.state(second) is None
    assert grid.state(first).state != FAILED_STATE  # type: ignore[union-attr]


# Before the grid starts ----------------------------------------------------------------------------------------------


def specs_without_weights(data: str, tmp_path: Path) -> tuple[Sequence[TrialSpec], dict[str, Path]]:
    changed, fake = tmp_path / "changed.pt", "0" * 16
    changed.write_bytes(b"other content")
    specs = [
        make_spec(data, "xception_scratch", weights="file:1111111111111111"),
        make_spec(data, "xception_pretrained", weights=f"file:{fake}"),
        make_spec(data, "residual_linear"),
        make_spec(data, "clip_linear", weights="nonsense"),
    ]
    return specs, {fake: changed}


def test_all_methods_whose_weights_cannot_be_had_are_named_at_once(tmp_path: Path) -> None:
    specs, files = specs_without_weights("0" * 16, tmp_path)
    settings = make_settings(tmp_path, weight_files=files)
    with pytest.raises(WeightsError) as caught:
        check_detectors([*specs, dataclasses.replace(specs[0], seed=5)], settings)
    message = str(caught.value)
    assert [line.partition(":")[0] for line in message.splitlines()] == [
        "xception_scratch",
        "xception_pretrained",
        "clip_linear",
    ]
    assert "--weights xception_scratch=FILE" in message  # the remedy names the method, not METHOD
    assert "METHOD" not in message
    assert "changed.pt has changed" in message


def test_sound_methods_pass(tmp_path: Path) -> None:
    check_detectors(
        [make_spec("0" * 16, "residual_linear"), make_spec("0" * 16, "clip_linear")], make_settings(tmp_path)
    )
