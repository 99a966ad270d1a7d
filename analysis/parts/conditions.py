"""What is left of each method under conditions: a table of means, and matrices of each condition, folded."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis.cells import CROSS_GENERATOR, IN_DOMAIN, cell_table
from analysis.page import Block, Fold, Row, Text
from analysis.parts import Report, register_part
from analysis.parts.matrices import matrix_picture
from analysis.tables import MISSING, cell_text
from data.conditions import CLEAN, get_condition
from grid.tasks import DETECTION
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
    rows = [_row(cells, variant, condition) for variant in report.variants(DETECTION) for condition in names]
    table = pd.DataFrame([row for row in rows if row])
    caption = "Means over the cells of each method's matrix, in brackets 95 % intervals over source images"
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


def _row(cells: pd.DataFrame, variant: str, condition: str) -> dict[str, object]:
    """A method's means under a condition; nothing where none of its trials was scored under it."""
    own = cells[(cells["variant"] == variant) & (cells["condition"] == condition) & (cells["task"] == DETECTION)]
    if own.empty:
        return {}
    row: dict[str, object] = {"method": variant, "condition": condition}
    for metric in METRICS:
        for kind in (IN_DOMAIN, CROSS_GENERATOR):
            chosen = own[(own["metric"] == metric) & (own["kind"] == kind)]
            words = f"{in_words(metric)}, {kind.removesuffix(' mean')}"
            values = chosen[["mean", "std", "low", "high"]].to_numpy(float).tolist()
            row[words] = cell_text(*values[0]) if values else MISSING
    return row
