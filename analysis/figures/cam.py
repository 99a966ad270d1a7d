"""Panels of maps, and the overlay of a map on a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.cam import OWN_MAP, Column, Panel
from analysis.figures import height_of, num_lines, panels, style, width_of, width_of_row, wrapped
from analysis.matrices import column_order, trained_on_label
from grid.train_sets import TrainSet

RIGHT, WRONG = "#0072b2", "#d55e00"  # Okabe and Ito's blue and vermilion
COLOURS = "inferno"
_CELL = 1.5  # inches, of a picture
_GAP = 0.08  # inches, between two
_NARROWEST = 5.2  # inches, of a figure
_BOLD = 1.1  # how much wider bold letters are


def overlay(image: np.ndarray, cam: np.ndarray) -> np.ndarray:
    """A picture with its map drawn over it: the higher the map, the stronger its colour.

    Args:
        image: uint8 (H, W, 3).
        cam: float (H, W), in [0, 1].

    Returns:
        uint8 (H, W, 3).
    """
    colour = mpl.colormaps[COLOURS](cam)[..., :3]
    grey = image.mean(axis=2, keepdims=True) / 255  # so that all colour comes from the map
    strength = 0.15 + 0.5 * cam[..., None]
    return np.rint(255 * ((1 - strength) * grey + strength * colour)).astype(np.uint8)


def cam_panel(panel: Panel, generators: Sequence[str], *, label: str = "") -> Figure:
    """Rows are pictures; columns are the picture, its mask, and one map per training set.

    Every map has the mask's border. Below it stands the run's answer, in blue with a tick if it is right, in vermilion
    with a cross and a dashed frame if it is wrong.

    Args:
        panel: from `analysis.cam.make_panels`.
        generators: all generators in the order of tables.
        label: what the title calls the detectors; "": their variant.
    """
    order = column_order((column.trained_on for column in panel.columns), generators)
    columns = sorted(panel.columns, key=lambda column: order.index(column.trained_on))
    in_domain = [False, False, *(panel.tested_on in TrainSet.parse(column.trained_on) for column in columns)]
    headings = [
        "input",
        "mask (white: fake)",
        *(_heading(column, generators, is_own) for column, is_own in zip(columns, in_domain[2:], strict=True)),
    ]
    answer_lines = 2 if any(column.distances for column in columns) else 1
    with style():
        widest = max(width_of(text, 9, bold=is_own) for text, is_own in zip(headings, in_domain, strict=True))
        between = max(0.0, widest - _CELL) + _GAP
        width = max(width_of_row(len(headings), side=_CELL, between=between), _NARROWEST)
        title = f"{label or panel.variant}, detection: tested on {panel.tested_on}"
        title = wrapped(title, inches=width, points=11 * _BOLD)
        note = wrapped(_note(panel), inches=width, points=8)
        figure, all_axes = panels(
            len(panel.images) * len(headings), across=len(headings), side=_CELL, between=between,
            above=0.05, below=height_of(answer_lines, 8.5) + 0.08,
            top=0.1 + height_of(num_lines(title), 11) + height_of(max(map(num_lines, headings)), 9),
            foot=0.1 + height_of(num_lines(note), 8), narrowest=_NARROWEST,
        )  # fmt: skip
        grid = np.array(all_axes, dtype=object).reshape(len(panel.images), len(headings))
        for row, (image, mask) in enumerate(zip(panel.images, panel.masks, strict=True)):
            for axes in grid[row]:
                axes.set_xticks([])
                axes.set_yticks([])
            grid[row, 0].imshow(image)
            grid[row, 0].set_xlabel(f"source {panel.sources[row]}", fontsize=8)
            if mask is None:
                _write(grid[row, 1], "no mask", image.shape[:2])
            else:
                grid[row, 1].imshow(mask, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            for axes, column in zip(grid[row, 2:], columns, strict=True):
                if column.problem:
                    _write(axes, "Grad-CAM\nfailed" if column.loaded else "cannot be\nloaded", image.shape[:2])
                elif column.maps is None:
                    _write(axes, "no spatial layer:\nno CAM", image.shape[:2])
                else:
                    axes.imshow(overlay(image, column.maps[row]))
                    if column.maps[row].min() == column.maps[row].max():
                        _write(axes, "flat: no place\nstands out", None)
                    if mask is not None and mask.any() and not mask.all():
                        axes.contour(mask, levels=[0.5], colors="white", linewidths=1.0)
                if column.log_odds is not None:
                    _mark(axes, float(column.log_odds[row]), column.distances[row] if column.distances else None)
        for axes, text, is_own in zip(grid[0], headings, in_domain, strict=True):
            axes.set_title(text, fontsize=9, weight="bold" if is_own else "normal")
        figure.suptitle(title, x=0.0, y=1.0, ha="left", va="top", weight="bold", fontsize=11)
        figure.text(0.0, 0.0, note, fontsize=8, va="bottom")
    return figure


def _heading(column: Column, generators: Sequence[str], in_domain: bool) -> str:
    text = f"trained on\n{trained_on_label(column.trained_on, generators)}" + ("\n(in-domain)" if in_domain else "")
    return text + (f"\n{column.grid[0]} × {column.grid[1]} places" if column.grid is not None else "")


def _note(panel: Panel) -> str:
    what = (
        "The detectors' own maps, the probability of fake of each place,"
        if any(column.kind == OWN_MAP for column in panel.columns)
        else "Grad-CAM of the class “fake”, each map scaled to its own maximum and"
    )
    text = (
        f"columns: trained on; rows: fakes of {panel.tested_on} in the test split. {what} enlarged from as many "
        "places as the heading says; white line: border of the repainted region; number: log-odds of “fake”. Blue, "
        "solid, ✓: right; orange, dashed, ✗: wrong."
    )
    if any(column.distances for column in panel.columns):
        text += " Distance: from the pictures that the run knows, over the limit; above 1 there is no verdict."
    return text


def _write(axes: Axes, text: str, shape: tuple[int, ...] | None) -> None:
    if shape is not None:
        axes.imshow(np.full(shape, 0.95), cmap="gray", vmin=0, vmax=1)
    box: dict[str, Any] = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=8, bbox=box)


def _mark(axes: Axes, log_odds: float, distance: float | None) -> None:
    """Write the answer about a fake below it, right if the log-odds are above 0, and how far out the picture is."""
    correct = log_odds > 0
    colour, answer = (RIGHT, "✓ fake") if correct else (WRONG, "✗ real")
    if distance is None:
        below = ""
    elif distance <= 1:
        below = f"\ndistance {distance:.2f}"
    else:
        below = f"\nno verdict ({max(distance, 1.01):.2f})"  # never "1.00", which would be within the limit
    axes.set_xlabel(f"{answer} {log_odds:+.2f}{below}", color=colour, fontsize=8.5, weight="bold")
    for spine in axes.spines.values():
        spine.set(edgecolor=colour, linewidth=2.2, linestyle="-" if correct else (0, (3, 1.5)))
