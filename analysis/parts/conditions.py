"""Each method under the conditions that it was scored under: a table of means, and folded matrices."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis.cells import CROSS_GENERATOR, IN_DOMAIN, cell_table
from analysis.matrices import class_table
from analysis.page import Block, Fold, Row, Text
from analysis.parts import Report, register_part
from analysis.parts.matrices import matrix_picture
from analysis.parts.summary import mean_text
from analysis.tables import CONFIDENCE
from data.conditions import CLEAN, get_condition, is_condition
from grid.tasks import ATTRIBUTION, DETECTION
from models.metrics import in_words

METRICS = ("accuracy", "auroc")


@register_part("conditions", title="Conditions", position=25)
def conditions(report: Report) -> Iterator[Block]:
    """Empty if every test picture was clean."""
    names = report.store.conditions
    if names == [CLEAN]:
        return
    others = names[1:]
    described = "; ".join(f"{name}: {_summary(name)}" for name in others)
    yield Text(
        "The same detectors on changed test pictures, real and fake alike; training pictures, and the threshold from "
        f"validation, are unchanged. {described}."
    )
    cells = pd.concat([report.cells, cell_table(report.store, metrics=METRICS, conditions=others)], ignore_index=True)
    attribution = pd.concat(
        class_table(report.store.results(), ATTRIBUTION, report.generators, condition=name)
        .reset_index()
        .assign(condition=name)
        for name in names
    )
    cells = cells[cells["task"] == DETECTION]
    rows = [_row(report, cells, variant, condition) for variant in report.variants(DETECTION) for condition in names]
    if table := [row for row in rows if row]:
        caption = (
            f"Means over the cells of each method's matrix, in brackets {CONFIDENCE}; of the trials that were scored "
            "under the condition"
        )
        yield report.folder.table("conditions", pd.DataFrame(table), caption=caption)
    if len(attribution):
        caption = "Attribution: accuracy over all classes, and of each class"
        yield report.folder.table("conditions-attribution", attribution, caption=caption)
    for variant in report.variants(DETECTION):
        for condition in others:
            own = cells[(cells["variant"] == variant) & (cells["condition"] == condition)]
            if len(own):
                pictures = [
                    matrix_picture(report, variant, metric, cells=cells, condition=condition) for metric in METRICS
                ]
                yield Fold(f"{variant}: {condition}", [Row(pictures)])


def _summary(condition: str) -> str:
    return get_condition(condition).summary.rstrip(".") if is_condition(condition) else "not in this checkout"


def _row(report: Report, cells: pd.DataFrame, variant: str, condition: str) -> dict[str, object]:
    """A method's means under a condition; empty if none of its trials was scored under it."""
    own = cells[(cells["variant"] == variant) & (cells["condition"] == condition)]
    if own.empty:
        return {}
    row: dict[str, object] = {"method": variant, "condition": condition}
    for metric in METRICS:
        for kind in (IN_DOMAIN, CROSS_GENERATOR):
            name = f"{in_words(metric)}, {kind.removesuffix(' mean')}"
            row[name] = mean_text(report, own, variant, DETECTION, metric, kind)
    scored = {run_id for run_ids in own["run_ids"] for run_id in run_ids}
    planned = (report.runs["variant"] == variant) & (report.runs["task"] == DETECTION)
    row["trials"] = f"{len(scored)} of {planned.sum()}"
    return row
