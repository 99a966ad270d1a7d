"""Which run `predict --best` takes: by validation values over all generators, never by test values."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.predict import best_run
from analysis.store import StoreError
from grid import names
from tests.analysis.grids import Grid


@pytest.fixture
def grid(store: str, tmp_path: Path) -> Grid:
    return Grid(store, tmp_path, num_each=8)


def test_the_run_with_the_easiest_generator_does_not_win(grid: Grid) -> None:
    """Perfect on its own fakes, as validated before, and blind to the others."""
    easy = {"lama": 1.0, "ldm": 0.45, "repaint": 0.5}
    even = {"lama": 0.8, "ldm": 0.9, "repaint": 0.7}
    grid.finish(grid.spec(train="lama"), validation=easy)
    (expected,) = grid.finish(grid.spec(train="ldm"), validation=even)
    run_id, words = best_run(grid.open(), "residual_linear")
    assert run_id == expected
    assert words == (
        "mean validation AUROC 0.800 over the generators lama, ldm, repaint, seen in training or not: the best of 2 "
        "runs; trained on ldm"
    )


def test_a_run_trained_on_several_generators_goes_first(grid: Grid) -> None:
    grid.finish(grid.spec(train="ldm"), validation={"lama": 0.9, "ldm": 0.9, "repaint": 0.9})
    grid.finish(grid.spec(train="lama+ldm"), validation={"lama": 0.7, "ldm": 0.7, "repaint": 0.6})
    (expected,) = grid.finish(grid.spec(train="lama+repaint"), validation={"lama": 0.8, "ldm": 0.7, "repaint": 0.6})
    run_id, words = best_run(grid.open(), "residual_linear")
    assert run_id == expected
    assert "the best of 2 runs that were trained on several generators; trained on lama+repaint" in words


def test_older_runs_say_what_to_run(grid: Grid) -> None:
    grid.finish(grid.spec(train="lama"), validation={})
    with pytest.raises(StoreError, match="has scored the validation images of every generator") as caught:
        best_run(grid.open(), "residual_linear")
    assert "python launch.py dolos" in str(caught.value)
    assert "--train-on lama" in str(caught.value)
    (known,) = grid.finish(grid.spec(train="ldm"), validation={"lama": 0.6, "ldm": 0.6, "repaint": 0.6})
    run_id, words = best_run(grid.open(), "residual_linear")
    assert run_id == known
    assert "; 1 older run lacks this value and was not compared. This adds it, from the checkpoints:\npython" in words


def test_a_run_whose_checkpoint_is_lost_is_to_be_deleted(grid: Grid) -> None:
    (lost,) = grid.finish(grid.spec(train="lama"), validation={})
    grid.tracker.client.set_tag(lost, names.VALIDATED, names.NEVER)
    grid.finish(grid.spec(train="ldm"))
    _, words = best_run(grid.open(), "residual_linear")
    assert (
        "; 1 older run lacks this value and was not compared. A run without a checkpoint cannot get it: delete" in words
    )
    assert words.endswith(f"mlflow runs delete --run-id {lost}")
    assert "This adds it" not in words


def test_test_values_choose_nothing(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    (expected,) = grid.finish(grid.spec(train="lama"), validation={"lama": 0.9, "ldm": 0.9, "repaint": 0.9})
    grid.finish(grid.spec(train="ldm"), validation={"lama": 0.5, "ldm": 0.5, "repaint": 0.5})
    opened = grid.open()
    for reader in ("results", "scores"):
        monkeypatch.delattr(type(opened), reader)
    assert best_run(opened, "residual_linear")[0] == expected


def test_only_runs_of_one_training_condition_are_compared(grid: Grid) -> None:
    """A run trained under jpeg-75 has its values on JPEG pictures."""
    low, high = (dict.fromkeys(("lama", "ldm", "repaint"), value) for value in (0.6, 0.9))
    grid.finish(grid.spec(train_condition="jpeg-95"), validation=high)
    (on_jpeg,) = grid.finish(grid.spec(train="ldm", train_condition="jpeg-75"), validation=low)
    grid.finish(grid.spec(train="lama", train_condition="jpeg-75"), validation=dict.fromkeys(low, 0.5))
    run_id, words = best_run(grid.open(), "residual_linear")
    assert run_id == on_jpeg
    assert words == (
        "mean validation AUROC 0.600 on jpeg-75 pictures over the generators lama, ldm, repaint, seen in training or "
        "not: the best of 2 runs; trained on ldm; no run was trained on clean pictures and has this value, so runs "
        "under jpeg-75 were compared; runs of other training conditions were not compared: 1 under jpeg-95"
    )
    grid.finish(grid.spec(train_condition="jpeg-75", train="lama+ldm"), validation=high)
    (clean,) = grid.finish(grid.spec(), validation=low)
    run_id, words = best_run(grid.open(), "residual_linear")
    assert run_id == clean
    assert words == (
        "mean validation AUROC 0.600 over the generators lama, ldm, repaint, seen in training or not: the only run; "
        "trained on lama; runs of other training conditions were not compared: 3 under jpeg-75, 1 under jpeg-95"
    )
