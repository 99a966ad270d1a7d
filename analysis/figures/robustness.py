"""Values of each method over the conditions of the test pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import style
from analysis.figures.palette import looks
from analysis.variants import with_origin
from grid.means import CROSS_GENERATOR, IN_DOMAIN
from models.metrics import get_metric, in_words


def robustness_figure(
    means: pd.DataFrame,
    *,
    variants: Sequence[str],
    conditions: Sequence[str],
    metrics: Sequence[str],
    labels: Mapping[str, str] | None = None,
) -> Figure:
    """One panel per metric and kind of mean; a line per method, which joins the levels of a family of conditions.

    Args:
        means: rows of `analysis.cells.cell_table` of the kinds "in-domain mean" and "cross-generator mean".
        variants: methods, one look per method.
        conditions: in order, "clean" first; the levels of a family side by side.
        metrics: names of metrics, one row of panels per metric.
        labels: variant -> backbone and origin of its weights, for the legend; None: variants alone.
    """
    look_of = looks(variants)
    kinds = [kind for kind in (IN_DOMAIN, CROSS_GENERATOR) if kind in set(means["kind"])]
    groups = [[name for _, name in group] for _, group in groupby(enumerate(conditions), lambda x: _family(x[1]))]
    with style():
        width = max(3.2, 0.36 * len(conditions) + 1.2)
        figure = Figure(figsize=(width * len(kinds), 2.5 * len(metrics) + 1.1), layout="constrained")
        grid = figure.subplots(len(metrics), len(kinds), squeeze=False, sharex=True, sharey="row")
        for row, metric in zip(grid, metrics, strict=True):
            for axes, kind in zip(row, kinds, strict=True):
                shown = means[(means["metric"] == metric) & (means["kind"] == kind)]
                if (chance := get_metric(metric).chance) is not None:
                    axes.axhline(chance, color="#999999", lw=0.8)
                for number, (variant, look) in enumerate(look_of.items()):
                    of_variant = shown[shown["variant"] == variant].set_index("condition")
                    nudge = 0.12 * (number - (len(look_of) - 1) / 2)  # so that intervals do not cover each other
                    for group in groups:
                        own = of_variant.reindex([name for name in group if name in of_variant.index])
                        if own.empty:
                            continue
                        places = [conditions.index(str(name)) + nudge for name in own.index]
                        value = own["mean"].astype(float)
                        errors = [(value - own["low"]).clip(lower=0), (own["high"] - value).clip(lower=0)]
                        axes.errorbar(
                            places, value, errors, color=look.colour, marker=look.marker, ls=look.dash, ms=4, lw=1.3,
                            elinewidth=0.7,
                        )  # fmt: skip
                axes.grid(axis="y", color="#eeeeee")
                axes.set_ylim(-0.03, 1.03)
                axes.set_xticks(range(len(conditions)), conditions, rotation=60, ha="right", rotation_mode="anchor")
        for axes, kind in zip(grid[0], kinds, strict=True):
            axes.set_title(kind, fontsize=9)
        for row, metric in zip(grid, metrics, strict=True):
            row[0].set_ylabel(in_words(metric).replace(" at ", "\nat "))
        handles = [
            Line2D(
                [], [], color=look.colour, marker=look.marker, ls=look.dash, ms=4, label=with_origin(name, labels or {})
            )
            for name, look in look_of.items()
        ]
        figure.legend(handles=handles, loc="outside lower left", ncols=1, frameon=False, fontsize=8)
        figure.suptitle("Robustness: bars are 95 % intervals, grey lines are chance", x=0.01, ha="left", fontsize=10)
    return figure


def _family(condition: str) -> str:
    family, _, level = condition.rpartition("-")
    return family if level.isdigit() else condition
