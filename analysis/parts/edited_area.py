"""Every cell by how large the edited area of the fakes is: a table of means, and all cells folded."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis.areas import THIRDS, area_table
from analysis.cells import CELL
from analysis.page import Block, Fold, Text, sentence_list
from analysis.parts import Report, register_part
from analysis.tables import MISSING, PHOTOGRAPHS_ALONE, cell_text
from grid.tasks import DETECTION, generators_of
from models.metrics import in_words

METRICS = ("auroc", "balanced_accuracy")  # accuracy itself would depend on how many fakes a third has


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
    scores = report.store.scores(finished["run_id"].iloc[0], columns=["digest", "generator", "label"])
    known = set(scores.loc[scores["digest"].isin(areas), "generator"])
    if without := [name for name in generators_of(scores) if name not in known]:
        yield Text(
            f"Fakes of {sentence_list(without)} are left out: they have no masks, or the audit of the data does not "
            "trust the masks (see Audit; after a launch with --accept-audit masks they are here)."
        )
    yield from report.audit()
    tables = [
        area_table(
            report.store,
            list(report.finished(DETECTION, variant)["run_id"]),
            areas,
            report.metrics_of(variant, METRICS),
        ).assign(method=variant)
        for variant in report.variants(DETECTION)
        if len(report.finished(DETECTION, variant))
    ]
    table = pd.concat(tables, ignore_index=True)
    table = table[["method", *[name for name in table.columns if name != "method"]]]
    rows = [
        {"method": variant, "mean": f"{in_words(str(metric))}, {str(kind).removesuffix(' mean')}"}
        | {third: _text(of_mean[of_mean["third"] == third]) for third in THIRDS}
        for (variant, metric, kind), of_mean in table[table["kind"] != CELL].groupby(
            ["method", "metric", "kind"], sort=False
        )
    ]
    caption = f"Means over the cells of each method by edited area; in brackets {PHOTOGRAPHS_ALONE}"
    yield report.folder.table("edited-area", pd.DataFrame(rows), caption=caption)
    cells = table[table["kind"] == CELL].drop(columns="kind").reset_index(drop=True)
    caption = "Every cell by edited area: the area is the share of the mask that is fake"
    yield Fold("Edited area: every cell", [report.folder.table("edited-area-cells", cells, caption=caption)])


def _text(rows: pd.DataFrame) -> str:
    """The value of the one row with its interval; "missing" without a row."""
    if rows.empty:
        return MISSING
    mean, low, high = rows[["mean", "low", "high"]].iloc[0].astype(float)
    return cell_text(mean, float("nan"), low, high)
