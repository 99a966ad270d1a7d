"""Heat maps of cross-generator matrices."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from analysis.cells import IntervalMatrix
from analysis.figures import style
from analysis.matrices import in_domain_cells, matrix_means, trained_on_label
from models.metrics import Metric, get_metric

_DARK, _LIGHT = "#000000", "#ffffff"


def matrix_figure(
    matrix: pd.DataFrame,
    *,
    metric: str,
    title: str,
    intervals: IntervalMatrix | None = None,
    transpose: bool = False,
) -> Figure:
    """One matrix as a heat map with its figures; in-domain cells are outlined, missing ones hatched.

    Where 0.5 is chance, the colours are matplotlib's PuOr: orange below 0.5, near white at 0.5, purple above. Orange
    and purple stay apart for every common kind of colour blindness. Other metrics have cividis, from dark to light.

    Args:
        matrix: values in [0, 1], rows tested on, columns trained on, NaN where missing; its axes' names are written on
            the figure's.
        metric: name for the colour bar; decides whether the colours part at 0.5.
        title: above the map.
        intervals: the same matrix with its spread over seeds and its intervals, which are written below the figures.
        transpose: turn rows and columns.
    """
    generators = [str(name) for name in matrix.index]
    in_domain = in_domain_cells(matrix)
    columns = [trained_on_label(str(name), generators) for name in matrix.columns]
    values = matrix.to_numpy(float)
    notes = _notes(matrix, intervals)
    rows, across, down = generators, str(matrix.columns.name or "trained on"), str(matrix.index.name or "tested on")
    if transpose:
        values, in_domain, notes = values.T, in_domain.T, notes.T
        rows, columns, across, down = columns, rows, down, across

    registered = _metric(metric)
    centred = registered is not None and registered.chance == 0.5 and registered.higher_is_better
    colours = mpl.colormaps["PuOr" if centred else "cividis"]
    longest = max([len(name) for name in rows], default=0)
    with style():
        size = (1.9 + 0.07 * longest + 1.0 * len(columns), 1.5 + 0.75 * len(rows))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        image = axes.imshow(np.ma.masked_invalid(values), cmap=colours, vmin=0.0, vmax=1.0, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            corner = (column - 0.5, row - 0.5)
            if np.isnan(value):
                axes.add_patch(Rectangle(corner, 1, 1, facecolor="#f2f2f2", edgecolor="#9a9a9a", hatch="///", lw=0))
                box = {"boxstyle": "round,pad=0.2", "facecolor": "#f2f2f2", "edgecolor": "none"}
                axes.text(column, row, "missing", ha="center", va="center", color=_DARK, fontsize=8, bbox=box)
                continue
            ink = _ink(colours(float(np.clip(value, 0, 1))))
            note = str(notes[row, column])
            lift = 0.05 + 0.09 * (note.count("\n") + 1) if note else 0.0
            axes.text(
                column, row - lift, f"{value:.3f}", ha="center", va="center", color=ink, fontsize=11, weight="bold"
            )
            axes.text(column, row + 0.22, note, ha="center", va="center", color=ink, fontsize=7, linespacing=1.15)
        for row, column in np.argwhere(in_domain):
            outline = Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, fill=False, edgecolor=_DARK, lw=2.0, zorder=3)
            outline.set_path_effects([withStroke(linewidth=4.5, foreground=_LIGHT)])  # seen on dark cells too
            axes.add_patch(outline)
        slanted = max([len(name) for name in columns], default=0) > 12
        axes.set_xticks(
            range(len(columns)), columns, rotation=25 if slanted else 0, ha="right" if slanted else "center"
        )
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", lw=1.5)
        axes.tick_params(which="both", length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel(across, weight="bold")
        axes.set_ylabel(down, weight="bold")
        axes.set_title(f"{title}\n{_summary(matrix, intervals)}", loc="left", fontsize=9)
        bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
        bar.set_label(metric.replace("_", " "))
        bar.outline.set_visible(False)
        half = "0.5\nchance" if centred and registered is not None and registered.chance_is_fixed else "0.5"
        bar.set_ticks([0, 0.25, 0.5, 0.75, 1], labels=["0", "0.25", half, "0.75", "1"])
    return figure


def _metric(name: str) -> Metric | None:
    """What is known of a metric; None for one of another kind, such as of localisation."""
    try:
        return get_metric(name)
    except KeyError:
        return None


def _ink(colour: tuple[float, float, float, float]) -> str:
    """Black or white, whichever has the higher contrast on this colour (WCAG 2.1, relative luminance)."""
    rgb = np.array(colour[:3])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return _LIGHT if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else _DARK


def _notes(matrix: pd.DataFrame, intervals: IntervalMatrix | None) -> np.ndarray:
    """What stands below each figure: object (rows, columns)."""
    notes = np.full(matrix.shape, "", dtype=object)
    if intervals is None:
        return notes
    std, low, high = (
        part.reindex(index=matrix.index, columns=matrix.columns).to_numpy(float)
        for part in (intervals.std, intervals.low, intervals.high)
    )
    for index in np.ndindex(*matrix.shape):
        lines = [f"± {std[index]:.3f}"] if np.isfinite(std[index]) else []
        if np.isfinite(low[index]):
            lines.append(f"[{low[index]:.3f}, {high[index]:.3f}]")
        notes[index] = "\n".join(lines)
    return notes


def _summary(matrix: pd.DataFrame, intervals: IntervalMatrix | None) -> str:
    means = matrix_means(matrix).named(matrix)
    words = [
        f"{name.removesuffix(' mean')} {'missing' if np.isnan(value) else f'{value:.3f}'}"
        for name, value in means.items()
    ]
    lines = ["means: " + ", ".join(words)]
    if intervals is not None and not intervals.low.isna().all(axis=None):
        seeds = intervals.num_seeds.to_numpy()
        counts = sorted({int(count) for count in seeds[seeds > 0]})
        count = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"
        spread = ", ± standard deviation" if not intervals.std.isna().all(axis=None) else ""
        lines.append(f"[95 % interval over source images]; seeds: {count}{spread}")
    return "\n".join(lines)
