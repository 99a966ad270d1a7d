"""Attribution: accuracy over all classes and of each class, and confusion matrices."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

import numpy as np
import pandas as pd

from analysis.attribution import confusion_table
from analysis.cells import attribution_with_intervals
from analysis.figures.attribution import confusion_figure
from analysis.page import Block, Text
from analysis.parts import Report, register_part
from analysis.tables import CONFIDENCE, attribution_text
from grid.tasks import ATTRIBUTION


@register_part("attribution", title="Attribution", position=50)
def attribution(report: Report) -> Iterator[Block]:
    """Accuracies as a table, confusion matrices as pictures."""
    if not report.variants(ATTRIBUTION):
        yield Text("This grid has no attribution trials.")
        return
    yield from report.audit()
    rows = attribution_with_intervals(report.store, report.cells)
    if len(rows):
        yield report.folder.table(
            "attribution", rows.drop(columns="run_ids"), shown=attribution_text(rows),
            caption=f"Accuracy over all classes and of each, in brackets {CONFIDENCE}",
        )  # fmt: skip
    for variant in report.variants(ATTRIBUTION):
        runs = report.finished(ATTRIBUTION, variant)
        if runs.empty:
            command = report.store.missing_command(task=ATTRIBUTION, variant=variant)
            yield Text(f"{variant}: not finished; this runs it:", strong=True, command=command)
            continue
        tables = [confusion_table(report.store.scores(run_id), report.generators) for run_id in runs["run_id"]]
        counts = reduce(pd.DataFrame.add, tables)
        seeds = f", {len(runs)} seeds added up" if len(runs) > 1 else ""
        shares = np.diag(counts) / counts.sum(axis=1).clip(lower=1)
        diagonal = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        report.folder.files(f"confusion-{variant}", counts, caption=f"{variant}: attribution, counts{seeds}")
        yield report.folder.picture(
            f"confusion-{variant}",
            confusion_figure(counts, title=f"{report.labelled(variant)}: attribution{seeds}"),
            alt=f"Confusion matrix of {variant}, rows true class, columns predicted class; right: {diagonal}.",
        )
