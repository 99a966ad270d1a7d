"""The strip of one photograph and its fakes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.figures.cam import RIGHT, WRONG, overlay
from analysis.strip import Strip

_CELL, _MOST_ACROSS = 1.75, 6  # inches; pictures side by side
_TOP, _HEAD, _FOOT, _EDGE = 0.5, 0.36, 0.34, 0.1


def strip_figure(strip: Strip, *, title: str, note: str, trained_on: Sequence[str]) -> Figure:
    """The real photograph, the mask, then each generator's fake, with the detector's map below it.

    Below each picture stands the detector's answer, in blue with a tick if it is right, in vermilion with a cross if it
    is wrong. A white line in a map is the border of the repainted region.

    Args:
        strip: from `analysis.strip`.
        title: above the pictures.
        note: below the title.
        trained_on: generators that the detector was trained on.
    """
    across = min(2 + len(strip.fakes), _MOST_ACROSS)
    per_line = [strip.generators[start : start + across] for start in range(0, len(strip.generators), across)]
    if len(strip.fakes) <= across - 2:
        per_line = [strip.generators]
    first = 2 if len(per_line) == 1 else 0  # with many generators, real and mask have a line of their own
    tall = 2 if strip.maps is not None else 1
    lines = len(per_line) + (first == 0)
    width = max(across * (_CELL + _EDGE) + _EDGE, 6.0)
    words = textwrap.fill(note, int(width * 15))
    top = _TOP + 0.15 * words.count("\n")
    heights = [1 if first == 0 and line == 0 else tall for line in range(lines)]
    height = top + sum(_HEAD + _CELL * rows + _FOOT for rows in heights) + _EDGE
    with style():
        figure = Figure(figsize=(width, height))
        figure.text(_EDGE / width, 1 - 0.06 / height, title, ha="left", va="top", fontsize=10, weight="bold")
        figure.text(_EDGE / width, 1 - 0.28 / height, words, ha="left", va="top", fontsize=8)

        def place(column: int, from_top: float) -> Axes:
            left = _EDGE + column * (_CELL + _EDGE)
            size = (_CELL / width, _CELL / height)
            axes = figure.add_axes((left / width, 1 - (from_top + _CELL) / height, *size))
            axes.set_xticks([])
            axes.set_yticks([])
            return axes

        down = top + _HEAD
        _real_and_mask(place(0, down), place(1, down), strip)
        if first == 0:
            down += _CELL + _FOOT + _HEAD
        for names in per_line:
            for column, name in enumerate(names, start=first):
                number = strip.generators.index(name)
                axes = place(column, down)
                axes.imshow(strip.fakes[number])
                own = name in trained_on
                heading = f"fake: {name}" + ("\n(trained on it)" if own else "\n(never seen)" if trained_on else "")
                axes.set_title(heading, fontsize=8.5, weight="bold" if own else "normal", pad=3)
                below = axes
                if strip.maps is not None:
                    below = place(column, down + _CELL + 0.04)
                    below.imshow(overlay(strip.fakes[number], strip.maps[number]))
                    mask = strip.masks[number]
                    if mask is not None and mask.any() and not mask.all():
                        below.contour(mask, levels=[0.5], colors="white", linewidths=1.0)
                _answer(below, strip.log_odds[number], is_fake=True)
            down += _CELL * tall + _FOOT + _HEAD
    return figure


def _real_and_mask(real: Axes, mask: Axes, strip: Strip) -> None:
    real.set_title("real", fontsize=8.5, pad=3)
    if strip.real is None:
        _write(real, "no real picture\nin the test split", strip.fakes[0].shape[:2])
    else:
        real.imshow(strip.real)
    if strip.real_log_odds is not None:
        _answer(real, strip.real_log_odds, is_fake=False)
    all_known = [(name, each) for name, each in zip(strip.generators, strip.masks, strict=True) if each is not None]
    known = all_known[0][1] if all_known else None
    alike = all(np.array_equal(each, known) for _, each in all_known if known is not None)
    mask.set_title("mask (white: fake)" if alike else f"mask of {all_known[0][0]}\n(white: fake)", fontsize=8.5, pad=3)
    if known is None:
        _write(mask, "no mask", strip.fakes[0].shape[:2])
    else:
        mask.imshow(known, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def _write(axes: Axes, text: str, shape: tuple[int, ...]) -> None:
    axes.imshow(np.full(shape, 0.95), cmap="gray", vmin=0, vmax=1)
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=8)


def _answer(axes: Axes, log_odds: float, *, is_fake: bool) -> None:
    says_fake = log_odds > 0
    right = says_fake == is_fake
    colour = RIGHT if right else WRONG
    words = f"{'✓' if right else '✗'} {'fake' if says_fake else 'real'} {log_odds:+.2f}"
    axes.set_xlabel(words, color=colour, fontsize=8.5, weight="bold", labelpad=2)
    for spine in axes.spines.values():
        spine.set(edgecolor=colour, linewidth=1.8, linestyle="-" if right else (0, (3, 1.5)))
