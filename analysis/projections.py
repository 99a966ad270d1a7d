"""The pictures of each method's test embeddings, and how well the classes part there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.embeddings import Projection, Separation, separate_and_project, shown_embeddings
from analysis.figures.embeddings import embedding_figure
from analysis.page import Picture
from analysis.parts import Report
from grid.tasks import ATTRIBUTION, REAL, class_names


@dataclass(frozen=True)
class Projecting:
    """The embeddings of a method that are being projected.

    Attributes:
        classes: (M,), classes of the images that are shown.
        num_images: N, all test images.
        result: waits for the separation and the projection.
    """

    classes: np.ndarray
    num_images: int
    result: Callable[[], tuple[Separation, Projection]]

    @property
    def is_sample(self) -> bool:
        """Whether some test images are left out."""
        return len(self.classes) < self.num_images

    @property
    def count(self) -> str:
        """How many images are shown, in words."""
        return f"{len(self.classes)} of {self.num_images}" if self.is_sample else f"{self.num_images}"


Begun = Projecting | Exception | None


def begin_all(report: Report) -> dict[str, Begun]:
    """Every method's, ahead of the other parts, since t-SNE is the slowest step of each method.

    Each is of the first finished attribution run; an error if it cannot be shown, None without such a run.
    """
    return {variant: _begin(report, variant) for variant in report.variants(ATTRIBUTION)}


def _begin(report: Report, variant: str) -> Begun:
    runs = report.finished(ATTRIBUTION, variant)
    if runs.empty:
        return None
    run_id = str(runs["run_id"].iloc[0])
    try:
        scores = report.store.scores(run_id)
        classes = class_names(scores)
        drawn, vectors = shown_embeddings(report.store, run_id, classes)
    except Exception as error:  # the method's picture is lost, no other
        return error
    sources, kind = scores["source_id"].to_numpy(object), report.options.projection
    work = report.folder.compute(separate_and_project, vectors, classes[drawn], sources[drawn], kind=kind)
    return Projecting(classes[drawn], len(scores), work)


def projected(report: Report, variant: str, begun: Projecting | Exception) -> tuple[Picture, dict[str, Any]]:
    """A method's picture, and its row of the table of how well the classes part.

    Raises:
        EmbeddingError, StoreError: these embeddings cannot be shown.
        Exception: whatever else was met on the way.
    """
    if isinstance(begun, Exception):
        raise begun
    measured, projection = begun.result()
    row = {
        "method": variant, "silhouette": measured.silhouette, f"{measured.num_neighbours}-NN purity": measured.purity,
        "chance": measured.chance, "dimensions": measured.num_dimensions,
        "projection": f"{projection.method}: {projection.note}",
    }  # fmt: skip
    title = f"{report.labelled(variant)}: {projection.method} of {begun.count} test embeddings"
    picture = report.folder.picture(
        f"embeddings-{variant}",
        embedding_figure(projection, begun.classes, title=title, separation=measured, order=[REAL, *report.generators]),
        alt=f"{projection.method} of {report.labelled(variant)}, {begun.count} test embeddings, "
        f"coloured by class. In the original space, of {'these' if begun.is_sample else 'all'} images: "
        f"silhouette {measured.silhouette:.3f}, {measured.num_neighbours}-NN purity "
        f"{measured.purity:.3f} where chance is {measured.chance:.3f}.",
    )
    return picture, row
