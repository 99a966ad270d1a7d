"""Every cell by how large the edited area of the fakes is: a table of means, and all cells folded."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis.areas import THIRDS, area_table
from analysis.cells import CELL, CROSS_GENERATOR, IN_DOMAIN
from analysis.page import Block, Fold, Text
from analysis.parts import Report, register_part
from analysis.tables import MISSING, cell_text
from grid.tasks import DETECTION
from models.metrics import in_words

METRICS = ("auroc", "accuracy")


@register_part("edited_area", title="Edited area", position=27)
def edited_area(report: Report) -> Iterator[Block]:
    """Empty if the grid has no masks, or no finished detection trial."""
    areas = report.store.edited_areas
    finished = report.finished(DETECTION)
    if not areas or finished.empty:
        return
    yield Text(
        "The test fakes of each generator in three parts by the share of the picture that their mask covers, each part "
        "with all the real images of the cell. A small edit leaves less to find. Fakes with masks of equal area stay "
        "together, so the parts may differ in size."
    )
    tables = [
        area_table(report.store, list(report.finished(DETECTION, variant)["run_id"]), areas, METRICS).assign(
            method=variant
        )
        for variant in report.variants(DETECTION)
        if len(report.finished(DETECTION, variant))
    ]
    table = pd.concat(tables, ignore_index=True)
    table = table[["method", *[name for name in table.columns if name != "method"]]]
    rows = []
    for variant, of_variant in table.groupby("method", sort=False):
        row: dict[str, object] = {"method": variant}
        for metric in METRICS:
            for kind in (IN_DOMAIN, CROSS_GENERATOR):
                for third in THIRDS:
                    match = of_variant[
                        (of_variant["kind"] == kind) & (of_variant["metric"] == metric) & (of_variant["third"] == third)
                    ]
                    name = f"{in_words(metric)}, {kind.removesuffix(' mean')}, {third}"
                    row[name] = _text(match.iloc[0]) if len(match) else MISSING
        rows.append(row)
    caption = "Means over the cells of each method by edited area; in brackets 95 % intervals over source images"
    yield report.folder.table("edited-area", pd.DataFrame(rows), caption=caption)
    cells = table[table["kind"] == CELL].drop(columns="kind")
    caption = "Every cell by edited area: the area is the share of the mask that is fake"
    yield Fold("Edited area: every cell", [report.folder.table("edited-area-cells", cells, caption=caption)])


def _text(row: pd.Series) -> str:
    return cell_text(float(row["mean"]), float("nan"), float(row["low"]), float(row["high"]))
