"""Attribution: accuracies, and of each method the confusion matrix beside its test embeddings."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd

from analysis.cells import attribution_with_intervals
from analysis.embeddings import EmbeddingError
from analysis.figures.attribution import confusion_figure
from analysis.page import Block, Picture, Row, Text, sentence_list
from analysis.parts import Report, register_part
from analysis.projections import Projecting, begin_all, projected
from analysis.store import StoreError
from analysis.tables import CONFIDENCE, attribution_text
from grid.confusion import confusion_table
from grid.tasks import ATTRIBUTION

logger = logging.getLogger(__name__)


@register_part("attribution", title="Attribution", position=50, ahead=begin_all)
def attribution(report: Report) -> Iterator[Block]:
    """Accuracies as a table, then two pictures per method; empty if the grid has no such trials."""
    if not report.variants(ATTRIBUTION):
        return
    yield from report.audit()
    rows = attribution_with_intervals(report.store, report.cells)
    if len(rows):
        yield report.folder.table(
            "attribution", rows.drop(columns="run_ids"), shown=attribution_text(rows),
            caption=f"Accuracy over all classes and of each, in brackets {CONFIDENCE}",
        )  # fmt: skip
        yield Text(
            "Per method: the confusion matrix, and the test embeddings of the same detector (the first finished seed). "
            "Distances between groups of points and their sizes mean nothing in such a picture. The numbers below it "
            "are from the original space, where an image is compared with images of other photographs alone: versions "
            "of one photograph are alike whatever their class."
        )
    begun = report.ahead["attribution"] if "attribution" in report.ahead else begin_all(report)
    parting, samples = list[dict[str, Any]](), set[str]()
    for variant, embeddings in begun.items():
        if embeddings is None:
            command = report.store.missing_command(task=ATTRIBUTION, variant=variant)
            yield Text(f"{variant}: not finished; this runs it:", strong=True, command=command)
            continue
        report.say(f"  {variant}")
        pictures = [_confusion(report, variant)]
        try:
            picture, row = projected(report, variant, embeddings)
            pictures.append(picture)
            parting.append(row)
            if isinstance(embeddings, Projecting) and embeddings.is_sample:
                samples.add(embeddings.count)
        except (EmbeddingError, StoreError) as error:
            if report.options.projection == "umap" and "umap-learn" in str(error):
                raise StoreError(str(error)) from error
            yield report.problem(f"{variant}: no picture of its embeddings: {error}")
        except OSError:  # such as a full disk
            raise
        except Exception as error:  # the rest of the section does not depend on it
            logger.error("the embeddings of %r failed", variant, exc_info=error)
            yield report.problem(f"{variant}: no picture of its embeddings: {error!r}")
        yield Row(pictures)
    if parting:
        caption = "How well the classes part in the embeddings"
        if samples:
            caption += (
                f"; of a sample of {sentence_list(sorted(samples))} test images, with the same share of each class"
            )
        yield report.folder.table("embeddings", pd.DataFrame(parting), caption=caption)


def _confusion(report: Report, variant: str) -> Picture:
    """The counts of all finished seeds, added up."""
    runs = report.finished(ATTRIBUTION, variant)
    tables = [confusion_table(report.store.scores(run_id), report.generators) for run_id in runs["run_id"]]
    counts = reduce(pd.DataFrame.add, tables)
    seeds = f", {len(runs)} seeds added up" if len(runs) > 1 else ""
    shares = np.diag(counts) / counts.sum(axis=1).clip(lower=1)
    diagonal = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    caption = f"{report.labelled(variant)}: attribution, counts{seeds}"
    report.folder.files(f"confusion-{variant}", counts, caption=caption, variant=variant)
    return report.folder.picture(
        f"confusion-{variant}",
        confusion_figure(counts, title=f"{report.labelled(variant)}: attribution{seeds}"),
        alt=f"Confusion matrix of {report.labelled(variant)}, "
        f"rows true class, columns predicted class; right: {diagonal}.",
    )
