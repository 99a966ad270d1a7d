"""The benchmark of large grids: its clones are finished grids, its growth is right, and it runs at a toy size."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from analysis.store import open_store
from benchmarks import scale, scale_report
from benchmarks.clones import EXPERIMENT, Shape, write
from benchmarks.measure import Target
from grid.plan import FINISHED


def test_growth_is_the_exponent_of_the_size() -> None:
    assert scale_report.exponents({100: [1.0, 3.0], 300: [9.0, 9.0], 900: [81.0, 27.0]}) == pytest.approx([2.0, 1.0])


def test_shapes_have_the_sizes_of_the_targets() -> None:
    assert [shape.num_runs for shape in scale_report.SHAPES] == [100, 300, 1_000]


@pytest.mark.long
def test_clones_are_finished_grids_of_their_sizes(tmp_path: Path) -> None:
    shapes = [Shape(1, 1, num_methods=1), Shape(2, 1, num_methods=1)]
    stores = write(tmp_path, shapes, num_images=200)
    assert list(stores) == [shape.num_runs for shape in shapes] == [5, 10]
    for size, uri in stores.items():
        opened = open_store(EXPERIMENT, tracking_uri=uri)
        runs = opened.runs()
        assert runs["state"].tolist() == [FINISHED] * size
        assert runs["variant"].nunique() == size // 5
        assert all(len(opened.scores(run_id)) for run_id in runs["run_id"])  # held against the test images and metrics
        assert set(opened.history()["metric"]) == {"train/loss", "valid/loss", "train/accuracy", "valid/accuracy"}
    assert scale_report.plain(stores[5]) == 4 * 4 * 3  # detectors, cells, metrics


def test_a_cell_is_measured() -> None:
    found = scale_report.one_cell(num_images=500)
    assert set(found) == {"seconds", "plain", "peak_gb"}
    assert min(found.values()) > 0


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
def test_reports_of_three_sizes_are_measured_at_a_toy_size() -> None:
    figures = scale.run(1, toy=True).figures
    assert {f"report: {size} runs" for size in (5, 10, 15)} < set(figures)
    for name, figure in figures.items():
        assert len(figure.values) == 1
        assert math.isfinite(figure.values[0])
        assert figure.values[0] > 0 or figure.unit == "exponent", name
    assert figures["report: cell"].target == Target(10.0)
