"""Paste-back: each method on raw fakes, and on fakes with the original's pixels outside the mask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.cells import CELL, cell_table
from analysis.matrices import ORIENTATION, column_order, decimals
from analysis.page import Block, Fold, Text
from analysis.parts import Report, register_part
from analysis.parts.matrices import coloured, matrix
from analysis.parts.robustness import class_tables
from analysis.paste_back import paste_back_table, sentence
from analysis.tables import MISSING
from data.conditions import CLEAN, PASTE_BACK
from grid.means import CROSS_GENERATOR, IN_DOMAIN
from grid.tasks import DETECTION
from models.metrics import in_words

METRICS = ("auroc", "accuracy")
TRAINED = {CLEAN: "raw", PASTE_BACK: "pasted"}  # condition -> what the fakes are


@register_part("paste_back", title="Paste-back", position=26)
def paste_back(report: Report) -> Iterator[Block]:
    """Empty if no trial was scored under "paste-back"."""
    if PASTE_BACK not in report.store.conditions:
        return
    yield Text(
        "Pasted fakes have the pixels of the original photograph outside their mask, those of the generator inside; "
        "real pictures are the same. Where a generator changed the whole image, a detector can win without looking at "
        "the edited region: the difference, pasted minus raw, shows how much of a result rests on that."
    )
    yield from report.audit()
    cells = cell_table(report.store, metrics=METRICS, conditions=[PASTE_BACK])
    rows, folds = [], list[Block]()
    for variant in report.variants(DETECTION):
        runs = report.finished(DETECTION, variant)
        metrics = report.metrics_of(variant, METRICS)
        tables = {metric: paste_back_table(report.store, list(runs["run_id"]), metric) for metric in metrics}
        if tables["auroc"].empty:
            continue
        yield Text(sentence(variant, tables["auroc"]), strong=True)
        condition = str(runs["train_condition"].iloc[0])
        shared = {"method": variant, "trained on": TRAINED.get(condition, condition)}
        rows += [shared | row for row in _means(tables)]
        blocks: list[Block] = [*report.audit()]
        for metric, table in tables.items():
            pair = [
                matrix(report, variant, metric),
                matrix(report, variant, metric, cells=cells, condition=PASTE_BACK),
            ]
            pair[0] = replace(pair[0], span=pair[1].span)  # side by side, on one scale
            blocks += [coloured(report, pair), _differences(report, variant, metric, table)]
        folds.append(Fold(f"{report.labelled(variant)}: raw, pasted, and the difference of every cell", blocks))
    if rows:
        caption = (
            "Means over the cells of each method, on raw and on pasted test fakes; in brackets 95 % intervals of the "
            "difference, paired by source photograph, for these runs: other seeds are not in them"
        )
        yield report.folder.table("paste-back", pd.DataFrame(rows), caption=caption)
    attribution = class_tables(report, TRAINED, "test fakes")
    if (attribution["test fakes"] == TRAINED[PASTE_BACK]).any():
        caption = "Attribution on raw and on pasted fakes: accuracy over all classes, and of each class"
        yield report.folder.table("paste-back-attribution", attribution, caption=caption)
    yield from folds


def _means(tables: dict[str, pd.DataFrame]) -> Iterator[dict[str, str]]:
    """A row per metric and kind of mean, for the table of all methods."""
    for metric, table in tables.items():
        means = table[table["kind"].isin([IN_DOMAIN, CROSS_GENERATOR])]
        for row in means.to_dict("records"):
            yield {
                "mean": f"{in_words(metric)}, {row['kind'].removesuffix(' mean')}",
                "test raw": decimals(row["raw"]),
                "test pasted": decimals(row["pasted"]),
                "difference": _text(row),
            }


def _text(row: Mapping[Any, Any]) -> str:
    if row["unchanged"]:
        return "0, exactly"
    return f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"


def _differences(report: Report, variant: str, metric: str, table: pd.DataFrame) -> Block:
    """The matrix of differences: whole as CSV, with intervals as text on the page."""
    cells = table[table["kind"] == CELL]
    texts = cells.assign(text=[_text(row) for row in cells.to_dict("records")])
    shown = texts.pivot_table(index="tested_on", columns="trained_on", values="text", aggfunc="first")
    rows = [name for name in report.generators if name in shown.index]
    shown = shown.reindex(index=rows, columns=column_order(shown.columns, report.generators)).fillna(MISSING)
    shown = shown.rename_axis(index="tested on", columns="trained on")
    caption = f"{report.labelled(variant)}: {in_words(metric)}, pasted minus raw; {ORIENTATION}"
    return report.folder.table(f"paste-back-{variant}-{metric}", table, caption=caption, shown=shown, variant=variant)
