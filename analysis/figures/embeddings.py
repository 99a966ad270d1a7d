"""Projections of embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from analysis.embeddings import Projection, Separation
from analysis.figures import style, wrapped
from analysis.figures.palette import looks

_WIDTH = 6.1  # inches


def embedding_figure(
    projection: Projection,
    classes: np.ndarray,
    *,
    title: str,
    separation: Separation,
    order: Sequence[str] = (),
) -> Figure:
    """Scatter plot of a projection, one colour and marker per class, with its settings and the separation below.

    Args:
        projection: from `analysis.embeddings.project`.
        classes: (N,), names of the points' classes.
        title: above the picture.
        separation: separation of the classes in the original space.
        order: order of the classes; others follow in alphabetical order.
    """
    names = np.asarray(classes).astype(str)
    there = set(names)
    ordered = [name for name in order if name in there] + sorted(there - set(order))
    with style():
        figure = Figure(figsize=(_WIDTH, 4.8), layout="constrained")
        axes = figure.add_subplot()
        size = float(np.clip(8000 / max(len(names), 1), 7, 36))
        for name, look in looks(ordered).items():
            own = projection.points[names == name]
            axes.scatter(
                own[:, 0], own[:, 1], s=size, c=look.colour, marker=look.marker, alpha=0.75, linewidths=0.2,
                edgecolors="white", label=f"{name} ({len(own)})", rasterized=True,
            )  # fmt: skip
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_aspect("equal", adjustable="datalim")
        axes.spines[:].set_color("#bbbbbb")
        figure.suptitle(wrapped(title, inches=_WIDTH, points=9), x=0.01, ha="left", fontsize=9)
        axes.legend(  # beside the axes, not the figure, whose long title needs the width
            loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0, frameon=False, title="class (images)",
            markerscale=1.6,
        )  # fmt: skip
        lines = [
            f"{projection.method}: {projection.note}. Axes have no unit.",
            f"In the original {separation.num_dimensions} dimensions, between images of different photographs: "
            f"silhouette {separation.silhouette:.3f}, {separation.num_neighbours}-NN purity {separation.purity:.3f} "
            f"(chance {separation.chance:.3f}).",
        ]
        text = wrapped("\n".join(lines), inches=_WIDTH, points=8)
        figure.supxlabel(text, fontsize=8, x=0.01, ha="left")
    return figure
