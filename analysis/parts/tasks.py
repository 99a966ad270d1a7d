"""Values of the tasks without a section of their own."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.matrices import value_table
from analysis.page import Block, Text
from analysis.parts import Report, register_part
from data.conditions import CLEAN
from grid.tasks import ATTRIBUTION, DETECTION, OPEN_SET, get_task, list_tasks


@register_part("tasks", title="Other tasks", position=55)
def tasks(report: Report) -> Iterator[Block]:
    """One table per task; empty if the grid has none of them."""
    for task in list_tasks():
        if task in (DETECTION, ATTRIBUTION, OPEN_SET) or not report.variants(task):
            continue
        results = report.store.results()
        if not (results["task"] == task).any():
            command = report.store.missing_command(task=task)
            yield Text(f"{task}: no trial is finished; this runs them:", strong=True, command=command)
            continue
        yield from report.audit()
        for condition in report.store.conditions:
            table = value_table(results, task, condition=condition)
            if len(table):
                name, under = (task, "") if condition == CLEAN else (f"{task}-{condition}", f", {condition}")
                caption = f"{task}: {get_task(task).heading}{under}"
                yield report.folder.table(name, table, shown=table.round(3).astype(str), caption=caption)
