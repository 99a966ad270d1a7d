"""Which generator made it: accuracy over all classes and of each, and who is taken for whom."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from analysis.attribution import confusion_table
from analysis.cells import attribution_with_intervals
from analysis.figures.attribution import confusion_figure
from analysis.page import Block, Text
from analysis.parts import Report, register_part
from analysis.tables import attribution_text
from grid.tasks import ATTRIBUTION


@register_part("attribution", title="Attribution", position=50)
def attribution(report: Report) -> Iterator[Block]:
    """Accuracies as a table, confusion matrices as pictures."""
    if not report.variants(ATTRIBUTION):
        yield Text("This grid has no attribution trials.")
        return
    rows = attribution_with_intervals(report.store, report.cells)
    if len(rows):
        yield report.folder.table(
            "attribution", rows.drop(columns="run_ids"), shown=attribution_text(rows),
            caption="Accuracy over all classes and of each, in brackets 95 % intervals over source images",
        )  # fmt: skip
    for variant in report.variants(ATTRIBUTION):
        runs = report.finished(ATTRIBUTION, variant)
        if runs.empty:
            command = report.store.missing_command(task=ATTRIBUTION, variant=variant)
            yield Text(f"{variant}: not finished; this runs it:", strong=True, command=command)
            continue
        tables = [confusion_table(report.store.scores(run_id), report.generators) for run_id in runs["run_id"]]
        counts = tables[0].copy()
        for other in tables[1:]:
            counts = counts.add(other, fill_value=0).astype(int).loc[tables[0].index, tables[0].columns]
        seeds = f", {len(tables)} seeds added up" if len(tables) > 1 else ""
        shares = counts.to_numpy(float) / np.maximum(counts.sum(axis=1).to_numpy(float)[:, None], 1)
        diagonal = ", ".join(f"{name} {shares[number, number]:.0%}" for number, name in enumerate(counts.index))
        report.folder.files(f"confusion-{variant}", counts, caption=f"{variant}: attribution, counts{seeds}")
        yield report.folder.picture(
            f"confusion-{variant}",
            confusion_figure(counts, title=f"{report.labelled(variant)}: attribution{seeds}"),
            alt=f"Confusion matrix of {variant}, rows true class, columns predicted class; right: {diagonal}.",
        )
