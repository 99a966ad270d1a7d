"""Projections of test embeddings, and how well the classes separate."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis.embeddings import EmbeddingError, project, separation
from analysis.figures.embeddings import embedding_figure
from analysis.page import Block, Text
from analysis.parts import Report, register_part
from analysis.store import StoreError
from grid.tasks import ATTRIBUTION, REAL, class_names


@register_part("embeddings", title="Embeddings", position=60)
def embeddings(report: Report) -> Iterator[Block]:
    """The embeddings of each method's attribution run, of its first finished seed."""
    if not report.variants(ATTRIBUTION):
        return
    yield Text(
        "Test embeddings of each method's attribution run (the first finished seed). Distances between groups and "
        "their sizes mean nothing in such a picture. The numbers below are from the original space, where an image is "
        "compared with images of other photographs alone: versions of one photograph are alike whatever their class."
    )
    rows = []
    for variant in report.variants(ATTRIBUTION):
        runs = report.finished(ATTRIBUTION, variant)
        if runs.empty:
            continue
        report.say(f"  {variant}")
        run_id = runs["run_id"].iloc[0]
        try:
            scores, vectors = report.store.scores(run_id), report.store.embeddings(run_id)
            if len(scores) != len(vectors):
                raise EmbeddingError(f"run {run_id} has {len(vectors)} embeddings for {len(scores)} images")
            classes = class_names(scores)
            measured = separation(vectors, classes, scores["source_id"].to_numpy())
            projection = project(vectors, kind=report.options.projection)
        except (EmbeddingError, StoreError) as error:
            if report.options.projection == "umap" and "umap-learn" in str(error):
                raise StoreError(str(error)) from error
            yield report.problem(f"{variant}: no picture of its embeddings: {error}")
            continue
        rows.append(
            {
                "method": variant, "silhouette": measured.silhouette,
                f"{measured.num_neighbours}-NN purity": measured.purity, "chance": measured.chance,
                "dimensions": measured.num_dimensions, "projection": f"{projection.method}: {projection.note}",
            }
        )  # fmt: skip
        title = f"{report.labelled(variant)}: {projection.method} of {len(vectors)} test embeddings"
        order = [REAL, *report.generators]
        yield report.folder.picture(
            f"embeddings-{variant}",
            embedding_figure(projection, classes, title=title, separation=measured, order=order),
            alt=f"{projection.method} of {variant}'s {len(vectors)} test embeddings, coloured by class. In the "
            f"original space: silhouette {measured.silhouette:.3f}, {measured.num_neighbours}-NN purity "
            f"{measured.purity:.3f} where chance is {measured.chance:.3f}.",
        )
    if rows:
        yield report.folder.table("embeddings", pd.DataFrame(rows), caption="How well the classes part")
