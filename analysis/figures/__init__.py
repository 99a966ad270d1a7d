"""Figures: each function takes data and returns a matplotlib `Figure`, without a window or global state."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes

_WIDTH_OF_LETTERS = 0.54  # of DejaVu Sans, on average, as a share of their size


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
