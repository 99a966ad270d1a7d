"""One method compared with another on the same images."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.cells import compare
from analysis.page import Block
from analysis.parts import Report, register_part
from analysis.store import StoreError
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
        caption = (
            f"{a} minus {b}: {in_words(metric)}, on the same images; paired by source photograph, 95 % "
            "interval and two-sided p, not corrected for the number of rows"
        )
        yield report.folder.table(f"compare-{a}-{b}-{metric}", table, caption=caption)
