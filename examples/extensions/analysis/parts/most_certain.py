"""What each detector is most certain about, right or wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis.page import Block
from analysis.parts import Report, register_part
from grid.tasks import DETECTION


@register_part("most_certain", title="Most certain", position=75)
def most_certain(report: Report) -> Iterator[Block]:
    """The test image with the highest score of each run of detection."""
    rows = []
    for run in report.finished(DETECTION).itertuples():
        scores = report.store.scores(str(run.run_id), ["source_id", "generator", "label", "score"])
        top = scores.loc[scores["score"].idxmax()]
        rows.append({"method": run.variant, "trained on": run.trained_on, "image": top["source_id"]})
        rows[-1] |= {"is": "fake" if top["label"] else "real", "log-odds": f"{top['score']:.2f}"}
    if rows:
        table = pd.DataFrame(rows)
        yield report.folder.table("most_certain", table, caption="The test image that each detector calls fake first")
