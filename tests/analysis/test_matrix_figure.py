"""What is drawn, read back from the figure's own objects."""

from __future__ import annotations

import io

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis.cells import IntervalMatrix
from analysis.figures.matrices import matrix_figure
from analysis.matrices import cross_generator_matrix, matrix_means
from tests.analysis.tables import detection, results

CELLS = {("lama", "lama"): 0.9, ("lama", "ldm"): 0.6, ("ldm", "ldm"): 0.8, ("lama+ldm", "lama"): 0.05}
MATRIX = cross_generator_matrix(results(detection(CELLS)), "m")  # columns lama, ldm, lama+ldm


def axes_of(figure: Figure) -> Axes:
    return figure.axes[0]


def texts(figure: Figure) -> dict[str, tuple[int, int]]:
    """Text -> the (column, row) of the cell that it stands in."""
    return {
        text.get_text(): (round(text.get_position()[0]), round(text.get_position()[1]))
        for text in axes_of(figure).texts
        if text.get_text()
    }


@pytest.mark.parametrize("transpose", [False, True])
def test_every_figure_stands_in_its_cell(transpose: bool) -> None:
    figure = matrix_figure(MATRIX, metric="accuracy", title="m", transpose=transpose)
    axes = axes_of(figure)
    expected = {"0.900": (0, 0), "0.600": (0, 1), "0.800": (1, 1), "0.050": (2, 0)}
    found = texts(figure)
    for text, (column, row) in expected.items():
        assert found[text] == ((row, column) if transpose else (column, row))
    image = np.ma.filled(axes.images[0].get_array(), np.nan)
    assert np.array_equal(image, MATRIX.to_numpy().T if transpose else MATRIX.to_numpy(), equal_nan=True)
    assert (axes.images[0].norm.vmin, axes.images[0].norm.vmax) == (0, 1)
    names = (axes.get_ylabel(), axes.get_xlabel())
    assert names == (("trained on", "tested on") if transpose else ("tested on", "trained on"))
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == (["lama", "ldm"] if transpose else ["lama", "ldm", "lama + ldm"])


def rectangles(figure: Figure, *, hatched: bool) -> set[tuple[int, int]]:
    """(column, row) of each hatched or outlined cell."""
    found = [patch for patch in axes_of(figure).patches if isinstance(patch, Rectangle)]
    return {
        (round(patch.get_x() + patch.get_width() / 2), round(patch.get_y() + patch.get_height() / 2))
        for patch in found
        if bool(patch.get_hatch()) == hatched
    }


def test_a_long_title_is_wrapped_and_changes_neither_width_nor_cells() -> None:
    words = "xception_pretrained [tf_efficientnet_lite0, ImageNet (packaged), small form]"
    sizes, cells = list[tuple[int, int]](), list[float]()
    for title in ("m", words, f"{words}: the accuracy at the threshold that was chosen on the validation images"):
        figure = matrix_figure(MATRIX, metric="auroc", title=title)
        FigureCanvasAgg(figure).draw()
        assert " ".join(axes_of(figure).get_title(loc="left").split()).startswith(title)
        box = axes_of(figure).get_window_extent()
        cells.append(box.height)
        sizes.append((round(box.width), round(figure.get_tightbbox().width * 100)))
    assert len(set(sizes)) == 1
    assert max(cells) - min(cells) < 0.05 * max(cells)


def test_in_domain_is_outlined_and_missing_is_hatched() -> None:
    figure = matrix_figure(MATRIX, metric="accuracy", title="m")
    assert rectangles(figure, hatched=False) == {(0, 0), (1, 1), (2, 0), (2, 1)}
    assert rectangles(figure, hatched=True) == {(1, 0), (2, 1)}
    assert "missing" in texts(figure)


def test_spread_and_interval_stand_below() -> None:
    one = MATRIX * 0 + 1
    matrix = IntervalMatrix(
        "m", "accuracy", MATRIX, one * 0.012, (one * 3).fillna(0), MATRIX - 0.1, MATRIX + 0.1, matrix_means(MATRIX), {}
    )
    figure = matrix_figure(matrix, metric="accuracy", title="A title")
    assert texts(figure)["± 0.012\n[0.500, 0.700]"] == (0, 1)
    title = axes_of(figure).get_title(loc="left")
    assert title.startswith("A title\nmeans: in-domain 0.583, cross-generator 0.600, gap -0.017")
    assert "seeds: 3, ± standard deviation" in title


def test_colours_part_at_chance_only_where_it_is_one_half() -> None:
    for metric in ("accuracy", "auroc", "balanced_accuracy_valid_threshold"):
        assert axes_of(matrix_figure(MATRIX, metric=metric, title="m")).images[0].get_cmap().name == "PuOr"
    for metric in ("eer", "cam_iou", "real_accuracy"):
        assert axes_of(matrix_figure(MATRIX, metric=metric, title="m")).images[0].get_cmap().name == "cividis"


def luminance(colour: np.ndarray) -> np.ndarray:
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def drawn(values: np.ndarray, metric: str) -> Figure:
    names = [f"g{number}" for number in range(len(values))]
    table = pd.DataFrame(values, index=names, columns=names[: values.shape[1]])
    return matrix_figure(table.rename_axis(index="tested on", columns="trained on"), metric=metric, title="m")


@pytest.mark.parametrize("metric", ["auroc", "eer"])
def test_every_figure_can_be_read_on_its_colour(metric: str) -> None:
    figure = drawn(np.linspace(0, 1, 121).reshape(11, 11), metric)
    (image,) = axes_of(figure).images
    figures = [text for text in axes_of(figure).texts if text.get_text()]
    assert len(figures) == 121
    for text in figures:
        back = image.cmap(float(text.get_text()))
        ink = np.array(mpl.colors.to_rgb(text.get_color()))
        light, dark = sorted([luminance(ink), luminance(np.array(back[:3]))], reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG 2.1, AA


def test_orange_is_below_chance_near_white_at_it_and_purple_above() -> None:
    colours = axes_of(matrix_figure(MATRIX, metric="auroc", title="m")).images[0].get_cmap()
    (red, green, blue), middle = colours(0.25)[:3], colours(0.5)[:3]
    assert red > green > blue
    red, green, blue = colours(0.75)[:3]
    assert blue > red > green
    assert min(middle) > 0.95
    lightness = luminance(colours(np.linspace(0, 1, 101))[:, :3])
    assert lightness.argmax() == 50
    assert (np.diff(lightness[:51]) >= 0).all()
    assert (np.diff(lightness[50:]) <= 0).all()


@pytest.mark.parametrize("metric", ["auroc", "eer"])
def test_the_outline_of_in_domain_cells_is_seen_on_every_colour(metric: str) -> None:
    figure = drawn(np.diag([0.0, 0.25, 0.5, 0.75, 1.0]), metric)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[::-1, :, :3].astype(int)
    for cell in range(5):
        (left, height), (inside, _) = axes_of(figure).transData.transform([(cell - 0.49, cell), (cell - 0.42, cell)])
        line = luminance(pixels[round(height), round(left) : round(inside)] / 255)
        black, white = line.min(), line[line.argmin() :].max()  # white: between the black line and the cell
        assert black < 0.01
        assert (white + 0.05) / (black + 0.05) >= 4.5


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_it_can_be_saved_and_leaves_no_settings_behind(kind: str) -> None:
    before = dict(mpl.rcParams)
    files = []
    for _ in range(2):
        buffer = io.BytesIO()
        matrix_figure(MATRIX, metric="accuracy", title="m").savefig(buffer, format=kind)
        files.append(buffer.getvalue())
    assert len(files[0]) > 1000
    assert dict(mpl.rcParams) == before


def test_an_empty_matrix_is_all_missing() -> None:
    empty = pd.DataFrame(np.nan, index=["lama"], columns=["lama"]).rename_axis(index="tested on", columns="trained on")
    figure = matrix_figure(empty, metric="accuracy", title="m")
    assert rectangles(figure, hatched=True) == {(0, 0)}
    assert "in-domain missing" in axes_of(figure).get_title(loc="left")


def test_without_generators_nothing_is_outlined_and_no_in_domain_mean_is_missed() -> None:
    cells = {("none", "lama"): 0.9, ("none", "ldm"): 0.6}
    matrix = cross_generator_matrix(results(detection(cells)), "m", planned=[])
    figure = matrix_figure(matrix, metric="accuracy", title="m")
    assert [label.get_text() for label in axes_of(figure).get_xticklabels()] == ["no generator"]
    assert rectangles(figure, hatched=False) == set()
    assert axes_of(figure).get_title(loc="left") == "m\nmeans: cross-generator 0.750"
