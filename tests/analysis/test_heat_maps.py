"""Matrices as tables of the page, on values that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.figures.matrices import matrix_figure
from analysis.heat_maps import heat_map

VALUES = pd.DataFrame(
    [[0.9, 0.25], [np.nan, 0.5]],
    index=pd.Index(["lama", "ldm"], name="tested on"),
    columns=pd.Index(["lama", "ldm"], name="trained on"),
)


def test_a_cell_has_its_value_and_says_whether_it_is_in_domain_or_missing() -> None:
    made = heat_map(VALUES, name="m", metric="auroc", title="m: AUROC", transpose=False, span=(0, 1))
    assert (made.down, made.across, list(made.columns)) == ("tested on", "trained on", ["lama", "ldm"])
    assert [(name, [(cell.text, cell.mark) for cell in cells]) for name, cells in made.rows] == [
        ("lama", [("0.900", "in-domain"), ("0.250", "")]),
        ("ldm", [("missing", "missing"), ("0.500", "in-domain")]),
    ]
    assert made.caption == ["m: AUROC", "means: in-domain 0.700, cross-generator 0.250, gap 0.450"]


def test_turned_rows_are_columns() -> None:
    made = heat_map(VALUES, name="m", metric="auroc", title="m", transpose=True, span=(0, 1))
    assert (made.down, made.across) == ("trained on", "tested on")
    assert [[cell.text for cell in cells] for _, cells in made.rows] == [["0.900", "missing"], ["0.250", "0.500"]]


def test_below_chance_is_orange_above_is_purple_and_chance_is_near_white() -> None:
    made = heat_map(VALUES, name="m", metric="auroc", title="m", transpose=False, span=(0, 1))
    (own, below), (_, chance) = (cells for _, cells in made.rows)
    red, green, blue = (int(below.background[at : at + 2], 16) for at in (1, 3, 5))
    assert red > green > blue
    red, green, blue = (int(own.background[at : at + 2], 16) for at in (1, 3, 5))
    assert blue > red > green
    assert min(int(chance.background[at : at + 2], 16) for at in (1, 3, 5)) > 235
    assert made.ticks == ["0", "0.25", "0.5 chance", "0.75", "1"]
    assert (own.ink, chance.ink) == ("#ffffff", "#000000")
    assert (made.colours[0], made.colours[-1], len(made.colours)) == ("#7f3b08", "#2d004b", 11)


@pytest.mark.parametrize("span", [(0.0, 1.0), (0.2, 0.95)])
@pytest.mark.parametrize("metric", ["auroc", "accuracy", "eer", "IoU at 0.5"])
def test_it_has_the_colours_and_the_ticks_of_the_picture(metric: str, span: tuple[float, float]) -> None:
    made = heat_map(VALUES, name="m", metric=metric, title="m", transpose=False, span=span)
    figure = matrix_figure(VALUES, metric=metric, title="m", span=span)
    (image,), bar = figure.axes[0].images, figure.axes[1]
    colours = (image.to_rgba(VALUES.to_numpy(), bytes=True)[..., :3]).tolist()
    backgrounds = [[cell.background for cell in cells] for _, cells in made.rows]
    levels = [[int(background[at : at + 2], 16) for at in (1, 3, 5)] for background in backgrounds[0]]
    assert np.abs(np.array(levels) - np.array(colours[0])).max() <= 1  # one rounds, the other cuts
    assert backgrounds[1][0] == ""
    assert list(made.ticks) == [text.get_text().replace("\n", " ") for text in bar.get_yticklabels()]
