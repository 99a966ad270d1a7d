"""What is left of each method under conditions: a table of means, and matrices of each condition, folded."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis.cells import CROSS_GENERATOR, IN_DOMAIN, cell_table
from analysis.page import Block, Fold, Row, Text
from analysis.parts import Report, register_part
from analysis.parts.matrices import matrix_picture
from analysis.parts.summary import NO_IN_DOMAIN
from analysis.tables import MISSING, cell_text
from data.conditions import CLEAN, get_condition
from grid.tasks import DETECTION
from grid.train_sets import TrainSet
from models.metrics import in_words

METRICS = ("accuracy", "auroc")


@register_part("conditions", title="Conditions", position=25)
def conditions(report: Report) -> Iterator[Block]:
    """Nothing where every picture was clean."""
    names = report.store.conditions
    if names == [CLEAN]:
        return
    others = names[1:]
    described = "; ".join(f"{name}: {_summary(name)}" for name in others)
    yield Text(
        "The same detectors on test pictures that were changed, real ones and fakes alike; training pictures, and the "
        f"threshold from validation, are as before. {described}."
    )
    cells = pd.concat([report.cells, cell_table(report.store, metrics=METRICS, conditions=others)], ignore_index=True)
    cells = cells[cells["task"] == DETECTION]
    rows = [_row(report, cells, variant, condition) for variant in report.variants(DETECTION) for condition in names]
    table = pd.DataFrame([row for row in rows if row])
    caption = (
        "Means over the cells of each method's matrix, in brackets 95 % intervals over source images; of the trials "
        "that were scored under the condition"
    )
    yield report.folder.table("conditions", table, caption=caption)
    for variant in report.variants(DETECTION):
        for condition in others:
            own = cells[(cells["variant"] == variant) & (cells["condition"] == condition)]
            if len(own):
                pictures = [
                    matrix_picture(report, variant, metric, cells=cells, condition=condition) for metric in METRICS
                ]
                yield Fold(f"{variant}: {condition}", [Row(pictures)])


def _summary(condition: str) -> str:
    try:
        return get_condition(condition).summary.rstrip(".")
    except KeyError:  # of a checkout that has it
        return "not known here"


def _row(report: Report, cells: pd.DataFrame, variant: str, condition: str) -> dict[str, object]:
    """A method's means under a condition; nothing where none of its trials was scored under it."""
    own = cells[(cells["variant"] == variant) & (cells["condition"] == condition)]
    if own.empty:
        return {}
    planned = report.runs[(report.runs["variant"] == variant) & (report.runs["task"] == DETECTION)]
    of_reals = not any(TrainSet.parse(str(text)).generators for text in planned["trained_on"])
    row: dict[str, object] = {"method": variant, "condition": condition}
    for metric in METRICS:
        for kind in (IN_DOMAIN, CROSS_GENERATOR):
            chosen = own[(own["metric"] == metric) & (own["kind"] == kind)]
            words = f"{in_words(metric)}, {kind.removesuffix(' mean')}"
            values = chosen[["mean", "std", "low", "high"]].to_numpy(float).tolist()
            absent = NO_IN_DOMAIN if of_reals and kind == IN_DOMAIN else MISSING
            row[words] = cell_text(*values[0]) if values else absent
    scored = {run_id for run_ids in own["run_ids"] for run_id in run_ids}
    row["trials"] = f"{len(scored)} of {len(planned)}"
    return row
