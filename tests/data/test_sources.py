"""What every registered corpus promises."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from data.sources import Source, get_source, list_sources
from data.sources.base import SHARED_REAL

PUBLISHED = [name for name in list_sources() if get_source(name).published]


@pytest.fixture(params=list_sources())
def source(request: pytest.FixtureRequest) -> Source:
    return get_source(request.param)


def test_its_layout_is_described(source: Source) -> None:
    assert len((source.scan.__doc__ or "").splitlines()) > 2  # shown to a user whose folder does not fit


def test_a_folder_that_does_not_fit_is_a_problem_and_no_error(source: Source, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for root in (tmp_path / "nowhere", tmp_path / "file"):
        scan = source.scan(root)
        assert [problem.skippable for problem in scan.problems] == [False]
        assert scan.entries == []
    assert source.scan(tmp_path / "empty").entries == []


def test_its_facts_are_about_generators(source: Source) -> None:
    assert SHARED_REAL not in source.order
    assert len(set(source.order)) == len(source.order)
    if source.order:
        assert set(source.caveats) <= {"", *source.order}
    assert all(text.endswith(".") for text in source.caveats.values())  # a sentence of the report


def test_its_generators_come_first_in_its_own_order_then_the_others(source: Source) -> None:
    mixed = {*source.order, "a_new_one", "zz"}
    assert source.ordered(mixed) == [*source.order, "a_new_one", "zz"]
    assert source.ordered(list(source.order[1:])) == list(source.order[1:])
    assert source.ordered([]) == []


@pytest.mark.parametrize("name", PUBLISHED)
def test_its_published_values_are_shares_of_its_generators(name: str) -> None:
    source = get_source(name)
    published = source.published
    assert published is not None
    detection, attribution = pd.read_csv(published.detection), pd.read_csv(published.attribution)
    assert {"method", "tested_on", "trained_on", "accuracy"} <= set(detection.columns)
    assert {*detection["tested_on"], *detection["trained_on"]} == set(source.order)
    assert detection["accuracy"].between(0, 1).all()
    assert not detection.duplicated(["method", "tested_on", "trained_on"]).any()
    assert {"method", "class", "accuracy"} <= set(attribution.columns)
    assert set(attribution["class"]) == {"overall", "real", *source.order}
    assert attribution["accuracy"].between(0, 1).all()
    assert set(published.setup) <= set(detection["method"])
    if published.localisation is not None:
        localisation = pd.read_csv(published.localisation)
        assert localisation["iou_percent"].between(0, 100).all()
        assert published.localiser
    assert all(splits["train"] > splits["test"] > 0 for splits in published.num_images.values())
    assert published.paper


def test_the_demo_is_drawn_and_the_others_need_a_folder() -> None:
    drawn = [name for name in list_sources() if get_source(name).drawn]
    assert "demo" in drawn
    assert not {"dolos", "folders"} & set(drawn)


def test_the_order_of_the_published_tables() -> None:
    assert get_source("dolos").order == ("lama", "ldm", "repaint", "pluralistic")
