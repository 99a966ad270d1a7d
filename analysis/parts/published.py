"""Our values beside the published ones of the corpus."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.cells import CELL
from analysis.page import Block, Text, html_table, sentence_list
from analysis.parts import Report, register_part
from analysis.published import beside_published
from grid.plan import FINISHED
from grid.tasks import ATTRIBUTION, DETECTION


@register_part("published", title="Published values", position=30)
def published(report: Report) -> Iterator[Block]:
    """Empty if the corpus has no published values, or no method has a finished trial."""
    source = report.store.source
    if source.published is None or not (report.runs["state"] == FINISHED).any():
        return
    table = beside_published(report.store, report.cells)
    if table.empty:
        yield Text(
            f"The published values ({source.published.paper}) are about other generators than this grid's, so there is "
            "nothing to compare."
        )
        return
    comparable = table[table["inside"].notna()]
    counts = [
        f"{int(part['inside'].sum())} of {len(part)} {words}"
        for words, part in (
            ("cells of detection", comparable[(comparable["task"] == DETECTION) & (comparable["kind"] == CELL)]),
            ("means over such cells", comparable[comparable["kind"] != CELL]),
            ("accuracies of attribution", comparable[comparable["task"] == ATTRIBUTION]),
        )
        if len(part)
    ]
    if counts:
        yield Text(f"Published values that lie in our 95 % intervals: {sentence_list(counts)}.")
    yield from report.audit()
    means = table[table["kind"] != CELL]
    rest = table[table["kind"] == CELL].drop(columns="kind")
    report.folder.files("published", table, caption="Ours beside the published values")
    if len(means):
        yield html_table(means.drop(columns=["tested_on", "trained_on", "task"]), "Means, ours and published")
    yield html_table(rest, "Each value, ours and published; difference is ours minus published")
