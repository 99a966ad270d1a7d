"""The figures of docs/performance.md that follow from the code are the code's."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from data.store import pixel_store
from grid import ray_executor
from grid.experiments import PUBLISHED
from models.geometry import Geometry
from models.registry import detector_info
from models.residuals import NUM_FEATURES

PAGE = (Path(__file__).parents[1] / "docs" / "performance.md").read_text(encoding="utf-8")


def rows() -> dict[str, list[list[str]]]:
    """Method -> the cells of its row in each table about methods."""
    found: dict[str, list[list[str]]] = {}
    about_methods = False
    for line in PAGE.splitlines():
        cells = line.strip("| ").split(" | ")
        if not line.startswith("|"):
            about_methods = False
        elif cells[0] == "method":
            about_methods = True
        elif about_methods:
            for method in re.findall(r"`(\w+)`", cells[0]):
                found.setdefault(method, []).append(cells)
    return found


ROWS = rows()


def test_every_published_method_is_on_the_page() -> None:
    assert set(PUBLISHED) <= set(ROWS)


@pytest.mark.parametrize("method", ROWS)
def test_a_method_is_on_the_page_with_its_share_and_its_size(method: str) -> None:
    sizes, shares = ROWS[method]
    share = detector_info(method).gpu_share
    assert float(shares[1]) == share
    assert shares[2] == (f"{1 / share:g}" if share else "any number")
    assert int(sizes[2].replace(",", "")) * 50_000 == pytest.approx(_bytes(sizes[3]), rel=0.01)


def _bytes(text: str) -> float:
    number, unit = text.split()
    return float(number) * {"MB": 1e6, "GB": 1e9}[unit]


def test_bytes_an_image(tmp_path: Path) -> None:
    store = pixel_store(tmp_path, Geometry(299))
    pixels, features = (ROWS[method][0][2] for method in ("xception_scratch", "residual_linear"))
    assert int(pixels.replace(",", "")) == int(np.prod(store.row_shape)) * store.dtype.itemsize
    assert int(features.replace(",", "")) == 4 * NUM_FEATURES


def test_images_a_task() -> None:
    (number,) = re.findall(r"at least (\d+) images each", PAGE)
    assert int(number) == ray_executor.IMAGES_PER_TASK
