"""What a report says that it does not show."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from analysis.page import sentence_list
from analysis.parts.limitations import limits
from analysis.store import Store
from models.registry import detector_info, resolve_config
from tests.analysis.grids import GENERATORS, Grid
from tests.grid.grids import open_grid


@pytest.fixture
def grid(store: str, tmp_path: Path) -> Grid:
    return Grid(store, tmp_path, num_each=8)


def said(opened: Store, results: pd.DataFrame | None = None, scores: pd.DataFrame | None = None) -> str:
    found = limits(opened, opened.results() if results is None else results, scores, notes=["a note of its own"])
    return "\n".join(f"{text.text} {text.command}" for text in found)


def test_single_seeds_are_named(grid: Grid) -> None:
    grid.finish(grid.spec("xception_scratch"))
    assert "There is one seed of every method" in said(grid.open())
    grid.finish(grid.spec("xception_pretrained"), grid.spec("xception_pretrained", seed=1))
    assert "There is one seed of xception_scratch: " in said(grid.open())


def test_methods_that_do_not_depend_on_the_seed_are_named(grid: Grid) -> None:
    grid.finish(grid.spec("residual_linear"))
    text = said(grid.open())
    assert "residual_linear does not depend on the seed, and ran once" in text
    assert "There is one seed" not in text
    grid.finish(grid.spec("residual_linear", seed=7))
    assert "does not depend on the seed, so runs that differ in the seed alone are one run: nothing" in said(
        grid.open()
    )
    grid.finish(grid.spec("residual_linear", solver="adam"))
    assert "There is one seed of residual_linear (solver=adam)" in said(grid.open())


def test_small_forms_are_named(grid: Grid) -> None:
    grid.finish(grid.spec("rine", **resolve_config("rine")))
    assert "small form" not in said(grid.open())
    grid.finish(grid.spec("effort", **resolve_config("effort", detector_info("effort").small)))
    assert "\neffort is in small form, with a small network in place of the method's own: these" in said(grid.open())


def test_missing_trials_come_with_their_command(grid: Grid) -> None:
    grid.finish(grid.spec("residual_linear"))
    assert "not finished" not in said(grid.open())
    grid.plan(*(grid.spec("clip_linear", train=name) for name in GENERATORS))
    text = said(grid.open())
    assert "3 of 4 trials are not finished (3 pending)" in text
    assert "--methods clip_linear" in text


def test_finished_trials_that_lack_a_condition_come_with_their_command(store: str, tmp_path: Path) -> None:
    grid = Grid(store, tmp_path, num_each=8, conditions=["jpeg-75"])
    grid.finish(grid.spec("residual_linear"), conditions=["jpeg-75"])
    grid.finish(grid.spec("clip_linear"))
    text = said(grid.open())
    assert "Finished trials were not scored under jpeg-75 (1 of clip_linear)" in text
    assert "--conditions jpeg-75" in text
    assert "residual_linear" not in text.partition("jpeg-75 (")[2].partition("\n")[0]


def test_attribution_that_leans_to_one_class_is_named(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    (run_id,) = grid.finish(grid.attribution("residual_linear"))
    opened = grid.open()
    scores = opened.scores(run_id)
    assert "Attribution's test images" not in said(opened)
    fewer = scores.drop(scores.index[scores["generator"] == "ldm"][:4])
    monkeypatch.setattr(Store, "scores", lambda *arguments, **named: fewer)
    counts = fewer["generator"].value_counts()
    text = said(opened)
    assert f"{counts['ldm']} of ldm" in text
    assert f"is right for {counts.max() / len(fewer):.0%} of them" in text


def test_what_the_launch_found_in_the_data_is_kept_for_the_report(store: str, tmp_path: Path) -> None:
    grid = Grid(store, tmp_path)
    grid.finish(grid.spec())
    assert grid.open().notes == []
    noted = dataclasses.replace(grid.manifest, notes=("PNG against JPEG", "masks are missing"))
    open_grid(grid.tracker.uri, "dolos", noted, [grid.spec()], tmp_path / "artifacts")
    assert grid.open().notes == ["PNG against JPEG", "masks are missing"]


def test_test_sets_that_lean_to_one_class_are_named(grid: Grid) -> None:
    (run_id,) = grid.finish(grid.spec("residual_linear"))
    opened = grid.open()
    scores = opened.scores(run_id)
    assert "unequal numbers" not in said(opened, scores=scores)
    one_less = scores.drop(scores.index[scores["generator"] == "ldm"][0])
    text = said(opened, scores=one_less)
    assert "unequal numbers of real and fake images (ldm " in text
    assert "lama" not in text.split("unequal numbers")[1].split(")")[0]


def test_a_detector_that_ranks_the_wrong_way_round_is_named(grid: Grid) -> None:
    grid.finish(grid.spec("residual_linear"))
    opened = grid.open()
    results = opened.results()
    of_auroc = results["metric"] == "auroc"
    results.loc[of_auroc, "value"] = 0.9
    assert "AUROC is below 0.4" not in said(opened, results)
    results.loc[of_auroc & (results["tested_on"] == "lama"), "value"] = 0.1
    assert "In 1 cell the AUROC is below 0.4" in said(opened, results)


def test_notes_of_the_data_and_the_intervals_are_always_there(grid: Grid) -> None:
    grid.finish(grid.spec("residual_linear"))
    text = said(grid.open())
    assert "The data set's own note: a note of its own" in text
    assert "A confidence interval of the mean says how far a value would move with other photographs" in text
    assert "A prediction interval says where one more run would lie" in text


def test_lists_in_sentences() -> None:
    assert sentence_list(["a"]) == "a"
    assert sentence_list(["a", "b", "c"]) == "a, b and c"


def test_the_size_of_a_cell_is_said(grid: Grid) -> None:
    (run_id,) = grid.finish(grid.spec("residual_linear"))
    opened = grid.open()
    scores = opened.scores(run_id)
    cell = scores[(scores["label"] == 0) | (scores["generator"] == "ldm")]
    expected = f"Each cell rests on {len(cell)} test images of {cell['source_id'].nunique()} source photographs."
    assert expected in said(opened, scores=scores)


def test_a_detector_that_always_says_the_same_is_named(grid: Grid) -> None:
    grid.finish(grid.spec("residual_linear"), grid.attribution("residual_linear"))  # attribution is no cell of it
    opened = grid.open()
    results = opened.results()
    results.loc[results["metric"].isin(["real_accuracy", "fake_accuracy"]), "value"] = 0.9
    assert "same answer" not in said(opened, results)
    here = results["tested_on"] == "lama"
    results.loc[here & (results["metric"] == "real_accuracy"), "value"] = 0.0
    results.loc[here & (results["metric"] == "fake_accuracy"), "value"] = 1.0
    assert "by residual_linear in 1 of 3 cells" in said(opened, results)
