"""The confusion matrix of attribution."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.figures import label_heat_map, style, wrapped


def confusion_figure(counts: pd.DataFrame, *, title: str) -> Figure:
    """Heat map of a confusion matrix: shares of each true class, with the counts below.

    Args:
        counts: from `grid.confusion.confusion_table`, or the sum of several: rows true class, columns predicted
            class. A row without images stays blank.
        title: above the map.
    """
    values = counts.to_numpy(float)
    totals = values.sum(axis=1, keepdims=True)
    shares = np.divide(values, totals, out=np.full_like(values, np.nan), where=totals > 0)
    names = [str(name) for name in counts.columns]
    with style():
        longest = max((len(name) for name in names), default=0)
        right, width = int(np.trace(values)), 2.3 + 0.07 * longest + 0.62 * len(names)
        words = f"{title}\n{right} of {int(values.sum())} right"
        heading = wrapped(words, inches=width - 0.6 - 0.07 * longest, points=9)
        height = 1.3 + 0.15 * (heading.count("\n") + 1) + 0.62 * len(names)
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        image = axes.imshow(np.ma.masked_invalid(shares), cmap=mpl.colormaps["Blues"], vmin=0, vmax=1, aspect="auto")
        for (row, column), share in np.ndenumerate(shares):
            text = "no images" if np.isnan(share) else f"{share:.0%}\n{int(values[row, column])}"
            ink = "white" if share > 0.6 else "black"
            weight = "bold" if row == column else "normal"
            axes.text(column, row, text, ha="center", va="center", color=ink, weight=weight, fontsize=9)
        label_heat_map(axes, list(map(str, counts.index)), names, down="true class", across="predicted class", slant=10)
        axes.set_title(heading, loc="left", fontsize=9)
        bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
        bar.set_label("share of the true class")
        bar.outline.set_visible(False)
    return figure
