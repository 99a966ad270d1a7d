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

from grid import names, runner
from grid.checkpoints import latest_state
from grid.faults import FaultError
from grid.plan import FAILED as FAILED_STATE
from grid.plan import FINISHED, INTERRUPTED, TrialState, Work, make_plan
from grid.runner import (
    DONE,
    FAILED,
    REPORTED,
    STARTED,
    PermanentFailureError,
    check_detectors,
    execute,
)
from grid.spec import TrialSpec
from grid.tasks import ATTRIBUTION
from models.detector import WeightsError
from tests.grid.grids import make_settings, make_spec, open_grid, work_of
from tests.grid.running import Grid, MakeGrid, Watcher

NETWORK: dict[str, Any] = {"epochs": 4, "batch_size": 4, "learning_rate": 3e-3, "flip": False}
ADAM: dict[str, Any] = {"solver": "adam", "learning_rate": 0.02, "epochs": 4, "batch_size": 16}


# From pending to finished --------------------------------------------------------------------------------------------


def test_a_grid_of_several_methods_and_tasks_runs_to_its_end(make_grid: MakeGrid) -> None:
    grid = make_grid()
    specs = [
        grid.spec("residual_linear"),
        grid.spec("residual_linear", task=ATTRIBUTION, train=("lama", "ldm")),
        grid.spec("xception_scratch", **NETWORK),
    ]
    watcher, progress = Watcher(), []
    grid.executor.prepare(work_of(specs), lambda *what: progress.append(what))
    grid.executor.run(work_of(specs), watcher)
    assert watcher.kinds(specs[0]) == [STARTED, REPORTED, DONE]
    assert watcher.kinds(specs[2]) == [STARTED, *[REPORTED] * 4, DONE]
    states = grid.tracker.records.states([spec.key for spec in specs])
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
        grid.executor.prepare(work_of([grid.spec("residual_linear")]), lambda *what: progress.append(what))
    assert sum(done == total for _, done, total in progress) == 1


def test_trials_that_share_method_and_configuration_share_their_inputs(make_grid: MakeGrid) -> None:
    grid = make_grid()
    same = [grid.spec("residual_linear", train=(name,), seed=seed) for name in ("lama", "ldm") for seed in (0, 1)]
    progress: list[Any] = []
    grid.executor.prepare(work_of([*same, grid.spec("xception_scratch")]), lambda *what: progress.append(what))
    num_images = len(grid.manifest.table)
    assert [what for what, done, total in progress if done == total == num_images] == [
        "residual_linear",
        "xception_scratch",
    ]


# Failures ------------------------------------------------------------------------------------------------------------


def test_a_trial_that_diverges_does_not_stop_the_others(make_grid: MakeGrid, tmp_path: Path) -> None:
    grid = make_grid()
    bad = grid.spec("xception_scratch", learning_rate=1e30, epochs=2, batch_size=4)
    good = grid.spec("residual_linear")
    watcher = grid.run(bad, good)
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


def test_divergence_is_a_failure_that_a_retry_would_repeat(make_grid: MakeGrid) -> None:
    grid = make_grid()
    with pytest.raises(PermanentFailureError, match="TrainingDiverged: the"):
        grid.execute(Work(grid.spec("xception_scratch", learning_rate=1e30, epochs=2, batch_size=4)))


def test_weights_that_are_gone_are_a_failure_that_a_retry_would_repeat(make_grid: MakeGrid) -> None:
    grid = make_grid()
    with pytest.raises(PermanentFailureError, match="WeightsError: no local file is known"):
        grid.execute(Work(grid.spec("xception_scratch", weights="file:0123456789abcdef")))


def test_anything_else_may_be_retried_and_goes_on_in_the_same_run(make_grid: MakeGrid) -> None:
    grid = make_grid()
    spec = grid.spec("residual_linear")
    hidden = grid.settings.manifests.with_name("elsewhere")
    grid.settings.manifests.rename(hidden)  # as where a disk is not mounted yet
    with pytest.raises(FaultError, match=r"the cache .*, or a part of it, was deleted while the grid ran"):
        grid.execute(Work(spec))
    failed = grid.run_of(spec)
    assert failed.info.status == "FAILED"
    hidden.rename(grid.settings.manifests)
    grid.execute(Work(spec))
    finished = grid.run_of(spec)
    assert finished.info.run_id == failed.info.run_id
    assert finished.info.status == "FINISHED"


def test_what_a_trial_is_warned_of_is_kept_with_its_run(make_grid: MakeGrid, tmp_path: Path) -> None:
    grid = make_grid()
    warned, quiet = grid.spec("residual_linear", max_iterations=1), grid.spec("residual_linear", l2=1.0)
    grid.run(warned, quiet)
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
        grid.run(short)
    grid.run(plain)
    assert [grid.run_of(spec).data.tags[names.BATCH_HALVED] for spec in (short, plain)] == ["true", "false"]
    assert "two halves per batch" in grid.artifact(short, names.WARNINGS, tmp_path / "back").read_text()


def test_a_library_that_logs_badly_does_not_end_the_trial(make_grid: MakeGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = make_grid()
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own would fail the test for such a record
    spec = grid.spec("residual_linear")

    def report(metrics: dict[str, float], checkpoint: Path | None) -> None:
        logging.getLogger("some.library").warning("%d images", "seven")

    execute(Work(spec), grid.settings, grid.tracker, share=0.0, report=report)
    assert grid.run_of(spec).info.status == "FINISHED"


# Interruption --------------------------------------------------------------------------------------------------------


def interrupted_after_an_epoch(grid: Grid, spec: TrialSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = Watcher(lambda event: event.kind == REPORTED and event.metrics["epoch"] == 2)
    with pytest.raises(KeyboardInterrupt):
        grid.run(spec, watch=watcher)


def interrupted_within_an_epoch(grid: Grid, spec: TrialSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    write = runner.write_state
    written: list[int] = []

    def write_some(folder: Path, state: dict[str, Any], *, order: int) -> None:
        if len(written) == 7:  # 4 steps an epoch and one more checkpoint at its end: in the middle of the second
            raise KeyboardInterrupt
        write(folder, state, order=order)
        written.append(order)

    with monkeypatch.context() as patched:
        patched.setattr(runner, "write_state", write_some)
        with pytest.raises(KeyboardInterrupt):
            grid.run(spec)


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

    watcher = grid.run(spec)
    assert watcher.epochs == [2, 3, 4]  # the first is not computed again
    assert grid.state(spec) == TrialState(before.run_id, FINISHED, frozenset({"clean"}), validated=True)
    for metric in ("train/loss", "valid/loss", "valid/accuracy", "learning_rate"):
        assert grid.steps(spec, metric) == [1, 2, 3, 4]
    assert latest_state(grid.checkpoints, spec.key) == (None, 0)

    straight = make_grid("straight")
    straight.run(spec)
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
        tracker=open_grid(grid.tracker.uri, "namesake", grid.manifest, [spec], grid.settings.runs / "other"),
    )
    watcher = namesake.run(spec)
    assert watcher.epochs == [1, 2, 3, 4]
    assert latest_state(grid.checkpoints, spec.key)[1] == before > 0


def test_an_interrupted_fit_of_a_linear_classifier_starts_anew_in_the_same_run(make_grid: MakeGrid) -> None:
    grid = make_grid(checkpoint_seconds=0)
    spec = grid.spec("residual_linear", **ADAM)
    with pytest.raises(KeyboardInterrupt):
        grid.run(spec, watch=Watcher(lambda event: event.kind == REPORTED and event.metrics["epoch"] == 2))
    watcher = grid.run(spec)
    assert watcher.epochs == [1, 2, 3, 4]
    assert grid.steps(spec, "valid/loss") == [1, 2, 3, 4]
    straight = make_grid("straight")
    straight.run(spec)
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
    started = time.monotonic()
    watcher = grid.run(spec)
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
        grid.run(first, second, watch=Watcher(lambda event: event.kind == REPORTED))
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


def test_sound_methods_pass_with_how_each_sees_a_picture(tmp_path: Path) -> None:
    specs = [make_spec("0" * 16, method) for method in ("residual_linear", "clip_linear", "xception_scratch")]
    geometries = check_detectors([*specs, dataclasses.replace(specs[2], seed=1)], make_settings(tmp_path))
    assert list(geometries) == ["residual_linear", "clip_linear", "xception_scratch"]
    assert geometries["residual_linear"] is None  # it sees pictures as they are
    sizes = {method: geometry.size for method, geometry in geometries.items() if geometry}
    assert sizes == {"clip_linear": 64, "xception_scratch": 64}
