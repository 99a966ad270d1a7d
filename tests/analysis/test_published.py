"""The published values as they were printed, and ours beside them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.cells import cell_table
from analysis.matrices import cross_generator_matrix, matrix_means
from analysis.page import Folder, Text
from analysis.parts import Options, Report
from analysis.parts.published import published as part_of_report
from analysis.published import COLUMNS, beside_published, published_localisation, setup_differences
from analysis.store import Store, open_store
from data.sources import get_source
from grid.experiments import load_experiment
from models.registry import resolve_config
from tests.analysis import published
from tests.analysis.grids import Grid

PUBLISHED = get_source("dolos").published
assert PUBLISHED is not None


def test_the_files_hold_what_was_printed() -> None:
    detection = pd.read_csv(PUBLISHED.detection).set_index(["method", "tested_on", "trained_on"])["accuracy"]
    assert len(detection) == 64
    for method, table in published.DETECTION.items():
        for tested_on, row in table.items():
            assert tuple(detection[method, tested_on, name] for name in published.GENERATORS) == row
    attribution = pd.read_csv(PUBLISHED.attribution).set_index(["method", "class"])["accuracy"]
    assert len(attribution) == 24
    for method, classes in published.ATTRIBUTION.items():
        assert {name: attribution[method, name] for name in classes} == classes
        assert attribution[method, "overall"] == published.OVERALL[method]


def test_localisation_is_a_share_and_best_in_domain() -> None:
    table = published_localisation(PUBLISHED)
    assert list(table.columns) == ["tested_on", "trained_on", "iou"]
    assert table.set_index(["tested_on", "trained_on"])["iou"]["lama", "pluralistic"] == pytest.approx(0.519)
    matrix = table.pivot_table(index="tested_on", columns="trained_on", values="iou")
    assert set(matrix.index) == set(published.GENERATORS)
    assert matrix.to_numpy().max() == pytest.approx(0.865)


@pytest.mark.parametrize("method", published.DETECTION)
def test_the_experiment_as_it_is_shipped_is_the_published_one(method: str) -> None:
    config = resolve_config(method, load_experiment("dolos").methods[method])
    assert setup_differences(PUBLISHED, method, config) == []
    assert setup_differences(PUBLISHED, method, config | {"weights": "file:0123"}) == []
    other = setup_differences(PUBLISHED, method, config | {"backbone": "small", "weights": "package:x"})
    assert len(other) == 2
    assert other[0].startswith("backbone small instead of ")


@pytest.fixture
def grid(store: str, tmp_path: Path) -> Grid:
    grid = Grid(store, tmp_path, generators=(*published.GENERATORS, "another"), num_each=20)
    grid.finish(*(grid.spec("xception_scratch", train=name) for name in published.GENERATORS))
    grid.finish(grid.attribution("xception_scratch"), grid.spec(train="lama"))
    return grid


def beside(opened: Store) -> pd.DataFrame:
    return beside_published(opened, cell_table(opened))


def test_only_what_was_published_is_laid_beside(grid: Grid) -> None:
    table = beside(grid.open())
    assert list(table.columns) == COLUMNS
    assert set(table["variant"]) == {"xception_scratch"}
    assert set(table["task"]) == {"detection"}  # five classes were published, not six
    inside = table[table["kind"] == "cell"]
    assert set(zip(inside["tested_on"], inside["trained_on"], strict=True)) == {
        (one, other) for one in published.GENERATORS for other in published.GENERATORS
    }
    row = inside.set_index(["tested_on", "trained_on"]).loc[("lama", "ldm")]
    ours = cross_generator_matrix(grid.open().results(), "xception_scratch").loc["lama", "ldm"]
    assert (row["ours"], row["published"]) == (ours, 0.493)
    assert row["difference"] == pytest.approx(ours - 0.493)


def test_another_backbone_is_not_the_published_set_up(grid: Grid) -> None:
    table = beside(grid.open())
    assert not table["comparable"].any()
    assert table["inside"].isna().all()
    assert table["note"].str.contains("not the published set-up: backbone .* instead of xception41").all()
    assert table["note"].str.contains("20 real test images instead of 900").all()


def test_a_narrowed_data_set_is_not_the_published_one(store: str, tmp_path: Path) -> None:
    grid = Grid(store, tmp_path, generators=published.GENERATORS, num_each=20)
    grid.finish(grid.spec("xception_scratch", train="lama", **resolve_config("xception_scratch")))
    table = beside(grid.open())
    assert not table["comparable"].any()
    assert table["inside"].isna().all()
    words = "20 train images of real instead of 9000, 20 valid images of real instead of 900, and so 12 more"
    assert table["note"].str.startswith(f"not the published set-up: {words}").all()


def profile(**images: dict[str, int]) -> dict[str, Any]:
    generators = [name for name in images if name != "real"]
    return {"num_rows": sum(sum(splits.values()) for splits in images.values()), "generators": generators} | (
        {"images": images}
    )


WHOLE = {"train": 9_000, "valid": 900, "test": 900}


def test_a_folder_that_lacks_a_part_of_a_class_is_not_whole(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = Grid(store, tmp_path, generators=published.GENERATORS, num_each=8)
    grid.finish(grid.spec("xception_scratch", train="lama", **resolve_config("xception_scratch")))
    opened = grid.open()
    cells = cell_table(opened)
    cases: list[tuple[dict[str, dict[str, int]], str]] = [
        (dict.fromkeys(("real", *published.GENERATORS), WHOLE), ""),
        # how many images for validation RePaint has is not known
        ({"real": WHOLE, "lama": WHOLE, "repaint": {"train": 9_000, "valid": 5, "test": 900}}, ""),
        ({"real": WHOLE, "lama": WHOLE | {"train": 8_950}}, ""),  # as --skip-bad leaves a few out
        ({"real": WHOLE | {"valid": 0}, "lama": WHOLE}, "0 valid images of real instead of 900"),
        ({"real": WHOLE, "lama": WHOLE | {"train": 8_100}}, "8100 train images of lama instead of 9000"),
        ({"real": WHOLE, "repaint": WHOLE | {"train": 8_100}}, "8100 train images of repaint instead of 9000"),
    ]
    for images, words in cases:
        monkeypatch.setattr(Store, "data_profile", profile(**images))
        table = beside_published(opened, cells)
        assert table["comparable"].all() == (not words)
        assert table["note"].str.contains(words, regex=False).all()
    older = {"num_rows": 100, "generators": ["lama"]}  # grids of an older checkout know the sum alone
    monkeypatch.setattr(Store, "data_profile", older)
    said = beside_published(opened, cells)["note"]
    assert said.str.contains("not the published set-up: 100 images instead of 21600 or more").all()


@pytest.mark.parametrize("setting", [{"size": 128}, {"flip": True}, {"epochs": 2}])
def test_other_settings_of_the_training_are_named(setting: dict[str, object]) -> None:
    ((name, value),) = setting.items()
    (said,) = setup_differences(PUBLISHED, "xception_pretrained", resolve_config("xception_pretrained", setting))
    assert said.startswith(f"{name} {value} instead of ")


def test_with_it_the_published_value_is_inside_or_not(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = dataclasses.replace(get_source("dolos"), published=dataclasses.replace(PUBLISHED, num_images={}))
    monkeypatch.setattr(Store, "source", small)
    grid = Grid(store, tmp_path, generators=published.GENERATORS, num_each=20)
    default = resolve_config("xception_scratch")
    for seed in (0, 1, 2):
        trials = [grid.spec("xception_scratch", train=name, seed=seed, **default) for name in published.GENERATORS]
        grid.finish(*trials, grid.attribution("xception_scratch", seed=seed, **default))
    table = beside(grid.open())
    detection = table[table["task"] == "detection"]
    assert detection["comparable"].all()
    within = detection["published"].between(detection["one_more_low"], detection["one_more_high"])
    assert detection["inside"].tolist() == within.tolist()
    assert set(within) == {True, False}
    assert (detection["one_more_low"] < detection["low"]).all()
    assert (detection["high"] < detection["one_more_high"]).all()
    (means,) = detection[detection["kind"] == "in-domain mean"].to_dict("records")
    matrix = cross_generator_matrix(grid.open().results(), "xception_scratch")
    assert means["ours"] == pytest.approx(matrix_means(matrix).in_domain)
    assert round(means["published"] + 1e-9, 3) == published.MEANS["xception_scratch"][0]
    attribution = table[table["task"] == "attribution"].set_index("tested_on")["published"]
    assert attribution.to_dict() == published.ATTRIBUTION["xception_scratch"] | {"overall": 0.4504}


def test_with_one_seed_it_is_not_known(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = dataclasses.replace(get_source("dolos"), published=dataclasses.replace(PUBLISHED, num_images={}))
    monkeypatch.setattr(Store, "source", small)
    grid = Grid(store, tmp_path, generators=published.GENERATORS, num_each=20)
    for method in ("xception_scratch", "clip_linear"):
        grid.finish(grid.spec(method, train="lama", **resolve_config(method)))
    table = beside(grid.open()).set_index("variant")
    assert table["comparable"].all()
    assert table.loc["xception_scratch", "inside"].isna().all()
    assert table.loc["clip_linear", "inside"].notna().all()  # its seed changes nothing
    blocks = list(part_of_report(Report(grid.open(), Folder(tmp_path / "r"), Options(), [], lambda text: None)))
    text = " ".join(block.text for block in blocks if isinstance(block, Text))
    assert "There is one seed of xception_scratch, so there is no prediction interval" in text
    (tables,) = (block for block in blocks if not isinstance(block, Text))
    assert str(tables).count("value='no prediction interval: one seed'") == 4


def test_another_corpus_has_nothing_beside_it(grid: Grid) -> None:
    store = dataclasses.replace(open_store(tracking_uri=grid.tracker.uri), corpus="demo")
    pd.testing.assert_frame_equal(beside(store), pd.DataFrame(columns=COLUMNS))


def test_the_sentence_counts_cells_means_and_classes_apart(
    grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        ("detection", "cell", True), ("detection", "cell", False), ("detection", "cell", True),
        ("detection", "in-domain mean", False), ("attribution", "cell", True), ("attribution", "cell", pd.NA),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["task", "kind", "inside"]).reindex(columns=COLUMNS)
    table = table.assign(comparable=True).astype({"inside": "boolean"})
    monkeypatch.setattr("analysis.parts.published.beside_published", lambda store, cells: table)
    sentence, single = (
        block.text
        for block in part_of_report(Report(grid.open(), Folder(tmp_path / "r"), Options(), [], lambda text: None))
        if isinstance(block, Text)
    )
    assert "2 of 3 cells of detection" in sentence
    assert "0 of 1 means over such cells" in sentence
    assert "1 of 1 accuracies of attribution" in sentence
    assert "there is no prediction interval" in single  # of the last row
