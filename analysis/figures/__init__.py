"""Figures: each function takes data and returns a matplotlib `Figure`, without a window or global state."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

_WIDTH_OF_LETTERS = 0.54  # of DejaVu Sans, on average, as a share of their size
_HEIGHT_OF_LINES = 1.2  # matplotlib's distance from a line of a text to the next one, as a share of their size


@contextmanager
def style() -> Iterator[None]:
    """Draw with the report's settings; matplotlib's own settings are restored afterwards.

    Meanwhile they hold for the whole process.
    """
    settings: dict[Any, Any] = {
        "font.family": "sans-serif",
        "font.size": 9.0,
        "axes.titlesize": 10.0,
        "axes.labelsize": 9.0,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "figure.dpi": 120.0,
        "savefig.dpi": 200.0,
        "savefig.bbox": "tight",
        "svg.fonttype": "none",
        "svg.hashsalt": "inpaint-grid",  # the same figure gives the same file
    }
    with mpl.rc_context(settings):
        yield


def wrapped(text: str, *, inches: float, points: float) -> str:
    """A text whose lines are broken so that each is at most so wide.

    A title that is wider than its figure would make the picture wider, and so, on a page, its letters smaller.

    Args:
        text: lines, which stay apart.
        inches: width of the longest line.
        points: size of the letters.
    """
    most = max(20, int(inches * 72 / (_WIDTH_OF_LETTERS * points)))
    lines = (
        textwrap.fill(line, most, break_long_words=False, break_on_hyphens=False) or line for line in text.split("\n")
    )
    return "\n".join(lines)


def width_of(text: str, points: float, *, bold: bool = False) -> float:
    """Inches that the widest line of a text takes, in letters of so many points."""
    font = FontProperties(size=points, weight="bold" if bold else "normal")
    widths = (text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] for line in text.split("\n"))
    return float(max(widths)) / 72


def num_lines(text: str) -> int:
    """How many lines a text has."""
    return text.count("\n") + 1


def height_of(lines: int, points: float) -> float:
    """Inches that so many lines take, in letters of so many points."""
    return lines * points * _HEIGHT_OF_LINES / 72


def width_of_row(num_panels: int, *, side: float, left: float = 0.0, between: float = 0.0) -> float:
    """Inches that a row of `panels` takes: titles are broken into lines of that width before the figure is made."""
    return left + num_panels * (side + between)


def panels(
    count: int,
    *,
    across: int,
    side: float,
    left: float = 0.0,
    between: float = 0.0,
    above: float = 0.0,
    below: float = 0.0,
    top: float = 0.0,
    foot: float = 0.0,
    narrowest: float = 0.0,
) -> tuple[Figure, list[Axes]]:
    """A figure with square panels at fixed places, and the panels, row by row; all lengths in inches.

    matplotlib's own layouts look for the places by measuring every text several times, which takes longer than drawing
    them, and let titles and legends overlap where panels are few and their legends long.

    Args:
        count: number of panels.
        across: panels in a row.
        side: of a panel.
        left: before the first panel of a row.
        between: from a panel to the next one in its row.
        above: of each panel, for its title.
        below: of each panel, for its labels.
        top: above the first row.
        foot: below the last row.
        narrowest: least width of the figure; in a wider one the panels stand at the left.
    """
    width = max(width_of_row(min(count, across), side=side, left=left, between=between), narrowest)
    height = top + -(-count // across) * (above + side + below) + foot
    figure = Figure(figsize=(width, height))
    for number in range(count):
        row, column = divmod(number, across)
        x, y = left + column * (side + between), height - top - row * (above + side + below) - above - side
        figure.add_axes((x / width, y / height, side / width, side / height))
    return figure, figure.axes


def label_heat_map(
    axes: Axes, rows: Sequence[str], columns: Sequence[str], *, down: str, across: str, slant: int
) -> None:
    """Name the rows, columns and axes of a heat map; column names longer than `slant` characters are slanted."""
    slanted = max(map(len, columns), default=0) > slant
    axes.set_xticks(range(len(columns)), columns, rotation=25 if slanted else 0, ha="right" if slanted else "center")
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(across, weight="bold")
    axes.set_ylabel(down, weight="bold")
