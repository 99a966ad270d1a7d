"""One method compared with another on the same images."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis.cells import METHODS, compare
from analysis.page import Block
from analysis.parts import Report, register_part
from analysis.store import StoreError
from analysis.tables import in_words as readable
from models.metrics import in_words


@register_part("comparison", title="Comparison", position=40)
def comparison(report: Report) -> Iterator[Block]:
    """Empty without --compare."""
    if report.options.compare is None:
        return
    a, b = report.options.compare
    yield from report.audit()
    for metric in ("accuracy", "auroc"):
        try:
            table = compare(report.store, a, b, metric)
        except StoreError:
            raise
        except ValueError as error:
            yield report.problem(f"{a} and {b} cannot be compared by {metric}: {error}")
            continue
        for about, rows in table.groupby("about", sort=False):
            yield _table(report, rows.drop(columns="about"), metric, whole=about == METHODS)


def _table(report: Report, rows: pd.DataFrame, metric: str, *, whole: bool) -> Block:
    """Rows about the methods, or about these runs alone."""
    assert report.options.compare is not None
    a, b = report.options.compare
    shared = f"{report.labelled(a)} minus {report.labelled(b)}: {in_words(metric)}"
    shared += ", on the same images; paired by source photograph"
    tail = "95 % interval and two-sided p, not corrected for the number of rows"
    columns: dict[str, str]
    if whole:
        name, caption = f"compare-{a}-{b}-{metric}", f"{shared}; over seeds and photographs; {tail}"
        columns = {}
    else:
        name = f"compare-{a}-{b}-{metric}-runs"
        caption = (
            f"These two runs, not the two methods. {shared}; {tail}. One of the sides has one seed, and another seed "
            "could give another answer; after a launch with --seeds 0 1 2 the methods are compared"
        )
        columns = {"a": "a, this run", "b": "b, this run", "difference": "difference of these two runs"}
        columns |= {"p": "p: these two runs differ"}
    table = rows.rename(columns=columns)
    bounds = {"low": "95 % interval of the difference: from", "high": "95 % interval of the difference: to"}
    shown = readable(table.rename(columns=bounds), report.generators)
    return report.folder.table(name, table, shown=shown, caption=caption)
