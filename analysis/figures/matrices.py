"""Heat maps of cross-generator matrices."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from analysis.cells import IntervalMatrix
from analysis.figures import label_heat_map, style, wrapped
from analysis.matrices import decimals, in_domain_cells, matrix_means, trained_on_label
from analysis.tables import cell_text
from models.metrics import Metric, get_metric

_DARK, _LIGHT = "#000000", "#ffffff"
_TITLE = 9  # points


@dataclass(frozen=True, eq=False)
class Laid:
    """A matrix as it is shown.

    Attributes:
        values: float (rows, columns), NaN if missing.
        notes: the text below each value, object (rows, columns).
        in_domain: bool (rows, columns).
        rows, columns: their names.
        down, across: what the rows and the columns are.
        summary: the means, and what the intervals are.
    """

    values: np.ndarray
    notes: np.ndarray
    in_domain: np.ndarray
    rows: list[str]
    columns: list[str]
    down: str
    across: str
    summary: str


def laid_out(table: pd.DataFrame | IntervalMatrix, *, transpose: bool = False) -> Laid:
    """A matrix as it is shown; arguments as of `matrix_figure`."""
    matrix = table.mean if isinstance(table, IntervalMatrix) else table
    generators = [str(name) for name in matrix.index]
    columns = [trained_on_label(str(name), generators) for name in matrix.columns]
    laid = Laid(
        matrix.to_numpy(float), _notes(table), in_domain_cells(matrix), generators, columns,
        str(matrix.index.name or "tested on"), str(matrix.columns.name or "trained on"), _summary(table),
    )  # fmt: skip
    if not transpose:
        return laid
    return Laid(
        laid.values.T, laid.notes.T, laid.in_domain.T, laid.columns, laid.rows, laid.across, laid.down, laid.summary
    )


@dataclass(frozen=True)
class Scale:
    """The colours of a metric.

    Attributes:
        colours: a map of matplotlib.
        span: the values of the first and the last colour.
        words: what is coloured.
        middle: what stands at 0.5, or "" if it is like any other value.
    """

    colours: Colormap
    span: tuple[float, float]
    words: str
    middle: str

    def colour(self, value: float) -> tuple[float, float, float, float]:
        """The colour of a value, as red, green, blue and alpha in [0, 1]."""
        low, high = self.span
        red, green, blue, alpha = self.colours(float(np.clip((value - low) / (high - low), 0, 1)))
        return red, green, blue, alpha

    def ticks(self) -> dict[float, str]:
        """Five values from the first to the last colour, in words."""
        ticks = [float(tick) for tick in np.linspace(*self.span, 5)]
        return {tick: self.middle if self.middle and tick == 0.5 else f"{tick:.3g}" for tick in ticks}


def scale_of(metric: str, span: tuple[float, float]) -> Scale:
    """The colours of a metric; arguments as of `matrix_figure`."""
    registered, centred = _metric(metric), _parts_at_half(metric)
    at_chance = centred and registered is not None and registered.chance_is_fixed
    return Scale(
        mpl.colormaps["PuOr" if centred else "cividis"],
        span,
        metric if registered is None else registered.words,
        "0.5\nchance" if at_chance else "",
    )


def matrix_figure(
    table: pd.DataFrame | IntervalMatrix,
    *,
    metric: str,
    title: str,
    transpose: bool = False,
    span: tuple[float, float] = (0.0, 1.0),
) -> Figure:
    """One matrix as a heat map with its values; in-domain cells are outlined, missing ones hatched.

    If chance is 0.5, the colours are matplotlib's PuOr: orange below 0.5, near white at 0.5, purple above. Orange and
    purple are distinguishable under every common kind of colour blindness. Other metrics use cividis, dark to light.

    Args:
        table: values in [0, 1], rows tested on, columns trained on, NaN if missing; or a matrix with its spreads and
            intervals, which are written below the values.
        metric: a registered metric, which decides the colours; for another, words for the colour bar.
        title: above the map.
        transpose: swap rows and columns.
        span: the values of the first and the last colour, see `colour_span`.
    """
    laid, scale = laid_out(table, transpose=transpose), scale_of(metric, span)
    rows, columns, values = laid.rows, laid.columns, laid.values
    longest = max([len(name) for name in rows], default=0)
    with style():
        width, beside = 1.9 + 0.07 * longest + 0.88 * len(columns), 0.6 + 0.07 * longest
        heading = wrapped(f"{title}\n{laid.summary}", inches=width - beside, points=_TITLE)
        height = 1.05 + 0.15 * (heading.count("\n") + 1) + 0.75 * len(rows)  # so that cells are of one size
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        image = axes.imshow(np.ma.masked_invalid(values), cmap=scale.colours, vmin=span[0], vmax=span[1], aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            corner = (column - 0.5, row - 0.5)
            if np.isnan(value):
                axes.add_patch(Rectangle(corner, 1, 1, facecolor="#f2f2f2", edgecolor="#9a9a9a", hatch="///", lw=0))
                box = {"boxstyle": "round,pad=0.2", "facecolor": "#f2f2f2", "edgecolor": "none"}
                axes.text(column, row, "missing", ha="center", va="center", color=_DARK, fontsize=8, bbox=box)
                continue
            ink = ink_on(scale.colour(float(value)))
            note = str(laid.notes[row, column])
            lift = 0.05 + 0.09 * (note.count("\n") + 1) if note else 0.0
            axes.text(
                column, row - lift, decimals(value), ha="center", va="center", color=ink, fontsize=11, weight="bold"
            )
            axes.text(column, row + 0.22, note, ha="center", va="center", color=ink, fontsize=7, linespacing=1.15)
        for row, column in np.argwhere(laid.in_domain):
            outline = Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, fill=False, edgecolor=_DARK, lw=2.0, zorder=3)
            outline.set_path_effects([withStroke(linewidth=4.5, foreground=_LIGHT)])  # visible on dark cells too
            axes.add_patch(outline)
        label_heat_map(axes, rows, columns, down=laid.down, across=laid.across, slant=12)
        axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", lw=1.5)
        axes.set_title(heading, loc="left", fontsize=_TITLE)
        bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
        bar.set_label(scale.words if span == (0, 1) else f"{scale.words}\ncolours from {span[0]:.2f} to {span[1]:.2f}")
        bar.outline.set_visible(False)
        ticks = scale.ticks()
        bar.set_ticks(list(ticks), labels=list(ticks.values()))
    return figure


def colour_span(values: Iterable[float], metric: str) -> tuple[float, float]:
    """The first and last value of a colour scale, in twentieths, that these values use; (0, 1) without a value.

    A scale that parts at chance, 0.5, reaches equally far to both sides, so that equal colours are equally far from it.

    Args:
        values: of all matrices that are to be compared; NaN does not count.
        metric: as in `matrix_figure`.
    """
    finite = [float(value) for value in values if value == value]
    if not finite:
        return 0.0, 1.0
    if _parts_at_half(metric):
        steps = max(1, math.ceil(round(20 * max(abs(value - 0.5) for value in finite), 9)))
        return max(0.0, 0.5 - steps / 20), min(1.0, 0.5 + steps / 20)
    low, high = math.floor(round(20 * min(finite), 9)), math.ceil(round(20 * max(finite), 9))
    low, high = (low, high) if high > low else (max(0, low - 1), low + 1)
    return max(0.0, low / 20), min(1.0, high / 20)


def _parts_at_half(metric: str) -> bool:
    registered = _metric(metric)
    return registered is not None and registered.chance == 0.5 and registered.higher_is_better


def _metric(name: str) -> Metric | None:
    """A registered metric; None for others, such as those of localisation."""
    try:
        return get_metric(name)
    except KeyError:
        return None


def ink_on(colour: tuple[float, float, float, float]) -> str:
    """Black or white, whichever has more contrast on this colour (WCAG 2.1, relative luminance)."""
    rgb = np.array(colour[:3])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return _LIGHT if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else _DARK


def _notes(table: pd.DataFrame | IntervalMatrix) -> np.ndarray:
    """The text below each value: object (rows, columns)."""
    if not isinstance(table, IntervalMatrix):
        return np.full(table.shape, "", dtype=object)

    def note(std: float, low: float, high: float) -> str:
        lines = [f"± {decimals(std)}"] if np.isfinite(std) else []
        return "\n".join([*lines, f"[{decimals(low)}, {decimals(high)}]"] if np.isfinite(low) else lines)

    parts = (part.to_numpy(float) for part in (table.std, table.low, table.high))
    return np.asarray(np.vectorize(note, otypes=[object])(*parts))


def _summary(table: pd.DataFrame | IntervalMatrix) -> str:
    matrix = table.mean if isinstance(table, IntervalMatrix) else table
    means = matrix_means(matrix).named(matrix)
    lines = ["means: " + ", ".join(f"{name.removesuffix(' mean')} {cell_text(mean)}" for name, mean in means.items())]
    if isinstance(table, IntervalMatrix) and not table.low.isna().all(axis=None):
        seeds = table.num_seeds.to_numpy()
        fewest, most = int(seeds[seeds > 0].min()), int(seeds.max())
        count = f"{fewest}" if fewest == most else f"{fewest}–{most}"
        spread = ", ± standard deviation" if not table.std.isna().all(axis=None) else ""
        over = "over photographs" if most < 2 else "of the mean over seeds and photographs"
        number = f"seeds: {count}{spread}" if table.seeded else "does not depend on the seed"
        over = over if table.seeded else "over photographs"
        lines.append(f"[95 % confidence interval {over}]; {number}")
    return "\n".join(lines)
