"""Where the images of a left-out generator land, as a heat map."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis.figures import label_heat_map, style, wrapped


def landing_figure(counts: pd.DataFrame, *, title: str) -> Figure:
    """Heat map of a landing matrix: shares of each left-out generator's images, with the counts below.

    Args:
        counts: from `analysis.open_set.landing_table`; a cell without a value is hatched.
        title: above the map.
    """
    values = counts.to_numpy(float)
    totals = np.nansum(values, axis=1, keepdims=True)
    shares = np.divide(values, totals, out=np.full_like(values, np.nan), where=totals > 0)
    rows, columns = list(map(str, counts.index)), list(map(str, counts.columns))
    longest = max((len(name) for name in [*rows, *columns]), default=0)
    with style():
        size = (2.3 + 0.07 * longest + 0.85 * len(columns), 1.6 + 0.62 * len(rows))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        image = axes.imshow(np.ma.masked_invalid(shares), cmap=mpl.colormaps["Blues"], vmin=0, vmax=1, aspect="auto")
        for (row, column), share in np.ndenumerate(shares):
            if np.isnan(share):
                corner = (column - 0.5, row - 0.5)
                axes.add_patch(Rectangle(corner, 1, 1, facecolor="#f2f2f2", edgecolor="#9a9a9a", hatch="///", lw=0))
                continue
            ink = "white" if share > 0.6 else "black"
            text = f"{share:.0%}\n{int(values[row, column])}"
            axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=9)
        label_heat_map(axes, rows, columns, down="left out of training", across="answered with", slant=10)
        axes.set_title(wrapped(title, inches=size[0] - 0.6 - 0.07 * longest, points=9), loc="left", fontsize=9)
        bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
        bar.set_label("share of the left-out generator's images")
        bar.outline.set_visible(False)
    return figure
