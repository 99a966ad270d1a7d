"""All methods at one look: means with intervals, the best method of each cell, and every method's small matrix."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from analysis.answer import Mean, Standing, best_of_cells
from analysis.figures import style
from analysis.figures.matrices import colour_span, ink_on, scale_of
from analysis.matrices import column_order, decimals, in_domain_cells, pivot, trained_on_label

_METRIC = "auroc"  # whose colours it has
_OWN, _UNSEEN = "#b9c9d6", "#0072b2"
_WIDTH, _EDGE = 11.4, 0.15  # inches
_NARROW = 4.1  # inches, for a phone: names stand above their bars, and a matrix has a line of its own
_NARROW_ROW = 0.98  # of the narrow bars
_ROW, _LEFT, _VALUES = 0.54, 2.9, 2.05  # of the bars: height of a method, room for names, room for values
_CELL_WIDTH, _CELL_HEIGHT, _GAP = 0.52, 0.36, 0.28  # of the small matrices
_BEST_WIDTH, _BEST_HEIGHT = 1.02, 0.56  # of a cell of the best methods
_HEAD, _FOOT = 0.74, 0.72  # above and below a small matrix
_TOP, _BETWEEN = 0.66, 0.72  # above the bars; above the matrix of the best methods
_NAME, _NARROW_NAME = 24, 14  # letters of a generator's name; longer ones are shortened in the middle
_KEY = 3.4  # room for the scale of colours and its words


def answer_figure(
    standing: Sequence[Standing], generators: Sequence[str], *, labels: Mapping[str, str], metric_words: str = "AUROC",
    narrow: bool = False,
) -> Figure:  # fmt: skip
    """Bars of own and unseen generators, the best method of each cell, and a small matrix per method.

    All matrices share one scale of colours, which parts at chance. Outlined cells are in-domain; a star marks the best
    method of a cell. Sizes are set by hand: a solver for so many axes takes seconds.

    Args:
        standing: from `analysis.answer.standings`, in order.
        generators: all generators in the order of tables.
        labels: variant -> backbone and origin of its weights.
        metric_words: what the values are.
        narrow: one column, for a phone.
    """
    page = _NARROW if narrow else _WIDTH
    names_left, top = (0.0, 1.14) if narrow else (_LEFT, _TOP)
    best = best_of_cells(standing, generators)
    columns = column_order({str(name) for one in standing for name in one.matrix.columns}, generators)
    values = np.concatenate([one.matrix.to_numpy(float).ravel() for one in standing])
    span = colour_span(values.tolist(), _METRIC)
    names = _shown_names(generators, narrow=narrow)
    side = _side(names)
    bars, best_height = len(standing) * (_NARROW_ROW if narrow else _ROW), len(generators) * _BEST_HEIGHT
    best_width = min(len(columns) * _BEST_WIDTH, page - side - 2 * _EDGE)
    beside = _EDGE + side + best_width + _KEY + 0.6 <= page  # the key stands beside that matrix, or below it
    per_row = _per_row(standing, page - side)
    lines = [list(standing[start : start + per_row]) for start in range(0, len(standing), per_row)]
    small = len(generators) * _CELL_HEIGHT
    key = 0.0 if beside else 1.3 if narrow else 1.0
    height = top + bars + _BETWEEN + best_height + 0.8 + key + len(lines) * (_HEAD + small + _FOOT) + _EDGE
    with style():
        figure = Figure(figsize=(page, height))

        def place(left: float, from_top: float, width: float, tall: float) -> Axes:
            return figure.add_axes((left / page, 1 - (from_top + tall) / height, width / page, tall / height))

        def write(left: float, from_top: float, text: str, **named: Any) -> None:
            words = textwrap.fill(text, 36 if named.get("weight") else 60) if narrow and "\n" not in text else text
            figure.text(left / page, 1 - from_top / height, words, ha="left", va="top", **named)

        write(_EDGE, 0.08, f"Which method carries best? {metric_words} on generators that it never saw", fontsize=12,
              weight="bold")  # fmt: skip
        below = 0.54 if narrow else 0.34
        write(
            _EDGE, below, "Dark: mean over the cells of unseen generators, by which the methods are sorted. Light: "
            "mean over its own generators. Lines are 95 % confidence intervals; bars begin at chance.", fontsize=8,
        )  # fmt: skip
        down = top
        values_right = 1.5 if narrow else _VALUES
        of_bars = place(names_left + _EDGE, down, page - names_left - values_right - 2 * _EDGE, bars)
        _bars(of_bars, standing, labels, narrow=narrow)
        down += bars + _BETWEEN
        write(_EDGE, down - 0.26, "The best method of each cell", fontsize=10, weight="bold")
        letters = 11 if narrow else 15
        of_best = place(side + _EDGE, down, best_width, best_height)
        _best(
            of_best,
            best,
            generators,
            columns,
            span,
            names=names,
            letters=letters,
            cell=best_width / max(len(columns), 1),
        )
        left = _EDGE + (side + best_width + 0.5 if beside else 0.1 if narrow else side)
        below = down + (0.1 if beside else best_height + 0.85)
        _key(place(left, below, 3.0, 0.13), span)
        write(left, below + 0.45, "Colours of all matrices: AUROC from "
              f"{span[0]:.2f} to {span[1]:.2f}.\nRows: tested on, columns: trained on.\nOutlined: in-domain. "
              "★: the best method of the cell,\nalso where none is above chance, 0.5.",
              fontsize=8, linespacing=1.4)  # fmt: skip
        down += best_height + 0.8 + key
        for line in lines:
            left = _EDGE + side
            for number, one in enumerate(line):
                width = max(one.matrix.shape[1], 1) * _CELL_WIDTH
                axes = place(left, down + _HEAD, width, small)
                _matrix(axes, one, generators, best, span, names=names if number == 0 else [""] * len(names))
                _heading(
                    axes, _ranked_name(standing, one), one, labels.get(one.variant, ""), width=max(width + _GAP, 2.2)
                )
                left += max(width, 2.2 - _GAP) + _GAP
            down += _HEAD + small + _FOOT
    return figure


def fits_phone(standing: Sequence[Standing], generators: Sequence[str]) -> bool:
    """Whether the small matrices have room in one column for a phone, at a size that can be read."""
    columns = {str(name) for one in standing for name in one.matrix.columns}
    return _side(_shown_names(generators, narrow=True)) + len(columns) * _CELL_WIDTH + 2 * _EDGE <= _NARROW


def _shown_names(generators: Sequence[str], *, narrow: bool) -> list[str]:
    """The generators as names of rows."""
    return [_short(name, _NARROW_NAME if narrow else _NAME) for name in generators]


def _side(names: Sequence[str]) -> float:
    """Inches for the names of rows."""
    return max(map(len, names), default=0) * 0.072 + 0.35


def _short(name: str, letters: int) -> str:
    """A name with its beginning and its end, if it is longer than that; tables have all of it."""
    if len(name) <= letters:
        return name
    end = letters // 2 - 1
    return f"{name[: letters - end - 1]}…{name[-end:]}"


def _ranked_name(standing: Sequence[Standing], one: Standing) -> str:
    """With its place among the methods that have the same cells; without a place, if it lacks some."""
    return f"{standing.index(one) + 1}. {one.variant}" if one.ranked else one.variant


def _key(axes: Axes, span: tuple[float, float]) -> None:
    axes.imshow(
        np.linspace(*span, 256)[None], cmap=scale_of(_METRIC, span).colours, aspect="auto", extent=(*span, 0, 1)
    )
    ticks = np.linspace(*span, 5)
    axes.set_xticks(ticks, ["0.5 chance" if tick == 0.5 else f"{tick:.3g}" for tick in ticks], fontsize=8)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _per_row(standing: Sequence[Standing], room: float) -> int:
    widest = max(max(one.matrix.shape[1] * _CELL_WIDTH, 2.2 - _GAP) for one in standing)
    return max(1, int((room - 2 * _EDGE + _GAP) // (widest + _GAP)))


def _bars(axes: Axes, standing: Sequence[Standing], labels: Mapping[str, str], *, narrow: bool) -> None:
    """Two bars per method, the best on top, with their values at the right; narrow: its name above them."""
    lowest = 0.5
    lifts = (0.14, 0.36) if narrow else (-0.12, 0.22)
    heights = (0.24, 0.14) if narrow else (0.36, 0.2)
    size = 7 if narrow else 8
    for number, one in enumerate(standing):
        means = ((one.unseen, _UNSEEN), (one.own, _OWN))
        for (mean, colour), lift, tall in zip(means, lifts, heights, strict=True):
            if mean is None:
                continue
            at = number + lift
            axes.barh(at, mean.value - 0.5, tall, left=0.5, color=colour)
            if not math.isnan(mean.low):
                axes.plot([mean.low, mean.high], [at, at], color="#000000", lw=1.1, solid_capstyle="butt")
                lowest = min(lowest, mean.low)
            lowest = min(lowest, mean.value)
        unseen = _text("unseen", one.unseen) + ("" if one.ranked else "\nother cells: not ranked")
        axes.text(1.01, number + lifts[0], unseen, linespacing=1.0, transform=axes.get_yaxis_transform(),
                  va="center", fontsize=size, weight="bold")  # fmt: skip
        axes.text(1.01, number + lifts[1] + 0.04, _text("own", one.own), transform=axes.get_yaxis_transform(),
                  va="center", fontsize=7, color="#444444")  # fmt: skip
        if narrow:
            above = _ranked_name(standing, one)
            origin = _origin(labels.get(one.variant, ""), 60)
            axes.text(0, number - 0.3, above, transform=axes.get_yaxis_transform(), va="bottom", fontsize=9,
                      weight="bold")  # fmt: skip
            axes.text(0, number - 0.28, origin, transform=axes.get_yaxis_transform(), va="top", fontsize=7,
                      color="#444444", linespacing=1.0)  # fmt: skip
            continue
        name = textwrap.fill(_ranked_name(standing, one), 34, break_on_hyphens=False)
        axes.text(-0.015, number - 0.05, name, transform=axes.get_yaxis_transform(), ha="right", va="bottom",
                  fontsize=9, weight="bold", linespacing=0.95)  # fmt: skip
        axes.text(-0.015, number + 0.02, _origin(labels.get(one.variant, ""), 46), transform=axes.get_yaxis_transform(),
                  ha="right", va="top", fontsize=7, color="#444444", linespacing=1.0)  # fmt: skip
    if narrow:  # beside the bars alone: the names stand above them
        rows = np.arange(len(standing))
        axes.vlines(np.full(len(rows), 0.5), rows - 0.02, rows + 0.46, color="#777777", lw=0.8)
    else:
        axes.axvline(0.5, color="#777777", lw=0.8)
    axes.set_xlim(math.floor(20 * lowest) / 20 - (0.01 if lowest < 0.5 else 0), 1.0)
    axes.set_ylim(len(standing) - 0.5, -0.5)
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color="#eeeeee")
    axes.set_axisbelow(True)
    axes.set_xlabel("AUROC", fontsize=8, labelpad=1)


def _text(words: str, mean: Mean | None) -> str:
    if mean is None:
        return "own: none" if words == "own" else f"{words}: missing"
    interval = "" if math.isnan(mean.low) else f" [{decimals(mean.low)}, {decimals(mean.high)}]"
    return f"{words} {decimals(mean.value)}{interval}"


def _best(
    axes: Axes, best: pd.DataFrame, generators: Sequence[str], columns: Sequence[str], span: tuple[float, float], *,
    names: Sequence[str], letters: int, cell: float,
) -> None:  # fmt: skip
    values = pivot(best, "mean", generators=generators, planned=columns)[list(columns)]
    _shades(axes, values, span)
    for tested_on, trained_on, value, variants in best.to_numpy().tolist():
        down, across = list(generators).index(tested_on), list(columns).index(trained_on)
        ink = _ink(value, span)
        name = variants[0] if len(variants) == 1 else f"{len(variants)} methods alike"
        name = "\n".join(textwrap.wrap(name.replace("_", "_ "), letters)[:3]).replace("_ ", "_")
        shrunk = min(1.0, cell / (0.7 if letters > 11 else 0.55))  # of many columns
        axes.text(across, down - 0.27, decimals(value), ha="center", va="center", color=ink, fontsize=9 * shrunk,
                  weight="bold")  # fmt: skip
        size = (7 if letters > 11 else 6) * shrunk
        axes.text(across, down + 0.17, name, ha="center", va="center", color=ink, fontsize=size, linespacing=1.0)
    _names(axes, names, [trained_on_label(name, generators) for name in columns])


def _matrix(
    axes: Axes, one: Standing, generators: Sequence[str], best: pd.DataFrame, span: tuple[float, float], *,
    names: Sequence[str],
) -> None:  # fmt: skip
    _shades(axes, one.matrix, span)
    own = best[[one.variant in variants for variants in best["variants"]]]
    starred = set(zip(own["tested_on"], own["trained_on"], strict=True))
    for (row, column), value in np.ndenumerate(one.matrix.to_numpy(float)):
        if np.isnan(value):
            continue
        is_best = (one.matrix.index[row], one.matrix.columns[column]) in starred
        axes.text(
            column, row, f"{'★' if is_best else ''}{value:.2f}", ha="center", va="center", fontsize=8.5,
            color=_ink(value, span), weight="bold" if is_best else "normal",
        )  # fmt: skip
    columns = [trained_on_label(str(name), generators) for name in one.matrix.columns]
    _names(axes, names, columns)


def _shades(axes: Axes, matrix: pd.DataFrame, span: tuple[float, float]) -> None:
    """The colours of a matrix; missing cells are hatched, in-domain cells outlined."""
    values = matrix.to_numpy(float)
    axes.imshow(
        np.ma.masked_invalid(values), cmap=scale_of(_METRIC, span).colours, vmin=span[0], vmax=span[1], aspect="auto"
    )
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            corner = (column - 0.5, row - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, facecolor="#f2f2f2", edgecolor="#9a9a9a", hatch="///", lw=0))
    for row, column in np.argwhere(in_domain_cells(matrix)):
        outline = Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, fill=False, edgecolor="#000000", lw=1.4, zorder=3)
        outline.set_path_effects([withStroke(linewidth=3.0, foreground="#ffffff")])
        axes.add_patch(outline)
    axes.set_xticks(np.arange(values.shape[1] + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(values.shape[0] + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", lw=1.2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)


def _names(axes: Axes, rows: Sequence[str], columns: Sequence[str]) -> None:
    shown = [_short(name, 22) for name in columns]
    slanted = max(map(len, shown), default=0) > 7
    axes.set_xticks(range(len(shown)), shown, rotation=30 if slanted else 0, ha="right" if slanted else "center",
                    rotation_mode="anchor" if slanted else None, fontsize=7.5)  # fmt: skip
    axes.set_yticks(range(len(rows)), rows, fontsize=8)


def _heading(axes: Axes, ranked_name: str, one: Standing, origin: str, *, width: float) -> None:
    """Above a small matrix: its place and name, its backbone and weights, its mean."""
    letters = int(width * 14)
    notes = _origin(origin, letters).splitlines()
    mean = _text("unseen", one.unseen)
    notes.append(mean if one.ranked else f"{mean}; other cells: not ranked")
    name = textwrap.fill(ranked_name, int(width * 11.5), break_on_hyphens=False)
    axes.annotate("\n".join(notes), (0, 1), xytext=(0, 3), xycoords="axes fraction", textcoords="offset points",
                  fontsize=7, color="#333333", va="bottom")  # fmt: skip
    axes.annotate(name, (0, 1), xytext=(0, 5 + 9.2 * len(notes)), xycoords="axes fraction",
                  textcoords="offset points", fontsize=9, weight="bold", va="bottom")  # fmt: skip


def _origin(words: str, letters: int) -> str:
    """Backbone and weights in brackets, in at most two lines where that is possible; nothing is cut off."""
    return textwrap.fill(f"[{words}]", letters, break_on_hyphens=False) if words else ""


def _ink(value: float, span: tuple[float, float]) -> str:
    return ink_on(scale_of(_METRIC, span).colour(value))
