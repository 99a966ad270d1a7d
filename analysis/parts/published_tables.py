"""Values of other methods that were published for the grid's corpus, beside ours where they are of the same cells."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis.cells import CELL
from analysis.page import Block, Text
from analysis.parts import Report, register_part
from data.conditions import CLEAN
from data.published_tables import SECOND_HAND, tables_of
from grid.plan import FINISHED
from grid.tasks import DETECTION
from grid.train_sets import TrainSet


@register_part("published_tables", title="Published values beside ours", position=31)
def published_tables(report: Report) -> Iterator[Block]:
    """Empty if no table was published for the grid's corpus, or no method has a finished trial."""
    if not (report.runs["state"] == FINISHED).any():
        return
    trained = {name for text in report.runs["trained_on"] for name in TrainSet.parse(str(text)).generators}
    for name, table in tables_of(report.store.corpus, {*report.generators, *trained}).items():
        beside = _beside(table, report.cells)
        second = beside[beside["read"] == SECOND_HAND]
        second_hand = "; ".join(dict.fromkeys(second["source"]))
        if second_hand:
            yield Text(
                f"Second-hand in the table {name}, and not checked against the publication: the values with the source "
                f"{second_hand}."
            )
        if beside["ours"].isna().all():
            yield Text(
                f"No value of the table {name} is of a cell of this grid: it shows what others reached, and is no "
                "comparison of like with like."
            )
        caption = (
            f"Published: {name}. Values of other methods, with set-ups of their own; difference is ours minus published"
        )
        yield report.folder.table(f"published-{name}", beside, caption=caption)


def _beside(table: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """The published values, each once per variant of ours that has its cell; without such a variant, once."""
    ours = cells[(cells["task"] == DETECTION) & (cells["kind"] == CELL) & (cells["condition"] == CLEAN)]
    ours = ours[["variant", "trained_on", "tested_on", "metric", "mean"]].rename(columns={"mean": "ours"})
    theirs = table.drop(columns="corpus").rename(columns={"method": "detector", "value": "published"})
    sets = {text: str(TrainSet(tuple(text.split("+")))) for text in theirs["trained_on"]}
    theirs = theirs.assign(_set=theirs["trained_on"].map(sets))
    ours = ours.rename(columns={"trained_on": "_set"})
    beside = theirs.merge(ours, on=["_set", "tested_on", "metric"], how="left", sort=False)
    beside["variant"] = beside["variant"].fillna("")
    beside["difference"] = beside["ours"] - beside["published"]
    columns = ["detector", "trained_on", "tested_on", "metric", "published", "variant", "ours", "difference"]
    return beside[[*columns, "read", "source", "note"]]
