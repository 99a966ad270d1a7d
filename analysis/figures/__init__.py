"""Figures: each function takes data and returns a matplotlib `Figure`; no window, no global state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl


@contextmanager
def style() -> Iterator[None]:
    """Draw inside this to have the report's look; matplotlib's settings are as before afterwards.

    The settings are process-wide while it lasts, as matplotlib has it.
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
