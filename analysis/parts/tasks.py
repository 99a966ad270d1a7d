"""Values of the tasks without a section of their own."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.matrices import value_table
from analysis.page import Block, Text
from analysis.parts import Report, register_part
from grid.tasks import ATTRIBUTION, DETECTION, get_task, list_tasks


@register_part("tasks", title="Other tasks", position=55)
def tasks(report: Report) -> Iterator[Block]:
    """One table per task; empty if the grid has detection and attribution alone."""
    for task in list_tasks():
        if task in (DETECTION, ATTRIBUTION) or not report.variants(task):
            continue
        table = value_table(report.results, task)
        if table.empty:
            command = report.store.missing_command(task=task)
            yield Text(f"{task}: no trial is finished; this runs them:", strong=True, command=command)
            continue
        shown = table.round(3).astype(str)
        yield report.folder.table(task, table, shown=shown, caption=f"{task}: {get_task(task).heading}")
