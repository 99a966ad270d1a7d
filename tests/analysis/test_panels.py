"""Small multiples: every panel, title and legend at its place, whatever the number and the names of generators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from analysis.cam import GRAD_CAM, Column, Panel
from analysis.figures import panels
from analysis.figures.cam import cam_panel
from analysis.figures.curves import precision_recall_figure, reliability_figure, roc_figure, score_figure

NAMES = ("lama", "ldm", "pluralistic", "repaint-p2-9k", "glide", "sd2", "firefly", "stable-diffusion-xl-inpainting-1.0")
WIDE = ("CNNSPOT_PROGAN_256", "COMMERCIAL_MODEL_A", "OmniGen-MMDiT-Medium-HD")
MANY = tuple(f"generator-{number}" for number in range(20))
TITLE = "xception_pretrained [tf_efficientnet_lite0, ImageNet, small form]: a figure"
SHAPES = [
    (NAMES[:1], NAMES[:1]),
    (NAMES[:2], (NAMES[0], "lama+ldm")),
    (NAMES[:4], NAMES[:4]),
    (NAMES[:7], NAMES[:3]),
    (NAMES[:4], (*NAMES[:4], "+".join(NAMES[:4]))),
    (NAMES[4:], NAMES[4:]),
    (WIDE, WIDE),
    (MANY, MANY[:5]),
]


def scores(generators: Sequence[str], trained: Sequence[str]) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frames = [
        pd.DataFrame({
            "generator": generator, "label": np.repeat([0, 1], 20), "score": rng.normal(size=40),
            "trained_on": train, "seed": 0,
        })
        for train in trained
        for generator in generators
    ]  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def shown(figure: Figure) -> dict[str, list[Bbox]]:
    """Text -> where it stands, in pixels; of ticks too."""
    FigureCanvasAgg(figure).draw()
    beyond = {  # ticks beyond the ends of an axis are not drawn
        tick.label1
        for axes in figure.axes
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim()))
        for tick in axis.get_major_ticks()
        if not min(low, high) <= tick.get_loc() <= max(low, high)
    }
    found: dict[str, list[Bbox]] = {}
    for text in figure.findobj(lambda artist: isinstance(artist, Text)):
        assert isinstance(text, Text)
        if text.get_visible() and text.get_text().strip() and text not in beyond:
            found.setdefault(text.get_text(), []).append(text.get_window_extent())
    return found


def assert_nothing_overlaps(figure: Figure) -> None:
    places = [(text, box) for text, boxes in shown(figure).items() for box in boxes]
    assert len(places) > 5
    for (one, first), (other, second) in combinations(places, 2):
        common = Bbox.intersection(first, second)
        assert common is None or min(common.width, common.height) < 1, f"{one!r} overlaps {other!r}"
    for axes in figure.axes:
        for text, box in places:
            common = Bbox.intersection(axes.get_window_extent(), box)
            assert text == "no mask" or common is None or min(common.width, common.height) < 1, text


@pytest.mark.parametrize("draw", [roc_figure, precision_recall_figure, reliability_figure, score_figure])
@pytest.mark.parametrize(("generators", "trained"), SHAPES)
def test_no_text_of_curves_lies_on_another(
    draw: Callable[..., Figure], generators: tuple[str, ...], trained: tuple[str, ...]
) -> None:
    assert_nothing_overlaps(draw(scores(generators, trained), title=TITLE))


@pytest.mark.parametrize("distances", [(), (0.5, 1.5)])
@pytest.mark.parametrize(("generators", "trained"), SHAPES)
def test_no_text_of_maps_lies_on_another(
    generators: tuple[str, ...], trained: tuple[str, ...], distances: tuple[float, ...]
) -> None:
    square, mask, low = np.zeros((8, 8, 3), np.uint8), np.eye(8, dtype=bool), np.zeros((4, 8, 3), np.uint8)
    maps = [np.eye(8), np.eye(4, 8)]
    columns = [
        Column(train, np.array([1.25, -12.5]), maps, (12, 12), kind=GRAD_CAM, distances=distances) for train in trained
    ]
    panel = Panel("v", generators[0], ["00001", "00002"], [square, low], [mask, None], columns)
    assert_nothing_overlaps(cam_panel(panel, generators, label=TITLE))


def test_panels_stand_where_their_lengths_say() -> None:
    figure, grid = panels(
        3, across=2, side=2.0, left=0.5, between=0.25, above=0.3, below=0.7, top=0.4, foot=0.1, narrowest=1.0
    )
    width, height = 0.5 + 2 * 2.25, 0.4 + 2 * 3.0 + 0.1
    assert tuple(figure.get_size_inches()) == pytest.approx((width, height))
    inches = [Bbox(axes.get_position().get_points() * (width, height)).bounds for axes in grid]
    assert inches == [
        pytest.approx((0.5, 3.8, 2.0, 2.0)),
        pytest.approx((2.75, 3.8, 2.0, 2.0)),
        pytest.approx((0.5, 0.8, 2.0, 2.0)),
    ]
    wider, _ = panels(1, across=2, side=2.0, narrowest=4.6)
    assert tuple(wider.get_size_inches()) == pytest.approx((4.6, 2.0))


def test_the_first_panel_of_a_row_has_the_numbers_of_all() -> None:
    figure = roc_figure(scores(NAMES[:5], NAMES[:5]), title=TITLE)
    labelled = [axes.get_ylabel() for axes in figure.axes]
    assert labelled == ["true positive rate", "", "", "", "true positive rate"]
    assert [axes.get_ylim() for axes in score_figure(scores(NAMES[:2], NAMES[:2]), title=TITLE).axes] == [(0, 3)] * 2
