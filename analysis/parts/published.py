"""Our values beside the published ones of the corpus."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis.cells import CELL
from analysis.page import Block, Text, sentence_list
from analysis.parts import Report, register_part
from analysis.published import beside_published
from analysis.tables import in_words
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
        yield Text(
            "A published value is that of one run. In our 95 % prediction intervals of one more run lie "
            f"{sentence_list(counts)}."
        )
    without = table[table["inside"].isna() & table["comparable"]]
    if len(without):
        methods = sentence_list(map(str, dict.fromkeys(without["variant"])))
        yield Text(
            f"There is one seed of {methods}, so there is no prediction interval: whether another run would give the "
            "published value is not known."
        )
    answers = zip(table["inside"], table["num_seeds"], table["comparable"], strict=True)
    table = table.assign(inside=[_answer(inside, count, comparable=same) for inside, count, same in answers])
    table = table.rename(columns={"inside": "published inside"}).drop(columns="comparable")
    yield from report.audit()
    means = table[table["kind"] != CELL]
    rest = table[table["kind"] == CELL].drop(columns="kind")
    report.folder.files("published", table, caption="Ours beside the published values")
    what = "intervals are 95 % intervals; difference is ours minus published"
    if len(means):
        shown = in_words(means.drop(columns=["tested_on", "trained_on", "task"]), report.generators)
        yield report.folder.block(shown, f"Means, ours and published; {what}")
    yield report.folder.block(in_words(rest, report.generators), f"Each value, ours and published; {what}")


def _answer(inside: object, num_seeds: int, *, comparable: bool) -> str:
    """Whether the published value is inside the prediction interval, in words."""
    if not comparable:
        return "not the published set-up"
    if inside is pd.NA:
        return "no prediction interval: one seed" if num_seeds < 2 else "no prediction interval"
    return "yes" if inside else "no"
