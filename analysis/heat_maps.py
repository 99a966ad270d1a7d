"""Cross-generator matrices as tables of the page: no picture is drawn, and letters are as large as those of texts."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

from analysis.cells import IntervalMatrix
from analysis.figures.matrices import Scale, ink_on, laid_out, scale_of
from analysis.matrices import decimals
from analysis.page import HeatCell, HeatMap, file_name
from analysis.tables import MISSING

_NUM_COLOURS = 11  # of the bar


def heat_map(
    table: pd.DataFrame | IntervalMatrix,
    *,
    name: str,
    metric: str,
    title: str,
    transpose: bool,
    span: tuple[float, float],
) -> HeatMap:
    """One matrix as a heat map; arguments, colours and marks as of `analysis.figures.matrices.matrix_figure`.

    `name` is that of the files of its table, by which `verify` finds what each value should be.
    """
    laid, scale = laid_out(table, transpose=transpose), scale_of(metric, span)
    rows = [
        (
            row_name,
            [
                _cell(float(value), str(note), scale, in_domain=bool(in_domain))
                for value, note, in_domain in zip(laid.values[row], laid.notes[row], laid.in_domain[row], strict=True)
            ],
        )
        for row, row_name in enumerate(laid.rows)
    ]
    colours = [to_hex(scale.colour(float(value))) for value in np.linspace(*span, _NUM_COLOURS)]
    ticks = [words.replace("\n", " ") for words in scale.ticks().values()]
    caption = [*title.split("\n"), *laid.summary.split("\n")]
    return HeatMap(file_name(name), caption, laid.down, laid.across, laid.columns, rows, scale.words, colours, ticks)


def _cell(value: float, note: str, scale: Scale, *, in_domain: bool) -> HeatCell:
    if np.isnan(value):
        return HeatCell(MISSING, mark="missing")
    colour = scale.colour(value)
    return HeatCell(decimals(value), note, to_hex(colour), ink_on(colour), "in-domain" if in_domain else "")
