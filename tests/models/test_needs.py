"""What methods need of the sizes of pictures."""

from __future__ import annotations

import numpy as np
import pytest

from models.needs import PictureNeeds, resized_to
from models.registry import detector_info, list_detectors, resolve_config, size_check
from tests.models.toys import small


def test_a_side_and_a_ratio_are_bounded() -> None:
    needs = PictureNeeds(min_side=16, max_ratio=50)
    assert [needs.problem(*size) for size in ((16, 16), (16, 800), (800, 16))] == ["", "", ""]
    assert needs.problem(8, 2000) == needs.problem(2000, 15) == "a side of less than 16 pixels"
    assert needs.problem(16, 801) == "one side more than 50 times the other"
    assert PictureNeeds().problem(1, 10**9) == ""


@pytest.mark.parametrize(
    ("size", "ratio"), [(0, 50), (299, 50), (1024, 50), (1131, 50), (2048, 15), (8000, 1), (9000, 1)]
)
def test_a_larger_square_takes_squarer_pictures(size: int, ratio: float) -> None:
    """Resized by its shorter side, as "crop" does, no accepted picture has more than 64 million pixels."""
    assert resized_to(size).max_ratio == ratio
    assert size > 8000 or size**2 * ratio <= 64_000_000


def test_the_check_names_each_method_once_with_its_reason() -> None:
    methods = [(name, resolve_config(name)) for name in ("residual_linear", "clip_linear", "sam_linear")]
    check = size_check([*methods, ("clip_linear", resolve_config("clip_linear", {"l2": 1}))])
    assert check(64, 64) == ""
    assert check(8, 8) == "a side of less than 16 pixels, which residual_linear cannot take"
    thin = "one side more than 50 times the other, which clip_linear, sam_linear cannot take"
    assert check(16, 3000) == thin
    assert check(1, 400_000) == f"a side of less than 16 pixels, which residual_linear cannot take; {thin}"
    larger = size_check([("sam_linear", resolve_config("sam_linear", {"size": 4096}))])
    assert larger(100, 301) == "one side more than 3 times the other, which sam_linear cannot take"
    assert larger(100, 300) == ""


@pytest.mark.parametrize("name", list_detectors())
def test_every_method_takes_the_smallest_and_the_narrowest_picture_that_it_accepts(name: str) -> None:
    info, detector = detector_info(name), small(name)
    needs = info.picture_needs(info.config)
    side = max(needs.min_side, 1)
    narrow = (side, int(side * min(needs.max_ratio, 50)))
    for width, height in ((side, side), narrow, narrow[::-1]):
        assert needs.problem(width, height) == ""
        inputs = detector.inputs([np.full((height, width, 3), 128, dtype=np.uint8)])
        assert len(inputs) == 1
        assert np.isfinite(inputs[0].astype(float)).all()


def test_what_the_methods_of_this_project_need() -> None:
    needs = {name: detector_info(name).picture_needs(detector_info(name).config) for name in list_detectors()}
    resizing = ("xception_scratch", "xception_pretrained", "clip_linear", "sam_linear")
    assert [needs[name] for name in resizing] == [PictureNeeds(max_ratio=50)] * 4
    assert needs["residual_linear"] == PictureNeeds(min_side=16)
