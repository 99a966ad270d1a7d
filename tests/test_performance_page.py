"""The figures of docs/performance.md that follow from the code are the code's."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from data.store import pixel_store
from grid import ray_executor
from models.geometry import Geometry
from models.registry import detector_info, list_detectors
from models.residuals import NUM_FEATURES

PAGE = (Path(__file__).parents[1] / "docs" / "performance.md").read_text(encoding="utf-8")


def rows_of(method: str) -> list[list[str]]:
    """The cells of each table's row about a method."""
    rows = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| `")]
    return [row for row in rows if f"`{method}`" in row[0]]


@pytest.mark.parametrize("method", list_detectors())
def test_every_method_is_on_the_page_with_its_share(method: str) -> None:
    sizes, shares = rows_of(method)
    share = detector_info(method).gpu_share
    assert float(shares[1]) == share
    assert shares[2] == (f"{1 / share:g}" if share else "any number")
    assert int(sizes[2].replace(",", "")) * 50_000 == pytest.approx(_bytes(sizes[3]), rel=0.01)


def _bytes(text: str) -> float:
    number, unit = text.split()
    return float(number) * {"MB": 1e6, "GB": 1e9}[unit]


def test_bytes_an_image(tmp_path: Path) -> None:
    store = pixel_store(tmp_path, Geometry(299))
    pixels, features = rows_of("xception_scratch")[0][2], rows_of("residual_linear")[0][2]
    assert int(pixels.replace(",", "")) == int(np.prod(store.row_shape)) * store.dtype.itemsize
    assert int(features.replace(",", "")) == 4 * NUM_FEATURES


def test_images_a_task() -> None:
    (number,) = re.findall(r"at least (\d+) images each", PAGE)
    assert int(number) == ray_executor.IMAGES_A_TASK
